"""What a job remembers of an edit in the next life of the supervisor: its place in the schedule, its stop rule."""

from __future__ import annotations

import pytest

from repeater._lazy_dataclasses import replace
from repeater.engine.job_states import State
from repeater.model.events import JobAdded
from repeater.model.run import Exit
from repeater.model.spec import (
    Always,
    At,
    CatchUp,
    Cron,
    Every,
    Manual,
    Need,
    Once,
    OnceEver,
    Overlap,
    ScheduleSpec,
    Stop,
)
from tests.engine.stage import EPOCH, Stage, job
from tests.fakes.spawn import Act, seconds
from tests.fakes.text import text_of

HOUR = 3600


def test_a_changed_cron_owes_nothing_after_a_restart() -> None:
    stage = Stage()
    before = job("a", Cron("0 5 * * *"), catch_up=CatchUp("all"), overlap=Overlap("queue", queue_max=99))
    stage.apply(before)
    stage.advance(12.5 * HOUR)
    assert stage.starts("a") == [5 * HOUR]
    hourly = replace(before, schedule=Cron("0 * * * *"))
    stage.apply(hourly)
    stage.advance(600)
    again = stage.again(after=600)
    again.apply(hourly)
    again.advance(1.5 * HOUR)
    assert again.history("a") == ["ran @18000", "ran @46800", "ran @50400"]


def test_a_changed_cron_catches_up_slots_after_the_change() -> None:
    stage = Stage()
    before = job("a", Cron("0 5 * * *"), catch_up=CatchUp("all"), overlap=Overlap("queue", queue_max=99))
    stage.apply(before)
    stage.advance(12.5 * HOUR)
    hourly = replace(before, schedule=Cron("0 * * * *"))
    stage.apply(hourly)
    stage.advance(600)
    again = stage.again(after=2 * HOUR)
    again.apply(hourly)
    again.advance(60)
    assert [(row.trigger, row.nominal.hour) for row in again.rows("a")] == [
        ("schedule", 5), ("catch_up", 13), ("catch_up", 14),
    ]  # fmt: skip


def test_a_changed_interval_keeps_its_new_grid_over_a_restart() -> None:
    stage = Stage()
    before = job("a", Every(seconds(3600)), catch_up=CatchUp("all"))
    stage.apply(before)
    stage.advance(1800)
    edited = replace(before, schedule=Every(seconds(500)))
    stage.apply(edited)
    stage.advance(50)
    again = stage.again(after=50)
    again.apply(edited)
    again.advance(1000)
    assert again.starts("a") == [0, 2300, 2800]


def test_a_change_while_no_supervisor_ran_owes_nothing() -> None:
    stage = Stage()
    before = job("a", Cron("0 5 * * *"), catch_up=CatchUp("all"), overlap=Overlap("queue", queue_max=99))
    stage.apply(before)
    stage.advance(12.25 * HOUR)
    again = stage.again(after=HOUR / 4)
    again.apply(replace(before, schedule=Cron("0 * * * *")))
    again.advance(HOUR)
    assert again.history("a") == ["ran @18000", "ran @46800"]


TWICE = job("a", Every(seconds(1)), stop=Stop(times=2))


@pytest.mark.parametrize(
    ("rule", "runs", "done"),
    [
        (Stop(times=2), 2, "2 runs"),
        (Stop(times=4), 4, "4 runs"),
        (Stop(times=1), 2, "2 runs"),
        (Stop(successes=2), 2, "2 successes"),
    ],
)
def test_a_job_that_is_done_uses_another_stop_rule_after_a_restart(rule: Stop, runs: int, done: str) -> None:
    stage = Stage()
    stage.apply(TWICE)
    stage.advance(10)
    again = stage.again(after=5)
    again.apply(replace(TWICE, stop=rule))
    again.advance(20)
    assert len(again.starts("a")) == runs
    assert text_of(again.engine.jobs["a"].progress.done) == done


def test_a_job_that_is_done_runs_after_a_restart_without_a_stop_rule() -> None:
    stage = Stage()
    stage.apply(TWICE)
    stage.advance(10)
    again = stage.again(after=5)
    again.apply(replace(TWICE, stop=Stop()))
    again.advance(3.5)
    assert again.engine.jobs["a"].progress.done is None
    assert len(again.spawner.launches) >= 3


def test_a_job_ended_by_an_exit_code_stays_done_after_a_restart() -> None:
    stage = Stage({"a": [Act(), Act(exit=Exit(code=3)), Act()]})
    spec = replace(TWICE, stop=Stop(on_exit=(3,)))
    stage.apply(spec)
    stage.advance(10)
    assert stage.starts("a") == [0, 1]
    again = stage.again(after=5)
    again.apply(spec)
    again.advance(10)
    assert again.spawner.launches == []
    assert again.engine.jobs["a"].progress.done is not None


