"""What the parts of one job share: its definition, its state, its slots, and its counters.

`engine.job` extends `JobData` with what happens to the job as a whole. The other parts hold a reference to the same
object and change it: `slot_start` starts slots, `outcome` handles facts about runs, `slot_end` ends slots, `stop_rules`
and `pause` decide whether slots may start at all. No part reads a clock: everything happens at `context.now`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from repeater._lazy_dataclasses import replace
from repeater.engine.actions import SaveProgress
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.adaptive_interval import AdaptiveInterval, Starts
from repeater.engine.context import Context
from repeater.engine.failure_throttle import FailureThrottle
from repeater.engine.job_states import TAKES_SLOTS, Event, State
from repeater.engine.limits import Limits
from repeater.engine.next_slot import Coming, NextSlot
from repeater.model.reasons import Reason
from repeater.model.run import Progress, Run, Slot, SlotRecord
from repeater.model.spec import Adaptive, JobSpec, LoadAware, RateLimited
from repeater.model.time import Instant
from repeater.plan.graph import Node
from repeater.schedule.base import Schedule, Track

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULE_ENDED = Reason("schedule_ended")
_ADAPTIVE = (Adaptive, LoadAware)
JobT_contra = TypeVar("JobT_contra", contravariant=True)


class Admission(Protocol[JobT_contra]):
    """What a job asks about other jobs, pools and limits. `engine.admission` implements it."""

    def try_admit(self, job: JobT_contra, slot: ActiveSlot) -> tuple[Literal["hold", "skipped"], Reason] | None:
        """Take permits for the next attempt and return None, or say why the slot must wait or be skipped."""
        ...

    def force_admit(self, job: JobT_contra, slot: ActiveSlot) -> None:
        """Take the permits of a run that is already live, whether they are free or not."""
        ...

    def release(self, slot: ActiveSlot) -> None:
        """Give back the permits of the slot. It waits for nothing any more."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits of starts: attempts take permits there, and report their starts and failures."""
        ...

    def earliest(self, job: JobT_contra) -> Instant | None:
        """When the rate of the job allows its next start; None if the job has no rate."""
        ...

    def register_run(self, run: Run, job: JobT_contra, slot: ActiveSlot) -> None:
        """Route facts about this run to this slot."""
        ...

    def changed(self, job: JobT_contra, record: SlotRecord | None) -> None:
        """Note a change of the job that other jobs may wait for. `record` is given for a decided slot."""
        ...


