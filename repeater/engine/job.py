"""One job while it is in force: the slots that it has open, and what it decides about each that comes up.

`ACTIVE` means that at least one slot is open: held at a gate, running, or waiting for its next attempt. Every slot that
comes up is decided here exactly once and leaves exactly one row. The states and what moves them are the table of
`engine.job_states`, when slots come up is `engine.next_slot`, how one attempt ends `engine.attempt`; what other jobs
have to say (needs, pools) is asked of `engine.admission`. It never reads a clock: everything happens at `context.now`.
Called by `engine.engine` only.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import Adopt, ReadLoad, Record, RecordStarted, RunHook, SaveProgress, Start
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.adaptive_interval import AdaptiveInterval, Starts
from repeater.engine.attempt import Attempt, InvalidTransition
from repeater.engine.attempt import Event as Move
from repeater.engine.clock_step import is_same_boot, recalled, shifted
from repeater.engine.context import Context
from repeater.engine.failure_throttle import FailureThrottle
from repeater.engine.job_states import TABLE, TAKES_SLOTS, Event, State
from repeater.engine.limits import Limits, retry_rule
from repeater.engine.next_slot import Coming, NextSlot
from repeater.engine.timers import Timer
from repeater.model.events import (
    IntervalChanged,
    JobDone,
    JobPaused,
    JobResumed,
    RunAdopted,
    RunBegan,
    RunFinished,
    SlotBlocked,
    SlotDecided,
    SlotsMissed,
    SpawnRejected,
    Warned,
)
from repeater.model.reasons import (
    DONE,
    OVERLAP,
    QUEUE_FULL,
    REMOVED,
    SLOWDOWN,
    START_DEADLINE,
    STOPPED,
    SUPERSEDED,
    Reason,
)
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Progress, Run, Slot, SlotRecord, SlotState, Trigger, Usage, Verdict
from repeater.model.spec import (
    Adaptive,
    Always,
    Backoff,
    JobSpec,
    LoadAware,
    Once,
    OnceEver,
    Overlap,
    Plugin,
    RateLimited,
    Stop,
)
from repeater.model.time import MICROSECOND, Instant, Mono, to_epoch_us, to_us
from repeater.plan.graph import Node
from repeater.policy import overlap, retry, stop, verdict
from repeater.schedule.backoff import backoff_delay
from repeater.schedule.base import Schedule, Track

if TYPE_CHECKING:
    from collections.abc import Callable

    from repeater.engine.facts import RunEnded, SurvivingRun
    from repeater.engine.plugin_conditions import PluginConditions
    from repeater.policy.http_aware import PushBack, Unreadable
    from repeater.schedule.load_aware import LoadReadings

_RELOADED = Reason("reloaded")
_SCHEDULE_CHANGED = Reason("schedule_changed")
_DISABLED = Reason("disabled")
_PAUSE_OVER = Reason("pause_over")
_SCHEDULE_ENDED = Reason("schedule_ended")
_REPLACED = Reason("replaced")
_DECIDED_BEFORE = Reason("decided_before")
_STARTED_AGAIN = Reason("started_again")
_SLEW = timedelta(seconds=2)
_SHORTAGE = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=30))
_REPLACE = Overlap("replace")
_OUTCOMES_KEPT = 32
_PACED = (Adaptive, LoadAware)
_METHODS = {move: sys.intern(f"_{move}") for move, _ in TABLE.values()}


class Admission(Protocol):
    """What a job asks about the rest of the world; `engine.admission` answers."""

    def try_admit(self, job: Job, slot: ActiveSlot) -> tuple[Literal["hold", "skipped"], Reason] | None:
        """None: go on, places in pools are taken. Else what becomes of the slot, and why."""
        ...

    def force_admit(self, job: Job, slot: ActiveSlot) -> None:
        """Take the places of a run that is live already, whether they are free or not."""
        ...

    def release(self, slot: ActiveSlot) -> None:
        """The slot takes no place any more and waits for nothing."""
        ...

    @property
    def limits(self) -> Limits:
        """Where attempts take their places, are told of, and are given back when the slot ends."""
        ...

    def earliest(self, job: Job) -> Instant | None:
        """When the job's own rate allows its next start; None if it has none."""
        ...

    def register_run(self, run: Run, job: Job, slot: ActiveSlot) -> None:
        """Facts about this run belong to this slot."""
        ...

    def changed(self, job: Job, row: SlotRecord | None) -> None:
        """Something about the job changed that others may wait for; `row` if it is a decided slot."""
        ...


