"""The end of the supervisor: what stops, in which order, when it exits, and with which exit status."""

from __future__ import annotations

from collections.abc import Iterable

from repeater.engine.actions import ExitSupervisor
from repeater.engine.context import Context
from repeater.engine.dependencies import Dependencies
from repeater.engine.file_watches import watched_by
from repeater.engine.job import Job
from repeater.engine.job_states import TAKES_SLOTS, State
from repeater.engine.job_table import JobTable
from repeater.model.events import Draining
from repeater.model.reasons import STOPPED, Reason
from repeater.plan.graph import Graph

_DEADLINES = ("time_passed", "instant_reached")


class Shutdown:
    """`level` is how the supervisor was asked to stop, None if it was not. With `keep_alive` it exits only when asked.

    `_awaited` is a job that may still start something, found by the last search for one.
    """

    __slots__ = ("_awaited", "_context", "_dependencies", "_has_exited", "_keep_alive", "_table", "level")

    def __init__(self, context: Context, table: JobTable, dependencies: Dependencies, *, keep_alive: bool) -> None:
        self._context = context
        self._table = table
        self._dependencies = dependencies
        self._keep_alive = keep_alive
        self._awaited: Job | None = None
        self._has_exited = False
        self.level: str | None = None

    def begin(self, level: str, graph: Graph | None) -> None:
        """Start no more slots. `drain` waits for timed runs, `stop` and `kill` end every run."""
        is_first = self.level is None
        self.level = level
        if is_first:
            for job in self._table.active.values():
                job.drain(STOPPED)
        if level == "drain" and graph is not None:
            self._stop_services(reversed(graph.order))
        waiting = tuple(job.spec.name for job in self._table.all() if job.open)
        self._context.emit_event(Draining(level, waiting))
        if level == "drain":
            return
        for job in self._table.all():
            job.stop_runs(STOPPED, kill=level == "kill")

    def on_change(self, job: Job) -> None:
        """A job has changed: stop the services that only this job needed."""
        if self.level == "drain" and not job.open:
            self._stop_services(target for _, targets in job.node.needs for target in targets)

    def _stop_services(self, names: Iterable[str]) -> None:
        """Stop these services, except those that a job with an open slot needs."""
        for name in names:
            job = self._table.active.get(name)
            if job is not None and job.spec.is_service and job.open and not self._dependencies.is_needed(name):
                job.stop_runs(STOPPED)

    def exit_if_drained(self) -> None:
        """Exit once nothing runs after a stop, or once no job will start anything."""
        table = self._table
        if table.gone:
            table.drop_ended()
        if self._has_exited:
            return
        if self.level:
            if not table.gone and not any(job.open for job in table.active.values()):
                self._exit(0)
            return
        if self._keep_alive or table.gone or (self._awaited is not None and _may_start(self._awaited)):
            return
        self._awaited = next(filter(_may_start, table.active.values()), None)
        if self._awaited is None:
            self._exit(exit_code(table.active.values()))

    def _exit(self, code: int) -> None:
        self._has_exited = True
        self._context.actions.append(ExitSupervisor(code))


def exit_code(jobs: Iterable[Job]) -> int:
    """1 if the last run of a job failed, 3 if a job ended without its goal, 4 if a need failed, else 0."""
    codes = {_exit_code_of(job) for job in jobs}
    return next((code for code in (1, 3, 4) if code in codes), 0)


def _may_start(job: Job) -> bool:
    """Whether a job has an open slot, or will start something without a request."""
    if job.open or job.pending or job.next is not None or job.next_slot.fault is not None:
        return True
    return (job.state in TAKES_SLOTS or job.may_run_again) and watched_by(job.spec) is not None


def _exit_code_of(job: Job) -> int:
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
    """Whether the last condition that made the job done was a deadline."""
    if done is None:
        return False
    if done.code == "all_conditions":
        return done.detail["reasons"][-1]["code"] in _DEADLINES
    return done.code in _DEADLINES
