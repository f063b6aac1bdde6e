"""The pause of one job: slots that come up are skipped until it ends. It survives a restart."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from repeater._lazy_dataclasses import replace
from repeater.engine.job_data import JobData
from repeater.engine.timers import Timer
from repeater.model.events import JobPaused, JobResumed
from repeater.model.reasons import Reason

_PAUSE_OVER = Reason("pause_over")


class Pause:
    """Starts and ends the pause of one job. `job.progress` holds its reason and its end."""

    __slots__ = ("_job", "_timer")

    def __init__(self, job: JobData) -> None:
        self._job = job
        self._timer: Timer | None = None

    def begin(self, reason: Reason, until: datetime | None = None, length: timedelta | None = None) -> None:
        """Skip slots until `until`, for `length`, or without an end. Live runs continue."""
        job = self._job
        if length is not None:
            until = job.context.steady.wall + length
        self._save(reason, until, "mono" if length is not None else None)
        job.context.emit_event(JobPaused(job.spec.name, reason, until))
        self.arm()

    def end(self, reason: Reason) -> None:
        """Let slots start again. Does nothing if the job is not paused."""
        job = self._job
        if job.paused is None:
            return
        self._save(None, None)
        self.arm()
        job.context.emit_event(JobResumed(job.spec.name, reason))
        if job.spec.is_service and not job.open:
            job.skipped_last = False
            job.arm()

    def arm(self) -> None:
        """End the pause when its time is over."""
        self.disarm()
        job = self._job
        until, clock = job.progress.paused_until, job.progress.pause_rides or "wall"
        if until is None:
            return
        at = job.context.now.at_wall(until) if clock == "wall" else job.context.reading(until)
        if at.mono <= job.context.now.mono:
            self.end(_PAUSE_OVER)
        else:
            self._timer = job.context.call_at(at, clock, lambda _: self.end(_PAUSE_OVER))

    def disarm(self) -> None:
        """Do not end the pause by time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _save(self, reason: Reason | None, until: datetime | None, clock: Literal["mono"] | None = None) -> None:
        job = self._job
        job.progress = replace(job.progress, paused=reason, paused_until=until, pause_rides=clock)
        job.save()
