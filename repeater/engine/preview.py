"""What each job would be after a plan: its next start, its counters, why it is done. Changes nothing.

Each job that the plan changes gets a second object in its own context, and that takes the new definition. So the same
code makes the preview and applies the plan. A property test compares both: the preview equals the state after the plan
was accepted at the same instant.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from repeater._lazy_dataclasses import dataclass
from repeater.engine.context import Context
from repeater.engine.job import Job
from repeater.model.reasons import STOPPED
from repeater.plan.diff import effects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from repeater.engine.active_slot import ActiveSlot
    from repeater.engine.engine import Engine
    from repeater.model.reasons import Reason
    from repeater.model.run import Progress
    from repeater.model.time import Instant
    from repeater.plan.diff import JobPlan
    from repeater.plan.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Outlook:
    """A job at one instant: when it starts next (None: not by itself), the slot's nominal time, its counters, and why
    it is done, None if it is not.
    """

    next: datetime | None = None
    nominal: datetime | None = None
    runs: int = 0
    successes: int = 0
    failures: int = 0
    done: Reason | None = None


NO_OUTLOOK = Outlook()
"""The outlook of a job that does not exist."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A job before and after a plan. `returns`: it was removed earlier and is back with its counters."""

    old: Outlook
    new: Outlook
    returns: bool = False


def foresee(engine: Engine, entries: Iterable[JobPlan], graph: Graph, now: Instant) -> dict[str, Prospect]:
    """By job of these entries of a plan, what it is now, and what it is if the plan is accepted at `now`."""
    return {entry.job: _prospect(engine, entry, graph.nodes.get(entry.job), now) for entry in entries}


def _prospect(engine: Engine, entry: JobPlan, node: Node | None, now: Instant) -> Prospect:
    job = engine.jobs.get(entry.moved_from or entry.job)
    before = NO_OUTLOOK if job is None else outlook(job)
    if node is None:
        return Prospect(before, NO_OUTLOOK)
    name = entry.moved_from or entry.job
    if job is None and (gone := engine.find_gone(name)) is not None:
        context = _context(engine, now)
        twin = gone.twin(context, _Aside(engine))
        twin.come_back(node, renamed=entry.moved_from is not None)
        return Prospect(before, _settled(twin, context), returns=True)
    if job is None:
        kept = engine.remembered(name)
        return Prospect(before, _begun(engine, node, kept, now), kept is not None)
    if entry.reload == "keep":
        return Prospect(before, before)
    return Prospect(before, _changed(engine, entry, job, node, now))


def outlook(job: Job) -> Outlook:
    """The current state of a job."""
    progress, slot = job.progress, job.next
    return Outlook(
        None if slot is None else slot.due,
        None if slot is None else slot.nominal,
        progress.runs,
        progress.successes,
        progress.failures,
        progress.done,
    )


def _begun(engine: Engine, node: Node, kept: Progress | None, now: Instant) -> Outlook:
    context = _context(engine, now)
    job = Job(context, _Aside(engine), node)
    job.begin(kept, returns=kept is not None)
    return _settled(job, context)


def _changed(engine: Engine, entry: JobPlan, job: Job, node: Node, now: Instant) -> Outlook:
    context = _context(engine, now)
    twin = job.twin(context, _Aside(engine))
    retime, restart = effects(entry, node.spec)
    twin.update(node, retime=retime, restart=restart, renamed=entry.moved_from is not None)
    return _settled(twin, context)


def _settled(job: Job, context: Context) -> Outlook:
    """The state of the job, after a deadline that has already passed has ended it."""
    begun = outlook(job)
    while (timer := context.timers.pop_due(context.now)) is not None:
        if not timer.cancelled:
            timer.call(context.now)
    after = outlook(job)
    return begun if after.done is None else after


def _context(engine: Engine, now: Instant) -> Context:
    context = Context(now, engine.seed)
    context.generation = engine.generation
    return context


class _Aside:
    """The admission of a job in a preview: it takes no permits and reports nothing."""

    def __init__(self, engine: Engine) -> None:
        self._admission = engine.admission

    def try_admit(self, job: Job, slot: ActiveSlot) -> tuple[Literal["hold", "skipped"], Reason] | None:  # noqa: ARG002
        return "hold", STOPPED

    def force_admit(self, job: Job, slot: ActiveSlot) -> None:
        pass

    def release(self, slot: ActiveSlot) -> None:
        pass

    @property
    def limits(self) -> Any:
        return _NO_LIMITS

    def earliest(self, job: Job) -> Instant | None:
        return self._admission.earliest(job)

    def register_run(self, run: Any, job: Job, slot: ActiveSlot) -> None:
        pass

    def changed(self, job: Job, row: Any) -> None:
        pass


class _NoLimits:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


_NO_LIMITS = _NoLimits()