class Job:
    """`progress` is what survives a restart; `next` is the slot that is waited for; `recent` maps the nominal times of
    the last decided slots to their rows.
    """

    __slots__ = (
        "_conditions",
        "_context",
        "_deadlines",
        "_former",
        "_gates",
        "_last_exit",
        "_pattern_found",
        "_pause_end",
        "_refused",
        "_stop_reason",
        "last_success",
        "node",
        "open",
        "pacing",
        "pending",
        "progress",
        "ready",
        "recent",
        "slowing",
        "spec",
        "starts",
        "state",
        "upcoming",
    )  # fmt: skip

    def __init__(self, context: Context, gates: Admission, node: Node) -> None:
        self._context = context
        self._gates = gates
        self._deadlines: list[Timer] = []
        self._pause_end: Timer | None = None
        self._stop_reason: Reason | None = None
        self._pattern_found = False
        self._last_exit: int | None = None
        self._refused = False
        self._conditions: PluginConditions | None = None
        self.spec: JobSpec = node.spec
        self.node = node
        self.upcoming = NextSlot(context, node.spec, node.schedule, self._track, self._on_due, self._arm)
        self.slowing = FailureThrottle()
        self.pacing = AdaptiveInterval()
        self.starts = Starts()
        self.state = State.IDLE
        self.open: list[ActiveSlot] = []
        self.pending: list[Slot] = []
        self.recent: dict[datetime, SlotRecord] = {}
        self.ready: bool | None = None
        self.last_success: bool | None = None
        self.progress = self._new_progress(self.spec.name)
        self._former: int | None = None

    # --- coming into force -------------------------------------------------------------------------------------

    def begin(self, progress: Progress | None, *, returns: bool = False) -> None:
        """Enter into force, with what is remembered from an earlier life, if anything. `returns`: the job was taken
        out of the file and is back, so nothing is owed for the time between.
        """
        context, now, spec = self._context, self._context.now, self.spec
        schedule, rule = repr(spec.schedule), _fingerprint(spec.stop)
        if progress is None:
            self.progress = self._new_progress(spec.name, schedule=schedule, stop=rule)
        else:
            self._former = progress.clock if is_same_boot(progress, now, context.boot) else None
            progress = recalled(progress, self.schedule.clock, now=now, offset=context.offset, boot=context.boot)
        if progress is None:
            pass
        elif isinstance(spec.schedule, Once | Always) or _has_its_run_to_come(spec, progress):
            # all mean at this start, so what an earlier life did is no reason not to run
            done = progress.done if progress.stop == rule and _is_rule(progress.done) else None
            self.progress = replace(progress, job=spec.name, anchor=context.steady.wall, cursor=None, done=done)
        else:
            self.progress = replace(progress, job=spec.name)
            at = now.at_wall if self.schedule.clock == "wall" else context.reading
            self.upcoming.anchor = at(progress.anchor)
            self.upcoming.cursor = None if progress.cursor is None else at(progress.cursor)
            self.upcoming.last_end = None if progress.last_end is None else context.reading(progress.last_end)
            if progress.last_end is not None and progress.streak:
                self.last_success = progress.streak > 0
            if returns or progress.schedule != schedule:
                self._retime()
        self.pacing.restore(self.progress.adaptive)
        kept = self.progress
        if kept.pushed_until is not None and kept.pushed is not None:
            self._gates.limits.take_up(spec, context.reading(kept.pushed_until).mono, kept.pushed)
        if progress is not None:
            self.progress = replace(self.progress, schedule=schedule, stop=rule)
            at_start = isinstance(spec.schedule, Once | Always)
            if progress.stop != rule and (progress.done is not None or not at_start):
                self.progress = replace(self.progress, done=self._stop_met())
        if self.progress.done is not None:
            self.state = State.DONE
        elif not spec.enabled:
            self.state = State.INACTIVE
        self._context.actions.append(SaveProgress(self.progress))
        self._watch_deadlines()
        self._watch_pause()
        self._arm()

    def _new_progress(self, name: str, *, schedule: str = "", stop: str = "") -> Progress:
        context, anchor = self._context, self.upcoming.now.wall
        began = context.steady.wall
        clock, boot = context.offset, context.boot or None
        return Progress(name, anchor, schedule=schedule, stop=stop, began=began, clock=clock, boot=boot)

    def _mono_of(self, wall: datetime) -> Mono:
        """The monotonic reading of a time in a row that an earlier supervisor wrote."""
        if self._former is None:
            return self._context.now.at_wall(wall).mono
        return Mono(to_epoch_us(wall) - self._former)

    def move_clock(self, step: int) -> None:
        """The wall clock was set by `step` microseconds: distances keep their length and are written with the new time.

        A slot that is not claimed yet has no row and is named anew. Slots of a schedule that rides the wall clock are
        named by a time of day, which does not change.
        """
        by, rides = step * MICROSECOND, self.schedule.clock
        self.progress = shifted(self.progress, step, rides, self._context.now.wall)
        self.upcoming.move_clock(by)
        self.slowing.move_clock(by)

        def named(slot: Slot) -> Slot:
            if rides == "wall" and slot.trigger in ("schedule", "catch_up"):
                return slot
            return replace(slot, nominal=slot.nominal + by, due=slot.due + by)

        self.pending = [named(slot) for slot in self.pending]
        for held in self.open:
            if held.attempts == 0:
                held.slot = named(held.slot)
        self._context.actions.append(SaveProgress(self.progress))
        if self.next is not None or not self.open:
            self._arm()

    def waits_for_clock(self, now: datetime) -> datetime | None:
        """The last decided time of day, if the clock is behind it: no slot is decided twice, so the job waits.

        A clock that is less than two seconds behind is being corrected slowly, and nobody has to act.
        """
        cursor = self.progress.cursor
        if self.schedule.clock != "wall" or cursor is None or self.state in (State.DONE, State.INACTIVE):
            return None
        return cursor if cursor - now > _SLEW else None

    def update(self, node: Node, *, retime: bool, restart: bool, renamed: bool = False) -> None:
        """Take a changed definition: counters, cursor and live runs stay. Nothing is fired by the change itself."""
        before = self.spec
        self.node = node
        self.spec = self.upcoming.spec = node.spec
        self.upcoming.schedule = node.schedule
        if renamed:
            self._rename(node.spec.name)
        if retime and before.schedule != node.spec.schedule:
            self._retime()
        if before.is_service != node.spec.is_service:
            self._change_kind()
        self.progress = replace(self.progress, schedule=repr(node.spec.schedule), stop=_fingerprint(node.spec.stop))
        if before.stop != node.spec.stop and self.progress.done is not None:
            self.progress = replace(self.progress, done=self._stop_met())
            if self.progress.done is None and self.state is State.DONE:
                self._transition(Event.REARMED)
                self.upcoming.skip_missed()
        if before.enabled != node.spec.enabled:
            self._switch(node.spec.enabled)
        self._context.actions.append(SaveProgress(self.progress))
        self._watch_deadlines()
        self._check_stop()
        self._arm()
        is_same_kind = before.is_service == node.spec.is_service
        if restart and is_same_kind and self.state in TAKES_SLOTS and (self.open or self.pending):
            self.request_run("restart", _RELOADED)

    def come_back(self, node: Node, *, renamed: bool = False) -> None:
        """The job was removed while a run was live, and is in the file again: it goes on with that run."""
        self._refused = False
        self._transition(Event.RETURNED)
        self.update(node, retime=True, restart=False, renamed=renamed)
        if not isinstance(self.spec.schedule, Once | Always):
            self._retime()  # nothing is owed for the time between
            self._arm()
        self._watch_pause()

    def _change_kind(self) -> None:
        """A service became a timed job, or the other way round: the run of the old kind is stopped."""
        self.ready, self._refused = None, False
        self.stop_runs(_SCHEDULE_CHANGED)

    def _rename(self, name: str) -> None:
        """All that is written from now on, about live runs too, is written under the new name."""
        former = self.progress.job
        self.pending = [replace(slot, job=name) for slot in self.pending]
        self.recent = {nominal: replace(row, job=name) for nominal, row in self.recent.items()}
        self.progress = replace(self.progress, job=name)
        for held in self.open:
            held.slot = replace(held.slot, job=name)
            self._gates.limits.rename(held, former, name)
            if held.attempt is not None:
                held.attempt.run = replace(held.attempt.run, slot=held.slot)

    def _retime(self) -> None:
        self._drop_begun(_SCHEDULE_CHANGED)
        self.upcoming.restart(self.progress.cursor)
        now = self.upcoming.anchor.wall
        self.progress = replace(self.progress, anchor=now, cursor=max(now, self.progress.cursor or now))
        for slot in self.pending:
            if slot.trigger in ("schedule", "catch_up"):
                self._decide(slot, "cancelled", _SCHEDULE_CHANGED)
        self.pending = [slot for slot in self.pending if slot.trigger not in ("schedule", "catch_up")]

    def _drop_begun(self, why: Reason) -> None:
        """The slot that waits for its jitter gets its row: its nominal time has come, and it will not start."""
        slot = self.next
        if slot is not None and slot.nominal <= self._context.now.wall < slot.due:
            self.upcoming.disarm()
            self._decide(slot, "cancelled", why)

    def _switch(self, enabled: bool) -> None:
        """`enabled` was edited: a timed run finishes as it was, a service stops."""
        self._stop_reason = _DISABLED
        if enabled:
            self._transition(Event.TURNED_ON)
        else:
            self._drop_begun(_DISABLED)
            self._transition(Event.TURNED_OFF if self.spec.is_service else Event.DISABLED)

    # --- requests from outside ---------------------------------------------------------------------------------

    def request_run(
        self, trigger: Trigger, why: Reason | None = None, *, nominal: datetime | None = None, forced: bool = False
    ) -> None:
        """A slot beside the schedule: a person, a changed file, another job, or a restart asks for it."""
        now = self._context.now
        when = nominal or now.wall
        while nominal is None and self.has_decided(when):
            when += MICROSECOND
        slot = Slot(self.spec.name, when, max(when, now.wall), trigger, forced, now.mono)
        self._offer(slot, why)

    def has_decided(self, nominal: datetime) -> bool:
        """Whether a slot of this nominal time was decided lately, is open, pending, or the next to come."""
        return (
            nominal in self.recent
            or (self.next is not None and self.next.nominal == nominal)
            or any(held.slot.nominal == nominal for held in self.open)
            or any(slot.nominal == nominal for slot in self.pending)
        )

    def resume_slot(self, row: SlotRecord) -> bool:
        """Go on with a slot that an earlier supervisor left open; False if it must not be tried again.

        An attempt that had failed and waited for the next one goes on in any case; one of which nobody knows the end
        only if the job asks for at least one start.
        """
        spec = self.spec
        retries = row.state == "retrying" and row.attempts < spec.retry.attempts
        again = retries or (spec.delivery == "at-least-once" and row.state != "retrying")
        slot = Slot(spec.name, row.nominal, row.due, row.trigger, due_mono=self._mono_of(row.due))
        too_old = slot.wall_at(self._context.now.mono) - row.nominal > spec.catch_up.window
        at_start = isinstance(spec.schedule, Once | Always)  # they begin anew anyway
        is_last = self.state is State.DONE and self.progress.done == _SCHEDULE_ENDED  # of a schedule with one slot
        if not again or too_old or at_start or not (is_last or self.state in TAKES_SLOTS):
            return False
        if is_last:
            self.state, self.progress = State.IDLE, replace(self.progress, done=None)
        held = ActiveSlot(slot, self._context.now)
        held.attempts = row.attempts
        held.uncounted_attempts = 0 if retries else row.attempts
        self.open.append(held)
        self._transition(Event.OPENED)
        self.try_start(held)
        return True

    def note_interrupted(self) -> None:
        """A run that an earlier supervisor began is over, nobody knows since when: at the latest it ended now."""
        now = self._context.steady
        self.upcoming.last_end = now
        self.progress = replace(self.progress, last_end=now.wall)
        if self.schedule.waits_for_end:
            self._arm()

    def adopt(self, row: SlotRecord, living: SurvivingRun) -> None:
        """Go on with a run that an earlier supervisor began and somebody looked after since."""
        spec, context = self.spec, self._context
        assert row.run is not None
        began = context.now.at_wall(living.began) if living.mono is None else context.now.at_mono(living.mono)
        started = row.started or living.began
        due_mono = Mono(began.mono - to_us(started - row.due))
        held = ActiveSlot(Slot(spec.name, row.nominal, row.due, row.trigger, due_mono=due_mono), context.now)
        held.attempts, held.pid, held.started = row.attempts, living.pid, started
        run = Run(row.run, held.slot, row.attempts, row.generation)
        held.attempt = Attempt(context, run, spec.ending)
        held.attempt.resume(began)
        self._gates.force_admit(self, held)
        self._gates.register_run(run, self, held)
        self.open.append(held)
        self._transition(Event.OPENED)
        if isinstance(spec.schedule, Once):  # this is the one run of this start, too
            self.upcoming.cursor = context.steady
            self.progress = replace(self.progress, cursor=context.steady.wall)
        context.actions.append(RecordStarted(held.record("running", None, None, context.generation), living.pid))
        context.emit_event(RunAdopted(run, living.pid))
        context.actions.append(Adopt(run.id, spec))
        self._arm()
        self._finish_by_count()
        if self.state is State.STOPPING and spec.is_service:
            self.stop_runs(_DISABLED)
        self._gates.changed(self, None)

    def stop(self, reason: Reason) -> None:
        """No new slot; whatever runs is stopped."""
        self._stop_reason = reason
        self._transition(Event.TURNED_OFF)

    def start(self) -> None:
        self._transition(Event.TURNED_ON)

    def twin(self, context: Context, gates: Admission) -> Job:
        """The same job a second time. What is done to it changes nothing here and leads to no action of ours."""
        import copy  # foresight only, which few commands need

        twin = Job(context, gates, self.node)
        twin.state, twin.progress, twin.ready = self.state, self.progress, self.ready
        twin.pending, twin.recent, twin.open = list(self.pending), dict(self.recent), []
        for held in self.open:
            again = copy.copy(held)
            again.retry, again.wakes = None, []
            if held.attempt is not None:
                again.attempt = held.attempt.twin(context)
            twin.open.append(again)
        twin.slowing, twin.pacing = copy.copy(self.slowing), copy.copy(self.pacing)
        twin.last_success, twin._conditions = self.last_success, self._conditions
        twin._pattern_found, twin._refused, twin._stop_reason = self._pattern_found, self._refused, self._stop_reason
        upcoming = self.upcoming
        twin.upcoming.anchor, twin.upcoming.cursor = upcoming.anchor, upcoming.cursor
        twin.upcoming.last_end = upcoming.last_end
        twin._arm()
        return twin

    def reset(self) -> None:
        """Forget counters and `done`; begin as if new."""
        self._transition(Event.RESET)

    def drain(self, reason: Reason) -> None:
        """The job was removed or the supervisor leaves: nothing new starts, live timed runs finish."""
        self._stop_reason = reason
        self._drop_pending(reason)
        if self._pause_end is not None:
            self._pause_end.cancel()
        if self.state is not State.REMOVED:
            self._transition(Event.LEAVE)

    def remove(self) -> None:
        """The job is not in the file any more."""
        self._drop_begun(REMOVED)
        self.drain(REMOVED)

    def stop_runs(self, reason: Reason, *, kill: bool = False) -> None:
        """End every open slot, as cancelled."""
        for held in list(self.open):
            self._end(held, ("cancelled", reason), kill=kill)

    def pause(self, reason: Reason, until: datetime | None = None, length: timedelta | None = None) -> None:
        """Skip slots that come up from now on, also after a restart, until `until` or for `length`. Live runs go on."""
        if length is not None:
            until = self._context.steady.wall + length
        self._keep_pause(reason, until, "mono" if length is not None else None)
        self._context.emit_event(JobPaused(self.spec.name, reason, until))
        self._watch_pause()

    def resume(self, why: Reason) -> None:
        """The end of a pause; nothing if there is none."""
        if self.paused is None:
            return
        self._keep_pause(None, None)
        self._watch_pause()
        self._context.emit_event(JobResumed(self.spec.name, why))
        if self.spec.is_service and not self.open:
            self._refused = False
            self._arm()

    @property
    def paused(self) -> Reason | None:
        """Why slots are skipped for now, None when they are not."""
        return self.progress.paused

    def _keep_pause(self, reason: Reason | None, until: datetime | None, rides: Literal["mono"] | None = None) -> None:
        self.progress = replace(self.progress, paused=reason, paused_until=until, pause_rides=rides)
        self._context.actions.append(SaveProgress(self.progress))

    def _watch_pause(self) -> None:
        if self._pause_end is not None:
            self._pause_end.cancel()
            self._pause_end = None
        until, rides = self.progress.paused_until, self.progress.pause_rides or "wall"
        if until is None:
            return
        at = self._context.now.at_wall(until) if rides == "wall" else self._context.reading(until)
        if at.mono <= self._context.now.mono:
            self.resume(_PAUSE_OVER)
        else:
            self._pause_end = self._context.call_at(at, rides, lambda _: self.resume(_PAUSE_OVER))

    # --- the schedule ------------------------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        return self.upcoming.schedule

    @property
    def next(self) -> Slot | None:
        """The slot that is waited for."""
        return self.upcoming.slot

    @property
    def planned(self) -> int:
        """The slots that have come up: those that came to a run, those that were skipped, and those that still wait."""
        waiting = len(self.pending) + sum(not held.attempts for held in self.open)
        return self.progress.runs + self.progress.skipped + waiting

    @property
    def interval(self) -> timedelta | None:
        """The distance of slots that is in force; None if the schedule names times of day, or nothing."""
        interval: Callable[[Track], timedelta] | None = getattr(self.schedule, "interval", None)
        return None if interval is None else interval(self._track())  # isinstance() of a protocol takes 20 us

    def _arm(self) -> None:
        schedule = self.upcoming.schedule
        waits = (self.pending or (self.open and self._is_full())) and schedule.waits_for_end
        # a refused service would come up again in the same instant, for ever
        if self.state not in TAKES_SLOTS or waits or (self._refused and self.spec.is_service):
            self.upcoming.disarm()
            return
        if self.upcoming.arm(self._track(), self.slowing.not_before):
            return
        if schedule.ends and not self.open and not self.pending and self.state is State.IDLE:
            self._finish_with(_SCHEDULE_ENDED)

    def _is_full(self) -> bool:
        """Whether no other run of a schedule that waits for an end may be open beside those that are."""
        rule = self.spec.overlap
        most = (rule.max_instances or 1) if rule.kind == "allow" and not self.spec.is_service else 1
        return len(self.open) >= most

    def _track(self) -> Track:
        upcoming, progress, schedule = self.upcoming, self.progress, self.spec.schedule
        return Track(
            upcoming.anchor,
            upcoming.cursor,
            upcoming.last_end,
            progress.runs,
            max(0, -progress.streak),
            self.pacing.pace(schedule) if isinstance(schedule, _PACED) else None,
            self._gates.earliest(self) if isinstance(schedule, RateLimited) else None,
        )

    def _on_due(self, coming: list[Coming]) -> None:
        missed = [one for one in coming if one.refusal is not None]
        if missed:
            counts = [one.number for one in missed if one.number is not None]
            count, last = sum(counts) + len(missed) - len(counts), missed[-1]
            ends = last.slot.nominal if last.last is None else last.last
            event = SlotsMissed(self.spec.name, count, missed[0].slot.nominal, ends, len(counts) < len(missed))
            self._context.emit_event(event)
        for slot, refusal, number, _ in coming:
            if refusal is None:
                self._offer(slot)
            else:
                self._decide(slot, *refusal, number=number or 1)
        if self.upcoming.slot is None:
            self._arm()

    # --- deciding a slot ---------------------------------------------------------------------------------------

    def _offer(self, slot: Slot, why: Reason | None = None) -> None:
        self._refused = False
        refusal = self._rejection_reason(slot)
        if refusal is not None:
            self._decide(slot, *refusal)
            return
        if slot.forced or not self.open:
            self._admit(slot)
            return
        rule = self.spec.overlap
        if slot.trigger in ("restart", "watch") and self.spec.is_service:
            rule = _REPLACE
        match overlap.decide(rule, len(self.open), len(self.pending)):
            case "start":
                self._admit(slot)
            case "enqueue":
                self.pending.append(slot)
            case "keep_newest":
                for old in self.pending:
                    self._decide(old, "skipped", SUPERSEDED)
                self.pending = [slot]
            case "replace":
                for old in self.pending:
                    self._decide(old, "skipped", SUPERSEDED)
                self.pending = [slot]
                reason = _REPLACED if why is None else because("replaced", cause=why)
                for held in list(self.open):
                    self._end(held, ("replaced", reason))
            case "queue_full":
                self._decide(slot, "skipped", QUEUE_FULL)
            case _:
                self._decide(slot, "skipped", OVERLAP)

    def _rejection_reason(self, slot: Slot) -> tuple[SlotState, Reason] | None:
        """Why a slot is not even considered; None if it is."""
        now, deadline = self._context.now, self.spec.catch_up.start_deadline
        if self.state not in TAKES_SLOTS and not (slot.forced and self.state is State.DONE):
            return "skipped", DONE if self.state is State.DONE else STOPPED
        paused = self.progress.paused
        if paused is not None and not slot.forced:
            return "skipped", paused
        if deadline is not None and slot.late_by(now.mono) > deadline:
            return "expired", START_DEADLINE
        if self.slowing.holds(now) and slot.trigger in ("schedule", "catch_up") and not self.schedule.waits_for_end:
            return "skipped", SLOWDOWN
        return None

    def _admit(self, slot: Slot) -> None:
        held = ActiveSlot(slot, self._context.now)
        self.open.append(held)
        self._transition(Event.OPENED)
        deadline = self.spec.catch_up.start_deadline
        if deadline is not None:
            left = max(timedelta(0), deadline - slot.late_by(self._context.now.mono))
            held.wakes.append(self._context.call_in(left, lambda _: self._expire(held)))
        self.try_start(held)

    def _expire(self, held: ActiveSlot) -> None:
        if held.attempts == 0 and held in self.open:
            self._close(held, "expired", START_DEADLINE)

    def try_start(self, held: ActiveSlot) -> None:
        """Start the next attempt of an open slot, if the gates let it; else it is held, or closed."""
        answer = self._gates.try_admit(self, held)
        if answer is None:
            held.wait_reason = None
            self._start(held)
        elif answer[0] == "hold":
            if held.wait_reason is None:
                slot = held.slot
                self._context.emit_event(SlotBlocked(slot.job, slot.nominal, slot.due, answer[1]))
            held.wait_reason = answer[1]
        else:
            self._close(held, "skipped", answer[1])

    def _start(self, held: ActiveSlot) -> None:
        context, slot = self._context, held.slot
        held.attempts += 1
        run = Run(context.new_run_id(), slot, held.attempts, context.generation)
        if held.attempts == 1:
            now = context.steady.wall
            self.progress = replace(
                self.progress,
                cursor=self._cursor_after(slot),
                runs=self.progress.runs + 1,
                first_start=self.progress.first_start or now,
                last_start=now,
            )
        held.attempt = Attempt(context, run, self.spec.ending)
        self._gates.register_run(run, self, held)
        row = held.record("claimed", None, None, context.generation)
        self._gates.limits.claimed(self.spec, run)
        context.actions.append(Start(run, self.spec, row, self.progress))
        self._finish_by_count()

    def _finish_by_count(self) -> None:
        times = self.spec.stop.times
        if times is not None and not self.spec.stop.all and self.progress.runs >= times and self.state is State.ACTIVE:
            self._finish_with(because("runs_reached", count=times))

    def _advance(self, slot: Slot, *, skipped: int = 0) -> None:
        """The cursor of the progress follows the slots that the schedule named, and `skipped` more came to no run."""
        cursor = self._cursor_after(slot)
        if skipped or cursor != self.progress.cursor:
            self.progress = replace(self.progress, cursor=cursor, skipped=self.progress.skipped + skipped)

    def _cursor_after(self, slot: Slot) -> datetime | None:
        cursor = self.progress.cursor
        if slot.trigger not in ("schedule", "catch_up"):
            return cursor
        nominal = slot.nominal
        if self.schedule.clock == "mono" and slot.due_mono is not None:
            # the clock may have been set since the slot was named
            nominal = self._context.shown(slot.due_mono) - (slot.due - nominal)
        return nominal if cursor is None else max(cursor, nominal)

    def _decide(self, slot: Slot, state: SlotState, reason: Reason, *, number: int = 1) -> None:
        """The slot ends without ever having been open. Its row stands for `number` slots."""
        self._refused = True
        self._advance(slot, skipped=number)
        row = SlotRecord(
            slot.job, slot.nominal, slot.due, None, None, state, reason, None, 0, None, slot.trigger,
            self._context.generation,
        )  # fmt: skip
        self._store_record(row, number=number)

    # --- what becomes of an attempt ----------------------------------------------------------------------------

    def run_started(self, held: ActiveSlot, pid: int, at: Instant) -> None:
        attempt = held.attempt
        assert attempt is not None
        held.pid = pid
        if held.started is None:
            held.started = held.slot.wall_at(at.mono)
            self.starts.note(at.mono)
        late = held.slot.late_by(at.mono).total_seconds()
        self._gates.limits.started(self.spec, held)
        self._context.actions.append(RecordStarted(held.record("running", None, None, self._context.generation), pid))
        self._context.emit_event(RunBegan(attempt.run, pid, late))
        attempt.begin(at)
        self._gates.changed(self, None)

    def run_exited(self, held: ActiveSlot, exit: Exit) -> None:  # noqa: A002
        assert held.attempt is not None
        held.attempt.on(Move.EXITED, exit)

    def pushed_back(self, held: ActiveSlot, found: PushBack | None, unreadable: tuple[Unreadable, ...]) -> None:
        """The output of a run, which is about to end, says when a server wants the next request."""
        from repeater.policy.http_aware import holding, reason_of

        self._gates.limits.note_unreadable(self.spec.name, unreadable)
        rule = self.spec.http_aware
        if found is None or rule is None:
            return
        given = found.given
        if given is None:
            held.refused = True
            self.progress = replace(self.progress, refusals=self.progress.refusals + 1)
            given = holding(rule, self.progress.refusals)
        reason = reason_of(found, given)
        until = self._context.shown(self._gates.limits.push_back(self.spec, given, reason).mono)
        if self.progress.pushed_until is None or self.progress.pushed_until < until:
            self.progress = replace(self.progress, pushed_until=until, pushed=reason)
        self._context.actions.append(SaveProgress(self.progress))

    def run_ended(self, held: ActiveSlot, fact: RunEnded) -> None:
        attempt, exit = held.attempt, fact.exit  # noqa: A001
        assert attempt is not None
        if self.progress.refusals and not held.refused:
            self.progress = replace(self.progress, refusals=0)
        held.refused = False
        held.usage = fact.usage
        attempt.on(Move.ENDED, exit)
        if fact.timed_out:
            attempt.note_timeout()
        now = self._context.now
        if fact.mono is not None:
            held.ended = now.at_mono(fact.mono)
        elif fact.at is not None:
            held.ended = now.at_wall(fact.at)
        found = fact.matched
        self._pattern_found = self._pattern_found or "stop" in found
        outcome = verdict.judge(self.spec.success, attempt.exit or exit, found, attempt.ended_by)
        if self.spec.executor is not None:
            outcome = verdict.of_executor(self.spec.executor.name, outcome, attempt.exit or exit)
        self._after_attempt(held, "succeeded" if outcome.success else "failed", outcome, attempt.exit or exit)

    def run_lost(self, held: ActiveSlot, reason: Reason) -> None:
        """As after the death of a supervisor: at most once unless the job asks for at least once."""
        attempt = held.attempt
        assert attempt is not None
        if attempt.started is None:  # it may have started
            self._gates.limits.started(self.spec, held)
        attempt.on(Move.LOST)
        again = self.spec.delivery == "at-least-once" and self.state in (State.ACTIVE, State.FINISHING)
        if again and held.forced_outcome is None:
            held.uncounted_attempts += 1
            self._context.emit_event(Warned(self.spec.name, because("run_lost", cause=reason)))
            self._retry_in(held, backoff_delay(_SHORTAGE, held.uncounted_attempts, 0.0))
            return
        self._close(held, "interrupted", reason)

    def slot_taken(self, held: ActiveSlot) -> None:
        """The slot was decided in the past, before the clock was set back: it is dropped, and its row stands."""
        assert held.attempt is not None
        held.attempt.on(Move.SPAWN_FAILED)
        self._gates.limits.failed(held)
        self.progress = replace(self.progress, runs=max(0, self.progress.runs - (held.attempts == 1)))
        self._close(held, "skipped", _DECIDED_BEFORE, is_known=True)

    def spawn_failed(self, held: ActiveSlot, reason: Reason, exit_code: int, *, temporary: bool) -> None:
        attempt = held.attempt
        assert attempt is not None
        attempt.on(Move.SPAWN_FAILED)
        self._gates.limits.failed(held)
        if temporary and held.forced_outcome is None and self.state in (State.ACTIVE, State.FINISHING):
            held.uncounted_attempts += 1
            delay = backoff_delay(_SHORTAGE, held.uncounted_attempts, 0.0)
            self._context.emit_event(SpawnRejected(self.spec.name, reason, exit_code, temporary=True))
            self._retry_in(held, delay)
            return
        self._context.emit_event(SpawnRejected(self.spec.name, reason, exit_code, temporary=False))
        self._after_attempt(held, "spawn_failed", Verdict(False, reason), None, exit_code)

    def _after_attempt(
        self,
        held: ActiveSlot,
        state: SlotState,
        outcome: Verdict,
        exit: Exit | None,  # noqa: A002
        failed_start: int | None = None,
    ) -> None:
        """An attempt is over: another one, or the end of the slot."""
        attempt, spec, context = held.attempt, self.spec, self._context
        assert attempt is not None
        code = None if exit is None else (exit.code if exit.signal is None else -exit.signal)
        tries = held.attempts - held.uncounted_attempts
        again = (
            not outcome.success
            and held.forced_outcome is None
            and self.state in (State.ACTIVE, State.FINISHING)
            and retry.should_retry(retry_rule(spec), tries, exit, failed_start=failed_start)
        )
        if not again:
            self._last_exit = failed_start if exit is None else retry.status(exit)
            if held.forced_outcome is None:
                context.emit_event(RunFinished(attempt.run, outcome, code))
            self._close(held, state, outcome.reason, code, outcome)
            return
        delay = backoff_delay(spec.retry.backoff, tries, context.draw.random(), held.delay)
        if isinstance(spec.schedule, RateLimited) and spec.schedule.retry_pattern and held.started is not None:
            planned = held.started + spec.schedule.retry_pattern[tries]
            delay = max(timedelta(0), planned - held.slot.wall_at(context.now.mono))
        held.delay = delay
        context.emit_event(RunFinished(attempt.run, outcome, code, context.now.wall + delay))
        ended, held.ended = held.slot.wall_at((held.ended or context.now).mono), None
        row = held.record("retrying", outcome.reason, code, context.generation, ended=ended)
        context.actions.append(Record(row, self.progress))
        self._retry_in(held, delay)

    def _retry_in(self, held: ActiveSlot, delay: timedelta) -> None:
        self._gates.release(held)
        held.attempt = None
        held.usage = Usage()
        held.retry = self._context.call_in(delay, lambda _: self._retry(held))

    def _retry(self, held: ActiveSlot) -> None:
        held.retry = None
        self.try_start(held)

    def _end(self, held: ActiveSlot, fate: tuple[SlotState, Reason], *, kill: bool = False) -> None:
        """Bring an open slot to an end that was decided here, not by its command."""
        if held not in self.open:
            return
        attempt = held.attempt
        if attempt is None or not attempt.live:
            self._close(held, *fate)
            return
        held.forced_outcome = held.forced_outcome or fate
        if kill:
            attempt.kill(fate[1])
        else:
            attempt.stop(fate[1])

    def _close(
        self,
        held: ActiveSlot,
        state: SlotState,
        reason: Reason,
        code: int | None = None,
        outcome: Verdict | None = None,
        *,
        is_known: bool = False,
    ) -> None:
        context, now = self._context, self._context.now
        if held.forced_outcome is not None:
            state, reason = held.forced_outcome
            outcome = None
        if held.retry is not None:
            held.retry.cancel()
        for wake in held.wakes:
            wake.cancel()
        self.open.remove(held)
        self._gates.release(held)
        self._gates.limits.release(held)
        self._advance(held.slot, skipped=0 if held.attempts else 1)
        recovered = outcome is not None and outcome.success and self.progress.streak < 0
        over = (held.ended or now).mono
        shown, ended = context.shown(over), held.slot.wall_at(over)
        if held.attempts:
            self.upcoming.last_end = Instant(shown, over)
        if outcome is not None:
            self._count(outcome, held, code, shown)
        elif held.attempts:
            self.progress = replace(self.progress, last_end=shown)
        self._refused = held.attempts == 0
        row = held.record(state, reason, code, context.generation, ended=ended if held.attempts else None)
        held.attempt = None
        if is_known:
            context.actions.append(SaveProgress(self.progress))
            context.emit_event(Warned(self.spec.name, because("slot_decided_before", nominal=row.nominal)))
        else:
            self._store_record(row, outcome, recovered=recovered)
        self._check_stop()
        if (
            self.spec.is_service
            and held.attempts
            and state in ("succeeded", "failed", "spawn_failed")
            and self.state is State.ACTIVE
        ):
            self._check_restart(outcome)
        if not self.open:
            if (self.state, Event.EMPTIED) in TABLE:  # the stop rule may have ended the other slots, and the job, above
                self._transition(Event.EMPTIED)
        elif self.state is State.ACTIVE:
            self._take_pending()
            if self.schedule.waits_for_end:
                self._arm()
        self._gates.changed(self, row)

    def _count(self, outcome: Verdict, held: ActiveSlot, code: int | None, ended: datetime) -> None:
        progress, good = self.progress, outcome.success
        self.last_success = good
        streak = max(progress.streak, 0) + 1 if good else min(progress.streak, 0) - 1
        self.progress = replace(
            progress,
            successes=progress.successes + good,
            failures=progress.failures + (not good),
            streak=streak,
            last_end=ended,
            last_success=ended if good else progress.last_success,
        )
        lasted = None if held.started is None else held.slot.wall_at(self._context.now.mono) - held.started
        self.slowing.record_outcome(self.spec, outcome, code, lasted, self._context)
        self._adapt(held, good)

    def _adapt(self, held: ActiveSlot, good: bool) -> None:
        """Let the run, the machine, or the rate say how long the next interval is, as the schedule asks."""
        schedule, context = self.spec.schedule, self._context
        if isinstance(schedule, LoadAware):
            context.actions.append(ReadLoad(self.spec.name))
        elif isinstance(schedule, Adaptive):
            began = held.attempt.started if held.attempt is not None else None
            took = (context.now.mono - (began or context.now).mono) * MICROSECOND
            why = self.pacing.observe(schedule, success=good, latency=took)
            self.progress = replace(self.progress, adaptive=self.pacing.as_json())
            context.emit_event(IntervalChanged(self.spec.name, self.pacing.pace(schedule) or schedule.base, why))
        elif isinstance(schedule, RateLimited):
            earliest = self._gates.earliest(self) or context.now
            why = because("next_start_allowed", at=earliest.wall)
            context.emit_event(IntervalChanged(self.spec.name, (earliest.mono - context.now.mono) * MICROSECOND, why))

    def load_read(self, readings: LoadReadings) -> None:
        """How busy the machine is, just after a run."""
        schedule = self.spec.schedule
        if isinstance(schedule, LoadAware):
            why = self.pacing.read(schedule, readings)
            self._context.emit_event(IntervalChanged(self.spec.name, self.pacing.pace(schedule) or schedule.base, why))
            if self.next is not None:
                self._arm()

    def _check_restart(self, outcome: Verdict | None) -> None:
        rule, good = self.spec.restart, outcome is not None and outcome.success
        if rule == "never" or (rule == "on-failure" and good):
            self._finish_with(because("service_ended", restart=rule))

    def _store_record(
        self, row: SlotRecord, outcome: Verdict | None = None, *, recovered: bool = False, number: int = 1
    ) -> None:
        self.recent[row.nominal] = row
        if len(self.recent) > _OUTCOMES_KEPT:
            del self.recent[next(iter(self.recent))]
        self._context.actions.append(Record(row, self.progress))
        self._context.emit_event(SlotDecided(row, number))
        for kind in _hooks_for(row, outcome, recovered=recovered):
            if getattr(self.spec.hooks, kind) is not None:
                self._context.actions.append(RunHook(self.spec.name, kind, self.spec, row))
        if row.attempts == 0:
            self._gates.changed(self, row)

    # --- the end -----------------------------------------------------------------------------------------------

    def _stop_met(self) -> Reason | None:
        rule, progress = self.spec.stop, self.progress
        return stop.met(
            rule,
            progress,
            pattern_found=self._pattern_found,
            last_success=self.last_success if progress.runs else None,
            last_exit=self._last_exit,
            now=self._context.now.wall,
            elapsed=None if rule.for_ is None else self._in_force(),
            plugged=self._plugin_stop_met,
        )

    def _in_force(self) -> timedelta:
        """How long, by a clock that is never set."""
        now = self._context.now
        return (now.mono - self._began.mono) * MICROSECOND

    @property
    def _began(self) -> Instant:
        """Where `stop.for` counts from."""
        return self._context.reading(self.progress.began or self.progress.anchor)

    def _plugin_stop_met(self, plugin: Plugin) -> Reason | None:
        """What a stop condition of a plugin says."""
        from repeater.engine.plugin_conditions import PluginConditions
        from repeater.policy.plugin_stop import tally

        if self._conditions is None:
            self._conditions = PluginConditions(self._context, self._check_stop)
        last = next(reversed(self.recent.values()), None)
        told = tally(self.progress, now=self._context.now.wall, elapsed=self._in_force(), last=last)
        return self._conditions.reason(self.node.plugins, plugin, told)

    def _check_stop(self) -> None:
        if self.state in TAKES_SLOTS:
            reason = self._stop_met()
            if reason is not None:
                self._finish_with(reason)

    def _watch_deadlines(self) -> None:
        for wake in self._deadlines:
            wake.cancel()
        rule, context = self.spec.stop, self._context
        self._deadlines = []
        if rule.for_ is not None:
            end = self._began.plus(rule.for_)
            self._deadlines.append(context.call_at(end, "mono", lambda _: self._check_stop()))
        if rule.until is not None:
            until = context.now.at_wall(rule.until)
            self._deadlines.append(context.call_at(until, "wall", lambda _: self._check_stop()))

    def _finish_with(self, reason: Reason) -> None:
        self._stop_reason = reason
        self._transition(Event.FINISHED)

    def _drop_pending(self, reason: Reason) -> None:
        pending, self.pending = self.pending, []
        for slot in pending:
            self._decide(slot, "cancelled", reason)
        for held in [held for held in self.open if held.attempts == 0]:
            self._end(held, ("cancelled", reason))

    def _take_pending(self) -> None:
        if self.pending and overlap.decide(self.spec.overlap, len(self.open), 0) == "start":
            self._offer(self.pending.pop(0))

    # --- moves of the table ------------------------------------------------------------------------------------

    def _transition(self, event: Event) -> None:
        try:
            move, state = TABLE[self.state, event]
        except KeyError:
            raise InvalidTransition(f"job `{self.spec.name}` cannot take {event.name} in {self.state.name}") from None
        self.state = state
        getattr(self, _METHODS[move])()

    def _no_op(self) -> None:
        pass

    def _disarm(self) -> None:
        self.upcoming.disarm()
        self._drop_pending(self._stop_reason or STOPPED)

    def _take_next(self) -> None:
        while self.pending and not self.open:
            self._offer(self.pending.pop(0))
        if not self.open and (self.upcoming.slot is None or self.schedule.waits_for_end):
            self._arm()

    def _finish(self) -> None:
        self._disarm()
        reason = self._stop_reason or STOPPED
        self.progress = replace(self.progress, done=reason)
        self._context.actions.append(SaveProgress(self.progress))
        self._context.emit_event(JobDone(self.spec.name, reason))
        self._gates.changed(self, None)

    def _stop_all(self) -> None:
        self._disarm()
        self.stop_runs(self._stop_reason or STOPPED)

    def _rearm(self) -> None:
        self._refused = False
        self.upcoming.skip_missed()
        if self.open:
            self.request_run("restart", _STARTED_AGAIN)
        else:
            self._arm()

    def _reset(self) -> None:
        kept = self.progress
        self.progress = replace(
            self._new_progress(kept.job, schedule=kept.schedule, stop=kept.stop),
            last_success=kept.last_success,
            paused=kept.paused,
            paused_until=kept.paused_until,
            pushed_until=kept.pushed_until,
            pushed=kept.pushed,
            pause_rides=kept.pause_rides,
        )
        self.upcoming.begin_again()
        self._pattern_found = False
        self._last_exit = None
        self.slowing.reset()
        self.pacing.reset()
        self._refused = False
        self._context.actions.append(SaveProgress(self.progress))
        self._watch_deadlines()
        self._arm()


@lru_cache(maxsize=256)
def _fingerprint(rule: Stop) -> str:
    """The fingerprint of a stop rule: one text for all jobs that have the same."""
    return repr(rule)


def _hooks_for(row: SlotRecord, outcome: Verdict | None, *, recovered: bool) -> list[str]:
    if row.state in ("skipped", "expired"):
        return ["on_skip"]
    if outcome is None:
        return []
    if not outcome.success:
        return ["on_failure"]
    return ["on_success", "on_recovery"] if recovered else ["on_success"]


def _has_its_run_to_come(spec: JobSpec, progress: Progress) -> bool:
    """Whether a job that runs once ever did not run in an earlier life, because its slot did not come or was skipped.

    A slot that was claimed without a record of its start is over: the run may have begun.
    """
    is_over = progress.first_start is not None or not progress.skipped
    return isinstance(spec.schedule, OnceEver) and (progress.cursor is None or not is_over)


def _is_rule(reason: Reason | None) -> bool:
    """Whether a job was done because of its stop rule, rather than because nothing more was to come."""
    return reason is not None and reason.code not in ("schedule_ended", "service_ended")
