"""One probe of a service: when to run it, and what its result means.

A probe runs again `every` after its last result, while a run of the service is live. `ready` becomes true with the
first success, and false after `failures` consecutive failures. `live` restarts the service after `failures` consecutive
failures. While a service is ready, its probe runs no more often than `SETTLED`, because only its start must be noticed
soon.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from repeater.engine.actions import StartProbe
from repeater.engine.context import Context
from repeater.engine.job import Job
from repeater.engine.timers import Timer
from repeater.model.events import JobReady
from repeater.model.reasons import Reason
from repeater.model.spec import Probe

Kind = Literal["ready", "live"]
SETTLED = timedelta(seconds=5)


class ProbeMonitor:
    """The state of one probe of one job."""

    __slots__ = ("_context", "_job", "_timer", "failures", "kind", "run")

    def __init__(self, context: Context, job: Job, kind: Kind) -> None:
        self._context = context
        self._job = job
        self._timer: Timer | None = None
        self.kind: Kind = kind
        self.failures = 0
        self.run = ""

    @property
    def probe(self) -> Probe | None:
        return self._job.spec.ready if self.kind == "ready" else self._job.spec.live

    def start(self, run: str) -> None:
        """A run of the service is live: start to probe it."""
        self.stop()
        self.run, self.failures = run, 0
        if self.probe is not None:
            self._run_later()

    def stop(self) -> None:
        """No run is live."""
        self.run = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_result(self, ok: bool, reason: Reason | None) -> bool:
        """Take a result. True if the service must be restarted because of it."""
        probe = self.probe
        if probe is None or not self.run:
            return False
        self.failures = 0 if ok else self.failures + 1
        job = self._job
        if self.kind == "ready":
            turned = (ok and job.ready is not True) or (self.failures >= probe.failures and job.ready is True)
            if turned:
                job.ready = ok
                self._context.emit_event(JobReady(job.spec.name, ok, reason))
        elif self.failures >= probe.failures:
            return True
        if not (probe.log and ok):
            self._run_later()
        return False

    def _run_later(self) -> None:
        probe = self.probe
        assert probe is not None

        def run(_: object) -> None:
            now = self.probe  # a reload may have replaced it
            if now is not None:
                self._context.actions.append(StartProbe(self._job.spec.name, self.kind, now, self._job.spec))

        if self._timer is not None:
            self._timer.cancel()  # a result of an earlier run can come in between
        if probe.log:  # the output reports the line when it comes
            self._context.actions.append(StartProbe(self._job.spec.name, self.kind, probe, self._job.spec))
            return
        settled = self.kind == "ready" and self._job.ready is True and self.failures == 0
        self._timer = self._context.call_in(max(probe.every, SETTLED) if settled else probe.every, run)
