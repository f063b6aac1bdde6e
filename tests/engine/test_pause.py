"""Pauses: slots are skipped, live runs go on, and the end comes by itself if it was given."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from repeater.engine.facts import JobCommand
from repeater.model.events import JobPaused, JobResumed
from repeater.model.spec import Adaptive, Always, Every, LoadAware
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act
from tests.fakes.text import text_of


def every(seconds: float) -> Every:
    return Every(timedelta(seconds=seconds))


def pause(stage: Stage, name: str, reason: str = "", lasts: float | None = None) -> None:
    until = None if lasts is None else stage.clock.now().wall + timedelta(seconds=lasts)
    stage.tell(JobCommand("pause", name, text=reason, until=until))
    stage.clock.settle()


def test_a_paused_job_skips_its_slots_with_the_reason_until_it_is_resumed() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    pause(stage, "a", "deploy")
    stage.advance(20)
    stage.request("resume", "a")
    stage.advance(10)
    assert stage.history("a") == ["ran @0", "skipped(paused: deploy) @10", "skipped(paused: deploy) @20", "ran @30"]
    assert [text_of(event.reason) for event in stage.events if isinstance(event, JobPaused | JobResumed)] == [
        "paused: deploy",
        "requested",
    ]


def test_a_pause_ends_at_its_time_and_starts_nothing_that_was_missed() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    pause(stage, "a", lasts=15)
    stage.advance(15)
    assert stage.engine.jobs["a"].paused is None
    assert stage.history("a") == ["ran @0", "skipped(paused) @10"]
    stage.advance(5)
    assert stage.history("a")[-1] == "ran @20"


@pytest.mark.parametrize(
    "schedule",
    [
        Adaptive(base=timedelta(seconds=10), max=timedelta(seconds=60), target_latency=timedelta(seconds=1)),
        LoadAware(base=timedelta(seconds=10), min=timedelta(seconds=10), max=timedelta(seconds=60)),
    ],
    ids=["adaptive", "load"],
)
def test_a_paused_job_whose_distance_adapts_skips_at_its_pace(schedule: Adaptive | LoadAware) -> None:
    stage = Stage()
    spec = job("a", schedule)
    end = stage.clock.now().plus(timedelta(seconds=10))
    following = schedule_for(spec).next(Track(stage.clock.now(), end, stage.clock.now()))
    assert following is not None
    assert following.mono > end.mono  # else the stage below would never come to an end
    stage.apply(spec)
    stage.advance(1)
    pause(stage, "a")
    stage.advance(60)
    skipped = [row.nominal for row in stage.rows("a") if row.state == "skipped"]
    gaps = {later - earlier for earlier, later in pairwise(skipped)}
    assert len(skipped) >= 5
    assert gaps <= {timedelta(seconds=10), timedelta(seconds=9), timedelta(seconds=9.090909)}
    stage.request("resume", "a")
    stage.advance(12)
    assert stage.rows("a")[-1].state == "succeeded"


def test_a_second_pause_replaces_the_end_of_the_first() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    pause(stage, "a", lasts=5)
    pause(stage, "a", lasts=25)
    stage.advance(40)
    assert stage.history("a") == ["ran @0", "skipped(paused) @10", "skipped(paused) @20", "ran @30", "ran @40"]


def test_a_pause_outlives_the_supervisor_and_a_reset() -> None:
    first = Stage()
    first.apply(job("a", every(10)))
    pause(first, "a", "broken disk", lasts=35)
    first.request("reset", "a")
    first.advance(1)
    second = first.again(after=10)
    second.apply(job("a", every(10)))
    assert text_of(second.engine.jobs["a"].paused) == "paused: broken disk"
    second.advance(40)
    assert [text_of(row.reason) for row in second.rows("a")][-2:] == ["success", "success"]
    assert "paused: broken disk" in {text_of(row.reason) for row in second.rows("a")}


def test_a_pause_that_ended_while_the_supervisor_was_down_is_over() -> None:
    first = Stage()
    first.apply(job("a", every(10)))
    pause(first, "a", lasts=5)
    second = first.again(after=8)
    second.apply(job("a", every(10)))
    assert second.engine.jobs["a"].paused is None


def test_a_paused_service_runs_on_and_is_not_restarted_until_resumed() -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    stage.apply(job("web", Always()))
    pause(stage, "web")
    assert len(stage.spawner.live) == 1
    stage.spawner.close()
    other = stage.again({"web": Act(lasts=timedelta(seconds=3))})
    other.apply(job("web", Always()))
    other.advance(10)
    assert len(other.spawner.launches) == 0
    other.request("resume", "web")
    other.advance(1)
    assert len(other.spawner.launches) == 1


def test_a_trigger_by_force_runs_a_paused_job() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    pause(stage, "a")
    stage.request("trigger", "a")
    stage.request("trigger", "a", force=True)
    assert [row.state for row in stage.rows("a")] == ["succeeded", "skipped", "succeeded"]


def test_resuming_what_is_not_paused_is_nothing() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    stage.request("resume", "a")
    assert not [event for event in stage.events if isinstance(event, JobResumed)]


def test_a_removed_job_is_not_resumed() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)), job("b", every(10)))
    pause(stage, "a", lasts=15)
    stage.apply(job("b", every(10)))
    stage.advance(30)
    assert not [event for event in stage.events if isinstance(event, JobResumed)]
