"""A stage for the engine: the real supervisor and engine, fake ports, virtual time.

stage = Stage({"a": Act(lasts=seconds(3))})
stage.apply(job("a", Every(seconds(10))))
stage.advance(30)
assert stage.history("a") == ["ran 0s", "ran 10s", ...]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from repeater._lazy_dataclasses import replace
from repeater.engine.engine import Engine
from repeater.engine.facts import Fact, JobCommand, PlanAccepted, ProbeReported, StopRequested
from repeater.model.events import Event
from repeater.model.plugins import NO_PLUGINS, Plugins
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import INTERIM, LimitedStart, RunKind, SlotRecord
from repeater.model.spec import JobFile, JobSpec, Limit, Pool, Probe, ProcessSpec, ScheduleSpec
from repeater.plan.diff import Plan, diff
from repeater.plan.graph import wire
from repeater.ports import RunTemplateRenderer
from repeater.supervisor.driven_ports import Ports
from repeater.supervisor.recent_starts import needs_starts, recent_limited_starts
from repeater.supervisor.renames import follow_renames
from repeater.supervisor.sinks.push_back import PushBackDetector
from repeater.supervisor.supervisor import Supervisor
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.rate_limiter import FakeDaemon, FakeQuota
from tests.fakes.sink import FakeSink
from tests.fakes.spawn import FakeSpawner, Script
from tests.fakes.store import FakeStore
from tests.fakes.system_load import FakeLoad
from tests.fakes.text import text_of
from tests.fakes.watcher import FakeWatcher


def job(name: str, schedule: ScheduleSpec | None = None, **keys: Any) -> JobSpec:
    """A spec with everything else at its default."""
    spec = JobSpec(name=name, group=name, process=ProcessSpec(command=("true",), cwd="/"))
    return replace(spec, **({"schedule": schedule} if schedule is not None else {}), **keys)


class FakeOutputs(FakeSink):
    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        pass


class FakeProber:
    """Probes answer what `health` says for a job: True unless set."""

    def __init__(self, tell: Callable[[Fact], None]) -> None:
        self.health: dict[str, bool] = {}
        self._tell = tell

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None:
        self._tell(ProbeReported(job, "live" if kind == "live" else "ready", *_answer(self.health.get(job, True))))

    def on_run_fact(self, fact: Fact) -> None:
        pass

    def close(self) -> None:
        pass


def _answer(ok: bool) -> tuple[bool, Reason | None]:
    return ok, None if ok else because("probe_failed", error="fake")


class Stage:
    """One life of a supervisor. `again()` is the next life on the same store and the same clock."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        clock: FakeClock | None = None,
        store: FakeStore | None = None,
        keep_alive: bool = True,
        seed: int = 0,
        daemon: FakeDaemon | None = None,
        plugins: Plugins = NO_PLUGINS,
        renderer: RunTemplateRenderer | None = None,
        keeper: FakeSpawner | None = None,
    ) -> None:
        self.plugins = plugins
        self.clock = clock or FakeClock()
        self.store = store or FakeStore(self.clock.call_soon)
        self.script = script if script is not None else {}
        self.sink = FakeOutputs()
        outputs = PushBackDetector(self.sink, self.clock, self.tell)
        if keeper is None:
            self.spawner = FakeSpawner(self.clock, self.tell, outputs, self.script)
        else:
            self.spawner = keeper
            self.spawner.outlive(self.tell, outputs)
        self.watcher = FakeWatcher(lambda key, paths: self.supervisor.paths_changed(key, paths))  # noqa: PLW0108 - made later
        self.prober = FakeProber(self.tell)
        self.load = FakeLoad()
        self.events: list[Event] = []
        self.listeners: list[Callable[[Event], object]] = []
        self.left: list[int] = []
        self.engine = Engine(self.clock.now(), seed=seed, keep_alive=keep_alive, boot=self.clock.boot())
        self.quota = FakeQuota(daemon or FakeDaemon(self.clock), self.tell)
        outside = Ports(
            self.clock,
            self.spawner,
            self.store,
            self.watcher,
            outputs,
            self.prober,
            self.load,
            self.quota,
            {"PATH": "/bin"},
            plugins,
            renderer,
        )
        self.supervisor = Supervisor(self.engine, outside, self.left.append, [self.events.append, self._listen])
        self._remembered = self.store.load()
        self._generation = self._remembered.generation
        self._active = json.loads(self.store.document or "[]")

    @property
    def now(self) -> float:
        """Seconds from the start of the clock."""
        return (self.clock.now().wall - EPOCH).total_seconds()

    def _listen(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def tell(self, fact: Fact) -> None:
        self.supervisor.submit(fact)

    def apply(
        self,
        *jobs: JobSpec,
        pools: tuple[Pool, ...] = (),
        limits: tuple[Limit, ...] = (),
        stale: frozenset[str] = frozenset(),
    ) -> Plan:
        """Bring these jobs into force, as the first generation or as a reload."""
        removed = self.engine.removed if self.engine.jobs else ()
        plan = diff({name: job.spec for name, job in self.engine.jobs.items()}, jobs, removed)
        self._generation += 1
        self.store.begin(self._generation, json.dumps([job.name for job in jobs]))
        first = not self.engine.jobs
        if first:
            self._remembered = follow_renames(self._remembered, jobs, self.store, self._active, self.clock.now().wall)
        jobfile = JobFile("test", tuple(jobs), pools, limits)
        self.tell(
            PlanAccepted(
                self._generation,
                plan,
                wire(jobfile, self.plugins, {name: job.node for name, job in self.engine.jobs.items()}),
                self._remembered.progress if first else {},
                self._remembered.open_rows if first else (),
                self._starts(jobfile, plan),
                self.spawner.surviving_runs() if first else {},
                stale,
            )
        )
        self.clock.settle()
        return plan

    def _starts(self, jobfile: JobFile, plan: Plan) -> tuple[LimitedStart, ...]:
        graph = self.engine.graph
        if graph is not None:
            before = [job.spec for job in self.engine.jobs.values()]
            if not needs_starts(before, graph.limits.values(), jobfile.jobs, jobfile.limits):
                return ()
        former = {entry.job: entry.moved_from for entry in plan.jobs if graph and entry.moved_from}
        now, boot = self.clock.now(), self.clock.boot()
        return recent_limited_starts(jobfile.jobs, jobfile.limits, self.store, now, boot, former)

    def advance(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def request(self, verb: Any, name: str, *, force: bool = False) -> None:
        self.tell(JobCommand(verb, name, force))
        self.clock.settle()

    def stop(self, level: Any = "drain") -> None:
        self.tell(StopRequested(level))
        self.clock.settle()

    def again(self, script: Script | None = None, *, after: float = 0.0, **keys: Any) -> Stage:
        """The supervisor is gone without a word; a new one begins `after` seconds later."""
        self.spawner.close()
        self.supervisor.close()
        self.clock.stall(timedelta(seconds=after))
        store = self.store.reopened(self.clock.call_soon)
        return Stage(self.script if script is None else script, clock=self.clock, store=store, **keys)

    def kept(self, *, away: float = 0.0, **keys: Any) -> Stage:
        """The same, but a keeper looked after the runs for the `away` seconds until a new one began."""
        self.supervisor.close()
        self.spawner.outlive(lambda _: None, FakeSink())
        self.advance(away)
        store = self.store.reopened(self.clock.call_soon)
        return Stage(self.script, clock=self.clock, store=store, keeper=self.spawner, **keys)

    def rows(self, name: str | None = None) -> list[SlotRecord]:
        """Decided slots, oldest first."""
        rows = [
            row for row in self.store.find_records(most=100_000) if name in (None, row.job) and row.state not in INTERIM
        ]
        return sorted(rows, key=lambda row: (row.nominal, row.job))

    def history(self, name: str) -> list[str]:
        """`state(reason) @seconds` of each decided slot, seconds from the start of the clock to nominal."""
        return [f"{_say(row)} @{_offset(row.nominal)}" for row in self.rows(name)]

    def starts(self, name: str) -> list[float]:
        """When each decided slot began, in seconds from the start of the clock."""
        return [_offset(row.started) for row in self.rows(name) if row.started is not None]


def _offset(wall: datetime) -> float:
    seconds = (wall - EPOCH).total_seconds()
    return int(seconds) if seconds == int(seconds) else seconds


def _say(row: SlotRecord) -> str:
    if row.state == "succeeded" or row.reason is None:
        return "ran" if row.state == "succeeded" else row.state
    return f"{row.state}({text_of(row.reason)})"
