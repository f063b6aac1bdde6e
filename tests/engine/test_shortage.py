"""Errors of resources in virtual time: they back off and are no failure of the command; errors of the command are."""

from __future__ import annotations

import pytest

from repeater.model.events import RunFinished, SpawnRejected
from repeater.model.run import Exit
from repeater.model.spec import Backoff, Every, Retry, Slowdown, Stop
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds
from tests.fakes.text import text_of

SHORT = Act(refusal="cannot start `true`: Resource temporarily unavailable", temporary=True)
BROKEN = Act(refusal="cannot start `true`: No such file or directory")
FAILS = Act(exit=Exit(code=1))


def shortages(stage: Stage) -> int:
    return sum(isinstance(event, SpawnRejected) for event in stage.events)


def test_a_shortage_is_retried_with_growing_pauses_and_not_counted() -> None:
    stage = Stage({"a": [*[SHORT] * 8, Act()]})
    stage.apply(job("a", stop=Stop(consecutive_failures=1)))
    asked = []
    for _ in range(1500):
        stage.advance(0.1)
        asked.append(len(stage.spawner.launches))
    moments = [round((asked.index(count) + 1) / 10) for count in range(1, 10)]
    assert moments == [0, 1, 3, 7, 15, 31, 61, 91, 121], "a second, doubled, half a minute at most"
    (row,) = stage.rows("a")
    progress = stage.engine.jobs["a"].progress
    assert (row.state, text_of(row.reason)) == ("succeeded", "success")
    assert (progress.runs, progress.successes, progress.failures, progress.streak) == (1, 1, 0, 1)
    assert shortages(stage) == 8
    assert len([event for event in stage.events if isinstance(event, RunFinished)]) == 1


def test_a_shortage_uses_no_attempt_of_a_retry_and_causes_no_slowdown() -> None:
    stage = Stage({"a": [SHORT, FAILS, SHORT, SHORT, FAILS, Act()]})
    slow = Slowdown(Backoff(kind="fixed", base=seconds(1000), max=seconds(1000)))
    stage.apply(job("a", Every(seconds(100)), retry=Retry(2, Backoff(kind="fixed")), slowdown=slow))
    stage.advance(99)
    (row,) = stage.rows("a")
    assert text_of(row.reason) == "exit 1", "both attempts were made"
    assert stage.engine.jobs["a"].progress.failures == 1
    only_short = Stage({"a": [SHORT, Act()]})
    only_short.apply(job("a", Every(seconds(100)), slowdown=slow))
    only_short.advance(199)
    assert [text_of(row.reason) for row in only_short.rows("a")] == ["success", "success"]


def test_a_shortage_of_one_job_does_not_affect_the_others() -> None:
    stage = Stage({"a": SHORT})
    stage.apply(job("a"), job("b", Every(seconds(1))))
    stage.advance(60)
    assert stage.starts("b") == list(range(61))
    assert stage.rows("a") == []


def test_a_run_that_waits_for_resources_can_be_given_up() -> None:
    stage = Stage({"a": SHORT})
    stage.apply(job("a", Every(seconds(1000))))
    stage.advance(10)
    stage.request("stop", "a")
    assert [row.state for row in stage.rows("a")] == ["cancelled"]
    stage.stop()
    stage.advance(1)
    assert stage.left == [0]


@pytest.mark.parametrize(("act", "state"), [(BROKEN, "spawn_failed"), (FAILS, "failed")])
def test_an_error_of_the_command_is_a_failure_with_retry_and_slowdown(act: Act, state: str) -> None:
    stage = Stage({"a": act})
    slow = Slowdown(Backoff(kind="fixed", base=seconds(25), max=seconds(25)))
    stage.apply(job("a", Every(seconds(10)), retry=Retry(2, Backoff(kind="fixed", base=seconds(2))), slowdown=slow))
    stage.advance(29)
    rows = stage.rows("a")
    assert [(row.state, row.attempts) for row in rows[:1]] == [(state, 2)]
    assert [text_of(row.reason) for row in rows[1:]] == ["slowdown", "slowdown"]
    assert len(stage.spawner.launches) == 2
    assert stage.engine.jobs["a"].progress.failures == 1
