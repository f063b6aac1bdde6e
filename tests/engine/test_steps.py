"""What follows from one fact is done in steps of bounded work: no step grows with the number of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from repeater.engine import engine as module
from repeater.engine.actions import Action
from repeater.engine.engine import Engine
from repeater.engine.facts import ClockJumped, Fact, JobCommand, PlanAccepted, TimePassed
from repeater.engine.generation import STEP
from repeater.engine.job import Job
from repeater.engine.slot_end import SlotEnd
from repeater.engine.slot_start import SlotStart
from repeater.model.events import Event, GenerationApplied, JobChanged
from repeater.model.spec import Every, JobFile, JobSpec, Manual
from repeater.model.time import Instant
from repeater.plan.diff import diff
from repeater.plan.graph import wire
from tests.engine.stage import Stage, job
from tests.fakes.clock import FakeClock

MANY = 1000
MOST = STEP // 20
"""Jobs that begin, change, end or are started in one step."""
WORK = (
    (Job, "begin"),
    (Job, "update"),
    (Job, "move_clock"),
    (Job, "remove"),
    (SlotStart, "try_start"),
    (SlotEnd, "reject"),
)


def jobs(number: int = MANY, **keys: Any) -> list[JobSpec]:
    return [job(f"j{n}", Every(timedelta(seconds=10)), **keys) for n in range(number)]


def accepted(engine: Engine, specs: list[JobSpec]) -> PlanAccepted:
    before = {name: one.spec for name, one in engine.jobs.items()}
    known = {name: one.node for name, one in engine.jobs.items()}
    file = JobFile(project="p", jobs=tuple(specs))
    return PlanAccepted(engine.generation + 1, diff(before, specs), wire(file, None, known))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of each job of which something was done."""
    done: list[str] = []
    for owner, method in WORK:
        original = getattr(owner, method)

        def counted(self: Any, *args: Any, original: Any = original, **keys: Any) -> Any:
            done.append((self if isinstance(self, Job) else self._job).spec.name)
            return original(self, *args, **keys)

        monkeypatch.setattr(owner, method, counted)
    return done


def worked_off(
    engine: Engine, fact: Fact, now: Instant, work: list[str]
) -> Iterator[tuple[int, list[Action], bool, Engine]]:
    for actions, has_more in engine.steps(fact, now):
        yield len(work), actions, has_more, engine
        work.clear()


@pytest.mark.parametrize("what", ["first", "changed", "removed", "clock", "due"])
def test_a_step_works_on_a_bounded_number_of_jobs(what: str, work: list[str]) -> None:
    clock = FakeClock()
    engine = Engine(clock.now(), keep_alive=True)
    first = accepted(engine, jobs())
    fact: Fact = first
    if what != "first":
        engine.handle(first, clock.now())
        clock.advance(timedelta(seconds=1))
        fact = ClockJumped() if what == "clock" else TimePassed()
    if what == "changed":
        fact = accepted(engine, jobs(description="changed"))
    elif what == "removed":
        fact = accepted(engine, jobs(1))
    elif what == "clock":
        clock.set_wall(clock.now().wall + timedelta(hours=1))
    elif what == "due":
        clock.advance(timedelta(seconds=30))
    work.clear()
    steps = list(worked_off(engine, fact, clock.now(), work))
    counts = [count for count, *_ in steps]
    assert sum(counts) >= MANY - 1
    assert max(counts) <= 3 * MOST, "a late job has two slots decided, and one tried"
    assert max(len(actions) for _, actions, *_ in steps) <= STEP
    assert [has_more for *_, has_more, _ in steps] == [True] * (len(steps) - 1) + [False]


def test_unchanged_jobs_cost_a_reload_little(work: list[str]) -> None:
    clock = FakeClock()
    engine = Engine(clock.now(), keep_alive=True)
    engine.handle(accepted(engine, jobs()), clock.now())
    specs = [*jobs(), job("new", Manual())]
    specs[:MANY] = [engine.jobs[spec.name].spec for spec in specs[:MANY]]
    work.clear()
    steps = list(engine.steps(accepted(engine, specs), clock.now()))
    assert work == ["new"]
    assert MANY // STEP < len(steps) < 30


@pytest.mark.parametrize("what", ["generation", "clock"])
def test_no_action_follows_from_a_change_before_all_of_it_was_taken(what: str) -> None:
    clock = FakeClock()
    engine = Engine(clock.now(), keep_alive=True)
    engine.handle(accepted(engine, jobs()), clock.now())
    fact: Fact = accepted(engine, jobs(description="changed"))
    if what == "clock":
        clock.set_wall(clock.now().wall + timedelta(hours=1))
        fact = ClockJumped()
    seen = [(engine.is_changing, engine.generation, bool(actions)) for actions, _ in engine.steps(fact, clock.now())]
    during = [(generation, has_actions) for changing, generation, has_actions in seen if changing]
    after = [generation for changing, generation, _ in seen if not changing]
    assert len(during) > MANY // STEP
    assert set(during) == {(1, False)}
    assert set(after) == {2 if what == "generation" else 1}


def test_steps_give_the_actions_of_one_big_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def life() -> list[Action]:
        clock = FakeClock()
        engine = Engine(clock.now(), keep_alive=True, seed=3)
        actions = engine.handle(accepted(engine, jobs(100)), clock.now())
        clock.advance(timedelta(seconds=15))
        actions += engine.handle(TimePassed(), clock.now())
        clock.set_wall(clock.now().wall + timedelta(hours=1))
        actions += engine.handle(ClockJumped(), clock.now())
        changed = [*jobs(50, description="changed"), job("new", Manual())]
        return actions + engine.handle(accepted(engine, changed), clock.now())

    small = life()
    monkeypatch.setattr(module, "STEP", 10**9)
    assert small == life()
    assert len(small) > 300


def test_a_fact_that_arrives_during_a_reload_is_handled_after_it() -> None:
    stage = Stage()
    stage.apply(*jobs())
    stage.clock.settle()
    order: list[str] = []

    def heard(event: Event) -> None:
        if isinstance(event, GenerationApplied | JobChanged) or type(event).__name__ == "RunBegan":
            order.append(type(event).__name__)

    stage.listeners.append(heard)
    others: list[bool] = []

    def look() -> None:
        others.append(stage.engine.is_changing)
        if len(others) == 5:
            stage.tell(JobCommand("trigger", "j7", force=True))
        if stage.supervisor.is_working:
            stage.clock.call_after(0, look)

    stage.tell(accepted(stage.engine, jobs(description="changed")))
    stage.clock.call_after(0, look)
    stage.clock.settle()
    assert others.count(True) > MANY // STEP, "others have their turn between two steps"
    assert order.index("GenerationApplied") < order.index("RunBegan")
    assert order.count("JobChanged") == MANY
    assert stage.engine.jobs["j7"].spec.description == "changed"


def test_a_clock_step_while_jobs_wait_is_taken_before_the_next_fact() -> None:
    stage = Stage()
    stage.apply(*jobs())
    stage.advance(5)
    stage.clock.set_wall(stage.clock.now().wall + timedelta(hours=1))
    stage.request("trigger", "j7")
    stage.advance(1)
    offsets = {one.next.due for one in stage.engine.jobs.values() if one.next is not None}
    assert min(offsets) > stage.clock.now().wall
    assert len(stage.starts("j7")) >= 1
