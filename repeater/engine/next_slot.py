"""The slot that a job waits for: which it is, when it is due, and which slots were missed if it comes late.

It has the position in the schedule (`anchor`, `cursor`) and one timer. It starts nothing: slots that are due go to the
job, and a missed one has the state and reason that it must end with.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from repeater._lazy_dataclasses import replace
from repeater.engine.context import Context
from repeater.engine.timers import Timer
from repeater.errors import PluginBusy, PluginFailed
from repeater.model.events import Warned
from repeater.model.reasons import MISSED, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Slot, SlotState
from repeater.model.spec import Backoff, JobSpec
from repeater.model.time import MICROSECOND, Instant
from repeater.policy import catchup
from repeater.schedule.backoff import backoff_delay
from repeater.schedule.base import CountsSlots, Schedule, Track

GRACE = timedelta(seconds=10)
"""A slot that comes up later than this was missed, not delayed."""
MOST_ROWS = {"wall": 1000, "mono": 10}
"""How many missed slots get a record of their own, by the clock of the schedule. The others share one."""
MOST_IN_TURN = 1000
"""How many slots of a schedule may come up at one instant. Further ones are omitted."""
_PATIENCE = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=60))
"""The delays before a schedule that failed is called again."""
BUSY = timedelta(milliseconds=100)
"""The delay before a plugin that has not answered yet is called again."""


class Coming(NamedTuple):
    """A slot that is due. `refusal` is its final state and reason if it was missed.

    One record can stand for several slots: `number` of them, up to the nominal time `last`. `number` is None if it is
    unknown.
    """

    slot: Slot
    refusal: tuple[SlotState, Reason] | None = None
    number: int | None = 1
    last: datetime | None = None


class NextSlot:
    """The next slot of one job.

    `on_due` is called with the slots of one instant, oldest first; nothing is armed then. `on_retry` is called when a
    schedule that failed must be called again. `fault` says why it failed, None if it did not.
    """

    __slots__ = (
        "_context",
        "_due",
        "_due_count",
        "_faults",
        "_is_busy",
        "_last",
        "_nominal",
        "_on_retry",
        "_pass_due",
        "_reported",
        "_timer",
        "_track",
        "_turn",
        "anchor",
        "cursor",
        "fault",
        "last_end",
        "schedule",
        "slot",
        "spec",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        spec: JobSpec,
        schedule: Schedule,
        track: Callable[[], Track],
        on_due: Callable[[list[Coming]], None],
        on_retry: Callable[[], None],
    ) -> None:
        self._context = context
        self._track = track
        self._pass_due = on_due
        self._on_retry = on_retry
        self._faults = 0
        self._reported = ""
        self._is_busy = False
        self._timer: Timer | None = None
        self._nominal = self._due = self._turn = context.now
        self._due_count = 0
        self._last: tuple[JobSpec, Instant, tuple[Slot, Instant]] | None = None
        self.spec = spec
        self.schedule = schedule
        self.anchor = self.now
        self.cursor: Instant | None = None
        self.last_end: Instant | None = None
        self.slot: Slot | None = None
        self.fault: str | None = None

    @property
    def now(self) -> Instant:
        """Now, with the wall time that names the slots of this schedule."""
        return self._context.now if self.schedule.clock == "wall" else self._context.steady

    def move_clock(self, by: timedelta) -> None:
        """The wall clock was set: give the instants of a schedule by the monotonic clock new wall times."""
        self._last = None
        if self.last_end is not None:
            self.last_end = _moved(self.last_end, by)
        if self.schedule.clock == "wall":
            if self.cursor is None and self.anchor.wall > self._context.now.wall:
                self.anchor = self._context.now  # else the first slot would wait for the former time of day
            return
        self.anchor = _moved(self.anchor, by)
        if self.cursor is not None:
            self.cursor = _moved(self.cursor, by)
        if self.slot is not None:
            self._nominal, self._due = _moved(self._nominal, by), _moved(self._due, by)
            self.slot = replace(self.slot, nominal=self.slot.nominal + by, due=self.slot.due + by)

    def arm(self, track: Track, not_before: Instant | None) -> bool:
        """Wait for the next slot, or for a schedule that failed; False if there is none.

        `not_before` delays slots that count from the end of a run.
        """
        self.disarm()
        nominal = self._following(track)
        if self.fault is not None:
            self._ask_later(self.fault)
            return True
        self._faults, self._reported = 0, ""
        if nominal is None:
            return False
        slot, due = self._slot_at(nominal)
        if not_before is not None and not_before.mono > due.mono and self.schedule.waits_for_end:
            due = due.at_mono(not_before.mono)
            slot = replace(slot, due=due.wall, due_mono=due.mono)
        self.slot, self._nominal, self._due = slot, nominal, due
        self._timer = self._context.call_at(due, self.schedule.clock, self._on_due)
        return True

    def disarm(self) -> None:
        """Wait for nothing."""
        self.slot = self.fault = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def restart(self, decided: datetime | None = None) -> None:
        """Start the schedule again from now. The next slot is later than now, and later than every decided slot, even
        if the wall clock was set back.
        """
        self.anchor = self.now
        self.cursor = self._ahead_of(decided)

    def reset(self) -> None:
        """Start the schedule again from now. The next slot may be now."""
        self.anchor, self.cursor = self.now, None

    def skip_missed(self) -> None:
        """Do not count slots before now as missed."""
        if self.cursor is None:
            self.anchor = self.now
        elif not self.schedule.waits_for_end:
            self.cursor = self._ahead_of(self.cursor.wall)

    def _ahead_of(self, decided: datetime | None) -> Instant:
        now = self.now
        if decided is not None and decided > now.wall and self.schedule.clock == "wall":
            return now.at_wall(decided)
        return now

    def _following(self, track: Track) -> Instant | None:
        """The next nominal time; None if there is none, or if the schedule failed and `fault` says why."""
        try:
            self.fault = None
            return self.schedule.next(track)
        except PluginFailed as failure:
            self.fault = failure.message
            self._is_busy = isinstance(failure, PluginBusy)
            return None

    def _ask_later(self, fault: str) -> None:
        if self._is_busy:
            self._timer = self._context.call_in(BUSY, lambda _: self._on_retry())
            return
        delay = backoff_delay(_PATIENCE, self._faults + 1, 0.0)
        self._faults += 1
        if fault != self._reported:
            self._reported = fault
            self._context.emit_event(Warned(self.spec.name, because("schedule_failed", error=fault)))
        self._timer = self._context.call_in(delay, lambda _: self._on_retry())

    def _slot_at(self, nominal: Instant) -> tuple[Slot, Instant]:
        """The slot of a nominal time, and when it is due. The last result is cached, because it is needed twice."""
        spec, last = self.spec, self._last
        if last is not None and last[0] is spec and last[1].mono == nominal.mono and last[1].wall == nominal.wall:
            return last[2]
        jitter, due = getattr(spec.schedule, "jitter", None), nominal
        if jitter is not None:
            draw = 0.0
            if jitter.mode == "random":
                draw = random.Random(f"{self._context.seed}/{spec.name}/{nominal.wall}").random()  # noqa: S311
            due = nominal.plus(self.schedule.delay(spec.name, nominal, draw))
        found = Slot(spec.name, nominal.wall, due.wall, due_mono=due.mono), due
        self._last = spec, nominal, found
        return found

    def _on_due(self, _: Instant) -> None:
        slot, now, nominal, due = self.slot, self._context.now, self._nominal, self._due
        assert slot is not None
        self.disarm()
        self.cursor = nominal
        if self._turn is not now:
            self._turn, self._due_count = now, 0
        self._due_count += 1
        if self._due_count > MOST_IN_TURN:
            self.cursor = now  # omit the slots in between, or this loop would not end
        if self.schedule.waits_for_end:
            self._pass_on([Coming(slot)])
            return
        following = self._following(self._track())
        late = now.wall - due.wall if self.schedule.clock == "wall" else (now.mono - due.mono) * MICROSECOND
        if late <= GRACE and (following is None or self._is_ahead(following)):
            self._pass_on([Coming(slot)])
        else:
            self._pass_on(self._late(slot, following))

    def _pass_on(self, coming: list[Coming]) -> None:
        """Give slots of times of day a monotonic due time, so that their lateness is a distance."""
        if self.schedule.clock == "wall":
            now = self._context.now
            coming = [one._replace(slot=replace(one.slot, due_mono=now.at_wall(one.slot.due).mono)) for one in coming]
        self._pass_due(coming)

    def _is_ahead(self, nominal: Instant) -> bool:
        _, due = self._slot_at(nominal)
        now = self._context.now
        return due.wall > now.wall if self.schedule.clock == "wall" else due.mono > now.mono

    def _between(self, low: Instant, high: Instant) -> timedelta:
        """The distance by the clock of the schedule."""
        return high.wall - low.wall if self.schedule.clock == "wall" else (high.mono - low.mono) * MICROSECOND

    def _late(self, first: Slot, following: Instant | None) -> list[Coming]:
        """Several slots have passed, or one was missed. An interval catches up with one run at most."""
        coming: list[Coming] = []
        missed = [first]
        while following is not None and not self._is_ahead(following):
            if len(missed) == MOST_ROWS[self.schedule.clock]:
                coming += self._collapse_missed(missed, following)
                break
            missed.append(self._slot_at(following)[0])
            self.cursor = following
            following = self._following(self._track())
        now, rule, owes_one = self.now.wall, self.spec.catch_up, self.schedule.clock == "mono"
        on_time = missed.pop() if now - missed[-1].due <= GRACE else None
        if on_time is not None and (owes_one or rule.kind == "latest"):
            rule = replace(rule, kind="skip")  # the newest one runs anyway
        elif owes_one and rule.kind == "all":
            rule = replace(rule, kind="latest")
        for slot, fate, reason in catchup.decide(rule, missed, now):
            if fate == "run":
                coming.append(Coming(replace(slot, trigger="catch_up")))
            else:
                coming.append(Coming(slot, ("expired" if fate == "expire" else "skipped", reason)))
        if on_time is not None:
            coming.append(Coming(on_time))
        return sorted(coming, key=lambda one: one.slot.nominal)

    def _collapse_missed(self, missed: list[Slot], first: Instant) -> list[Coming]:
        """Too many slots were missed for a record each: those from `first` to the one before the newest share one.

        Appends the newest to `missed`. A binary search finds it, so a year costs as much as a minute.
        """
        newest = self._latest(first, self.now, lambda slot: not self._is_ahead(slot))
        slots = []
        if newest != first:
            last = self._latest(first, newest, lambda slot: self._between(slot, newest) > timedelta(0))
            refusal: tuple[SlotState, Reason] = ("skipped", MISSED)
            if last != first:
                refusal = ("skipped", because("missed_many", until=last.wall))
            slots.append(Coming(self._slot_at(first)[0], refusal, self._number_of_slots(first, last), last.wall))
        missed.append(self._slot_at(newest)[0])
        self.cursor = newest
        return slots

    def _latest(self, low: Instant, high: Instant, fits: Callable[[Instant], bool]) -> Instant:
        """The latest slot between two instants that fits. `low` fits, and no slot after one that does not fit does."""
        found = low
        while (between := self._between(low, high)) > MICROSECOND:
            self.cursor = low.plus(between // 2)
            slot = self._following(self._track())
            if slot is not None and fits(slot):
                low = found = slot
            else:
                high = self.cursor
        return found

    def _number_of_slots(self, first: Instant, last: Instant) -> int | None:
        """The number of slots from one to another, both included; None if the schedule cannot count them."""
        if not isinstance(self.schedule, CountsSlots):
            return 1 if first == last else None
        self.cursor = first
        return 1 + self.schedule.count(self._track(), last)


def _moved(instant: Instant, by: timedelta) -> Instant:
    """The same reading of the monotonic clock under another wall time."""
    return Instant(instant.wall + by, instant.mono)
