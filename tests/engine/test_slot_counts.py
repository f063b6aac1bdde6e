"""The slots that came up and those without a run, the interval in force and the average one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.engine.facts import JobCommand
from repeater.model.spec import (
    Adaptive,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Growing,
    Manual,
    Once,
    OnceEver,
    Overlap,
    RateLimited,
    ScheduleSpec,
)
from repeater.model.units import Rate
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds

PACE = Adaptive(base=seconds(4), min=seconds(1), max=seconds(60))


def counts(stage: Stage, name: str = "a") -> tuple[int, int, int]:
    found = stage.engine.jobs[name]
    return found.planned, found.progress.runs, found.progress.skipped


def test_slots_that_overlap_are_planned_and_skipped() -> None:
    stage = Stage({"a": Act(lasts=seconds(25))})
    stage.apply(job("a", Every(seconds(10), immediate=True)))
    stage.advance(95)  # slots at 0, 10, …, 90; runs from 0, 30, 60, 90
    assert counts(stage) == (10, 4, 6)


def test_a_held_slot_is_planned_before_it_runs() -> None:
    stage = Stage({"a": Act(lasts=seconds(25))})
    stage.apply(job("a", Every(seconds(10), immediate=True), overlap=Overlap("queue", queue_max=9)))
    stage.advance(24)
    assert counts(stage) == (3, 1, 0)


def test_all_missed_slots_count_when_one_row_represents_many() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(1)), catch_up=CatchUp("skip")))
    stage.clock.stall(timedelta(hours=1))
    stage.advance(0)
    planned, runs, skipped = counts(stage)
    assert planned == runs + skipped == 3601
    assert sum(event.count for event in stage.events if type(event).__name__ == "SlotDecided") == 3601


def test_counts_continue_after_a_restart_and_reset_clears_them() -> None:
    stage = Stage({"a": Act(lasts=seconds(25))})
    spec = job("a", Every(seconds(10), immediate=True))
    stage.apply(spec)
    stage.advance(28)
    assert counts(stage) == (3, 1, 2)
    following = stage.again()
    following.apply(spec)
    assert counts(following)[1:] == (1, 2)
    following.tell(JobCommand("reset", "a"))
    following.advance(0)
    assert counts(following)[2] == 0


@given(
    every=st.integers(1, 9),
    lasts=st.integers(0, 30),
    kind=st.sampled_from(["skip", "queue", "replace", "allow"]),
    stalls=st.lists(st.integers(0, 40), max_size=4),
)
def test_every_slot_is_planned_once(every: int, lasts: int, kind: str, stalls: list[int]) -> None:
    stage = Stage({"a": Act(lasts=seconds(lasts))})
    stage.apply(job("a", Every(seconds(every), immediate=True), overlap=Overlap(kind)))  # type: ignore[arg-type]
    for stall in stalls:
        stage.clock.stall(seconds(stall))
        stage.advance(13)
    planned, runs, skipped = counts(stage)
    waiting = len(stage.engine.jobs["a"].pending)
    assert planned == runs + skipped + waiting == stage.now // every + 1


@pytest.mark.parametrize(
    ("schedule", "intervals"),
    [
        (Every(seconds(7)), [7, 7]),
        (Growing(Backoff("exponential", base=seconds(1), max=seconds(60))), [2, 4]),
        (RateLimited(Rate(4, seconds(60))), [15, 15]),
        (Cron("* * * * *"), [None, None]),
        (Manual(), [None, None]),
        (Once(), [None, None]),
        (OnceEver(), [None, None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_active_interval_is_that_of_the_next_slot(schedule: ScheduleSpec, intervals: list[float | None]) -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    stage.apply(job("a", schedule))
    found = []
    for number in (2, 3):
        if intervals[0] is None:
            stage.advance(70)
        else:
            stage.clock.run_until(lambda number=number: len(stage.history("a")) == number)  # type: ignore[misc]
        interval = stage.engine.jobs["a"].interval
        found.append(None if interval is None else interval.total_seconds())
    assert found == intervals


def test_the_active_interval_follows_an_adaptive_pace() -> None:
    from repeater.model.run import Exit

    stage = Stage({"a": Act(exit=Exit(1))})
    stage.apply(job("a", PACE))
    stage.advance(0)
    interval = stage.engine.jobs["a"].interval
    assert interval is not None
    assert interval > PACE.base


@pytest.mark.parametrize("step", [0, 7200, -7200])
def test_the_average_interval_ignores_steps_of_the_clock(step: int) -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(10), immediate=True)))
    stage.advance(0)
    assert stage.engine.jobs["a"].starts.average is None
    stage.advance(10)
    assert stage.engine.jobs["a"].starts.average == seconds(10)
    stage.advance(15)
    stage.clock.set_wall(stage.clock.now().wall + seconds(step))
    stage.advance(25)
    assert stage.engine.jobs["a"].starts.average == seconds(10)
