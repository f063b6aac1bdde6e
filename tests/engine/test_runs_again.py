"""A request to run a job that is done: the job runs again, unless its `stop` rule ended it."""

from __future__ import annotations

from typing import Any

import pytest

from repeater.engine.job_states import State
from repeater.model.run import Exit
from repeater.model.spec import Always, At, Manual, Once, Overlap, ProcessSpec, Stop
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH
from tests.fakes.spawn import FOR_EVER, Act, seconds

MAKE = ProcessSpec(command=("make",), cwd="/w")


def runs(stage: Stage) -> int:
    """The number of runs that were started."""
    return len(stage.spawner.launches)


def ended_service(restart: Any = "never", *, keep_alive: bool = True, **keys: Any) -> Stage:
    stage = Stage({"a": [Act(lasts=seconds(1)), Act(lasts=FOR_EVER)]}, keep_alive=keep_alive)
    stage.apply(job("a", Always(), restart=restart, process=MAKE, **keys))
    stage.advance(5)
    assert stage.engine.jobs["a"].state is State.DONE
    return stage


@pytest.mark.parametrize("restart", ["never", "on-failure"])
@pytest.mark.parametrize("verb", ["start", "restart", "trigger"])
def test_each_verb_starts_a_service_that_its_restart_rule_ended(verb: Any, restart: Any) -> None:
    stage = ended_service(restart)
    stage.request(verb, "a")
    stage.advance(1)
    assert runs(stage) == 2
    assert stage.engine.jobs["a"].state is State.ACTIVE
    assert stage.engine.jobs["a"].progress.done is None


def test_a_saved_file_starts_a_service_that_its_restart_rule_ended() -> None:
    stage = ended_service(keep_alive=False, watch=("src/*",))
    assert stage.left == []
    stage.watcher.touch("/w/src/x.py")
    stage.advance(5)
    assert runs(stage) == 2
    assert stage.engine.jobs["a"].state is State.ACTIVE


def test_the_restart_rule_also_applies_to_the_run_that_a_verb_started() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    stage.apply(job("a", Always(), restart="never"))
    stage.advance(5)
    stage.request("start", "a")
    stage.advance(5)
    assert stage.starts("a") == [0, 5]
    done = stage.engine.jobs["a"].progress.done
    assert done is not None
    assert done.code == "service_ended"


@pytest.mark.parametrize("verb", ["start", "restart", "trigger"])
def test_each_verb_runs_a_finished_once_job_one_more_time(verb: Any) -> None:
    stage = Stage()
    stage.apply(job("a", Once()))
    stage.advance(5)
    assert stage.engine.jobs["a"].state is State.DONE
    stage.request(verb, "a")
    stage.advance(5)
    assert stage.starts("a") == [0, 5]
    assert stage.engine.jobs["a"].state is State.DONE


@pytest.mark.parametrize(("verb", "count"), [("start", 1), ("restart", 2), ("trigger", 2)])
def test_a_job_whose_time_is_over_runs_on_request_only(verb: Any, count: int) -> None:
    stage = Stage()
    stage.apply(job("a", At(EPOCH + seconds(2))))
    stage.advance(5)
    stage.request(verb, "a")
    stage.advance(5)
    assert runs(stage) == count


@pytest.mark.parametrize("verb", ["start", "restart", "trigger"])
def test_no_verb_starts_a_job_that_its_stop_rule_ended(verb: Any) -> None:
    stage = Stage()
    stage.apply(job("a", Once(), stop=Stop(times=1)))
    stage.advance(5)
    stage.request(verb, "a")
    stage.advance(5)
    assert stage.starts("a") == [0]


def test_a_service_that_was_requested_during_a_pause_starts_at_its_end() -> None:
    stage = ended_service()
    stage.request("pause", "a")
    stage.request("start", "a")
    stage.advance(5)
    assert runs(stage) == 1
    stage.request("resume", "a")
    stage.advance(1)
    assert runs(stage) == 2


def test_a_forced_run_keeps_the_reason_why_the_job_is_done() -> None:
    stage = Stage()
    stage.apply(job("a", Manual(), stop=Stop(times=1)))
    stage.request("trigger", "a")
    stage.advance(5)
    before = stage.engine.jobs["a"].progress.done
    later = stage.again()
    later.apply(job("a", Manual(), stop=Stop(times=1)))
    later.request("trigger", "a", force=True)
    later.advance(5)
    assert before is not None
    assert later.engine.jobs["a"].progress.done == before


def test_a_restart_replaces_the_run_of_a_timed_job_whatever_its_overlap() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, exit=Exit(code=1))})
    stage.apply(job("a", Manual(), overlap=Overlap("skip")))
    stage.request("trigger", "a")
    stage.advance(5)
    stage.request("restart", "a")
    stage.advance(5)
    assert runs(stage) == 2
    assert stage.rows("a")[0].state == "replaced"
