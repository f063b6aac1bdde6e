"""What is announced of slots that were missed: how many, from when to when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.model.events import RunBegan, SlotsMissed
from repeater.model.spec import CatchUp, Cron, Every, Overlap, Plugin, ScheduleSpec
from repeater.model.time import Instant, Mono, rfc3339
from repeater.schedule.base import Track
from repeater.schedule.cron import CronSchedule
from repeater.schedule.factory import schedule_for
from tests.engine.stage import Stage, job
from tests.fakes.clock import FakeClock
from tests.fakes.plugins import FakePlugins
from tests.fakes.spawn import Act


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


schedules = st.one_of(
    st.integers(1, 90).map(lambda n: Every(seconds(n))),
    st.sampled_from(["* * * * *", "*/7 * * * *", "0,30 9-17 * * *", "0 3 * * 1-5"]).map(Cron),
    st.sampled_from(["*/5 * * * * *", "17 * * * * *"]).map(lambda text: Cron(text, seconds="first")),
)


@settings(max_examples=60, deadline=None)
@given(
    schedules,
    st.sampled_from(["skip", "latest", "earliest", "all"]),
    st.one_of(st.integers(11, 300), st.integers(300, 100_000)),
)
def test_all_slots_that_do_not_run_are_counted_once(spec: ScheduleSpec, kind: str, gap: int) -> None:
    stage = Stage({"a": Act(lasts=timedelta(0))})
    wanted = job("a", spec, catch_up=CatchUp(kind), overlap=Overlap("queue", queue_max=9999))  # type: ignore[arg-type]
    stage.apply(wanted)
    begin = stage.clock.now()
    stage.advance(0.5)
    stage.clock.stall(seconds(gap))
    stage.advance(0.000_001)
    now = stage.clock.now().wall
    ran = {row.nominal for row in stage.rows("a") if row.started is not None}
    schedule, cursor, due = schedule_for(wanted), None, []
    while (cursor := schedule.next(Track(begin, cursor))) is not None and cursor.wall <= now:
        due.append(cursor.wall)
    missed = [nominal for nominal in due if nominal not in ran]
    found = [(one.count, one.first, one.last, one.at_least) for one in stage.events if isinstance(one, SlotsMissed)]
    assert found == ([(len(missed), missed[0], missed[-1], False)] if missed else [])


@pytest.mark.parametrize("passed", [10, 11, 12, 13])
def test_the_newest_of_many_missed_starts_of_an_interval_runs(passed: int) -> None:
    stage = Stage({"a": Act(lasts=timedelta(0))})
    stage.apply(job("a", Every(seconds(60)), catch_up=CatchUp("latest")))
    stage.advance(30)
    stage.clock.stall(seconds(60 * passed))
    stage.advance(1)
    assert [row.nominal for row in stage.rows("a") if row.started][-1] == stage.rows("a")[-1].nominal
    nominals = [row.nominal for row in stage.rows("a")]
    assert len(nominals) == len(set(nominals))
    assert nominals[-1] - nominals[0] == seconds(60 * passed)


def test_missed_slots_of_a_plugin_are_counted_at_least() -> None:
    def minutely(_: object, asked: dict[str, str]) -> str | None:
        after = datetime.fromisoformat(asked["after"] or asked["anchor"])
        return rfc3339(after.replace(second=0, microsecond=0) + seconds(60))

    stage = Stage(plugins=FakePlugins({"minutes": minutely}))
    stage.apply(job("a", Plugin("minutes")))
    stage.advance(90)
    stage.clock.stall(seconds(60 * 5000))
    stage.advance(1)
    (event,) = [one for one in stage.events if isinstance(one, SlotsMissed)]
    assert event.at_least
    assert event.count >= 1000
    assert event.last - event.first >= seconds(60 * 4990)


ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Asia/Pyongyang"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/20 * * * *", "0,30 1-3 * * *", "30 2 * * *", "15 0,23 * * 0", "0 */2 L * *"]),
    st.sampled_from(ZONES),
    st.sampled_from(["next", "shift", "skip"]),
    st.sampled_from(["first", "second", "both", "skip"]),
    st.datetimes(datetime(2015, 1, 1), datetime(2026, 1, 1)),  # noqa: DTZ001
    st.integers(0, 60 * 24 * 240),
)
def test_slots_are_counted_as_a_walk_counts_them(
    expression: str, zone: str, gap: str, fold: str, begin: datetime, minutes: int
) -> None:
    spec = Cron(expression, timezone=zone, gap=gap, fold=fold)  # type: ignore[arg-type]
    if expression.startswith("*"):
        minutes %= 60 * 24 * 20
    schedule = CronSchedule(spec, "a")
    cursor = first = Instant(begin.replace(tzinfo=UTC), Mono(0))
    until = first.plus(timedelta(minutes=minutes))
    walked = 0
    while (cursor := schedule.next(Track(cursor, cursor))).wall <= until.wall:
        walked += 1
    assert schedule.count(Track(first, first), until) == walked


def test_a_year_of_missed_seconds_is_counted_at_once() -> None:
    stage = Stage(clock=FakeClock())
    spec = replace(Cron("* * * * * *", seconds="first"), timezone="Europe/Berlin")
    stage.apply(job("a", spec))
    stage.advance(1)
    stage.clock.stall(timedelta(days=365))
    stage.advance(0.1)
    (event,) = [one for one in stage.events if isinstance(one, SlotsMissed)]
    assert event.count == 365 * 86_400 - 1
    nominals = [row.nominal for row in stage.rows("a")]
    assert all(b > a for a, b in pairwise(nominals))


@pytest.mark.parametrize(
    ("kind", "triggers"),
    [
        ("skip", [None, None, "schedule"]),
        ("latest", [None, None, "schedule"]),
        ("earliest", ["catch_up", None, "schedule"]),
        ("all", ["catch_up", "catch_up", "schedule"]),
    ],
)
def test_a_time_of_day_that_is_on_time_runs_beside_missed_ones(kind: Any, triggers: list[Any]) -> None:
    stage = Stage()
    stage.apply(job("a", Cron("* * * * *"), catch_up=CatchUp(kind), overlap=Overlap("queue", queue_max=9)))
    stage.advance(90)
    stage.clock.stall(seconds(155))  # 120 and 180 were missed, 240 is 5 s late
    stage.advance(1)
    rows = stage.rows("a")[2:]
    assert [None if row.started is None else row.trigger for row in rows] == triggers
    assert [row.reason.code for row in rows if row.started is None and row.reason] == ["missed"] * triggers.count(None)


@pytest.mark.parametrize("kind", ["skip", "latest", "earliest", "all"])
def test_a_newest_slot_of_an_interval_that_is_on_time_is_the_one_run(kind: Any) -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(60)), catch_up=CatchUp(kind), overlap=Overlap("queue", queue_max=9)))
    stage.advance(90)
    stage.clock.stall(seconds(155))
    stage.advance(1)
    assert stage.history("a") == ["ran @0", "ran @60", "skipped(missed) @120", "skipped(missed) @180", "ran @240"]
    assert stage.rows("a")[-1].trigger == "schedule"


@pytest.mark.parametrize(("kind", "caught"), [("skip", []), ("latest", [180]), ("earliest", [120]), ("all", [180])])
def test_an_interval_owes_one_run_at_most_if_no_slot_is_on_time(kind: Any, caught: list[int]) -> None:
    stage = Stage()
    begin = stage.clock.now().wall
    stage.apply(job("a", Every(seconds(60)), catch_up=CatchUp(kind), overlap=Overlap("queue", queue_max=9)))
    stage.advance(90)
    stage.clock.stall(seconds(110))  # 180 is 20 s late
    stage.advance(1)
    assert [(row.nominal - begin).seconds for row in stage.rows("a") if row.trigger == "catch_up"] == caught


@pytest.mark.parametrize(("asleep", "newest"), [(True, 5001), (False, 5000)])
def test_the_newest_of_many_times_of_day_is_found_by_the_wall_clock(asleep: bool, newest: int) -> None:
    stage = Stage()
    begin = stage.clock.now().wall
    stage.apply(job("a", Cron("* * * * *"), catch_up=CatchUp("latest")))
    stage.advance(30)
    # a clock that stood still in sleep rings 30 s after the end of it, which is a slot
    (stage.clock.suspend if asleep else stage.clock.stall)(seconds(60 * 5000))
    stage.advance(90)
    minutes = [(row.nominal - begin) // seconds(60) for row in stage.rows("a") if row.started is not None]
    assert minutes == [0, *range(newest, 5003)][: len(minutes)]
    assert len(minutes) >= 3
    (event,) = [one for one in stage.events if isinstance(one, SlotsMissed)]
    assert (event.count, event.first) == (newest - 1, begin + seconds(60))
    assert event.last == begin + seconds(60 * (newest - 1))


@pytest.mark.parametrize("step", [0, 86_400, -86_400], ids=["as it is", "set forward", "set back"])
def test_the_newest_of_many_slots_of_an_interval_uses_the_steady_clock(step: float) -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(60)), catch_up=CatchUp("latest")))
    stage.advance(30)
    stage.clock.stall(seconds(60 * 500))
    stage.clock.set_wall(stage.clock.now().wall + seconds(step))
    stage.advance(31)
    runs = [event.run.slot.nominal for event in stage.events if isinstance(event, RunBegan)]
    assert len(runs) == 3
    assert runs[2] - runs[1] == seconds(60)
    assert [one.count for one in stage.events if isinstance(one, SlotsMissed)] == [499]
