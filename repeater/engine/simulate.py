"""The production engine on a virtual clock: it shows what would happen, without starting anything.

The simulated world is simple: a process exists at once, runs for a given time, succeeds, and ends at once when it gets
a signal. Probes succeed, files do not change, and there are no commands. The engine is the one that runs jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import (
    Announce,
    ExitSupervisor,
    KillTree,
    Record,
    RecordStarted,
    SendSignal,
    Start,
    StartProbe,
)
from repeater.engine.engine import Engine
from repeater.engine.facts import Fact, PlanAccepted, ProbeReported, RunEnded, RunStarted, TimePassed
from repeater.model.events import SlotBlocked, Warned
from repeater.model.plugins import NO_PLUGINS, Plugins
from repeater.model.reasons import Reason
from repeater.model.run import INTERIM, Exit, Progress, SlotRecord
from repeater.model.spec import JobFile
from repeater.model.time import Instant, Mono
from repeater.plan.diff import diff
from repeater.plan.graph import wire

DEFAULT_DURATION = timedelta(0)
_SIGNAL_NUMBERS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}


def simulate(  # noqa: PLR0913 - all but three are options
    jobfile: JobFile,
    start: Instant,
    length: timedelta,
    *,
    durations: Mapping[str, timedelta] | None = None,
    seed: int = 0,
    progress: Mapping[str, Progress] | None = None,
    plugins: Plugins = NO_PLUGINS,
    warn: Callable[[str, Reason], None] = lambda _job, _reason: None,
    hold: Callable[[SlotBlocked], object] = lambda _held: None,
) -> Iterator[SlotRecord]:
    """The record of every slot that comes up from `start` until `length` later, by nominal time, then by job.

    `durations` are by job name. Other runs take no time, and services run without an end. A slot that is still open at
    the end has an interim state (`claimed`, `running`, `retrying`) and no `ended`. `warn(job, reason)` gets the
    warnings of the engine, and `hold` the slots that are blocked when they are due. No other process uses the shared
    limits.
    """
    jobfile = replace(jobfile, limits=tuple(replace(limit, shared=False) for limit in jobfile.limits))
    world = SimulatedWorld(jobfile, start, seed, durations or {}, plugins, warn, hold)
    rows = world.run(start.plus(length), progress or {})
    order = {job.name: index for index, job in enumerate(jobfile.jobs)}
    yield from sorted(rows, key=lambda row: (row.nominal, order.get(row.job, -1), row.due))


class SimulatedWorld:
    def __init__(
        self,
        jobfile: JobFile,
        start: Instant,
        seed: int,
        durations: Mapping[str, timedelta],
        plugins: Plugins,
        warn: Callable[[str, Reason], None],
        hold: Callable[[SlotBlocked], object],
    ) -> None:
        self._jobfile = jobfile
        self._plugins = plugins
        self._warn = warn
        self._on_blocked = hold
        self._now = start
        self._durations = durations
        self._engine = Engine(start, seed=seed)
        self._facts: list[tuple[Mono, int, Fact]] = []
        self._order = 0
        self._live: set[str] = set()
        self._rows: dict[tuple[str, str], SlotRecord] = {}
        self._has_exited = False

    def run(self, until: Instant, progress: Mapping[str, Progress]) -> list[SlotRecord]:
        plan = diff({}, self._jobfile.jobs)
        self._handle(PlanAccepted(1, plan, wire(self._jobfile, self._plugins), progress))
        while not self._has_exited:
            due = self._engine.wait(self._now)
            engine_at = None if due is None else Mono(self._now.mono + due)
            world_at = self._facts[0][0] if self._facts else None
            at = min((mono for mono in (engine_at, world_at) if mono is not None), default=None)
            if at is None or at >= until.mono:
                break
            self._now = self._now.at_mono(at)
            if world_at is not None and world_at <= at:
                self._handle(heapq.heappop(self._facts)[2])
            else:
                self._handle(TimePassed())
        return list(self._rows.values())

    def _handle(self, fact: Fact) -> None:
        if isinstance(fact, RunEnded):
            if fact.run not in self._live:
                return
            self._live.discard(fact.run)
        for action in self._engine.handle(fact, self._now):
            match action:
                case Start(run, spec, row):
                    self._live.add(run.id)
                    self._store(row)
                    self._schedule(RunStarted(run.id, 1))
                    if spec.name in self._durations or not spec.is_service:
                        length = self._durations.get(spec.name, self._durations.get(spec.group, DEFAULT_DURATION))
                        self._schedule(RunEnded(run.id, Exit(code=0)), length)
                case SendSignal(run, signal):
                    self._schedule(RunEnded(run, Exit(signal=_SIGNAL_NUMBERS.get(signal, 15))))
                case KillTree(run):
                    self._schedule(RunEnded(run, Exit(signal=9)))
                case Record(row) | RecordStarted(row):
                    self._store(row)
                case StartProbe(job, kind):
                    self._schedule(ProbeReported(job, "live" if kind == "live" else "ready", ok=True))
                case Announce(SlotBlocked() as held):
                    self._on_blocked(held)
                case Announce(Warned(job, reason)):
                    self._warn(job, reason)
                case ExitSupervisor():
                    self._has_exited = True
                case _:
                    pass

    def _schedule(self, fact: Fact, later: timedelta = timedelta(0)) -> None:
        self._order += 1
        heapq.heappush(self._facts, (self._now.plus(later).mono, self._order, fact))

    def _store(self, row: SlotRecord) -> None:
        key = (row.job, row.nominal.isoformat())
        before = self._rows.get(key)
        if row.state in INTERIM and before is not None and before.started is not None:
            return
        self._rows[key] = row
