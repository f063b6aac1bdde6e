"""A plan of many jobs is made in turns: what happens meanwhile is handled, and changes what the plan says."""

from __future__ import annotations

import json
from typing import Any

from repeater.control.commands import supervisor
from tests.engine.test_plan_is_apply import House
from tests.fakes.filesystem import MemoryDisk

MANY = 1000


def files(command: str) -> dict[str, str]:
    jobs = {f"j{number}": {"command": command, "schedule": "manual"} for number in range(MANY)}
    return {"/p/root.json": json.dumps({"project": "p", "jobs": jobs})}


def house_of_many() -> House:
    house = House(0)
    house.disk = MemoryDisk(files("true"))
    house.verb(supervisor.apply)
    house.disk = MemoryDisk(files("other"))
    return house


def test_a_request_during_a_long_plan_is_handled_before_the_plan_is_made() -> None:
    house, found = house_of_many(), []
    order: list[str] = []
    house.stage.listeners.append(lambda event: order.append(type(event).__name__))
    house.reload.foresee(lambda answer: (order.append("Foreseen"), found.append(answer)))
    assert order == []
    house.stage.request("trigger", "j7")
    house.stage.advance(1)
    assert order.index("RunBegan") < order.index("Foreseen")
    (foreseen,) = found
    assert [entry.reload for entry in foreseen.plan.jobs] == ["next_run"] * MANY
    assert list(foreseen.prospects) == [f"j{number}" for number in range(MANY)]


def test_a_long_plan_begins_again_when_another_generation_becomes_active() -> None:
    house, found = house_of_many(), []
    applied: list[Any] = []
    house.reload.ask(applied.append)
    house.reload.foresee(found.append)
    house.stage.advance(1)
    (foreseen,) = found
    assert {entry.reload for entry in foreseen.plan.jobs} == {"keep"}
    assert foreseen.generation == house.stage.engine.generation == 2


def test_a_reload_is_planned_in_turns_and_the_newest_content_is_taken() -> None:
    house, turns = house_of_many(), []

    def turn() -> None:
        """Another callback of the loop, as often as the plan lets it."""
        turns.append(house.stage.engine.generation)
        if len(turns) == 5:
            house.disk = MemoryDisk(files("newest"))
            house.reload.read_now()
        if len(turns) < 20:
            house.stage.clock.call_after(0, turn)

    house.reload.read_now()
    house.stage.clock.call_after(0, turn)
    house.stage.clock.settle()
    assert turns == [1] * 20, "others have their turn while the plan is made"
    house.stage.advance(1)
    assert house.stage.engine.generation == 2
    assert {job.spec.process.command for job in house.stage.engine.jobs.values()} == {"newest"}


def test_two_requests_to_apply_at_once_are_taken_one_after_the_other() -> None:
    house, applied = house_of_many(), []
    for command in ("first", "second"):
        house.disk = MemoryDisk(files(command))
        house.reload.ask(applied.append)
    house.stage.advance(1)
    assert [answer.generation for answer in applied] == [2, 3]
    assert {job.spec.process.command for job in house.stage.engine.jobs.values()} == {"second"}
