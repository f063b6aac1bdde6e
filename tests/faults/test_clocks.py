"""P7 and P8: clocks that are set, machines that sleep or are started again, the nights when clocks change.

First on a virtual clock, with every size of step; then the real `rpr` under a library that moves the time of day and
leaves the monotonic clock alone, and in a time namespace, where the monotonic clock begins anew.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.events import Warned
from repeater.model.spec import CatchUp, Cron, Every, Overlap
from repeater.ports import LaunchRequest
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.spawn import Act
from tests.fakes.text import text_of
from tests.faults.effects import grid, instant, mark, reconcile
from tests.faults.ground import Ground, wait_for
from tests.faults.preload import Shim

MINUTE = timedelta(minutes=1)
STEPS = [
    timedelta(seconds=3),
    timedelta(hours=2),
    timedelta(days=3),
    timedelta(days=400),
    datetime(2038, 1, 19, 3, 12, tzinfo=UTC) - EPOCH,
    timedelta(seconds=-3),
    timedelta(hours=-2),
    timedelta(days=-3),
    datetime(1970, 1, 1, tzinfo=UTC) - EPOCH,
]


def started(*stages: Stage) -> Counter[tuple[str, datetime]]:
    """How often each slot began: what the processes were told, not what was recorded."""
    return Counter(
        (launch.env["RPR_JOB"], instant(launch.env["RPR_NOMINAL_TIME"]))
        for stage in stages
        for launch in stage.spawner.launches
    )


def rows_of(stage: Stage, name: str) -> list[datetime]:
    return [row.nominal for row in stage.rows(name)]


# --- the clock is set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("kind", ["skip", "latest", "all"])
def test_a_step_of_the_clock_moves_no_interval_and_runs_no_slot_twice(step: timedelta, kind: Any) -> None:
    jobs = [job("c", Cron("* * * * *"), catch_up=CatchUp(kind)), job("i", Every(timedelta(seconds=30)))]
    readings: list[int] = []

    def act(launch: LaunchRequest) -> Act:
        if launch.env["RPR_JOB"] == "i":
            readings.append(stage.clock.now().mono)
        return Act()

    stage = Stage(act)
    stage.apply(*jobs)
    stage.advance(300)
    stage.clock.set_wall(stage.clock.now().wall + step)
    stage.advance(300)
    begun = started(stage)
    assert max(begun.values()) == 1
    assert [later - earlier for earlier, later in pairwise(readings)] == [30_000_000] * 20
    cron = sorted(nominal for name, nominal in begun if name == "c")
    most = 12 + {"skip": 0, "latest": 1, "all": 100}[kind]
    assert len(cron) <= most
    assert len(rows_of(stage, "c")) == len(set(rows_of(stage, "c"))) <= 1100
    if step > timedelta(seconds=10):
        assert cron[-1] == stage.clock.now().wall, "it goes on by the new time"
        assert any(
            "system clock jumped by" in str(text_of(event.reason))
            for event in stage.events
            if isinstance(event, Warned)
        )


def test_a_clock_set_forward_by_half_a_century_costs_no_more_than_one_day() -> None:
    """As on a machine without a battery, which knows the time only once it has a network."""
    stage = Stage(clock=FakeClock(datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC)))
    stage.apply(*(job(f"c{number}", Cron("* * * * *")) for number in range(20)))
    stage.advance(300)
    stage.clock.set_wall(EPOCH)
    stage.advance(60)
    assert len(stage.rows()) <= 20 * 1010
    rows = stage.rows("c0")
    (shared,) = [
        row
        for row in rows
        if text_of(row.reason) and text_of(row.reason).startswith("it was missed, and so were all others until")
    ]
    assert text_of(shared.reason) == "it was missed, and so were all others until 2025-12-31T23:59:00Z"
    assert [(row.nominal, row.state) for row in rows[-2:]] == [(EPOCH, "skipped"), (EPOCH + MINUTE, "succeeded")]


def test_a_clock_set_back_makes_jobs_wait_with_a_warning_until_reset() -> None:
    stage = Stage()
    stage.apply(job("c", Cron("* * * * *")))
    stage.advance(600)
    stage.clock.set_wall(EPOCH + 5 * MINUTE)
    stage.advance(30)
    words = [str(text_of(event.reason)) for event in stage.events if isinstance(event, Warned)]
    assert any(
        "`c` will not start before 2026-01-01T00:10:00Z" in message and "`rpr reset c`" in message for message in words
    )
    stage.advance(269)
    assert len(rows_of(stage, "c")) == 11
    stage.request("reset", "c")
    stage.advance(180)
    assert rows_of(stage, "c")[-2:] == [EPOCH + 11 * MINUTE, EPOCH + 12 * MINUTE]
    assert max(started(stage).values()) == 1


@pytest.mark.parametrize("what", ["reset", "edit", "restart", "pause"])
def test_a_slot_decided_before_the_clock_was_set_back_stays_decided(what: str) -> None:
    stages = [Stage()]
    stages[0].apply(job("c", Cron("* * * * *")))
    stages[0].advance(600)
    ran = {row.nominal: row for row in stages[0].rows("c")}
    stages[0].clock.set_wall(EPOCH + 5 * MINUTE + timedelta(seconds=10))
    if what in {"reset", "pause"}:
        stages[0].request("reset", "c")
    if what == "pause":
        stages[0].request("pause", "c")
    if what == "edit":
        stages[0].apply(job("c", Cron("*/1 * * * *", timezone="Europe/Berlin")))
    if what == "restart":
        stages.append(stages[0].again(after=5))
        stages[1].apply(job("c", Cron("* * * * *")))
    stages[-1].advance(1200)
    assert max(started(*stages).values()) == 1
    after = {row.nominal: row for row in stages[-1].rows("c")}
    assert len(after) == len(stages[-1].rows("c"))
    assert {nominal: after[nominal] for nominal in ran} == ran


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 4000)),
    st.tuples(st.just("set"), st.sampled_from([-400_000, -90_000, -3700, -70, 70, 3700, 90_000, 400_000, 10**9])),
    st.tuples(st.just("sleep"), st.integers(1, 200_000)),
    st.tuples(st.just("stall"), st.integers(1, 200)),
    st.tuples(st.just("die"), st.integers(0, 100_000)),
)


@given(st.lists(steps, min_size=1, max_size=10), st.sampled_from(["skip", "latest", "earliest", "all"]))
def test_no_clock_step_runs_a_slot_twice_and_every_slot_has_one_row(storm: Any, kind: Any) -> None:
    jobs = [job("c", Cron("*/20 * * * *"), catch_up=CatchUp(kind)), job("i", Every(timedelta(minutes=7)))]
    stages, passed, lives = [Stage()], 0, 1
    stages[0].apply(*jobs)
    for name, length in storm:
        stage = stages[-1]
        match name:
            case "pass":
                stage.advance(length)
                passed += length
            case "set":
                wall = stage.clock.now().wall + timedelta(seconds=length)
                stage.clock.set_wall(max(datetime(1970, 1, 1, tzinfo=UTC), wall))
            case "sleep":
                stage.clock.suspend(timedelta(seconds=length))
            case "stall":
                stage.clock.stall(timedelta(seconds=length))
                passed += length
            case _:
                stages.append(stage.again(after=length))
                stages[-1].apply(*jobs)
                passed, lives = passed + length, lives + 1
    stages[-1].advance(1)
    begun = started(*stages)
    assert max(begun.values(), default=0) <= 1
    assert sum(count for (name, _), count in begun.items() if name == "i") <= passed // 420 + 1 + lives
    for one in ("c", "i"):
        decided = rows_of(stages[-1], one)
        assert len(decided) == len(set(decided))
        assert {nominal for name, nominal in begun if name == one} <= set(decided) | {
            row.nominal for row in stages[-1].store.find_records(most=10**6)
        }


# --- sleep and boot -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "runs"), [("skip", 0), ("latest", 1), ("all", 60)])
def test_slots_of_a_night_asleep_follow_catch_up_and_each_has_a_row(kind: Any, runs: int) -> None:
    stage = Stage()
    stage.apply(
        job("c", Cron("* * * * *"), catch_up=CatchUp(kind), overlap=Overlap("queue", queue_max=99)),
        job("i", Every(MINUTE)),
    )
    stage.advance(65)
    stage.clock.suspend(timedelta(hours=1))
    stage.advance(60)
    due = grid(EPOCH, EPOCH + timedelta(minutes=62), MINUTE)
    assert rows_of(stage, "c") == due
    missed = [row for row in stage.rows("c") if row.nominal not in {EPOCH, EPOCH + MINUTE, due[-1]}]
    assert sum(row.state == "succeeded" for row in missed) == runs
    assert all(text_of(row.reason) for row in missed)
    assert len(rows_of(stage, "i")) == 3
    assert any(
        text_of(event.reason) == "system was suspended for 3600 s"
        for event in stage.events
        if isinstance(event, Warned)
    )


def test_the_monotonic_clock_of_another_boot_is_compared_with_nothing() -> None:
    first = Stage(clock=FakeClock(mono=10**12))
    jobs = [job("c", Cron("* * * * *")), job("i", Every(MINUTE)), job("e", Every(MINUTE, after_end=True))]
    first.apply(*jobs)
    first.advance(300)
    first.supervisor.close()
    booted = FakeClock(EPOCH + timedelta(minutes=6, seconds=30), mono=1, boot_id="another")
    second = Stage(clock=booted, store=first.store.reopened(booted.call_soon))
    second.apply(*jobs)
    second.advance(300)
    assert max(started(first, second).values()) == 1
    for name in "cie":
        assert 5 <= sum(count for (one, _), count in started(second).items() if one == name) <= 6, name


# --- the nights when clocks change ----------------------------------------------------------------------------------

NIGHTS = {
    "Europe/Berlin": ("2026-03-28", "2026-10-24"),
    "America/New_York": ("2026-03-07", "2026-10-31"),
    "Australia/Lord_Howe": ("2026-10-03", "2026-04-04"),
}


@pytest.mark.parametrize("zone", NIGHTS)
@pytest.mark.parametrize("gap", ["next", "shift", "skip"])
@pytest.mark.parametrize("fold", ["first", "second", "both", "skip"])
def test_jobs_follow_their_policy_on_nights_of_clock_changes(
    zone: str, gap: Literal["next", "shift", "skip"], fold: Literal["first", "second", "both", "skip"]
) -> None:
    """Against a scan of every minute that knows nothing of cron."""
    place = ZoneInfo(zone)
    for night in NIGHTS[zone]:
        begin = datetime.fromisoformat(night).replace(hour=20, tzinfo=place).astimezone(UTC)
        stage = Stage(clock=FakeClock(begin))
        fixed = Cron("15,45 1,2 * * *", timezone=zone, gap=gap, fold=fold)
        stage.apply(job("fixed", fixed), job("hourly", Cron("15 * * * *", timezone=zone)))
        stage.advance(12 * 3600)
        begun = sorted(nominal for name, nominal in started(stage) if name == "fixed")
        assert begun == by_scan(begin, place, gap, fold), night
        hourly = sorted(nominal for name, nominal in started(stage) if name == "hourly")
        shown = [minute for minute in grid(begin, begin + timedelta(hours=12), MINUTE) if is_quarter(minute, place)]
        hour = timedelta(hours=1)
        between = [earlier + hour for earlier, later in pairwise(shown) if later - earlier > hour]  # half an hour's gap
        assert hourly == sorted(shown + between)


def is_quarter(minute: datetime, place: ZoneInfo) -> bool:
    return minute.astimezone(place).minute == 15


def by_scan(begin: datetime, place: ZoneInfo, gap: str, fold: str) -> list[datetime]:
    """The starts of `15,45 1,2` by looking at every minute of twelve hours."""
    minutes = grid(begin, begin + timedelta(hours=12), MINUTE)
    shown = [minute.astimezone(place).replace(tzinfo=None) for minute in minutes]
    day = shown[-1].replace(hour=0, minute=0)
    found = set[datetime]()
    for wall in [day.replace(hour=hour, minute=minute) for hour in (1, 2) for minute in (15, 45)]:
        times = [minute for minute, there in zip(minutes, shown, strict=True) if there == wall]
        if len(times) == 1:
            found.add(times[0])
        elif len(times) == 2:
            found |= set({"first": times[:1], "second": times[1:], "both": times, "skip": []}[fold])
        elif gap == "next":
            found.add(next(minute for minute, there in zip(minutes, shown, strict=True) if there > wall))
        elif gap == "shift":  # as far behind the hour as it would have been, by the offset before the change
            before = max(minute for minute, there in zip(minutes, shown, strict=True) if there < wall)
            offset = before.astimezone(place).utcoffset()
            assert offset is not None
            found.add((wall - offset).replace(tzinfo=UTC))
    return sorted(found)


# --- the real clocks ------------------------------------------------------------------------------------------------

EVERY_SECOND = '{ cron = "* * * * * *", seconds = "first" }'
JOBS = f"""
[jobs.c]
command = '''{mark("start")}'''
schedule = {EVERY_SECOND}