def test_a_job_that_meets_an_edited_stop_rule_is_done_after_a_restart() -> None:
    stage = Stage()
    stage.apply(replace(TWICE, stop=Stop()))
    stage.advance(5.5)
    again = stage.again(after=1)
    again.apply(TWICE)
    assert again.engine.jobs["a"].state is State.DONE
    again.advance(10)
    assert again.spawner.launches == []


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        (Every(seconds(60)), 0),
        (Every(seconds(60), immediate=False), 60),
        (Cron("0 5 * * *"), 5 * HOUR),
        (Once(), 0),
        (Always(), 0),
        (Manual(), None),
    ],
)
def test_the_event_of_a_new_job_shows_its_first_start(schedule: ScheduleSpec, first: float | None) -> None:
    stage = Stage()
    begin = stage.clock.now()
    stage.apply(job("a", schedule))
    found = [(event.job, event.next) for event in stage.events if isinstance(event, JobAdded)]
    assert found == [("a", None if first is None else begin.plus(seconds(first)).wall)]


@pytest.mark.parametrize("code", [0, 1])
def test_once_ever_does_not_run_after_a_restart(code: int) -> None:
    stage = Stage({"a": Act(exit=Exit(code=code))})
    ever, every = job("a", OnceEver()), job("b", Once())
    stage.apply(ever, every)
    stage.advance(60)
    assert stage.engine.jobs["a"].state is State.DONE
    for life in range(2, 4):
        stage = stage.again(after=HOUR)
        stage.apply(ever, every)
        stage.advance(HOUR)
        assert stage.starts("a") == [0]
        assert len(stage.starts("b")) == life
        assert stage.engine.jobs["a"].state is State.DONE


def test_an_interrupted_run_of_once_ever_is_not_repeated() -> None:
    stage = Stage({"a": Act(lasts=seconds(HOUR))})
    stage.apply(job("a", OnceEver()))
    stage.advance(60)
    again = stage.again(after=60)
    again.apply(job("a", OnceEver()))
    again.advance(HOUR)
    assert [row.state for row in again.rows("a")] == ["interrupted"]


@pytest.mark.parametrize("schedule", [OnceEver(), At(EPOCH + seconds(1))])
def test_the_only_run_of_a_job_is_tried_again_if_it_may_start_twice(schedule: ScheduleSpec) -> None:
    spec = job("a", schedule, delivery="at-least-once")
    stage = Stage({"a": Act(lasts=seconds(HOUR))})
    stage.apply(spec)
    stage.advance(60)
    again = stage.again({"a": Act()}, after=60)
    again.apply(spec)
    again.advance(HOUR)
    assert [row.state for row in again.rows("a")] == ["succeeded"]
    last = again.again(after=60)
    last.apply(spec)
    last.advance(HOUR)
    assert len(last.rows("a")) == 1


def test_once_ever_runs_after_a_restart_if_its_slot_was_skipped() -> None:
    needed = job("b", Once())
    spec = job("a", OnceEver(), needs=(Need("b", "succeeded"),))
    stage = Stage({"b": [Act(exit=Exit(code=1)), Act()]})
    stage.apply(needed, spec)
    stage.advance(60)
    assert stage.starts("a") == []
    again = stage.again({}, after=60)
    again.apply(needed, spec)
    again.advance(60)
    assert len(again.starts("a")) == 1
    last = again.again(after=60)
    last.apply(needed, spec)
    last.advance(60)
    assert len(last.starts("a")) == 1


def test_a_reset_lets_once_ever_run_again() -> None:
    stage = Stage()
    stage.apply(job("a", OnceEver()))
    stage.advance(60)
    stage.request("reset", "a")
    stage.advance(60)
    assert len(stage.starts("a")) == 2


def test_a_change_from_once_to_once_ever_does_not_run_the_job_again() -> None:
    stage = Stage()
    stage.apply(job("a", Once()))
    stage.advance(60)
    stage.apply(job("a", OnceEver()))
    stage.advance(60)
    again = stage.again(after=60)
    again.apply(job("a", OnceEver()))
    again.advance(60)
    assert stage.starts("a") == [0]
    assert again.starts("a") == [0]


@pytest.mark.parametrize(("code", "known"), [(1, False), (0, True)])
def test_the_result_of_the_last_run_is_remembered(code: int, known: bool) -> None:
    stage = Stage({"a": Act(exit=Exit(code=code))})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    again = stage.again(after=60)
    again.apply(job("a", Manual()))
    assert again.engine.jobs["a"].last_success is known


def test_a_stopped_run_is_not_success_or_failure_after_a_restart() -> None:
    stage = Stage({"a": Act(lasts=seconds(100))})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    stage.request("stop", "a")
    stage.advance(5)
    assert [row.state for row in stage.rows("a")] == ["cancelled"]
    again = stage.again(after=60)
    again.apply(job("a", Manual()))
    assert again.engine.jobs["a"].last_success is None
