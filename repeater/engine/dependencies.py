"""Which jobs need which: starts of dependents, and the order in which services stop."""

from __future__ import annotations

from collections.abc import Iterator

from repeater.engine.admission import fires
from repeater.engine.context import Context
from repeater.engine.job import Job
from repeater.engine.job_states import TAKES_SLOTS
from repeater.engine.job_table import JobTable
from repeater.model.run import SlotRecord
from repeater.plan.graph import Graph

_ENDS = ("completed", "succeeded", "failed")


class Dependencies:
    """The edges of the graph, by the job that is needed. `_dependents` has only those edges that trigger a start."""

    __slots__ = ("_context", "_dependents", "_needed_by", "_table")

    def __init__(self, context: Context, table: JobTable) -> None:
        self._context = context
        self._table = table
        self._dependents: dict[str, list[str]] = {}
        self._needed_by: dict[str, list[str]] = {}

    def update(self, graph: Graph, batch: int) -> Iterator[None]:
        """Take the edges of a new generation, `batch` jobs in a step."""
        self._dependents, self._needed_by = {}, {}
        for number, node in enumerate(graph, 1):
            if number % batch == 0:
                yield
            for need, targets in node.needs:
                for target in targets:
                    self._needed_by.setdefault(target, []).append(node.spec.name)
                    if need.trigger:
                        self._dependents.setdefault(target, []).append(node.spec.name)

    def trigger(self, upstream: Job, record: SlotRecord | None) -> None:
        """Start the dependents of a job that has changed; `record` is given for a decided slot."""
        for name in self._dependents.get(upstream.spec.name, ()):
            job = self._table.active.get(name)
            if job is None or job.state not in TAKES_SLOTS:
                continue
            for need, targets in job.node.needs:
                if need.trigger and upstream.spec.name in targets:
                    if need.condition in _ENDS:
                        if record is not None and fires(need, record) and not job.has_decided(record.nominal):
                            job.request_run("dependency", nominal=record.nominal)
                    elif record is None and self._is_met_now(upstream, need.condition) and not job.open:
                        job.request_run("dependency")

    def _is_met_now(self, upstream: Job, condition: str) -> bool:
        if condition == "healthy":
            return upstream.ready is True
        attempts = [active.attempt for active in upstream.open if active.attempt is not None]
        return any(attempt.reported == self._context.now for attempt in attempts)

    def is_needed(self, name: str) -> bool:
        """Whether another job that needs this one has an open slot."""
        jobs = self._table.active
        return any(other in jobs and jobs[other].open for other in self._needed_by.get(name, ()) if other != name)
