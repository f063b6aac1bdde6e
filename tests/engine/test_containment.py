"""A port that raises costs its owner: the other jobs go on. A fault of the engine or the store reaches the loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import reduce
from typing import Any

import pytest

from repeater._lazy_dataclasses import replace
from repeater.engine.facts import Fact, ProbeReported, RunEnded
from repeater.model.events import FaultContained
from repeater.model.spec import Always, Every, Hooks, LoadAware, OnChange, Probe, ProcessSpec
from repeater.ports import LaunchRequest
from repeater.schedule.load_aware import LoadReadings
from repeater.supervisor.faults import SupervisorFault
from repeater.supervisor.probes import Probes
from tests.engine.stage import Stage, job
from tests.fakes.clock import FakeClock
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
    [("prober", "run_probe", "probe", {"web"}), ("watcher", "watch", "watch", {"files"})],
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


@pytest.mark.parametrize(("port", "method"), [("engine", "steps"), ("store", "claim"), ("store", "record")])
def test_a_fault_of_engine_or_store_is_not_contained(port: str, method: str) -> None:
    with pytest.raises(SupervisorFault):
        begin(port, method)


def test_the_same_fault_is_announced_once_a_minute_and_counted() -> None:
    stage, _ = begin("prober", "run_probe")
    stage.advance(300)
    announced = [event for event in stage.events if isinstance(event, FaultContained) and event.owner == "probe"]
    record = next(one for one in stage.supervisor.faults.recent("web") if one.owner == "probe")
    assert record.count > len(announced) >= 2


PROBE = Probe(exec="check", every=seconds(10), timeout=seconds(5), failures=3)
LATE = ProcessSpec(("echo", "{{ run.id | upper }}"), cwd="/", late=("command[1]",))


class Once:
    """Calls `original`, but raises at the first call, or at those for which `when` is true."""

    def __init__(self, original: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> None:
        self._original, self._when = original, when
        self.raised = 0

    def __call__(self, *args: Any, **keys: Any) -> Any:
        if self.raised == 0 and self._when(*args):
            self.raised += 1
            raise ZeroDivisionError("a fault")
        return self._original(*args, **keys)


def owners(stage: Stage) -> set[tuple[str, str]]:
    return {(event.owner, event.job) for event in stage.events if isinstance(event, FaultContained)}


class FailingRenderer:
    """Raises, and answers a second later all the same."""

    def __init__(self) -> None:
        self.late: list[Callable[[], None]] = []

    def render(self, process: ProcessSpec, run: object, then: Callable[[ProcessSpec], None]) -> None:
        self.late.append(lambda: then(process))
        raise ZeroDivisionError("a fault")

    def close(self) -> None:
        pass


def test_an_exception_between_claim_and_launch_fails_the_slot_only() -> None:
    renderer = FailingRenderer()
    stage = Stage({"tick": Act(lasts=seconds(1))}, renderer=renderer)
    stage.apply(job("bad", Every(seconds(10)), process=LATE), job("tick", Every(seconds(10))))
    stage.advance(35)
    for answer in renderer.late:
        answer()
    stage.advance(1)
    assert {row.state for row in stage.rows("bad")} == {"spawn_failed"}
    assert len(stage.rows("bad")) >= 3
    assert "bad" not in {launch.env["RPR_JOB"] for launch in stage.spawner.launches}
    assert len(stage.starts("tick")) >= 3
    assert owners(stage) == {("run", "bad")}


@pytest.mark.parametrize("method", ["signal", "kill_tree"])
def test_a_failed_call_of_the_spawner_is_repeated(method: str) -> None:
    lasts = FOR_EVER if method == "signal" else seconds(5)
    stage = Stage({"web": Act(lasts=lasts, leaves=FOR_EVER, escaped=True)})
    fault = Once(getattr(stage.spawner, method))
    setattr(stage.spawner, method, fault)
    stage.apply(job("web", Every(seconds(600))))
    stage.advance(1)
    stage.request("stop", "web")
    stage.advance(20)
    assert fault.raised == 1
    assert stage.spawner.live == frozenset()
    assert len(stage.rows("web")) == 1
    assert owners(stage) == {("run", "web")}


@pytest.mark.parametrize("port", ["spawner.acknowledge", "spawner.kill_tree", "supervisor._auxiliary._end_hook"])
def test_an_exception_at_the_end_of_a_hook_lets_the_next_one_start(port: str) -> None:
    *path, method = port.split(".")
    started: list[float] = []

    def act(launch: LaunchRequest) -> Act:
        if launch.kind == "hook":
            started.append(stage.now)
            hooks.add(launch.run)
            return Act(lasts=seconds(1), leaves=FOR_EVER)
        return Act(lasts=seconds(1))

    hooks: set[str] = set()
    stage = Stage(act)
    place = reduce(getattr, path, stage)
    fault = Once(getattr(place, method), lambda what: not hooks.isdisjoint([what] if isinstance(what, str) else what))
    setattr(place, method, fault)
    stage.apply(job("tick", Every(seconds(10)), hooks=Hooks(on_success="notify")))
    stage.advance(45)
    assert fault.raised == 1
    assert len(started) == 5
    assert owners(stage) == {("hook", "tick")}
    stage.stop()
    stage.advance(20)
    assert stage.left == [0]


def probed(owner: str, method: str, lasts: timedelta) -> tuple[Stage, Once]:
    """A service whose first `exec` probe lasts so long; the first call of a method for a probe raises, of `take` that
    for its end.
    """
    clock = FakeClock()
    begun: list[str] = []

    def act(launch: LaunchRequest) -> Act:
        is_probe = launch.kind == "probe"
        if is_probe and not begun:
            begun.append(launch.run)
            return Act(lasts=lasts, leaves=FOR_EVER)
        return Act(lasts=seconds(1) if is_probe else FOR_EVER)

    stage = Stage(act, clock=clock)
    probes = Probes(clock, stage.spawner, stage.prober, stage.tell, {})
    ports = replace(stage.supervisor._outside, prober=probes)
    stage.supervisor._outside = stage.supervisor._auxiliary._ports = ports
    place = stage.spawner if owner == "spawner" else probes
    fault = Once(
        getattr(place, method),
        lambda what: isinstance(what, RunEnded) if method == "on_run_fact" else "probe" in str(what),
    )
    setattr(place, method, fault)
    return stage, fault


@pytest.mark.parametrize(
    ("owner", "method", "lasts"),
    [
        ("spawner", "start", 1),
        ("spawner", "acknowledge", 1),
        ("spawner", "kill_tree", 1),
        ("spawner", "kill_tree", 100),
        ("prober", "on_run_fact", 1),
    ],
)
def test_an_exec_probe_gets_an_answer_after_an_exception(owner: str, method: str, lasts: float) -> None:
    stage, fault = probed(owner, method, seconds(lasts))
    answers: list[bool] = []
    tell = stage.supervisor.submit

    def hear(fact: Fact) -> None:
        if isinstance(fact, ProbeReported):
            answers.append(fact.ok)
        tell(fact)

    stage.supervisor.submit = hear  # type: ignore[method-assign]
    stage.apply(job("web", Always(), live=PROBE))
    # The exception of an alarm reaches the event loop, which reports it. The clock of these tests raises it instead.
    with pytest.raises(ZeroDivisionError) if lasts > PROBE.timeout.total_seconds() else nullcontext():
        stage.advance(65)
    stage.advance(65)
    assert fault.raised == 1
    assert len(answers) >= 4
    assert "probe:1" not in stage.spawner.live
    assert answers[-1]
    assert {owner for owner, _ in owners(stage)} == (set() if lasts > 5 else {"probe"})


def test_a_job_continues_at_its_base_when_the_load_cannot_be_read() -> None:
    stage = Stage({"a": Act()})
    stage.load.readings = LoadReadings(cpu=0.99, memory=0.1, load=0.1)
    stage.apply(job("a", LoadAware(base=seconds(10), min=seconds(10), max=seconds(60))))
    stage.advance(100)
    assert stage.starts("a")[-1] - stage.starts("a")[-2] == 60
    stage.load.read = fail  # type: ignore[method-assign]
    stage.advance(100)
    assert stage.starts("a")[-1] - stage.starts("a")[-2] == 10
    assert owners(stage) == {("job", "a")}
