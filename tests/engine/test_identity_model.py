"""Several jobs over random edits, renames, removals, returns, crashes, restarts and clock steps, compared with a model.

Among the jobs are one with retries and one that runs at least once. A rename may take the name of a removed job, and a
crash may come between the start of a generation and its renames.

The model knows each job by a number. The name of a job may change, its number does not: state, history and live runs
follow the number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.engine.job import Job
from repeater.engine.job_states import State
from repeater.engine.preview import foresee
from repeater.errors import ApplyRefused
from repeater.model.run import INTERIM, Exit, SlotRecord
from repeater.model.spec import (
    Always,
    Backoff,
    Cron,
    Every,
    Jitter,
    JobFile,
    JobSpec,
    Manual,
    Once,
    Overlap,
    Retry,
    ScheduleSpec,
    Stop,
)
from repeater.plan.diff import diff
from repeater.plan.graph import wire
from repeater.supervisor.reload import guard_renames
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

RETRY = Retry(attempts=3, backoff=Backoff("fixed", base=seconds(4)))
KINDS: list[tuple[ScheduleSpec, dict[str, Any]]] = [
    (Every(seconds(7)), {}),
    (Every(seconds(5), jitter=Jitter(span=seconds(3))), {"overlap": Overlap("queue", queue_max=2)}),
    (Every(seconds(11), immediate=False), {"stop": Stop(times=3)}),
    (Cron("* * * * *"), {}),
    (Always(), {}),
    (Once(), {}),
    (Manual(), {}),
    (Every(seconds(9), offset=seconds(4)), {"cell": (("x", "1"), ("y", "u"))}),
    (Manual(), {"cell": (("x", "2"), ("y", "u"))}),
    (Every(seconds(25)), {"retry": RETRY}),
    (Every(seconds(13)), {"delivery": "at-least-once"}),
]
"""The schedule and further keys of each job. Jobs with a cell belong to one matrix."""
CELLS = tuple(number for number, (_, keys) in enumerate(KINDS) if "cell" in keys)
JOBS = st.integers(0, len(KINDS) - 1)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([
            "rename", "rename", "rename back", "rename onto", "edit", "retime", "remove", "return", "return renamed", "turn axes", "trigger", "pause",
            "resume", "crash", "keep", "crash renamed", "keep renamed", "crash onto", "keep onto", "crash amid rename", "clock",
            "wait", "displace", "displace crash", "displace keep",
        ]),
        JOBS,
        st.integers(0, 40),
    ),
    min_size=2,
    max_size=10,
)  # fmt: skip


@dataclass
class Known:
    """What the model knows of one job. `nominal` is a time of its schedule from which on no slot may be lost. `foreign` are the
    nominal times and runs of a removed job that had its name.
    """

    name: str
    schedule: ScheduleSpec
    moved_from: str | None = None
    edits: int = 0
    is_there: bool = True
    is_new: bool = True
    nominal: datetime | None = None
    foreign: set[tuple[datetime, str | None]] = field(default_factory=set)
    cursor: datetime | None = None


class Model:
    """The jobs, a stage, and what was seen of both so far."""

    def __init__(self, lasts: int) -> None:
        def act(launch: Any) -> Act:
            kind = launch.env["RPR_JOB"][0]
            fails = kind == "f" and int(launch.env["RPR_ATTEMPT"]) < self.fails
            return Act(lasts=FOR_EVER if kind == "s" else seconds(lasts), exit=Exit(code=int(fails)))

        self.stage = Stage(act)
        self.fails, self.lives = 3, 0
        self.is_set = self.was_set = False
        self.names = 0
        self.is_turned = False
        self.jobs = [Known("", schedule) for schedule, _ in KINDS]
        for number, known in enumerate(self.jobs):
            known.name = self.fresh(number)

    def fresh(self, number: int) -> str:
        """A name that no job had before; the name of the matrix for a cell."""
        if number in CELLS and self.jobs[CELLS[0]].name and number != CELLS[0]:
            return self.jobs[CELLS[0]].name
        self.names += 1
        schedule, keys = KINDS[number]
        return f"{'s' if isinstance(schedule, Always) else 'f' if 'retry' in keys else 'j'}{self.names}"

    def full_name(self, number: int) -> str:
        return self.spec(number).name

    def spec(self, number: int) -> JobSpec:
        known, keys = self.jobs[number], dict(KINDS[number][1])
        keys |= {"description": str(known.edits)}
        if number not in CELLS:
            return job(known.name, known.schedule, moved_from=known.moved_from, **keys)
        axes = tuple(reversed(keys.pop("cell"))) if self.is_turned else keys.pop("cell")
        cell = ",".join("=".join(axis) for axis in axes)
        moved = None if known.moved_from is None else f"{known.moved_from}[{cell}]"
        spec = job(f"{known.name}[{cell}]", known.schedule, moved_from=moved, **keys)
        return replace(spec, group=known.name, cell=axes)

    def specs(self) -> list[JobSpec]:
        return [self.spec(number) for number, known in enumerate(self.jobs) if known.is_there]

    # --- steps ---

    def step(self, step: str, number: int) -> None:
        self.is_set = False
        known = self.jobs[number]
        family = CELLS if number in CELLS else (number,)
        verb, _, more = step.partition(" ")
        if more == "amid rename":
            if all(self.jobs[one].is_there for one in family):
                self.rename(family, back=False)
            self.stage.store.begin(self.stage.engine.generation + 1, json.dumps([one.name for one in self.specs()]))
        if verb == "displace":
            number = self.remove_during_a_run(number)
            verb, more = more, "onto"
        if verb in ("crash", "keep"):
            self.lives += 1  # the seed: two lives never make the same run id, also if the clock is set back
            again = self.stage.kept if verb == "keep" else self.stage.again
            self.stage = again(**{"away" if verb == "keep" else "after": 3}, seed=self.lives)
        if more == "onto":
            self.take_name(number)
        elif verb == "rename" or more == "renamed":
            if verb == "return" or all(self.jobs[one].is_there for one in family):
                self.rename(family, back=more == "back")
            verb = "return" if verb == "return" else ""
        if verb == "return":
            for one in family:
                self.jobs[one].is_there = True
        elif verb == "remove":
            for one in family:
                self.jobs[one].is_there, self.jobs[one].nominal = False, None
        elif verb == "edit":
            known.edits += 1
        elif verb == "clock":
            self.set_clock(number)
        elif verb == "turn" and self.jobs[CELLS[0]].is_there:
            self.is_turned = not self.is_turned
        elif verb == "retime" and isinstance(known.schedule, Every):
            known.schedule = replace(known.schedule, every=known.schedule.every + seconds(2))
            known.nominal = None
        elif verb in ("trigger", "pause", "resume") and known.is_there:
            self.stage.request(verb, self.full_name(number))
        self.apply()

    def set_clock(self, number: int) -> None:
        """Times of `every` are named by the new clock from now on."""
        clock = self.stage.clock
        clock.set_wall(clock.now().wall + seconds((number - 4) * 9))
        for known in self.jobs:
            if isinstance(known.schedule, Every):
                known.nominal = None
        self.was_set = self.is_set = True

    def rename(self, family: tuple[int, ...], *, back: bool) -> None:
        former, before = self.jobs[family[0]].name, self.jobs[family[0]].moved_from
        name = before if back and before is not None else self.fresh(family[0])
        for one in family:
            known = self.jobs[one]
            # a second rename before an apply of the first does not happen: each step applies
            known.name, known.moved_from = name, former

    def take_name(self, number: int) -> None:
        """A job takes the name of a removed job, which is forgotten: if it returns, it is a new job.

        A running supervisor refuses that while a run of the removed job is live.
        """
        known, engine = self.jobs[number], self.stage.engine
        if number in CELLS or not known.is_there:
            return
        for at, other in enumerate(self.jobs):
            is_free = at not in CELLS and not other.is_there
            if is_free and other.name[0] == known.name[0]:
                if engine.find_gone(other.name) is not None:
                    renamed = replace(self.spec(number), name=other.name, moved_from=known.name)
                    with pytest.raises(ApplyRefused):
                        guard_renames(engine, [one for one in self.specs() if one.name != known.name] + [renamed])
                    continue
                kept = {(row.nominal, row.run) for row in self.rows(known.name)}
                times = {nominal for nominal, _ in kept}
                rows = {(row.nominal, row.run) for row in self.rows(other.name)}
                known.foreign |= {(nominal, run) for nominal, run in rows if nominal not in times}
                known.name, known.moved_from = other.name, known.name
                other.name, other.moved_from, other.foreign = self.fresh(at), None, set()
                other.cursor = other.nominal = None
                other.is_new = True
                return

    def remove_during_a_run(self, number: int) -> int:
        """Removes a job that has just begun a run, and returns a job that can take its name."""
        known = self.jobs[number]
        if number in CELLS or not known.is_there:
            return number
        self.stage.request("trigger", known.name)
        known.is_there, known.nominal = False, None
        self.apply()
        others = [at for at, other in enumerate(self.jobs) if other.is_there and other.name[0] == known.name[0]]
        return others[0] if others else number

    def rows(self, name: str) -> list[SlotRecord]:
        return list(self.stage.store.find_records([name], most=100_000))

    def apply(self) -> None:
        self.stage.apply(*self.specs())
        self.look()

    # --- laws ---

    def look(self) -> None:
        """Notes which slots are owed from now on."""
        for number, known in enumerate(self.jobs):
            found = self.stage.engine.jobs.get(self.full_name(number)) if known.is_there else None
            if found is None or found.progress.done is not None:
                known.nominal = None
            elif self.is_set and isinstance(known.schedule, Every):
                known.nominal = None  # the slot that is waited for gets its new name later
            elif known.nominal is None and found.next is not None and isinstance(known.schedule, Every | Cron):
                known.nominal = found.next.nominal

    def check(self) -> None:
        rows: dict[str, list[SlotRecord]] = {}
        for row in self.stage.store.find_records(most=100_000):
            rows.setdefault(row.job, []).append(row)
        assert set(rows) <= {self.full_name(number) for number in range(len(self.jobs))}
        runs = [row.run for found in rows.values() for row in found if row.run is not None]
        assert len(runs) == len(set(runs))
        attempts = [row.run for row in self.stage.store.table.values() if row.attempts]
        assert len(attempts) == len(set(attempts))
        for number, known in enumerate(self.jobs):
            self.check_job(number, known, rows.get(self.full_name(number), []))

    def check_job(self, number: int, known: Known, rows: list[SlotRecord]) -> None:
        engine, name = self.stage.engine, self.full_name(number)
        rows = [row for row in rows if (row.nominal, row.run) not in known.foreign]
        known.is_new = known.is_new and not known.is_there
        if known.is_new:
            assert rows == []
            return
        found = engine.jobs.get(name) or engine.find_gone(name)
        progress = found.progress if found is not None else engine.remembered(name)
        begun = [row for row in rows if row.attempts]
        assert len(rows) == len({row.nominal for row in rows}), name
        spec = self.spec(number)
        if spec.delivery != "at-least-once":
            assert all(row.attempts <= spec.retry.attempts for row in rows), name
        assert known.is_there == (name in engine.jobs)
        assert progress is not None
        assert (progress.job, progress.runs) == (name, len(begun))
        assert progress.successes == len([row for row in rows if row.state == "succeeded"])
        assert progress.failures == len([row for row in rows if row.state == "failed"])
        if found is not None:
            live = {held.slot.nominal for held in found.open if held.attempts}
            assert {row.nominal for row in rows if row.state in INTERIM} == live, name
        if isinstance(known.schedule, Cron):
            assert known.cursor is None or (progress.cursor is not None and progress.cursor >= known.cursor), name
            known.cursor = progress.cursor
        if known.nominal is not None and found is not None:
            self.check_slots(known, found, rows)

    def check_slots(self, known: Known, found: Job, rows: list[SlotRecord]) -> None:
        """Each time of the schedule that has come has a row, or is open, or waits."""
        step = known.schedule.every if isinstance(known.schedule, Every) else timedelta(minutes=1)
        covered = {row.nominal for row in rows} | {held.slot.nominal for held in found.open}
        covered |= {slot.nominal for slot in found.pending}
        if found.next is not None:
            covered.add(found.next.nominal)
        nominal, now = known.nominal, self.stage.clock.now().wall
        assert nominal is not None
        ends = found.progress.done is not None or found.state is State.FINISHING
        if ends and self.was_set:
            known.nominal = None  # times of its rows are those of several clocks
            return
        last = max((row.nominal for row in rows), default=nominal)
        until = last if ends else now
        while nominal <= until:
            assert nominal in covered, (found.spec.name, nominal)
            nominal += step
        known.nominal = None if found.progress.done is not None else nominal

    def check_plan_of_the_same_file(self) -> None:
        """Whatever ran meanwhile: the file in force changes nothing."""
        engine, specs = self.stage.engine, self.specs()
        plan = diff({name: one.spec for name, one in engine.jobs.items()}, specs, engine.removed)
        assert {entry.reload for entry in plan.jobs} <= {"keep"}
        graph = wire(JobFile("test", tuple(specs)), known={name: one.node for name, one in engine.jobs.items()})
        found = foresee(engine, plan.jobs, graph, self.stage.clock.now())
        assert all(one.old == one.new and not one.returns for one in found.values())


@pytest.mark.all
@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.integers(0, 12))
def test_state_history_and_live_runs_follow_each_job(steps: list[tuple[str, int, int]], lasts: int) -> None:
    model = Model(lasts)
    model.apply()
    model.check()
    for step, number, wait in steps:
        model.step(step, number)
        model.check()
        model.stage.advance(wait)
        model.check()
        model.check_plan_of_the_same_file()