class JobData:
    """The data of one job.

    `progress` survives a restart. `open` are the slots that were admitted and have no final record. `pending` are the
    slots in the queue of the job. `recent` maps the nominal times of the last decided slots to their records.
    `skipped_last`: the last decided slot ended without a start. `stop_reason` is why the job takes no more slots.
    """

    __slots__ = (
        "adaptive",
        "admission",
        "context",
        "last_success",
        "next_slot",
        "node",
        "open",
        "pending",
        "progress",
        "ready",
        "recent",
        "skipped_last",
        "spec",
        "starts",
        "state",
        "stop_reason",
        "throttle",
    )  # fmt: skip

    def __init__(
        self, context: Context, admission: Admission[Any], node: Node, on_due: Callable[[list[Coming]], None]
    ) -> None:
        self.context = context
        self.admission = admission
        self.node = node
        self.spec: JobSpec = node.spec
        self.next_slot = NextSlot(context, node.spec, node.schedule, self.track, on_due, self.arm)
        self.throttle = FailureThrottle()
        self.adaptive = AdaptiveInterval()
        self.starts = Starts()
        self.state = State.IDLE
        self.open: list[ActiveSlot] = []
        self.pending: list[Slot] = []
        self.recent: dict[datetime, SlotRecord] = {}
        self.ready: bool | None = None
        self.last_success: bool | None = None
        self.skipped_last = False
        self.stop_reason: Reason | None = None
        self.progress = self.new_progress(node.spec.name)

    def new_progress(self, name: str, *, schedule: str = "", stop: str = "") -> Progress:
        """The counters of a job that has never run."""
        context, anchor = self.context, self.next_slot.now.wall
        began = context.steady.wall
        clock, boot = context.offset, context.boot or None
        return Progress(name, anchor, schedule=schedule, stop=stop, began=began, clock=clock, boot=boot)

    def save(self) -> None:
        """Write the progress to the store."""
        self.context.actions.append(SaveProgress(self.progress))

    @property
    def schedule(self) -> Schedule:
        return self.next_slot.schedule

    @property
    def next(self) -> Slot | None:
        """The slot that the job waits for."""
        return self.next_slot.slot

    @property
    def paused(self) -> Reason | None:
        """Why slots are skipped; None if the job is not paused."""
        return self.progress.paused

    @property
    def planned(self) -> int:
        """How many slots have come up: those with a run, those that were skipped, and those that wait."""
        waiting = len(self.pending) + sum(not active.attempts for active in self.open)
        return self.progress.runs + self.progress.skipped + waiting

    @property
    def interval(self) -> timedelta | None:
        """The current distance of slots; None if the schedule names times of day, or nothing."""
        interval: Callable[[Track], timedelta] | None = getattr(self.schedule, "interval", None)
        return None if interval is None else interval(self.track())  # isinstance() of a protocol takes 20 us

    def has_decided(self, nominal: datetime) -> bool:
        """Whether a slot of this nominal time was decided lately, is open, is pending, or is the next one."""
        return (
            nominal in self.recent
            or (self.next is not None and self.next.nominal == nominal)
            or any(active.slot.nominal == nominal for active in self.open)
            or any(slot.nominal == nominal for slot in self.pending)
        )

    def track(self) -> Track:
        """What the schedule needs to compute the next slot."""
        next_slot, progress, schedule = self.next_slot, self.progress, self.spec.schedule
        return Track(
            next_slot.anchor,
            next_slot.cursor,
            next_slot.last_end,
            progress.runs,
            max(0, -progress.streak),
            self.adaptive.pace(schedule) if isinstance(schedule, _ADAPTIVE) else None,
            self.admission.earliest(self) if isinstance(schedule, RateLimited) else None,
        )

    def arm(self) -> None:
        """Wait for the next slot, if the job may have one now. A schedule without further slots ends the job."""
        schedule = self.next_slot.schedule
        waits = (self.pending or (self.open and self._is_full())) and schedule.waits_for_end
        # The next slot of a service that was skipped would come up at once and be skipped again, without end.
        if self.state not in TAKES_SLOTS or waits or (self.skipped_last and self.spec.is_service):
            self.next_slot.disarm()
            return
        if self.next_slot.arm(self.track(), self.throttle.not_before):
            return
        if schedule.ends and not self.open and not self.pending and self.state is State.IDLE:
            self.finish(SCHEDULE_ENDED)

    def _is_full(self) -> bool:
        """Whether the open slots exclude another one of a schedule that counts from ends."""
        rule = self.spec.overlap
        limit = (rule.max_instances or 1) if rule.kind == "allow" and not self.spec.is_service else 1
        return len(self.open) >= limit

    def advance(self, slot: Slot, *, skipped: int = 0) -> None:
        """Move the cursor of the progress past a slot, and count `skipped` slots that had no run."""
        cursor = self.cursor_after(slot)
        if skipped or cursor != self.progress.cursor:
            self.progress = replace(self.progress, cursor=cursor, skipped=self.progress.skipped + skipped)

    def cursor_after(self, slot: Slot) -> datetime | None:
        """The cursor of the progress once this slot is decided."""
        cursor = self.progress.cursor
        if slot.trigger not in ("schedule", "catch_up"):
            return cursor
        nominal = slot.nominal
        if self.schedule.clock == "mono" and slot.due_mono is not None:
            # The wall clock may have been set since the slot got its name.
            nominal = self.context.shown(slot.due_mono) - (slot.due - nominal)
        return nominal if cursor is None else max(cursor, nominal)

    def finish(self, reason: Reason) -> None:
        """Take no more slots, because the job is done."""
        self.stop_reason = reason
        self.transition(Event.FINISHED)

    def transition(self, event: Event) -> None:
        """Change the state as `job_states.TABLE` says. `Job` implements it."""
        raise NotImplementedError

    def on_slot_closed(self) -> None:
        """Continue after an open slot got its final record. `Job` implements it."""
        raise NotImplementedError
