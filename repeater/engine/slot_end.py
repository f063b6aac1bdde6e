"""How a slot of one job ends: its final record, the counters that follow, hooks, and the next interval.

Every slot ends here exactly once: `reject` a slot that was never open, or `close` an open one.
"""

from __future__ import annotations

from datetime import datetime

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import ReadLoad, Record, RunHook
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.job_data import JobData
from repeater.engine.job_states import State
from repeater.engine.stop_rules import StopRules
from repeater.model.events import IntervalChanged, SlotDecided, Warned
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Slot, SlotRecord, SlotState, Verdict
from repeater.model.spec import Adaptive, LoadAware, RateLimited
from repeater.model.time import MICROSECOND, Instant

_MAX_RECENT = 32
"""How many decided slots of a job are kept in memory."""


class SlotEnd:
    """Ends the slots of one job."""

    __slots__ = ("_job", "_stop_rules")

    def __init__(self, job: JobData, stop_rules: StopRules) -> None:
        self._job = job
        self._stop_rules = stop_rules

    def reject(self, slot: Slot, state: SlotState, reason: Reason, *, number: int = 1) -> None:
        """End a slot that was never open. Its record stands for `number` slots."""
        job = self._job
        job.skipped_last = True
        job.advance(slot, skipped=number)
        record = SlotRecord(
            slot.job, slot.nominal, slot.due, None, None, state, reason, None, 0, None, slot.trigger,
            job.context.generation,
        )  # fmt: skip
        self._store(record, number=number)

    def end(self, active: ActiveSlot, outcome: tuple[SlotState, Reason], *, kill: bool = False) -> None:
        """End an open slot with this state and reason. A live run is stopped first, or killed."""
        if active not in self._job.open:
            return
        attempt = active.attempt
        if attempt is None or not attempt.live:
            self.close(active, *outcome)
            return
        active.forced_outcome = active.forced_outcome or outcome
        if kill:
            attempt.kill(outcome[1])
        else:
            attempt.stop(outcome[1])

    def close(
        self,
        active: ActiveSlot,
        state: SlotState,
        reason: Reason,
        code: int | None = None,
        outcome: Verdict | None = None,
        *,
        is_known: bool = False,
    ) -> None:
        """Give an open slot its final record. `is_known`: an earlier record of the same slot stays instead."""
        job = self._job
        context, admission = job.context, job.admission
        if active.forced_outcome is not None:
            state, reason = active.forced_outcome
            outcome = None
        if active.retry is not None:
            active.retry.cancel()
        for timer in active.timers:
            timer.cancel()
        job.open.remove(active)
        admission.release(active)
        admission.limits.release(active)
        job.advance(active.slot, skipped=0 if active.attempts else 1)
        recovered = outcome is not None and outcome.success and job.progress.streak < 0
        end = (active.ended or context.now).mono
        shown, ended = context.shown(end), active.slot.wall_at(end)
        if active.attempts:
            job.next_slot.last_end = Instant(shown, end)
        if outcome is not None:
            self._count(outcome, active, code, shown)
        elif active.attempts:
            job.progress = replace(job.progress, last_end=shown)
        job.skipped_last = active.attempts == 0
        record = active.record(state, reason, code, context.generation, ended=ended if active.attempts else None)
        active.attempt = None
        if is_known:
            job.save()
            context.emit_event(Warned(job.spec.name, because("slot_decided_before", nominal=record.nominal)))
        else:
            self._store(record, outcome, recovered=recovered)
        self._stop_rules.check()
        has_ended = active.attempts and state in ("succeeded", "failed", "spawn_failed")
        if job.spec.is_service and has_ended and job.state is State.ACTIVE:
            self._stop_rules.check_restart(outcome)
        job.on_slot_closed()
        admission.changed(job, record)

    def _store(
        self, record: SlotRecord, outcome: Verdict | None = None, *, recovered: bool = False, number: int = 1
    ) -> None:
        """Write a final record, report it, and run the hooks for it."""
        job = self._job
        job.recent[record.nominal] = record
        if len(job.recent) > _MAX_RECENT:
            del job.recent[next(iter(job.recent))]
        job.context.actions.append(Record(record, job.progress))
        job.context.emit_event(SlotDecided(record, number))
        for kind in _hooks_for(record, outcome, recovered=recovered):
            if getattr(job.spec.hooks, kind) is not None:
                job.context.actions.append(RunHook(job.spec.name, kind, job.spec, record))
        if record.attempts == 0:
            job.admission.changed(job, record)

    def _count(self, outcome: Verdict, active: ActiveSlot, code: int | None, ended: datetime) -> None:
        job = self._job
        progress, success = job.progress, outcome.success
        job.last_success = success
        streak = max(progress.streak, 0) + 1 if success else min(progress.streak, 0) - 1
        job.progress = replace(
            progress,
            successes=progress.successes + success,
            failures=progress.failures + (not success),
            streak=streak,
            last_end=ended,
            last_success=ended if success else progress.last_success,
        )
        duration = None if active.started is None else active.slot.wall_at(job.context.now.mono) - active.started
        job.throttle.record_outcome(job.spec, outcome, code, duration, job.context)
        self._adapt(active, success=success)

    def _adapt(self, active: ActiveSlot, *, success: bool) -> None:
        """Compute the next interval from the run, the load of the machine, or the rate, as the schedule asks."""
        job = self._job
        schedule, context = job.spec.schedule, job.context
        if isinstance(schedule, LoadAware):
            context.actions.append(ReadLoad(job.spec.name))
        elif isinstance(schedule, Adaptive):
            began = active.attempt.started if active.attempt is not None else None
            latency = (context.now.mono - (began or context.now).mono) * MICROSECOND
            reason = job.adaptive.observe(schedule, success=success, latency=latency)
            job.progress = replace(job.progress, adaptive=job.adaptive.as_json())
            context.emit_event(IntervalChanged(job.spec.name, job.adaptive.pace(schedule) or schedule.base, reason))
        elif isinstance(schedule, RateLimited):
            earliest = job.admission.earliest(job) or context.now
            reason = because("next_start_allowed", at=earliest.wall)
            context.emit_event(IntervalChanged(job.spec.name, (earliest.mono - context.now.mono) * MICROSECOND, reason))


def _hooks_for(record: SlotRecord, outcome: Verdict | None, *, recovered: bool) -> list[str]:
    if record.state in ("skipped", "expired"):
        return ["on_skip"]
    if outcome is None:
        return []
    if not outcome.success:
        return ["on_failure"]
    return ["on_success", "on_recovery"] if recovered else ["on_success"]
