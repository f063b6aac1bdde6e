"""A reload that changes the kind of a job, removes a job and puts it back, or falls between nominal time and jitter."""

from __future__ import annotations

import pytest

from repeater._lazy_dataclasses import replace
from repeater.engine.job_states import State
from repeater.model.spec import Always, Every, Jitter, JobSpec, Manual
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds


def states(stage: Stage, name: str = "a") -> list[tuple[str, str | None]]:
    return [(row.state, None if row.reason is None else row.reason.code) for row in stage.rows(name)]


def test_a_service_that_becomes_timed_is_stopped_and_its_schedule_begins() -> None:
    stage = Stage({"a": [Act(lasts=FOR_EVER), Act()]})
    stage.apply(job("a", Always()))
    stage.advance(5)
    plan = stage.apply(job("a", Every(seconds(10))))
    assert plan.jobs[0].reload == "restart"
    stage.advance(25)
    assert [row.state for row in stage.rows("a")] == ["cancelled", "succeeded", "succeeded"]
    assert stage.spawner.live == {} or not stage.spawner.live


def test_a_timed_job_that_becomes_a_service_stops_its_run_and_starts_again() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    plan = stage.apply(job("a", Always(), restart="never"))
    assert plan.jobs[0].reload == "restart"
    stage.advance(5)
    assert [row.state for row in stage.rows("a")] == ["cancelled"]
    assert len(stage.spawner.launches) == 2
    assert len(stage.engine.jobs["a"].open) == 1


def test_a_change_of_kind_fires_no_timed_run_by_itself() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(job("a", Always()))
    stage.advance(5)
    stage.apply(job("a", Manual()))
    stage.advance(60)
    assert len(stage.spawner.launches) == 1
    assert stage.engine.jobs["a"].state is State.IDLE


def test_a_job_that_is_put_back_keeps_its_live_run_and_that_runs_result() -> None:
    stage = Stage({"a": Act(lasts=seconds(30))})
    spec, other = job("a", Every(seconds(60))), job("b", Manual())
    stage.apply(spec, other)
    stage.advance(5)
    stage.apply(other)
    stage.advance(5)
    stage.apply(spec, other)
    assert len(stage.engine.jobs["a"].open) == 1
    stage.advance(30)
    assert states(stage) == [("succeeded", None)] or [row.state for row in stage.rows("a")] == ["succeeded"]
    assert stage.engine.jobs["a"].progress.successes == 1
    stage.advance(60)
    assert stage.engine.jobs["a"].progress.successes == 2
    assert stage.store.load().progress["a"].successes == 2


def test_a_service_that_is_put_back_while_it_stops_starts_again() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}))})
    spec, other = job("a", Always()), job("b", Manual())
    stage.apply(spec, other)
    stage.advance(5)
    stage.apply(other)
    stage.advance(1)
    stage.apply(spec, other)
    stage.advance(30)
    assert len(stage.spawner.launches) == 2
    assert len(stage.engine.jobs["a"].open) == 1


JITTERED = job("a", Every(seconds(100), jitter=Jitter(span=seconds(50))))
"""Due some seconds after its nominal time."""


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (replace(JITTERED, schedule=Every(seconds(60))), "schedule_changed"),
        (replace(JITTERED, enabled=False), "disabled"),
        (None, "removed"),
    ],
    ids=["schedule", "disabled", "removed"],
)
def test_an_edit_between_nominal_time_and_jitter_records_a_row(edit: JobSpec | None, code: str) -> None:
    stage = Stage()
    other = job("b", Manual())
    stage.apply(JITTERED, other)
    slot = stage.engine.jobs["a"].next
    assert slot is not None
    assert slot.nominal < slot.due
    stage.advance((slot.due - slot.nominal).total_seconds() / 2)
    stage.apply(other) if edit is None else stage.apply(edit, other)
    assert states(stage) == [("cancelled", code)]
    stage.advance(1)
    assert stage.spawner.launches == []


def test_an_edit_of_something_else_lets_the_jittered_start_be() -> None:
    stage = Stage()
    stage.apply(JITTERED)
    stage.advance(1)
    stage.apply(replace(JITTERED, description="x"))
    stage.advance(60)
    assert [row.state for row in stage.rows("a")] == ["succeeded"]