[jobs.i]
command = '''{mark("start")}'''
schedule = "every 200ms"
"""


def runs(ground: Ground, name: str) -> int:
    return len(ground.effects.starts(name))


def until_more(ground: Ground, name: str, more: int) -> None:
    wanted = runs(ground, name) + more
    wait_for(lambda: runs(ground, name) >= wanted, lambda: f"{wanted} starts of {name}, there are {runs(ground, name)}")


@pytest.mark.slow
def test_a_real_clock_set_both_ways_stops_and_repeats_nothing(ground: Ground, shim: Shim) -> None:
    began = time.monotonic()
    supervisor = ground.apply(JOBS, env=shim.env)
    until_more(ground, "c", 1)
    for ahead in (timedelta(hours=2), timedelta(days=3), timedelta(days=400), timedelta(days=365 * 15)):
        shim.set_clock(ahead)
        until_more(ground, "c", 2)
        until_more(ground, "i", 2)
    for ahead in (timedelta(days=3), timedelta(hours=-2), timedelta(days=-400)):
        shim.set_clock(ahead)
        until_more(ground, "i", 2)
    supervisor.until_err("system clock jumped by", 7)
    supervisor.until_err("`rpr reset c` clears this")
    assert ground("reset", "c", env=shim.env).code == 0
    until_more(ground, "c", 2)
    took = time.monotonic() - began
    assert ground.down() == 0
    assert "Traceback" not in supervisor.err
    assert ground.effects.twice() == []
    assert runs(ground, "i") <= took / 0.2 + 1
    assert runs(ground, "c") <= took + 10
    recorded = [(row["job"], row["nominal"]) for row in ground.rows()]
    assert len(recorded) == len(set(recorded))


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.parametrize("ahead", [timedelta(hours=3), timedelta(hours=-3), timedelta(days=-20_000)], ids=str)
def test_a_wrong_clock_at_the_start_delays_and_doubles_no_interval(
    ground: Ground, shim: Shim, ahead: timedelta
) -> None:
    jobs = "".join(
        f"[jobs.{name}]\ncommand = '''{mark('start')}'''\nschedule = {schedule}\n"
        for name, schedule in {
            "i": '"every 200ms"',
            "e": '{ every = "300ms", after_end = true }',
            "b": '{ backoff = "fixed", base = "300ms" }',
            "d": '{ every = "250ms" }\nstart_deadline = "2s"',
            "h": '{ every = "1h" }\ncatch_up = "latest"',
        }.items()
    )
    shim.set_clock(ahead)
    first = ground.apply(jobs, "-q", env=shim.env)
    for name in "iebd":
        until_more(ground, name, 2)
    shim.set_clock(timedelta(0))
    for name in "iebd":
        until_more(ground, name, 3)
    assert ground("down", env=shim.env).code == 0
    assert first.leaves() == 0
    second = ground.apply(jobs, "-q", env=shim.env)
    for name in "iebd":
        until_more(ground, name, 3)
    assert second.down() == 0
    assert ground.effects.twice() == []
    assert runs(ground, "h") == 1
    newest = ground.effects.starts("i")[-1].nominal
    assert abs(newest - datetime.now(UTC)) < timedelta(minutes=5), "it is named by the right time"
    for row in ground.rows():
        if row["ended"] and row["started"]:
            assert timedelta(0) <= instant(row["ended"]) - instant(row["started"]) < timedelta(minutes=1)
            assert instant(row["due"]) <= instant(row["started"])


@pytest.mark.slow
def test_a_job_that_waits_for_the_clock_shows_it_with_the_remedy(ground: Ground, shim: Shim) -> None:
    shim.set_clock(timedelta(days=2))
    ground.apply(JOBS, "-q", env=shim.env)
    until_more(ground, "c", 2)
    assert ground("down", env=shim.env).code == 0
    shim.set_clock(timedelta(0))
    second = ground.apply(JOBS, env=shim.env)
    second.until_err("the clock was set back: `c` will not start before ")
    day = f"{datetime.now().astimezone() + timedelta(days=2):%Y-%m-%d}"
    assert f"before {day} " in second.err
    assert "`rpr reset c` clears this" in second.err
    until_more(ground, "i", 2)
    (job,) = (item for item in map(json.loads, ground("status", "c", "--json").out.splitlines()))
    assert (job["state"], job["reason_code"]) == ("scheduled", "waits_for_clock")
    assert "so it will not start before" in ground("status", "c").out
    why = json.loads(ground("why", "c", "--json").out)
    assert [fact["reason_code"] for fact in why["fact_reasons"]][:1] == ["waits_for_clock"]
    health = json.loads(ground("health", "--json").out)
    assert (health["ok"], health["ready"]) == (False, True)
    assert [problem["reason_code"] for problem in health["problem_reasons"]] == ["clock_behind"]
    assert health["problem_reasons"][0]["detail"]["job"] == "c"
    assert "`rpr reset c` clears this" in ground("health").out
    assert ground("reset", "c", env=shim.env).code == 0
    until_more(ground, "c", 2)
    assert json.loads(ground("health", "--json").out)["ok"] is True
    assert second.down() == 0
    ahead = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    shim.set_clock(timedelta(days=3))
    facts = json.loads(ground("why", f"i@{ahead}", "--json", env=shim.env).out)["fact_reasons"]
    codes = [fact["reason_code"] for fact in facts]
    assert "clock_was_set_back" in codes
    (down,) = (fact["detail"] for fact in facts if fact["reason_code"] == "supervisor_down")
    assert instant(down["since"]) < instant(ahead) < instant(down["until"])


@pytest.mark.slow
@pytest.mark.parametrize("when", ["1970-01-01T00:00:03Z", "2038-01-19T03:14:05Z"])
def test_every_slot_is_decided_at_both_ends_of_time(ground: Ground, shim: Shim, when: str) -> None:
    shim.set_clock(datetime.fromisoformat(when) - datetime.now(UTC))
    ground.apply(JOBS, "-q", env=shim.env)
    until_more(ground, "c", 4)
    assert ground("down", env=shim.env).code == 0
    rows = [row for row in ground.rows("c") if row["state"] != "cancelled"]
    first = ground.effects.starts("c")[0].nominal
    assert first.year in {1970, 2038}
    reconcile(ground.effects, "c", rows, grid(first, instant(rows[-1]["nominal"]), timedelta(seconds=1)))


@pytest.mark.slow
def test_jobs_continue_after_a_reboot(ground: Ground) -> None:
    """Up for a month before, up for some minutes after."""
    month = ["unshare", "--time", "--fork", "--monotonic", "2600000", "--boottime", "2600000"]
    if shutil.which("unshare") is None or subprocess.run([*month, "true"], capture_output=True).returncode != 0:
        pytest.skip("no time namespace can be made here")
    jobs = JOBS + f"[jobs.e]\ncommand = '''{mark('start')}'''\nschedule = {{ every = \"300ms\", after_end = true }}\n"
    ground.apply(jobs, "-q", prefix=month)
    for name in "cie":
        until_more(ground, name, 2)
    assert ground("down").code == 0
    supervisor = ground.apply(jobs, "-q")
    for name in "cie":
        until_more(ground, name, 2)
    assert supervisor.down() == 0
    assert ground.effects.twice() == []
    first = ground.effects.starts("c")[0].nominal
    rows = ground.rows("c")
    reconcile(ground.effects, "c", rows, grid(first, instant(rows[-1]["nominal"]), timedelta(seconds=1)))


@pytest.mark.slow
def test_a_supervisor_that_was_stopped_runs_the_slots_of_catch_up(ground: Ground) -> None:
    jobs = JOBS + f"[jobs.l]\ncommand = '''{mark('start')}'''\nschedule = {EVERY_SECOND}\ncatch_up = \"latest\"\n"
    supervisor = ground.apply(jobs, "-q")
    until_more(ground, "l", 2)
    supervisor.process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    before = {name: runs(ground, name) for name in "cil"}
    supervisor.process.send_signal(signal.SIGCONT)
    until_more(ground, "c", 2)
    assert supervisor.down() == 0
    after = {name: len([*ground.effects.starts(name)]) - before[name] for name in "cil"}
    assert ground.effects.twice() == []
    for name in "cl":
        rows = ground.rows(name)
        first, last = ground.effects.starts(name)[0].nominal, instant(rows[-1]["nominal"])
        reconcile(ground.effects, name, rows, grid(first, last, timedelta(seconds=1)))
        assert sum(row["reason_code"] == "missed" for row in rows) >= 2
    assert after["c"] <= 5 + after["l"]
