"""Runs of which nobody knows the end: at most once is the rule, at least once on demand."""

from __future__ import annotations

from datetime import timedelta

from repeater.engine.facts import RunLost
from repeater.model.events import Warned
from repeater.model.spec import Always, Every, Hooks, Retry
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds
from tests.fakes.text import text_of

HOURLY = Every(timedelta(hours=1))


def lose(stage: Stage) -> None:
    stage.spawner.lose()
    stage.clock.settle()


def test_a_lost_run_is_interrupted_and_not_tried_again() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(job("a", HOURLY, retry=Retry(attempts=3)))
    stage.advance(5)
    lose(stage)
    stage.advance(600)
    assert stage.history("a") == ["interrupted(shim_gone) @0"]
    assert len(stage.spawner.launches) == 1
    assert stage.engine.jobs["a"].progress.failures == 0


def test_a_job_that_wants_at_least_one_start_is_tried_again() -> None:
    stage = Stage({"a": [Act(lasts=FOR_EVER), Act()]})
    stage.apply(job("a", HOURLY, delivery="at-least-once"))
    stage.advance(5)
    lose(stage)
    stage.advance(60)
    assert stage.history("a") == ["ran @0"]
    assert [launch.env["RPR_ATTEMPT"] for launch in stage.spawner.launches] == ["1", "2"]


def test_a_run_lost_before_its_start_was_reported_counts_as_begun() -> None:
    stage = Stage({"a": Act(starting=seconds(10))})
    stage.apply(job("a", HOURLY))
    stage.advance(5)
    lose(stage)
    stage.advance(600)
    assert stage.history("a") == ["interrupted(shim_gone) @0"]
    assert len(stage.spawner.launches) == 1


def test_a_lost_service_is_started_again() -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    stage.apply(job("s", Always()))
    stage.advance(5)
    lose(stage)
    stage.advance(60)
    assert len(stage.spawner.live) == 1
    assert len(stage.spawner.launches) == 2


def test_a_run_lost_while_it_was_stopped_has_the_outcome_of_the_stop() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}))})
    stage.apply(job("a", HOURLY, delivery="at-least-once"))
    stage.advance(5)
    stage.stop("stop")
    lose(stage)
    assert stage.history("a") == ["cancelled(stopped) @0"]
    assert stage.left == [0]


def test_a_lost_hook_is_reported_and_not_waited_for() -> None:
    stage = Stage({"a": [Act(), Act(lasts=FOR_EVER)]})
    stage.apply(job("a", HOURLY, hooks=Hooks(on_success=("notify",))))
    stage.advance(5)
    lose(stage)
    assert any(
        isinstance(event, Warned)
        and text_of(event.reason) == "hook on_success was lost: the shim exited during the run"
        for event in stage.events
    )
    stage.stop()
    assert stage.left == [0]


def test_an_unexpected_loss_is_ignored() -> None:
    stage = Stage()
    stage.apply(job("a", HOURLY))
    stage.advance(5)
    stage.tell(RunLost("unknown", "the shim exited during the run"))
    stage.clock.settle()
    assert stage.history("a") == ["ran @0"]
