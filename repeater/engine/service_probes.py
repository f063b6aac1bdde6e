"""The probes of all services: `ready` and `live`, from the start of a run to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repeater.engine.admission import AdmissionControl
from repeater.engine.context import Context
from repeater.engine.job import Job
from repeater.engine.job_table import JobTable
from repeater.model.events import Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because

if TYPE_CHECKING:
    from repeater.engine.probe_monitor import ProbeMonitor

_NOT_ALIVE = Reason("not_alive")


class ServiceProbes:
    """`_monitors` has the `ready` and the `live` probe of each service. `_renamed` maps former names to new ones."""

    __slots__ = ("_admission", "_context", "_monitors", "_renamed", "_table")

    def __init__(self, context: Context, table: JobTable, admission: AdmissionControl) -> None:
        self._context = context
        self._table = table
        self._admission = admission
        self._monitors: dict[str, tuple[ProbeMonitor, ProbeMonitor]] = {}
        self._renamed: dict[str, str] = {}

    def begin(self, job: Job, run: str, *, adopted: bool = False) -> None:
        """Start the probes of a job for a run.

        The earlier output of an adopted run is unknown, so a line that makes it ready counts as found.
        """
        spec = job.spec
        job.ready = False if spec.ready is not None else None
        if spec.ready is None and spec.live is None:
            return
        if spec.name not in self._monitors:
            from repeater.engine.probe_monitor import ProbeMonitor  # few jobs have probes

            self._monitors[spec.name] = (
                ProbeMonitor(self._context, job, "ready"),
                ProbeMonitor(self._context, job, "live"),
            )
        if adopted and spec.ready is not None and spec.ready.log is not None:
            job.ready = True
        for monitor in self._monitors[spec.name]:
            monitor.start(run)

    def stop(self, job: Job) -> None:
        """The run of a job has exited: stop its probes."""
        for monitor in self._monitors.get(job.spec.name, ()):
            monitor.stop()
        if job.ready is not None and job.spec.is_service:
            job.ready = False

    def rename(self, former: str, name: str) -> None:
        """Keep the probes of a renamed job. Results of probes that were started before have its former name."""
        if former in self._monitors:
            self._monitors[name] = self._monitors.pop(former)
            self._renamed.pop(name, None)
            self._renamed[former] = name

    def remove(self, name: str) -> None:
        """Forget the probes of a job."""
        self._monitors.pop(name, None)

    def on_result(self, name: str, *, live: bool, ok: bool, reason: Reason | None) -> None:
        """A probe has ended. A service that is not alive is restarted."""
        jobs = self._table.active
        while name not in jobs and name in self._renamed:
            name = self._renamed[name]
        job = jobs.get(name)
        if job is None or name not in self._monitors:
            return
        was_ready = job.ready
        if self._monitors[name][live].on_result(ok, reason):
            self._context.emit_event(Warned(name, because("restart_not_alive", cause=reason)))
            job.request_run("restart", _NOT_ALIVE)
        if job.ready is not was_ready:
            self._admission.changed(job, None)
