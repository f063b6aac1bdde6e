"""The engine: facts and one reading of the clocks in, actions out.

    engine.handle(fact, now) -> actions      engine.wait(now) -> microseconds
    engine.steps(fact, now) -> the same actions, in bounded pieces

It never reads a clock, sleeps, or does IO: the supervisor drives it for real, `simulate` on a virtual clock, and both
get the same decisions for the same facts. The same facts and the same seed give the same actions, to the last run id.
Here are only the roads from a fact to the job that it concerns, and what concerns all jobs: coming into force, edges
that trigger, leaving. What happens to one job is `engine.job`, to one attempt `engine.attempt`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import assert_never

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Action, ExitSupervisor, Record, RenameJob, WatchPaths
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.admission import AdmissionControl, fires
from repeater.engine.clock_step import is_same_boot, offset_of
from repeater.engine.context import Context
from repeater.engine.facts import (
    ClockJumped,
    Fact,
    JobCommand,
    LoadRead,
    PathsChanged,
    PlanAccepted,
    ProbeReported,
    PushedBack,
    QuotaWarned,
    RateLimiterDown,
    RateLimiterUp,
    RunEnded,
    RunExited,
    RunLost,
    RunStarted,
    SharedLimitGranted,
    SharedLimitQueued,
    SpawnFailed,
    StopRequested,
    SurvivingRun,
    TimePassed,
)
from repeater.engine.job import Job
from repeater.engine.job_states import TAKES_SLOTS, State
from repeater.engine.probe_monitor import ProbeMonitor
from repeater.engine.timers import Timer
from repeater.model.events import Draining, GenerationApplied, JobAdded, JobChanged, JobRemoved, SlotDecided, Warned
from repeater.model.reasons import PAUSED, REMOVED, REQUESTED, STOPPED, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Progress, SlotRecord
from repeater.model.spec import JobSpec, OnChange
from repeater.model.time import Instant
from repeater.plan.diff import JobPlan, effects
from repeater.plan.graph import Graph, Node

_DEADLINES = ("time_passed", "instant_reached")
_DEFINITION_CHANGED = Reason("definition_changed")
_SUPERVISOR_GONE = Reason("supervisor_gone")
_FILES_CHANGED = Reason("files_changed")
_NOT_ALIVE = Reason("not_alive")
STEP = 400
"""Units of work in one step: a job that a new generation leaves unchanged is one."""
_CHANGED = 20
"""Units of a job that begins, changes, ends, or is moved with the clock."""
_WOKEN = 20
"""Units of one wake of the timeline, most of which start a run."""
_ACTION = 6
"""Units of one action that is to be carried out."""
_LONGEST_DEBOUNCE = 10
"""A burst of changes that never ends is answered after this many debounce times."""


class Engine:
    """`seed` makes its random choices repeatable. With `keep_alive` it never asks to leave by itself."""

    def __init__(self, now: Instant, *, seed: int = 0, keep_alive: bool = False, boot: str = "") -> None:
        self._context = Context(now, seed, boot)
        self._keep_alive = keep_alive
        self._leaving: str | None = None
        self._left = False
        self._is_new = True
        self._generation = 0
        self._changing = False
        self._stays: Job | None = None
        self._graph: Graph | None = None
        self._dependents: dict[str, list[str]] = {}
        self._needed_by: dict[str, list[str]] = {}
        self._probes: dict[str, tuple[ProbeMonitor, ProbeMonitor]] = {}
        self._moved: dict[str, str] = {}
        self._changes: dict[str, tuple[Timer, Instant]] = {}
        self._gone: list[Job] = []
        self._remembered: dict[str, Progress] = {}
        self.jobs: dict[str, Job] = {}
        self.board = AdmissionControl(self._context, self.jobs)

    @property
    def offset(self) -> int:
        """The wall time minus the monotonic reading, in microseconds, that distances are written with."""
        return self._context.offset

    @property
    def generation(self) -> int:
        """The last generation that was taken as a whole."""
        return self._generation

    @property
    def is_changing(self) -> bool:
        """Whether a generation, or a step of the clock, was taken for some jobs only: what is read now is not true."""
        return self._changing

    @property
    def seed(self) -> int:
        """What makes its random choices repeatable."""
        return self._context.seed

    @property
    def graph(self) -> Graph | None:
        """The graph of the active generation, None before the first."""
        return self._graph

    def remembered(self, name: str) -> Progress | None:
        """What is known of a job that is not active, such as one that was removed."""
        return self._remembered.get(name)

    @property
    def removed(self) -> Collection[str]:
        """The names of jobs that are not active, but have a state: they were removed."""
        return self._remembered.keys() - self.jobs.keys()

    def going(self, name: str) -> Job | None:
        """The job of this name that was removed while a run of it is still live."""
        return next((job for job in self._gone if job.spec.name == name and job.open), None)

    def wait(self, now: Instant) -> int | None:
        """Microseconds until TimePassed is wanted, if nothing else happens before: 0 if it is now, None for never."""
        return self._context.timeline.wait(now)

    def handle(self, fact: Fact, now: Instant) -> list[Action]:
        """Everything that follows from one fact at one instant, in the order in which it has to be done."""
        return [action for actions, _ in self.steps(fact, now) for action in actions]

    def steps(self, fact: Fact, now: Instant) -> Iterator[tuple[list[Action], bool]]:
        """The same in steps of bounded work: the next actions, and whether there are more steps. No other fact may be
        handled before the last step. A generation gives no action before all of it was taken.
        """
        self._context.now = now
        if isinstance(fact, PlanAccepted | ClockJumped):
            self._changing = True
            for _ in self._accept(fact) if isinstance(fact, PlanAccepted) else self._move_clock():
                yield [], True
            self._changing = False
            self._generation = self._context.generation
        else:
            self._take(fact)
        self._settle()
        woken = 0
        while (wake := self._context.timeline.pop_due(now)) is not None:
            if not wake.cancelled:
                if woken >= STEP:
                    woken = 0
                    yield from ((piece, True) for piece in self._new_actions())
                wake.call(now)
                self._settle()
                woken += _WOKEN
        self._exit_if_drained()
        *pieces, last = self._new_actions()
        yield from ((piece, True) for piece in pieces)
        yield last, False

    def _new_actions(self) -> list[list[Action]]:
        """What has to be done by now, in pieces; one at least."""
        actions, self._context.actions = self._context.actions, []
        most = STEP // _ACTION
        if len(actions) <= most:
            return [actions]
        return [actions[first : first + most] for first in range(0, len(actions), most)]

    def _take(self, fact: Fact) -> None:
        match fact:  # what every run brings comes first
            case RunStarted() | RunEnded() | RunExited() | RunLost() | SpawnFailed() | PushedBack():
                if fact.run in self.board.runs:
                    self._take_of_run(fact, *self.board.runs[fact.run])
            case TimePassed():
                pass  # what is due follows from the reading that came with the fact
            case SharedLimitGranted() | SharedLimitQueued() | RateLimiterDown() | RateLimiterUp() | QuotaWarned():
                self.board.limits.sharing.take(fact)
            case LoadRead(name, readings):
                if name in self.jobs:
                    self.jobs[name].load_read(readings)
            case PathsChanged(name):
                self._paths_changed(name)
            case ProbeReported(name, kind, ok, reason):
                self._probe_reported(name, kind == "live", ok, reason)
            case JobCommand():
                self._requested(fact)
            case StopRequested(level):
                self._stop(level)
            case PlanAccepted() | ClockJumped():
                raise AssertionError("is taken in steps")
            case _:
                assert_never(fact)

    def _take_of_run(
        self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed | PushedBack, job: Job, held: ActiveSlot
    ) -> None:
        match fact:
            case RunStarted():
                now, at = self._context.now, fact.at
                job.outcome.run_started(held, fact.pid, now if at is None or at >= now.mono else now.at_mono(at))
                self._begin_probes(job, fact.run)
            case RunEnded():
                job.outcome.run_ended(held, fact)
                self._stop_probes(job)
            case RunExited(_, exit_):
                job.outcome.run_exited(held, exit_)
                self._stop_probes(job)
            case RunLost(_, reason):
                job.outcome.run_lost(held, reason)
                self._stop_probes(job)
            case SpawnFailed(_, reason, temporary, taken, exit_code):
                if taken:
                    job.outcome.slot_taken(held)
                else:
                    job.outcome.spawn_failed(held, reason, exit_code, temporary=temporary)
            case PushedBack(_, found, unreadable):
                job.outcome.pushed_back(held, found, unreadable)

    def _move_clock(self) -> Iterator[None]:
        context = self._context
        former, context.offset = context.offset, offset_of(context.now, [context.offset])
        step = context.offset - former
        for number, job in enumerate((*self.jobs.values(), *self._gone), 1):
            job.move_clock(step)
            if number % (STEP // _CHANGED) == 0:
                yield
        self._notify_dependents()

    def _avoid_former_times(self, former: Iterable[Progress]) -> None:
        """Where the clock was set back while no supervisor ran, no new nominal time may equal a former one."""
        context = self._context
        clocks = {
            progress.clock
            for progress in former
            if progress.clock is not None and is_same_boot(progress, context.now, context.boot)
        }
        context.offset = offset_of(context.now, clocks)

    def clock_behind(self, now: datetime) -> Reason | None:
        """Why jobs wait although their schedules name a time; None if none waits. A slot is decided only once."""
        waits = ((job.waits_for_clock(now), name) for name, job in self.jobs.items())
        waiting = [(cursor, name) for cursor, name in waits if cursor is not None]
        if not waiting:
            return None
        until, name = max(waiting)
        return because("clock_behind", job=name, jobs=len(waiting), until=until)

    def _notify_dependents(self) -> None:
        reason = self.clock_behind(self._context.now.wall)
        if reason is not None:
            self._context.emit_event(Warned("", reason))

    # --- a new generation --------------------------------------------------------------------------------------

    def _accept_limits(self, fact: PlanAccepted, moves: Mapping[str, str], *, is_first: bool) -> Iterator[None]:
        """Open slots get their places in the limits of the new generation, before any other slot can take them."""
        limits, nodes = self.board.limits, fact.graph.nodes
        for old, new in moves.items():
            limits.move(old, new)
        slots: list[tuple[ActiveSlot, JobSpec | None]] = []
        for job in (*self.jobs.values(), *self._gone):
            if not job.open:
                continue
            former = job.spec.name
            is_gone = self.jobs.get(former) is not job
            returns = former in moves and (not is_gone or former not in self.jobs)
            name = moves[former] if returns else former
            node = None if is_gone and not returns else nodes.get(name)
            for held in job.open:
                limits.rename(held, former, name)
                slots.append((held, None if node is None else node.spec))
        starting = {held.attempt.run.id for held, spec in slots if spec and held.attempt and held.attempt.is_starting}
        yield
        specs = [node.spec for node in fact.graph]
        yield from limits.accept(fact.graph.limits, specs, fact.starts, is_first=is_first, starting=starting)
        for held, spec in slots:
            limits.carry_over(held, spec)

    def _accept(self, fact: PlanAccepted) -> Iterator[None]:
        context, graph = self._context, fact.graph
        context.generation = fact.generation
        self._graph = graph
        self.board.pools = graph.pools
        moves = [(entry.moved_from, entry.job) for entry in fact.plan.jobs if entry.moved_from is not None]
        is_first = self._is_new
        yield from self._accept_limits(fact, dict(moves), is_first=is_first)
        if is_first:
            self._is_new = False
            self._avoid_former_times(fact.progress.values())
        for old, new in moves:
            if old not in self.jobs and old in self._remembered:
                self._remembered[new] = replace(self._remembered.pop(old), job=new)
                context.actions.append(RenameJob(old, new))
        returning = frozenset(self._remembered)
        self._remembered.update(fact.progress)
        yield
        for number, entry in enumerate(fact.plan.of("remove"), 1):
            self._remove(entry.job)
            if number % (STEP // _CHANGED) == 0:
                yield
        moved = {}
        for entry in fact.plan.of("move"):
            assert entry.moved_from is not None
            moved[entry.job] = self._take_away(entry.moved_from, entry.job)
        yield
        yield from self._bring_all(fact, moved, returning)
        for number, row in enumerate(fact.open_rows, 1):
            self._resume_open_slots(row, fact.living)
            if number % (STEP // _CHANGED) == 0:
                yield
        for name in fact.stale:
            if name in self.jobs and self.jobs[name].spec.is_service and self.jobs[name].open:
                self.jobs[name].request_run("restart", _DEFINITION_CHANGED)
        yield from self._take_edges(graph)
        yield
        self.board.touch_all()
        counted = Counter(entry.reload for entry in fact.plan.jobs)
        added, removed, kept = counted["add"], counted["remove"], counted["keep"]
        changed = counted.total() - added - removed - kept
        context.emit_event(GenerationApplied(fact.generation, added, changed, removed, kept))
        yield
        if is_first:
            self._notify_dependents()

    def _bring_all(self, fact: PlanAccepted, moved: Mapping[str, Job], returning: Collection[str]) -> Iterator[None]:
        graph = fact.graph
        plans = {entry.job: entry for entry in fact.plan.jobs}
        yield
        spent = 0
        for name in graph.order or tuple(graph.nodes):
            entry = plans[name]
            self._add_or_update(entry, graph.nodes[name], moved.get(name), returns=name in returning)
            spent += 1 if entry.reload == "keep" else _CHANGED
            if spent >= STEP:
                spent = 0
                yield

    def _take_edges(self, graph: Graph) -> Iterator[None]:
        yield
        self._dependents, self._needed_by = {}, {}
        for number, node in enumerate(graph, 1):
            if number % STEP == 0:
                yield
            for need, targets in node.needs:
                for target in targets:
                    self._needed_by.setdefault(target, []).append(node.spec.name)
                    if need.trigger:
                        self._dependents.setdefault(target, []).append(node.spec.name)

    def _take_away(self, former: str, name: str) -> Job:
        """The job that gets another name, without what is kept by the former one. Its probes go on."""
        job = self.jobs.pop(former)
        self._context.actions.append(RenameJob(former, name))
        self._unwatch(former)
        if former in self._probes:
            self._probes[name] = self._probes.pop(former)
            self._moved.pop(name, None)
            self._moved[former] = name
        return job

    def _add_or_update(self, entry: JobPlan, node: Node, moved: Job | None, *, returns: bool) -> None:
        context, name = self._context, node.spec.name
        if entry.reload == "keep" and name in self.jobs:
            self.jobs[name].node = node
            return
        retime, restart = effects(entry, node.spec)
        if moved is not None:
            self.jobs[name] = moved
            self._remembered.pop(name, None)
            moved.update(node, retime=retime, restart=restart, renamed=True)
            self._watch(node.spec)
            context.emit_event(JobChanged(name, "move"))
        elif entry.reload == "add" and (gone := self.going(entry.moved_from or name)) is not None:
            self._gone.remove(gone)
            self._remembered.pop(name, None)
            self.jobs[name] = gone
            gone.come_back(node, renamed=entry.moved_from is not None)
            self._watch(node.spec)
            context.emit_event(JobAdded(name, gone.next.due if gone.next else None))
        elif entry.reload == "add" or name not in self.jobs:
            job = self.jobs[name] = Job(context, self.board, node)
            job.begin(self._remembered.pop(name, None), returns=returns)
            self._watch(node.spec)
            context.emit_event(JobAdded(name, job.next.due if job.next else None))
        else:
            job = self.jobs[name]
            if _watched_files(job.spec) != _watched_files(node.spec):
                self._unwatch(name)
                self._watch(node.spec)
            if job.spec.is_service != node.spec.is_service:
                self._probes.pop(name, None)
            job.update(node, retime=retime, restart=restart)
            context.emit_event(JobChanged(name, entry.reload))

    def _remove(self, name: str) -> None:
        job = self.jobs.pop(name)
        self._unwatch(name)
        job.remove()
        self._remembered[name] = job.progress
        if job.spec.is_service:
            job.stop_runs(REMOVED)
        if job.state is not State.REMOVED:
            self._gone.append(job)
        self._probes.pop(name, None)
        self._context.emit_event(JobRemoved(name))

    def _resume_open_slots(self, row: SlotRecord, living: Mapping[str, SurvivingRun]) -> None:
        """A slot that an earlier supervisor left open: its run goes on, or nothing of it is alive any more."""
        job = self.jobs.get(row.job)
        if job is not None and row.run is not None and row.run in living:
            job.adopt(row, living[row.run])
            self._begin_probes(job, row.run, adopted=True)
            return
        if job is not None and job.resume_slot(row):
            return
        now = self._context.now.wall
        now = max(now, row.started or row.due)  # the clock may have been set back
        ended = replace(row, state="interrupted", reason=_SUPERVISOR_GONE, ended=now)
        if job is not None:
            job.note_interrupted()
        progress = job.progress if job else self._remembered.get(row.job, Progress(row.job, row.nominal))
        self._context.actions.append(Record(ended, progress))
        self._context.emit_event(SlotDecided(ended))

    def _watch(self, spec: JobSpec) -> None:
        watched = _watched(spec)
        if watched is not None:
            self._context.actions.append(WatchPaths(spec.name, watched, spec.process.cwd))

    def _unwatch(self, name: str) -> None:
        job = self.jobs.get(name)
        if job is None or _watched(job.spec) is not None:
            self._context.actions.append(WatchPaths(name, None))
        if name in self._changes:
            self._changes.pop(name)[0].cancel()

    # --- files, probes, requests -------------------------------------------------------------------------------

    def _paths_changed(self, name: str) -> None:
        """Wait until a burst of changes is over, but not for ever."""
        job = self.jobs.get(name)
        watched = _watched(job.spec) if job is not None else None
        if job is None or watched is None:
            return
        now = self._context.now
        wake, first = self._changes.pop(name, (None, now))
        if wake is not None:
            wake.cancel()
        latest = first.plus(_LONGEST_DEBOUNCE * watched.debounce)
        at = min(now.plus(watched.debounce), latest, key=lambda instant: instant.mono)

        def run(_: object) -> None:
            self._changes.pop(name, None)
            if name in self.jobs and self.jobs[name].state in TAKES_SLOTS:
                self.jobs[name].request_run("watch", _FILES_CHANGED)

        self._changes[name] = (self._context.call_at(at, "mono", run), first)

    def _begin_probes(self, job: Job, run: str, *, adopted: bool = False) -> None:
        """What an adopted run said before is not known, so a line that makes it ready counts as said."""
        job.ready = False if job.spec.ready is not None else None
        if job.spec.ready is None and job.spec.live is None:
            return
        name = job.spec.name
        if name not in self._probes:
            self._probes[name] = (ProbeMonitor(self._context, job, "ready"), ProbeMonitor(self._context, job, "live"))
        if adopted and job.spec.ready is not None and job.spec.ready.log is not None:
            job.ready = True
        for probing in self._probes[name]:
            probing.run_began(run)

    def _stop_probes(self, job: Job) -> None:
        for probing in self._probes.get(job.spec.name, ()):
            probing.stop()
        if job.ready is not None and job.spec.is_service:
            job.ready = False

    def _probe_reported(self, name: str, live: bool, ok: bool, reason: Reason | None) -> None:
        while name not in self.jobs and name in self._moved:
            name = self._moved[name]
        job = self.jobs.get(name)
        if job is None or name not in self._probes:
            return
        was = job.ready
        if self._probes[name][live].on_result(ok, reason):
            self._context.emit_event(Warned(name, because("restart_not_alive", cause=reason)))
            job.request_run("restart", _NOT_ALIVE)
        if job.ready is not was:
            self.board.changed(job, None)

    def _requested(self, fact: JobCommand) -> None:
        job = self.jobs.get(fact.job)
        if job is None:
            return
        match fact.verb:
            case "trigger":
                nominal = fact.nominal
                if nominal is not None and job.has_decided(nominal):  # an edge was faster
                    nominal = None
                job.request_run("manual", nominal=nominal, forced=fact.force)
            case "restart":
                job.request_run("restart", REQUESTED)
            case "pause":
                job.pause.begin(because("paused", text=fact.text) if fact.text else PAUSED, fact.until, fact.length)
            case "resume":
                job.pause.end(REQUESTED)
            case "start":
                job.start()
            case "stop":
                job.stop(because("stopped", text=fact.text) if fact.text else STOPPED)
            case "reset":
                job.reset()
            case _:
                assert_never(fact.verb)

    # --- edges that trigger ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        while True:
            news, self.board.news = self.board.news, []
            for job, row in news:
                if job.spec.name in self._dependents:
                    self._follow_edges(job, row)
                if self._leaving == "drain" and not job.open:
                    self._stop_services(target for _, targets in job.node.needs for target in targets)
            self.board.recheck_waiting()
            if not self.board.news:
                return

    def _follow_edges(self, upstream: Job, row: SlotRecord | None) -> None:
        for name in self._dependents[upstream.spec.name]:
            job = self.jobs.get(name)
            if job is None or job.state not in TAKES_SLOTS or self._leaving:
                continue
            for need, targets in job.node.needs:
                if need.trigger and upstream.spec.name in targets:
                    if need.condition in ("completed", "succeeded", "failed"):
                        if row is not None and fires(need, row) and not job.has_decided(row.nominal):
                            job.request_run("dependency", nominal=row.nominal)
                    elif row is None and self._conditions_now_met(upstream, need.condition) and not job.open:
                        job.request_run("dependency")

    def _conditions_now_met(self, upstream: Job, condition: str) -> bool:
        if condition == "healthy":
            return upstream.ready is True
        attempts = [held.attempt for held in upstream.open if held.attempt is not None]
        return any(attempt.told == self._context.now for attempt in attempts)

    # --- leaving -----------------------------------------------------------------------------------------------

    def _stop(self, level: str) -> None:
        first = self._leaving is None
        self._leaving = level
        if first:
            for job in self.jobs.values():
                job.drain(STOPPED)
        if level == "drain" and self._graph is not None:
            self._stop_services(reversed(self._graph.order))
        waiting = tuple(job.spec.name for job in (*self.jobs.values(), *self._gone) if job.open)
        self._context.emit_event(Draining(level, waiting))
        if level == "drain":
            return
        for job in (*self.jobs.values(), *self._gone):
            job.stop_runs(STOPPED, kill=level == "kill")

    def _stop_services(self, names: Iterable[str]) -> None:
        """In reverse order of need: a service is stopped once nothing that needs it is alive."""
        for name in names:
            job = self.jobs.get(name)
            if job is not None and job.spec.is_service and job.open and not self._is_needed(name):
                job.stop_runs(STOPPED)

    def _is_needed(self, name: str) -> bool:
        return any(
            other in self.jobs and self.jobs[other].open for other in self._needed_by.get(name, ()) if other != name
        )

    def _exit_if_drained(self) -> None:
        if self._gone:
            for job in [job for job in self._gone if not job.open]:
                self._gone.remove(job)
                if job.spec.name in self._remembered:
                    self._remembered[job.spec.name] = job.progress
        if self._left or self._graph is None:
            return
        if self._leaving:
            if not self._gone and not any(job.open for job in self.jobs.values()):
                self._left = True
                self._context.actions.append(ExitSupervisor(0))
            return
        if self._keep_alive or self._gone or (self._stays is not None and _may_start(self._stays)):
            return
        self._stays = next(filter(_may_start, self.jobs.values()), None)
        if self._stays is not None:
            return
        self._left = True
        self._context.actions.append(ExitSupervisor(self.exit_code()))

    def exit_code(self) -> int:
        """1 if the last run of a job failed, 3 if a job ended without its goal, 4 if a need failed, else 0."""
        codes = {_outcome(job) for job in self.jobs.values()}
        return next((code for code in (1, 3, 4) if code in codes), 0)


def _watched(spec: JobSpec) -> OnChange | None:
    if isinstance(spec.schedule, OnChange):
        return spec.schedule
    return OnChange(spec.watch, spec.watch_ignore) if spec.watch else None


def _watched_files(spec: JobSpec) -> tuple[OnChange, str] | None:
    """What a job watches, and the folder that its globs are relative to."""
    watched = _watched(spec)
    return None if watched is None else (watched, spec.process.cwd)


def _may_start(job: Job) -> bool:
    """Whether a job has something open, or will start something without being asked by a person or another job."""
    if job.open or job.pending or job.next is not None or job.next_slot.fault is not None:
        return True
    return job.state in TAKES_SLOTS and _watched(job.spec) is not None


def _outcome(job: Job) -> int:
    rule = job.spec.stop
    goal = rule.on_success or rule.successes is not None or rule.pattern is not None
    if job.progress.streak < 0:
        return 1
    if goal and job.state is State.DONE and _is_deadline(job.progress.done):
        return 3
    last = next(reversed(job.recent.values()), None)
    if last is not None and last.reason is not None and last.reason.code == "upstream_failed":
        return 4
    return 0


def _is_deadline(done: Reason | None) -> bool:
    """Whether the last condition that made the job done was one of time."""
    if done is None:
        return False
    if done.code == "all_conditions":
        return done.detail["reasons"][-1]["code"] in _DEADLINES
    return done.code in _DEADLINES
