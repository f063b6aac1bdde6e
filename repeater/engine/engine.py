"""The engine: facts and one reading of the clocks in, actions out.

    engine.handle(fact, now) -> actions      engine.wait(now) -> microseconds
    engine.steps(fact, now) -> the same actions, in bounded pieces

It does not read a clock, sleep, or do IO. The supervisor drives it with real facts, and `simulate` drives it on a
virtual clock. The same facts and the same seed give the same actions, including the run ids.

This module routes each fact to the job that it concerns. `engine.generation` applies job files, `engine.dependencies`
starts dependents, and `engine.shutdown` ends the supervisor. `engine.job` has what happens to one job, and
`engine.attempt` what happens to one attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import assert_never

from repeater.engine.actions import Action
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.admission import AdmissionControl
from repeater.engine.clock_step import offset_of
from repeater.engine.context import Context
from repeater.engine.dependencies import Dependencies
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
    TimePassed,
)
from repeater.engine.file_watches import FileWatches
from repeater.engine.generation import JOB_UNITS, STEP, Generations
from repeater.engine.job import Job
from repeater.engine.job_table import JobTable
from repeater.engine.service_probes import ServiceProbes
from repeater.engine.shutdown import Shutdown, exit_code
from repeater.model.events import Warned
from repeater.model.reasons import PAUSED, REQUESTED, STOPPED, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Progress
from repeater.model.time import Instant
from repeater.plan.graph import Graph

_TIMER_UNITS = 20
"""Units of work of one timer, which usually starts a run."""
_ACTION_UNITS = 6
"""Units of work of one action that the supervisor carries out."""


class Engine:
    """`seed` makes its random choices repeatable. With `keep_alive` it exits only when asked."""

    def __init__(self, now: Instant, *, seed: int = 0, keep_alive: bool = False, boot: str = "") -> None:
        context = self._context = Context(now, seed, boot)
        table = self._table = JobTable()
        self.jobs: dict[str, Job] = table.active
        self.admission = AdmissionControl(context, self.jobs)
        self._watches = FileWatches(context, table)
        self._probes = ServiceProbes(context, table, self.admission)
        self._dependencies = Dependencies(context, table)
        self._shutdown = Shutdown(context, table, self._dependencies, keep_alive=keep_alive)
        self._generations = Generations(context, table, self.admission, self._dependencies, self._watches, self._probes)
        self._generation = 0
        self._changing = False

    @property
    def offset(self) -> int:
        """The wall time minus the monotonic reading, in microseconds, that distances are written with."""
        return self._context.offset

    @property
    def generation(self) -> int:
        """The last generation that was applied completely."""
        return self._generation

    @property
    def is_changing(self) -> bool:
        """Whether a generation or a step of the clock is applied to some jobs only, so that the state is mixed."""
        return self._changing

    @property
    def seed(self) -> int:
        """What makes its random choices repeatable."""
        return self._context.seed

    @property
    def graph(self) -> Graph | None:
        """The graph of the active generation, None before the first one."""
        return self._generations.graph

    def remembered(self, name: str) -> Progress | None:
        """The progress of a job that is not active, such as a removed one."""
        return self._table.remembered.get(name)

    @property
    def removed(self) -> Collection[str]:
        """The names of jobs that are not active but have a progress: they were removed."""
        return self._table.removed

    def find_gone(self, name: str) -> Job | None:
        """The job of this name that was removed while it had a live run that still continues."""
        return self._table.find_gone(name)

    def wait(self, now: Instant) -> int | None:
        """Microseconds until the engine needs TimePassed, if no other fact comes first: 0 for now, None for never."""
        return self._context.timers.wait(now)

    def handle(self, fact: Fact, now: Instant) -> list[Action]:
        """Everything that follows from one fact at one instant, in the order in which it has to be done."""
        return [action for actions, _ in self.steps(fact, now) for action in actions]

    def steps(self, fact: Fact, now: Instant) -> Iterator[tuple[list[Action], bool]]:
        """The same in steps of bounded work: the next actions, and whether there are more steps.

        No other fact may be handled before the last step. A generation gives no action before it is applied completely.
        """
        self._context.now = now
        if isinstance(fact, PlanAccepted | ClockJumped):
            self._changing = True
            for _ in self._apply(fact) if isinstance(fact, PlanAccepted) else self._move_clock():
                yield [], True
            self._changing = False
            self._generation = self._context.generation
        else:
            self._dispatch(fact)
        self._follow_up()
        units = 0
        while (timer := self._context.timers.pop_due(now)) is not None:
            if not timer.cancelled:
                if units >= STEP:
                    units = 0
                    yield from ((piece, True) for piece in self._new_actions())
                timer.call(now)
                self._follow_up()
                units += _TIMER_UNITS
        if self.graph is not None:
            self._shutdown.exit_if_drained()
        *pieces, last = self._new_actions()
        yield from ((piece, True) for piece in pieces)
        yield last, False

    def _new_actions(self) -> list[list[Action]]:
        """The actions since the last call, in pieces; at least one piece."""
        actions, self._context.actions = self._context.actions, []
        limit = STEP // _ACTION_UNITS
        if len(actions) <= limit:
            return [actions]
        return [actions[first : first + limit] for first in range(0, len(actions), limit)]

    def _follow_up(self) -> None:
        """Do what follows for other jobs, until nothing more follows."""
        while True:
            news, self.admission.news = self.admission.news, []
            for job, record in news:
                if not self._shutdown.level:
                    self._dependencies.trigger(job, record)
                self._shutdown.on_change(job)
            self.admission.recheck_waiting()
            if not self.admission.news:
                return

    # --- facts -------------------------------------------------------------------------------------------------

    def _dispatch(self, fact: Fact) -> None:
        match fact:  # facts about runs are the most frequent ones
            case RunStarted() | RunEnded() | RunExited() | RunLost() | SpawnFailed() | PushedBack():
                if fact.run in self.admission.runs:
                    self._dispatch_to_run(fact, *self.admission.runs[fact.run])
            case TimePassed():
                pass  # timers are handled after every fact
            case SharedLimitGranted() | SharedLimitQueued() | RateLimiterDown() | RateLimiterUp() | QuotaWarned():
                self.admission.limits.sharing.handle(fact)
            case LoadRead(name, readings):
                if name in self.jobs:
                    self.jobs[name].load_read(readings)
            case PathsChanged(name):
                self._watches.on_change(name)
            case ProbeReported(name, kind, ok, reason):
                self._probes.on_result(name, live=kind == "live", ok=ok, reason=reason)
            case JobCommand():
                self._dispatch_command(fact)
            case StopRequested(level):
                self._shutdown.begin(level, self.graph)
            case PlanAccepted() | ClockJumped():
                raise AssertionError("is applied in steps")
            case _:
                assert_never(fact)

    def _dispatch_to_run(
        self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed | PushedBack, job: Job, active: ActiveSlot
    ) -> None:
        match fact:
            case RunStarted():
                now, at = self._context.now, fact.at
                job.outcome.run_started(active, fact.pid, now if at is None or at >= now.mono else now.at_mono(at))
                self._probes.begin(job, fact.run)
            case RunEnded():
                job.outcome.run_ended(active, fact)
                self._probes.stop(job)
            case RunExited(_, exit_):
                job.outcome.run_exited(active, exit_)
                self._probes.stop(job)
            case RunLost(_, reason):
                job.outcome.run_lost(active, reason)
                self._probes.stop(job)
            case SpawnFailed(_, reason, temporary, taken, exit_code):
                if taken:
                    job.outcome.slot_taken(active)
                else:
                    job.outcome.spawn_failed(active, reason, exit_code, temporary=temporary)
            case PushedBack(_, found, unreadable):
                job.outcome.pushed_back(active, found, unreadable)

    def _dispatch_command(self, fact: JobCommand) -> None:
        job = self.jobs.get(fact.job)
        if job is None:
            return
        match fact.verb:
            case "trigger":
                nominal = fact.nominal
                if nominal is not None and job.has_decided(nominal):  # a trigger of another job was first
                    nominal = None
                job.request_run("manual", nominal=nominal, forced=fact.force)
            case "restart":
                job.request_run("restart", REQUESTED)
            case "pause":
                reason = because("paused", text=fact.text) if fact.text else PAUSED
                job.pause.begin(reason, fact.until, fact.length)
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

    def _apply(self, fact: PlanAccepted) -> Iterator[None]:
        is_first = self.graph is None
        yield from self._generations.apply(fact)
        if is_first:
            self._warn_of_clock()

    # --- the clock ---------------------------------------------------------------------------------------------

    def _move_clock(self) -> Iterator[None]:
        context = self._context
        former, context.offset = context.offset, offset_of(context.now, [context.offset])
        step = context.offset - former
        for number, job in enumerate(self._table.all(), 1):
            job.move_clock(step)
            if number % (STEP // JOB_UNITS) == 0:
                yield
        self._warn_of_clock()

    def clock_behind(self, now: datetime) -> Reason | None:
        """Why jobs wait although their schedules name a time, None if no job does: a slot is decided only once."""
        waits = ((job.waits_for_clock(now), name) for name, job in self.jobs.items())
        waiting = [(cursor, name) for cursor, name in waits if cursor is not None]
        if not waiting:
            return None
        until, name = max(waiting)
        return because("clock_behind", job=name, jobs=len(waiting), until=until)

    def _warn_of_clock(self) -> None:
        reason = self.clock_behind(self._context.now.wall)
        if reason is not None:
            self._context.emit_event(Warned("", reason))

    def exit_code(self) -> int:
        """1 if the last run of a job failed, 3 if a job ended without its goal, 4 if a need failed, else 0."""
        return exit_code(self.jobs.values())
