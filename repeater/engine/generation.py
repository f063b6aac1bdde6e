"""A new generation of jobs: which jobs are added, changed, renamed and removed, and what open slots continue.

A generation is taken in steps of bounded work, so that a large one does not block other work for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Record, RenameJob
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.admission import AdmissionControl
from repeater.engine.clock_step import is_same_boot, offset_of
from repeater.engine.context import Context
from repeater.engine.dependencies import Dependencies
from repeater.engine.facts import PlanAccepted, SurvivingRun
from repeater.engine.file_watches import FileWatches
from repeater.engine.job import Job
from repeater.engine.job_states import State
from repeater.engine.job_table import JobTable
from repeater.engine.service_probes import ServiceProbes
from repeater.model.events import GenerationApplied, JobAdded, JobChanged, JobRemoved, SlotDecided
from repeater.model.reasons import REMOVED, Reason
from repeater.model.run import Progress, SlotRecord
from repeater.model.spec import JobSpec
from repeater.plan.diff import JobPlan, effects
from repeater.plan.graph import Graph, Node

_DEFINITION_CHANGED = Reason("definition_changed")
_SUPERVISOR_GONE = Reason("supervisor_gone")
STEP = 400
"""Units of work in one step. A job that a new generation does not change is one unit."""
JOB_UNITS = 20
"""Units of a job that starts, changes, ends, or is moved with the clock."""


class Generations:
    """Applies plans to the table of jobs. `graph` is that of the active generation, None before the first one."""

    def __init__(
        self,
        context: Context,
        table: JobTable,
        admission: AdmissionControl,
        dependencies: Dependencies,
        watches: FileWatches,
        probes: ServiceProbes,
    ) -> None:
        self._context = context
        self._table = table
        self._admission = admission
        self._dependencies = dependencies
        self._watches = watches
        self._probes = probes
        self.graph: Graph | None = None

    def apply(self, fact: PlanAccepted) -> Iterator[None]:
        """Apply a plan in steps."""
        context, table, graph = self._context, self._table, fact.graph
        context.generation = fact.generation
        is_first = self.graph is None
        self.graph = graph
        self._admission.pools = graph.pools
        moves = [(entry.moved_from, entry.job) for entry in fact.plan.jobs if entry.moved_from is not None]
        yield from self._apply_limits(fact, dict(moves), is_first=is_first)
        if is_first:
            self._avoid_former_times(fact.progress.values())
        for old, new in moves:
            if old not in table.active and old in table.remembered:
                table.remembered[new] = replace(table.remembered.pop(old), job=new)
                context.actions.append(RenameJob(old, new))
        returning = frozenset(table.remembered)
        table.remembered.update(fact.progress)
        yield
        for number, entry in enumerate(fact.plan.of("remove"), 1):
            self._remove(entry.job)
            if number % (STEP // JOB_UNITS) == 0:
                yield
        yield from self._apply_jobs(fact, returning)
        for number, record in enumerate(fact.open_rows, 1):
            self._resume(record, fact.living)
            if number % (STEP // JOB_UNITS) == 0:
                yield
        for name in fact.stale:
            job = table.active.get(name)
            if job is not None and job.spec.is_service and job.open:
                job.request_run("restart", _DEFINITION_CHANGED)
        yield
        yield from self._dependencies.update(graph, STEP)
        yield
        self._admission.touch_all()
        counted = Counter(entry.reload for entry in fact.plan.jobs)
        added, removed, unchanged = counted["add"], counted["remove"], counted["keep"]
        changed = counted.total() - added - removed - unchanged
        context.emit_event(GenerationApplied(fact.generation, added, changed, removed, unchanged))
        yield

    def _apply_limits(self, fact: PlanAccepted, moves: Mapping[str, str], *, is_first: bool) -> Iterator[None]:
        """Give open slots their permits in the limits of the new generation, before other slots can take them."""
        limits, nodes = self._admission.limits, fact.graph.nodes
        for old, new in moves.items():
            limits.move(old, new)
        slots: list[tuple[ActiveSlot, JobSpec | None]] = []
        for job in self._table.all():
            if not job.open:
                continue
            former = job.spec.name
            is_gone = self._table.active.get(former) is not job
            returns = former in moves and (not is_gone or former not in self._table.active)
            name = moves[former] if returns else former
            node = None if is_gone and not returns else nodes.get(name)
            for active in job.open:
                limits.rename(active, former, name)
                slots.append((active, None if node is None else node.spec))
        starting = {slot.attempt.run.id for slot, spec in slots if spec and slot.attempt and slot.attempt.is_starting}
        yield
        specs = [node.spec for node in fact.graph]
        yield from limits.accept(fact.graph.limits, specs, fact.starts, is_first=is_first, starting=starting)
        for active, spec in slots:
            limits.carry_over(active, spec)

    def _avoid_former_times(self, former: Iterable[Progress]) -> None:
        """Choose the clock offset so that no new nominal time equals a former one.

        They could be equal where the clock was set back while no supervisor ran.
        """
        context = self._context
        clocks = {
            progress.clock
            for progress in former
            if progress.clock is not None and is_same_boot(progress, context.now, context.boot)
        }
        context.offset = offset_of(context.now, clocks)

    def _apply_jobs(self, fact: PlanAccepted, returning: Collection[str]) -> Iterator[None]:
        """Rename, add and update jobs, in the order of their needs."""
        moved = {}
        for entry in fact.plan.of("move"):
            assert entry.moved_from is not None
            moved[entry.job] = self._rename(entry.moved_from, entry.job)
        yield
        graph = fact.graph
        plans = {entry.job: entry for entry in fact.plan.jobs}
        yield
        units = 0
        for name in graph.order or tuple(graph.nodes):
            entry = plans[name]
            self._add_or_update(entry, graph.nodes[name], moved.get(name), returns=name in returning)
            units += 1 if entry.reload == "keep" else JOB_UNITS
            if units >= STEP:
                units = 0
                yield

    def _rename(self, former: str, name: str) -> Job:
        """Remove a job from the table that will be added under another name. Its probes continue."""
        job = self._table.active.pop(former)
        self._context.actions.append(RenameJob(former, name))
        self._watches.unwatch(former)
        self._probes.rename(former, name)
        return job

    def _add_or_update(self, entry: JobPlan, node: Node, moved: Job | None, *, returns: bool) -> None:
        context, table, name = self._context, self._table, node.spec.name
        if entry.reload == "keep" and name in table.active:
            table.active[name].node = node
            return
        retime, restart = effects(entry, node.spec)
        if moved is not None:
            table.active[name] = moved
            table.remembered.pop(name, None)
            moved.update(node, retime=retime, restart=restart, renamed=True)
            self._watches.watch(node.spec)
            context.emit_event(JobChanged(name, "move"))
        elif entry.reload == "add" and (gone := table.find_gone(entry.moved_from or name)) is not None:
            table.gone.remove(gone)
            table.remembered.pop(name, None)
            table.active[name] = gone
            gone.come_back(node, renamed=entry.moved_from is not None)
            self._watches.watch(node.spec)
            context.emit_event(JobAdded(name, gone.next.due if gone.next else None))
        elif entry.reload == "add" or name not in table.active:
            job = table.active[name] = Job(context, self._admission, node)
            job.begin(table.remembered.pop(name, None), returns=returns)
            self._watches.watch(node.spec)
            context.emit_event(JobAdded(name, job.next.due if job.next else None))
        else:
            job = table.active[name]
            self._watches.update(job.spec, node.spec)
            if job.spec.is_service != node.spec.is_service:
                self._probes.remove(name)
            job.update(node, retime=retime, restart=restart)
            context.emit_event(JobChanged(name, entry.reload))

    def _remove(self, name: str) -> None:
        job = self._table.active.pop(name)
        self._watches.unwatch(name)
        job.remove()
        self._table.remembered[name] = job.progress
        if job.spec.is_service:
            job.stop_runs(REMOVED)
        if job.state is not State.REMOVED:
            self._table.gone.append(job)
        self._probes.remove(name)
        self._context.emit_event(JobRemoved(name))

    def _resume(self, record: SlotRecord, living: Mapping[str, SurvivingRun]) -> None:
        """Continue a slot that an earlier supervisor left open, or end it if its run is over."""
        job = self._table.active.get(record.job)
        if job is not None and record.run is not None and record.run in living:
            job.adopt(record, living[record.run])
            self._probes.begin(job, record.run, adopted=True)
            return
        if job is not None and job.resume_slot(record):
            return
        now = self._context.now.wall
        now = max(now, record.started or record.due)  # the clock may have been set back
        ended = replace(record, state="interrupted", reason=_SUPERVISOR_GONE, ended=now)
        if job is not None:
            job.note_interrupted()
        progress = job.progress if job else self._table.remembered.get(record.job)
        self._context.actions.append(Record(ended, progress or Progress(record.job, record.nominal)))
        self._context.emit_event(SlotDecided(ended))
