"""The files that jobs watch: when to watch them, and when a change of them starts a run."""

from __future__ import annotations

from repeater.engine.actions import WatchPaths
from repeater.engine.context import Context
from repeater.engine.job_states import TAKES_SLOTS
from repeater.engine.job_table import JobTable
from repeater.engine.timers import Timer
from repeater.model.reasons import Reason
from repeater.model.spec import JobSpec, OnChange
from repeater.model.time import Instant

_FILES_CHANGED = Reason("files_changed")
_MAX_DEBOUNCES = 10
"""A burst of changes that does not end starts a run after this many debounce times."""


class FileWatches:
    """`_bursts` has the jobs whose files are changing: the timer of their run, and the time of the first change."""

    __slots__ = ("_bursts", "_context", "_table")

    def __init__(self, context: Context, table: JobTable) -> None:
        self._context = context
        self._table = table
        self._bursts: dict[str, tuple[Timer, Instant]] = {}

    def watch(self, spec: JobSpec) -> None:
        """Watch the files of a job, if it names any."""
        watched = watched_by(spec)
        if watched is not None:
            self._context.actions.append(WatchPaths(spec.name, watched, spec.process.cwd))

    def unwatch(self, name: str) -> None:
        """Watch no files for this job name."""
        job = self._table.active.get(name)
        if job is None or watched_by(job.spec) is not None:
            self._context.actions.append(WatchPaths(name, None))
        if name in self._bursts:
            self._bursts.pop(name)[0].cancel()

    def update(self, former: JobSpec, spec: JobSpec) -> None:
        """Watch other files if a changed job names others. Globs are relative to its directory."""
        before, after = watched_by(former), watched_by(spec)
        if before != after or (before is not None and former.process.cwd != spec.process.cwd):
            self.unwatch(spec.name)
            self.watch(spec)

    def on_change(self, name: str) -> None:
        """Files have changed: start a run once the burst of changes is over."""
        job = self._table.active.get(name)
        watched = watched_by(job.spec) if job is not None else None
        if watched is None:
            return
        now = self._context.now
        timer, first = self._bursts.pop(name, (None, now))
        if timer is not None:
            timer.cancel()
        latest = first.plus(_MAX_DEBOUNCES * watched.debounce)
        at = min(now.plus(watched.debounce), latest, key=lambda instant: instant.mono)

        def run(_: object) -> None:
            self._bursts.pop(name, None)
            job = self._table.active.get(name)
            if job is not None and (job.state in TAKES_SLOTS or job.may_run_again):
                job.request_run("watch", _FILES_CHANGED)

        self._bursts[name] = (self._context.call_at(at, "mono", run), first)


def watched_by(spec: JobSpec) -> OnChange | None:
    """The files that a job watches, by its schedule or by `watch`; None if it watches none."""
    if isinstance(spec.schedule, OnChange):
        return spec.schedule
    return OnChange(spec.watch, spec.watch_ignore) if spec.watch else None
