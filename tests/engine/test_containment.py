"""A port that raises costs its owner: the other jobs go on. A fault of the engine or the store reaches the loop."""

from __future__ import annotations

import pytest

from repeater.model.events import FaultContained
from repeater.model.spec import Always, Every, Hooks, OnChange, Probe
from repeater.runtime.faults import SupervisorFault
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds


def fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError("a fault")


def begin(port: str, method: str) -> tuple[Stage, list[FaultContained]]:
    stage = Stage({"tick": Act(lasts=seconds(1)), "web": Act(lasts=FOR_EVER), "files": Act(lasts=seconds(1))})
    setattr(getattr(stage, port), method, fail)
    stage.apply(
        job("tick", Every(seconds(10)), hooks=Hooks(on_success="true")),
        job("web", Always(), ready=Probe(tcp="localhost:1")),
        job("files", OnChange(("*.py",))),
    )
    stage.advance(35)
    return stage, [event for event in stage.events if isinstance(event, FaultContained)]


@pytest.mark.parametrize(
    ("port", "method", "owner", "jobs"),
    [("prober", "ask", "probe", {"web"}), ("watcher", "watch", "watch", {"files"})],
)
def test_a_port_that_raises_costs_its_owner(port: str, method: str, owner: str, jobs: set[str]) -> None:
    stage, faults = begin(port, method)
    assert len(stage.starts("tick")) >= 3
    assert {(event.owner, event.job) for event in faults} == {(owner, name) for name in jobs}
    assert {event.error for event in faults} == {"ZeroDivisionError: a fault"}
    assert [(one.owner, one.job) for one in stage.supervisor.faults.recent()]
    assert stage.supervisor.faults.recent("tick") == []


def test_a_spawner_that_raises_fails_the_slot_and_the_next_is_tried() -> None:
    stage, faults = begin("spawner", "start")
    assert {row.state for row in stage.rows("tick")} == {"spawn_failed"}
    assert len(stage.rows("tick")) >= 3
    assert {event.owner for event in faults} <= {"run", "hook"}


def test_a_listener_that_raises_keeps_no_other_from_hearing() -> None:
    stage = Stage({"tick": Act(lasts=seconds(1))})
    stage.supervisor._listeners = (fail, *stage.supervisor._listeners)
    stage.apply(job("tick", Every(seconds(10))))
    stage.advance(35)
    assert len(stage.starts("tick")) >= 3
    assert {event.owner for event in stage.events if isinstance(event, FaultContained)} == {"listener"}


@pytest.mark.parametrize(("port", "method"), [("engine", "handle"), ("store", "claim"), ("store", "record")])
def test_a_fault_of_engine_or_store_is_not_contained(port: str, method: str) -> None:
    with pytest.raises(SupervisorFault):
        begin(port, method)


def test_the_same_fault_is_announced_once_a_minute_and_counted() -> None:
    stage, _ = begin("prober", "ask")
    stage.advance(300)
    announced = [event for event in stage.events if isinstance(event, FaultContained) and event.owner == "probe"]
    record = next(one for one in stage.supervisor.faults.recent("web") if one.owner == "probe")
    assert record.count > len(announced) >= 2
