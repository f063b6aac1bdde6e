"""A plan of many jobs is made in turns: what happens meanwhile is handled, and changes what the plan says."""

from __future__ import annotations

import json
from typing import Any

from repeater.control.commands import supervisor
from tests.engine.test_plan_is_apply import SimulatedSupervisor
from tests.fakes.filesystem import MemoryDisk

MANY = 1000


def files(command: str) -> dict[str, str]:
    jobs = {f"j{number}": {"command": command, "schedule": "manual"} for number in range(MANY)}
    return {"/p/root.json": json.dumps({"project": "p", "jobs": jobs})}


def supervisor_of_many() -> SimulatedSupervisor:
    simulated = SimulatedSupervisor(0)
    simulated.disk = MemoryDisk(files("true"))
    simulated.verb(supervisor.apply)
    simulated.disk = MemoryDisk(files("other"))
    return simulated


def test_a_request_during_a_long_plan_is_handled_before_the_plan_is_made() -> None:
    simulated, found = supervisor_of_many(), []
    order: list[str] = []
    simulated.stage.listeners.append(lambda event: order.append(type(event).__name__))
    simulated.reload.foresee(lambda answer: (order.append("Foreseen"), found.append(answer)))
    assert order == []
    simulated.stage.request("trigger", "j7")
    simulated.stage.advance(1)
    assert order.index("RunBegan") < order.index("Foreseen")
    (foreseen,) = found
    assert [entry.reload for entry in foreseen.plan.jobs] == ["next_run"] * MANY
    assert list(foreseen.prospects) == [f"j{number}" for number in range(MANY)]


def test_a_long_plan_begins_again_when_another_generation_becomes_active() -> None:
    simulated, found = supervisor_of_many(), []
    applied: list[Any] = []
    simulated.reload.ask(applied.append)
    simulated.reload.foresee(found.append)
    simulated.stage.advance(1)
    (foreseen,) = found
    assert {entry.reload for entry in foreseen.plan.jobs} == {"keep"}
    assert foreseen.generation == simulated.stage.engine.generation == 2


def test_a_reload_is_planned_in_turns_and_the_newest_content_is_taken() -> None:
    simulated, turns = supervisor_of_many(), []

    def turn() -> None:
        """Another callback of the loop, as often as the plan lets it."""
        turns.append(simulated.stage.engine.generation)
        if len(turns) == 5:
            simulated.disk = MemoryDisk(files("newest"))
            simulated.reload.read_now()
        if len(turns) < 20:
            simulated.stage.clock.call_after(0, turn)

    simulated.reload.read_now()
    simulated.stage.clock.call_after(0, turn)
    simulated.stage.clock.settle()
    assert turns == [1] * 20, "others have their turn while the plan is made"
    simulated.stage.advance(1)
    assert simulated.stage.engine.generation == 2
    assert {job.spec.process.command for job in simulated.stage.engine.jobs.values()} == {"newest"}


def test_two_requests_to_apply_at_once_are_taken_one_after_the_other() -> None:
    simulated, applied = supervisor_of_many(), []
    for command in ("first", "second"):
        simulated.disk = MemoryDisk(files(command))
        simulated.reload.ask(applied.append)
    simulated.stage.advance(1)
    assert [answer.generation for answer in applied] == [2, 3]
    assert {job.spec.process.command for job in simulated.stage.engine.jobs.values()} == {"second"}
