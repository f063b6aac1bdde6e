"""The slots of one job from the moment they come up to the start of an attempt.

A slot that comes up is rejected at once, put into the queue of the job, or admitted. An admitted slot is open: it waits
at a limit, has a live run, or waits for its next attempt.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Start
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.attempt import Attempt
from repeater.engine.job_data import JobData
from repeater.engine.job_states import TAKES_SLOTS, Event, State
from repeater.engine.next_slot import Coming
from repeater.engine.slot_end import SlotEnd
from repeater.engine.stop_rules import StopRules
from repeater.model.events import SlotBlocked, SlotsMissed
from repeater.model.reasons import (
    DONE,
    OVERLAP,
    QUEUE_FULL,
    SLOWDOWN,
    START_DEADLINE,
    STOPPED,
    SUPERSEDED,
    Reason,
)
from repeater.model.reasons import reason as because
from repeater.model.run import Run, Slot, SlotState, Trigger
from repeater.model.spec import Overlap
from repeater.model.time import MICROSECOND
from repeater.policy import overlap

_DISABLED = Reason("disabled")
_REPLACED = Reason("replaced")
_REPLACE = Overlap("replace")


class SlotStart:
    """Decides whether and when each slot of one job starts. `SlotEnd` ends the slots."""

    __slots__ = ("_job", "_slot_end", "_stop_rules")

    def __init__(self, job: JobData, slot_end: SlotEnd, stop_rules: StopRules) -> None:
        self._job = job
        self._slot_end = slot_end
        self._stop_rules = stop_rules

    def on_due(self, coming: list[Coming]) -> None:
        """Offer the slots that came due, and reject those that were missed."""
        job = self._job
        missed = [entry for entry in coming if entry.refusal is not None]
        if missed:
            counts = [entry.number for entry in missed if entry.number is not None]
            count, last = sum(counts) + len(missed) - len(counts), missed[-1]
            end = last.slot.nominal if last.last is None else last.last
            event = SlotsMissed(job.spec.name, count, missed[0].slot.nominal, end, len(counts) < len(missed))
            job.context.emit_event(event)
        for slot, refusal, number, _ in coming:
            if refusal is None:
                self.offer(slot)
            else:
                self._slot_end.reject(slot, *refusal, number=number or 1)
        if job.next_slot.slot is None:
            job.arm()

    def request_run(
        self, trigger: Trigger, cause: Reason | None = None, *, nominal: datetime | None = None, forced: bool = False
    ) -> None:
        """Offer a slot beside the schedule, for a person, a changed file, another job, or a restart."""
        job = self._job
        now = job.context.now
        when = nominal or now.wall
        while nominal is None and job.has_decided(when):
            when += MICROSECOND
        self.offer(Slot(job.spec.name, when, max(when, now.wall), trigger, forced, now.mono), cause)

    def offer(self, slot: Slot, cause: Reason | None = None) -> None:
        """Decide about a slot that came up. `cause` is why it replaces a live run, if it does."""
        job = self._job
        job.skipped_last = False
        rejection = self._rejection_reason(slot)
        if rejection is not None:
            self._slot_end.reject(slot, *rejection)
            return
        if slot.forced or not job.open:
            self._admit(slot)
            return
        rule = job.spec.overlap
        if slot.trigger == "restart" or (slot.trigger == "watch" and job.spec.is_service):
            rule = _REPLACE
        match overlap.decide(rule, len(job.open), len(job.pending)):
            case "start":
                self._admit(slot)
            case "enqueue":
                job.pending.append(slot)
            case "keep_newest":
                self._supersede_pending(slot)
            case "replace":
                self._supersede_pending(slot)
                reason = _REPLACED if cause is None else because("replaced", cause=cause)
                for active in list(job.open):
                    self._slot_end.end(active, ("replaced", reason))
            case "queue_full":
                self._slot_end.reject(slot, "skipped", QUEUE_FULL)
            case _:
                self._slot_end.reject(slot, "skipped", OVERLAP)

    def _supersede_pending(self, slot: Slot) -> None:
        for earlier in self._job.pending:
            self._slot_end.reject(earlier, "skipped", SUPERSEDED)
        self._job.pending = [slot]

    def _rejection_reason(self, slot: Slot) -> tuple[SlotState, Reason] | None:
        """Why a slot is rejected, apart from `overlap`; None if it is not."""
        job = self._job
        now, deadline = job.context.now, job.spec.catch_up.start_deadline
        if job.state not in TAKES_SLOTS and not (slot.forced and job.state is State.DONE):
            if job.state is State.INACTIVE and not job.spec.enabled:
                return "skipped", _DISABLED
            return "skipped", DONE if job.state is State.DONE else STOPPED
        paused = job.progress.paused
        if paused is not None and not slot.forced:
            return "skipped", paused
        if deadline is not None and slot.late_by(now.mono) > deadline:
            return "expired", START_DEADLINE
        if job.throttle.holds(now) and slot.trigger in ("schedule", "catch_up") and not job.schedule.waits_for_end:
            return "skipped", SLOWDOWN
        return None

    def _admit(self, slot: Slot) -> None:
        job = self._job
        context = job.context
        active = ActiveSlot(slot, context.now)
        job.open.append(active)
        job.transition(Event.OPENED)
        deadline = job.spec.catch_up.start_deadline
        if deadline is not None:
            remaining = max(timedelta(0), deadline - slot.late_by(context.now.mono))
            active.timers.append(context.call_in(remaining, lambda _: self._expire(active)))
        self.try_start(active)

    def _expire(self, active: ActiveSlot) -> None:
        if active.attempts == 0 and active in self._job.open:
            self._slot_end.close(active, "expired", START_DEADLINE)

    def try_start(self, active: ActiveSlot) -> None:
        """Start the next attempt of an open slot, let the slot wait, or close it, as admission says."""
        job = self._job
        answer = job.admission.try_admit(job, active)
        if answer is None:
            active.wait_reason = None
            self._start(active)
        elif answer[0] == "hold":
            if active.wait_reason is None:
                slot = active.slot
                job.context.emit_event(SlotBlocked(slot.job, slot.nominal, slot.due, answer[1]))
            active.wait_reason = answer[1]
        else:
            self._slot_end.close(active, "skipped", answer[1])

    def _start(self, active: ActiveSlot) -> None:
        job = self._job
        context, slot = job.context, active.slot
        active.attempts += 1
        run = Run(context.new_run_id(), slot, active.attempts, context.generation)
        if active.attempts == 1:
            now = context.steady.wall
            job.progress = replace(
                job.progress,
                cursor=job.cursor_after(slot),
                runs=job.progress.runs + 1,
                first_start=job.progress.first_start or now,
                last_start=now,
            )
        active.attempt = Attempt(context, run, job.spec.ending)
        job.admission.register_run(run, job, active)
        record = active.record("claimed", None, None, context.generation)
        job.admission.limits.claimed(job.spec, run)
        context.actions.append(Start(run, job.spec, record, job.progress))
        self._stop_rules.check_count()

    def take_next(self) -> None:
        """No slot is open any more: offer the pending ones, or wait for the next one."""
        job = self._job
        while job.pending and not job.open:
            self.offer(job.pending.pop(0))
        if not job.open and (job.next_slot.slot is None or job.schedule.waits_for_end):
            job.arm()

    def take_pending(self) -> None:
        """Offer the first pending slot if it may run beside the open ones."""
        job = self._job
        if job.pending and overlap.decide(job.spec.overlap, len(job.open), 0) == "start":
            self.offer(job.pending.pop(0))

    def drop_pending(self, reason: Reason) -> None:
        """Cancel every slot that has not started."""
        job = self._job
        pending, job.pending = job.pending, []
        for slot in pending:
            self._slot_end.reject(slot, "cancelled", reason)
        for active in [active for active in job.open if active.attempts == 0]:
            self._slot_end.end(active, ("cancelled", reason))

    def drop_begun(self, reason: Reason) -> None:
        """Cancel the slot that waits for its jitter: its nominal time has come, so it needs a record."""
        job = self._job
        slot = job.next
        if slot is not None and slot.nominal <= job.context.now.wall < slot.due:
            job.next_slot.disarm()
            self._slot_end.reject(slot, "cancelled", reason)

    def drop_scheduled(self, reason: Reason) -> None:
        """Cancel the pending slots that the schedule named."""
        job = self._job
        for slot in job.pending:
            if slot.trigger in ("schedule", "catch_up"):
                self._slot_end.reject(slot, "cancelled", reason)
        job.pending = [slot for slot in job.pending if slot.trigger not in ("schedule", "catch_up")]

    def stop_runs(self, reason: Reason, *, kill: bool = False) -> None:
        """End every open slot as cancelled."""
        for active in list(self._job.open):
            self._slot_end.end(active, ("cancelled", reason), kill=kill)
