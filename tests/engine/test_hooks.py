"""Hooks: a limit of time, and one live hook of each kind of a job."""

from __future__ import annotations

from datetime import timedelta

import pytest

from repeater.model.dump import dump_job
from repeater.model.events import Warned
from repeater.model.spec import Every, Hooks
from repeater.ports import LaunchRequest
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds
from tests.unit.jobfile.loading import job as read_job


class Hooked(Stage):
    """Job `tick` runs for a moment every 10 s; its hook lasts as long as the test says."""

    def __init__(self, lasts: timedelta, hooks: Hooks) -> None:
        self.begun: list[tuple[float, str]] = []

        def act(launch: LaunchRequest) -> Act:
            if launch.kind != "hook":
                return Act()
            self.begun.append((self.now, launch.env["RPR_NOMINAL_TIME"][17:19]))
            return Act(lasts=lasts)

        super().__init__(act)
        self.apply(job("tick", Every(seconds(10)), hooks=hooks))


def test_a_hook_that_runs_too_long_is_killed_and_reported() -> None:
    stage = Hooked(FOR_EVER, Hooks(on_success="notify", timeout=seconds(3)))
    stage.advance(25)
    assert [round(begun) for begun, _ in stage.begun] == [0, 10, 20]
    assert sum(isinstance(event, Warned) and event.job == "tick" for event in stage.events) == 3
    assert stage.spawner.live == frozenset()


def test_one_hook_of_a_kind_runs_at_a_time_and_then_the_newest() -> None:
    stage = Hooked(seconds(34), Hooks(on_success="notify"))
    stage.advance(75)
    assert [(round(begun), slot) for begun, slot in stage.begun] == [(0, "00"), (34, "30"), (68, "00")]


def test_a_hook_without_a_limit_runs_on() -> None:
    stage = Hooked(FOR_EVER, Hooks(on_success="notify", timeout=None))
    stage.advance(3600)
    assert len(stage.begun) == 1


@pytest.mark.parametrize(("text", "length"), [("10s", seconds(10)), ("never", None)])
def test_the_limit_is_read_from_the_job_file(text: str, length: timedelta | None) -> None:
    spec = read_job(f'hooks = {{ on_failure = "x", timeout = "{text}" }}')
    assert spec.hooks.timeout == length
    assert dump_job(spec)["hooks"] == {"on_failure": "x", "timeout": text}
    assert read_job('hooks = { on_failure = "x" }').hooks.timeout == timedelta(minutes=1)
