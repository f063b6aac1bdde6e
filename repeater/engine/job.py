"""One job while it is active: its definition, its start, its changes and its end.

`ACTIVE` means that at least one slot is open: it waits at a limit, has a live run, or waits for its next attempt. Every
slot that comes up is decided exactly once and gets exactly one final record. `engine.job_states` has the states and the
events that change them. The parts of a job are `engine.next_slot` (which slot comes next), `engine.slot_start` (whether
and when a slot starts), `engine.attempt` (how one attempt ends), `engine.outcome` (whether another attempt follows),
`engine.slot_end` (the final record), `engine.stop_rules` and `engine.pause`. They share the data of `engine.job_data`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import replace
from repeater.engine.attempt import InvalidTransition
from repeater.engine.clock_step import is_same_boot, recalled, shifted
from repeater.engine.context import Context
from repeater.engine.job_data import Admission, JobData
from repeater.engine.job_states import TABLE, TAKES_SLOTS, Event, State
from repeater.engine.outcome import Outcome
from repeater.engine.pause import Pause
from repeater.engine.slot_end import SlotEnd
from repeater.engine.slot_start import SlotStart
from repeater.engine.stop_rules import StopRules, fingerprint, is_rule
from repeater.model.events import IntervalChanged, JobDone
from repeater.model.reasons import REMOVED, STOPPED, Reason
from repeater.model.run import Progress, Slot, SlotRecord, Trigger
from repeater.model.spec import Always, JobSpec, LoadAware, Once, OnceEver
from repeater.model.time import MICROSECOND
from repeater.plan.graph import Node

if TYPE_CHECKING:
    from repeater.engine.active_slot import ActiveSlot
    from repeater.engine.facts import SurvivingRun
    from repeater.engine.next_slot import Coming
    from repeater.schedule.load_aware import LoadReadings

_RELOADED = Reason("reloaded")
_SCHEDULE_CHANGED = Reason("schedule_changed")
_DISABLED = Reason("disabled")
_STARTED_AGAIN = Reason("started_again")
_MAX_SLEW = timedelta(seconds=2)
_METHODS = {move: sys.intern(f"_{move}") for move, _ in TABLE.values()}


class Job(JobData):
    """What happens to a job as a whole. Facts about its runs go to `outcome`, requests for a pause to `pause`."""

    __slots__ = ("_former_offset", "_slot_end", "_slot_start", "_stop_rules", "outcome", "pause")

    def __init__(self, context: Context, admission: Admission[Job], node: Node) -> None:
        super().__init__(context, admission, node, self._on_due)
        self._stop_rules = StopRules(self)
        self._slot_end = SlotEnd(self, self._stop_rules)
        self._slot_start = SlotStart(self, self._slot_end, self._stop_rules)
        self.outcome = Outcome(self, self._slot_start, self._slot_end, self._stop_rules)
        self.pause = Pause(self)
        self._former_offset: int | None = None

    def twin(self, context: Context, admission: Admission[Job]) -> Job:
        """A second object of the same job, for a preview. Changes of it have no effect on this one."""
        import copy  # only a preview needs it

        twin = Job(context, admission, self.node)
        twin.state, twin.progress, twin.ready = self.state, self.progress, self.ready
        twin.pending, twin.recent, twin.open = list(self.pending), dict(self.recent), []
        for active in self.open:
            second = copy.copy(active)
            second.retry, second.timers = None, []
            if active.attempt is not None:
                second.attempt = active.attempt.twin(context)
            twin.open.append(second)
        twin.throttle, twin.adaptive = copy.copy(self.throttle), copy.copy(self.adaptive)
        twin.last_success, twin.skipped_last, twin.stop_reason = self.last_success, self.skipped_last, self.stop_reason
        twin._stop_rules.copy(self._stop_rules)
        next_slot = self.next_slot
        twin.next_slot.anchor, twin.next_slot.cursor = next_slot.anchor, next_slot.cursor
        twin.next_slot.last_end = next_slot.last_end
        twin.arm()
        return twin

    # --- start and changes of the definition -------------------------------------------------------------------

    def begin(self, progress: Progress | None, *, returns: bool = False) -> None:
        """Become active, with the stored progress if there is one.

        `returns`: the job was removed from the job file and is back, so slots in between are not missed.
        """
        spec = self.spec
        schedule, rule = repr(spec.schedule), fingerprint(spec.stop)
        at_start = isinstance(spec.schedule, Once | Always)
        if progress is None:
            self.progress = self.new_progress(spec.name, schedule=schedule, stop=rule)
        else:
            progress = self._restore(progress, schedule, rule, returns=returns)
        self.adaptive.restore(self.progress.adaptive)
        pushed_until, pushed = self.progress.pushed_until, self.progress.pushed
        if pushed_until is not None and pushed is not None:
            self.admission.limits.restore_push_back(spec, self.context.reading(pushed_until).mono, pushed)
        if progress is not None:
            self.progress = replace(self.progress, schedule=schedule, stop=rule)
            if progress.stop != rule and (progress.done is not None or not at_start):
                self.progress = replace(self.progress, done=self._stop_rules.met())
        if self.progress.done is not None:
            self.state = State.DONE
        elif not spec.enabled:
            self.state = State.INACTIVE
        self.save()
        self._stop_rules.arm()
        self.pause.arm()
        self.arm()

    def _restore(self, progress: Progress, schedule: str, rule: str, *, returns: bool) -> Progress:
        """Continue with the stored progress, and return it with its times as this supervisor writes them."""
        context, spec, now = self.context, self.spec, self.context.now
        self._former_offset = progress.clock if is_same_boot(progress, now, context.boot) else None
        progress = recalled(progress, self.schedule.clock, now=now, offset=context.offset, boot=context.boot)
        if isinstance(spec.schedule, Once | Always) or _has_run_to_come(spec, progress):
            # Their run belongs to this start of the supervisor, so earlier runs do not matter.
            done = progress.done if progress.stop == rule and is_rule(progress.done) else None
            self.progress = replace(progress, job=spec.name, anchor=context.steady.wall, cursor=None, done=done)
            return progress
        self.progress = replace(progress, job=spec.name)
        at = now.at_wall if self.schedule.clock == "wall" else context.reading
        self.next_slot.anchor = at(progress.anchor)
        self.next_slot.cursor = None if progress.cursor is None else at(progress.cursor)
        self.next_slot.last_end = None if progress.last_end is None else context.reading(progress.last_end)
        if progress.last_end is not None and progress.streak:
            self.last_success = progress.streak > 0
        if returns or progress.schedule != schedule:
            self._retime()
        return progress

    def update(self, node: Node, *, retime: bool, restart: bool, renamed: bool = False) -> None:
        """Take a changed definition. Counters, cursor and live runs stay, and the change itself starts nothing."""
        before = self.spec
        self.node = node
        self.spec = self.next_slot.spec = node.spec
        self.next_slot.schedule = node.schedule
        if renamed:
            self._rename(node.spec.name)
        if retime and before.schedule != node.spec.schedule:
            self._retime()
        is_same_kind = before.is_service == node.spec.is_service
        if not is_same_kind:
            self.ready, self.skipped_last = None, False
            self.stop_runs(_SCHEDULE_CHANGED)
        self.progress = replace(self.progress, schedule=repr(node.spec.schedule), stop=fingerprint(node.spec.stop))
        if before.stop != node.spec.stop and self.progress.done is not None:
            self.progress = replace(self.progress, done=self._stop_rules.met())
            if self.progress.done is None and self.state is State.DONE:
                self.transition(Event.REARMED)
                self.next_slot.skip_missed()
        if before.enabled != node.spec.enabled:
            self._set_enabled(node.spec.enabled)
        self.save()
        self._stop_rules.arm()
        self._stop_rules.check()
        self.arm()
        if restart and is_same_kind and self.state in TAKES_SLOTS and (self.open or self.pending):
            self.request_run("restart", _RELOADED)

    def come_back(self, node: Node, *, renamed: bool = False) -> None:
        """The job was removed while a run was live, and is in the job file again. It keeps that run."""
        self.skipped_last = False
        self.transition(Event.RETURNED)
        self.update(node, retime=True, restart=False, renamed=renamed)
        if not isinstance(self.spec.schedule, Once | Always):
            self._retime()  # slots in between are not missed
            self.arm()
        self.pause.arm()

    def _rename(self, name: str) -> None:
        """Use the new name in everything that is written from now on, also about live runs."""
        former = self.progress.job
        self.pending = [replace(slot, job=name) for slot in self.pending]
        self.recent = {nominal: replace(record, job=name) for nominal, record in self.recent.items()}
        self.progress = replace(self.progress, job=name)
        for active in self.open:
            active.slot = replace(active.slot, job=name)
            self.admission.limits.rename(active, former, name)
            if active.attempt is not None:
                active.attempt.run = replace(active.attempt.run, slot=active.slot)

    def _retime(self) -> None:
        """Start the schedule again from now."""
        self._slot_start.drop_begun(_SCHEDULE_CHANGED)
        self.next_slot.restart(self.progress.cursor)
        now = self.next_slot.anchor.wall
        self.progress = replace(self.progress, anchor=now, cursor=max(now, self.progress.cursor or now))
        self._slot_start.drop_scheduled(_SCHEDULE_CHANGED)

    def _set_enabled(self, enabled: bool) -> None:
        """`enabled` was edited. A live run of a timed job finishes, a service is stopped."""
        self.stop_reason = _DISABLED
        if enabled:
            self.transition(Event.TURNED_ON)
        else:
            self._slot_start.drop_begun(_DISABLED)
            self.transition(Event.TURNED_OFF if self.spec.is_service else Event.DISABLED)

    # --- the clock ---------------------------------------------------------------------------------------------

    def move_clock(self, step: int) -> None:
        """The wall clock was set by `step` microseconds. Distances keep their length and get new wall times.

        A slot that is not claimed yet has no record and gets a new name. Slots of a schedule that names times of day
        keep their names.
        """
        by, clock = step * MICROSECOND, self.schedule.clock
        self.progress = shifted(self.progress, step, clock, self.context.now.wall)
        self.next_slot.move_clock(by)
        self.throttle.move_clock(by)

        def moved(slot: Slot) -> Slot:
            if clock == "wall" and slot.trigger in ("schedule", "catch_up"):
                return slot
            return replace(slot, nominal=slot.nominal + by, due=slot.due + by)

        self.pending = [moved(slot) for slot in self.pending]
        for active in self.open:
            if active.attempts == 0:
                active.slot = moved(active.slot)
        self.save()
        if self.next is not None or not self.open:
            self.arm()

    def waits_for_clock(self, now: datetime) -> datetime | None:
        """The last decided time of day if the clock is behind it: no slot is decided twice, so the job waits.

        A clock that is less than two seconds behind is being slewed, and needs no warning.
        """
        cursor = self.progress.cursor
        if self.schedule.clock != "wall" or cursor is None or self.state in (State.DONE, State.INACTIVE):
            return None
        return cursor if cursor - now > _MAX_SLEW else None

    def load_read(self, readings: LoadReadings) -> None:
        """The load of the machine was read after a run: compute the next interval from it."""
        schedule = self.spec.schedule
        if isinstance(schedule, LoadAware):
            reason = self.adaptive.read(schedule, readings)
            interval = self.adaptive.pace(schedule) or schedule.base
            self.context.emit_event(IntervalChanged(self.spec.name, interval, reason))
            if self.next is not None:
                self.arm()

    # --- slots and runs ----------------------------------------------------------------------------------------

    def request_run(
        self, trigger: Trigger, cause: Reason | None = None, *, nominal: datetime | None = None, forced: bool = False
    ) -> None:
        """Offer a slot beside the schedule, for a person, a changed file, another job, or a restart."""
        runs_again = self.may_run_again and trigger in ("manual", "restart", "watch")
        if runs_again:
            self.progress = replace(self.progress, done=None)
            self.stop_reason = None
            self.transition(Event.REARMED)
            self.save()
        self._slot_start.request_run(trigger, cause, nominal=nominal, forced=forced)
        if runs_again and not self.open:  # the slot was rejected
            self.arm()

    @property
    def may_run_again(self) -> bool:
        """Whether the job is done and a request starts it: its service or its schedule has ended, no `stop` rule."""
        return self.state is State.DONE and not is_rule(self.progress.done)

    def try_start(self, active: ActiveSlot) -> None:
        """Start the next attempt of an open slot if admission allows it now."""
        self._slot_start.try_start(active)

    def resume_slot(self, record: SlotRecord) -> bool:
        """Try a slot again that an earlier supervisor left open; False if it must not be tried again."""
        from repeater.engine.adoption import resume_slot

        return resume_slot(self, self._slot_start, record, self._former_offset)

    def note_interrupted(self) -> None:
        """A run of an earlier supervisor is over and its end is unknown."""
        from repeater.engine.adoption import note_interrupted

        note_interrupted(self)

    def adopt(self, record: SlotRecord, surviving: SurvivingRun) -> None:
        """Take over a run that an earlier supervisor started and that is still live."""
        from repeater.engine.adoption import adopt

        adopt(self, record, surviving)
        self.arm()
        self._stop_rules.check_count()
        if self.state is State.STOPPING and self.spec.is_service:
            self.stop_runs(_DISABLED)
        self.admission.changed(self, None)

    def stop_runs(self, reason: Reason, *, kill: bool = False) -> None:
        """End every open slot as cancelled."""
        self._slot_start.stop_runs(reason, kill=kill)

    def _on_due(self, coming: list[Coming]) -> None:
        self._slot_start.on_due(coming)

    def on_slot_closed(self) -> None:
        """Continue after an open slot got its final record."""
        if not self.open:
            if (self.state, Event.EMPTIED) in TABLE:  # the stop rule may have ended the other slots and the job before
                self.transition(Event.EMPTIED)
        elif self.state is State.ACTIVE:
            self._slot_start.take_pending()
            if self.schedule.waits_for_end:
                self.arm()

    # --- stop, start, reset, removal ---------------------------------------------------------------------------

    def stop(self, reason: Reason) -> None:
        """Take no slots, and stop every live run."""
        self.stop_reason = reason
        self.transition(Event.TURNED_OFF)

    def start(self) -> None:
        """Take slots again after a stop. A finished service or `once` job runs again."""
        if self.may_run_again and isinstance(self.spec.schedule, Once | Always):
            self.request_run("restart", _STARTED_AGAIN)
        else:
            self.transition(Event.TURNED_ON)

    def reset(self) -> None:
        """Clear counters and `done`, and start the schedule again."""
        self.transition(Event.RESET)

    def drain(self, reason: Reason) -> None:
        """Start nothing more, because the job was removed or the supervisor exits. Live timed runs finish."""
        self.stop_reason = reason
        self._slot_start.drop_pending(reason)
        self.pause.disarm()
        if self.state is not State.REMOVED:
            self.transition(Event.LEAVE)

    def remove(self) -> None:
        """The job is not in the job file any more."""
        self._slot_start.drop_begun(REMOVED)
        self.drain(REMOVED)

    # --- moves of the table ------------------------------------------------------------------------------------

    def transition(self, event: Event) -> None:
        """Change the state as `job_states.TABLE` says, and make the move that goes with it."""
        try:
            move, state = TABLE[self.state, event]
        except KeyError:
            raise InvalidTransition(f"job `{self.spec.name}` cannot take {event.name} in {self.state.name}") from None
        self.state = state
        getattr(self, _METHODS[move])()

    def _no_op(self) -> None:
        pass

    def _disarm(self) -> None:
        self.next_slot.disarm()
        self._slot_start.drop_pending(self.stop_reason or STOPPED)

    def _take_next(self) -> None:
        self._slot_start.take_next()

    def _finish(self) -> None:
        self._disarm()
        reason = self.stop_reason or self.progress.done or STOPPED
        self.progress = replace(self.progress, done=reason)
        self.save()
        self.context.emit_event(JobDone(self.spec.name, reason))
        self.admission.changed(self, None)

    def _stop_all(self) -> None:
        self._disarm()
        self.stop_runs(self.stop_reason or STOPPED)

    def _rearm(self) -> None:
        self.skipped_last = False
        self.next_slot.skip_missed()
        if self.open and self.spec.is_service:
            self.request_run("restart", _STARTED_AGAIN)
        else:
            self.arm()

    def _reset(self) -> None:
        former = self.progress
        self.progress = replace(
            self.new_progress(former.job, schedule=former.schedule, stop=former.stop),
            last_success=former.last_success,
            paused=former.paused,
            paused_until=former.paused_until,
            pushed_until=former.pushed_until,
            pushed=former.pushed,
            pause_rides=former.pause_rides,
        )
        self.next_slot.reset()
        self._stop_rules.reset()
        self.throttle.reset()
        self.adaptive.reset()
        self.skipped_last = False
        self.save()
        self._stop_rules.arm()
        self.arm()


def _has_run_to_come(spec: JobSpec, progress: Progress) -> bool:
    """Whether a job with `once-ever` still has its run to come: its slot did not come up yet, or was skipped.

    A slot that was claimed without a record of its start is over, because the run may have begun.
    """
    is_over = progress.first_start is not None or not progress.skipped
    return isinstance(spec.schedule, OnceEver) and (progress.cursor is None or not is_over)
