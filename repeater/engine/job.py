"""One job while it is in force: a table of state x event, and the slots that it has open.

    IDLE ──opened──> ACTIVE ──emptied──> IDLE        a stop condition: ──finished──> (FINISHING) ──> DONE
    any ──turned off──> (STOPPING) ──> OFF           removed, or the supervisor leaves: ──leave──> (LEAVING) ──> GONE

`ACTIVE` means that at least one slot is open: held at a gate, running, or waiting for its next attempt. Every slot that
comes up is decided here exactly once and leaves exactly one row. The job never reads a clock; everything happens at
`context.now`. What other jobs have to say (needs, pools) is asked of `engine.gates`. Called by `engine.engine` only.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from repeater.engine.actions import Note, Record, RunHook, Save, Start
from repeater.engine.attempt import Attempt, ImpossibleMove
from repeater.engine.attempt import Event as Move
from repeater.engine.context import Context
from repeater.engine.timeline import Wake
from repeater.model.events import JobDone, RunBegan, RunFinished, SlotDecided, Warned
from repeater.model.run import Exit, Progress, Run, RunRecord, Slot, SlotState, Trigger, Verdict
from repeater.model.spec import Always, Backoff, JobSpec, Once, Overlap
from repeater.model.time import MICROSECOND, Instant
from repeater.plan.graph import Node
from repeater.policy import catchup, overlap, retry, stop, verdict
from repeater.schedule.backoff import backoff_delay
from repeater.schedule.base import Track

GRACE = timedelta(seconds=10)
"""A slot that comes up this late was delayed, not missed."""
MOST_MISSED_ROWS = {"wall": 1000, "mono": 10}
"""How many missed slots get a row of their own; the rest share one."""
SERVICE_FLOOR = timedelta(seconds=1)
"""A service starts at most this often, whatever its slowdown says."""
_SERVICE_SLOWDOWN = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=30))
_SHORTAGE = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=30))
_REPLACE = Overlap("replace")
_OUTCOMES_KEPT = 32


class State(Enum):
    """Where a job is."""

    IDLE = auto()
    ACTIVE = auto()
    FINISHING = auto()
    DONE = auto()
    STOPPING = auto()
    OFF = auto()
    LEAVING = auto()
    GONE = auto()


class Event(Enum):
    """What moves a job."""

    OPENED = auto()
    EMPTIED = auto()
    FINISHED = auto()
    TURNED_OFF = auto()
    TURNED_ON = auto()
    DISABLED = auto()
    REARMED = auto()
    RESET = auto()
    LEAVE = auto()


S, E = State, Event
TABLE: dict[tuple[State, Event], tuple[str, State]] = {
    (S.IDLE, E.OPENED): ("go_on", S.ACTIVE),
    (S.IDLE, E.FINISHED): ("finish", S.DONE),
    (S.IDLE, E.TURNED_OFF): ("rest", S.OFF),
    (S.IDLE, E.TURNED_ON): ("go_on", S.IDLE),
    (S.IDLE, E.RESET): ("begin_again", S.IDLE),
    (S.IDLE, E.LEAVE): ("rest", S.GONE),
    (S.ACTIVE, E.OPENED): ("go_on", S.ACTIVE),
    (S.ACTIVE, E.EMPTIED): ("take_next", S.IDLE),
    (S.ACTIVE, E.FINISHED): ("rest", S.FINISHING),
    (S.ACTIVE, E.TURNED_OFF): ("stop_all", S.STOPPING),
    (S.ACTIVE, E.TURNED_ON): ("go_on", S.ACTIVE),
    (S.ACTIVE, E.RESET): ("begin_again", S.ACTIVE),
    (S.ACTIVE, E.LEAVE): ("rest", S.LEAVING),
    (S.FINISHING, E.EMPTIED): ("finish", S.DONE),
    (S.FINISHING, E.FINISHED): ("go_on", S.FINISHING),
    (S.FINISHING, E.TURNED_OFF): ("stop_all", S.STOPPING),
    (S.FINISHING, E.RESET): ("begin_again", S.ACTIVE),
    (S.FINISHING, E.LEAVE): ("rest", S.LEAVING),
    (S.DONE, E.OPENED): ("go_on", S.FINISHING),
    (S.IDLE, E.DISABLED): ("rest", S.OFF),
    (S.ACTIVE, E.DISABLED): ("rest", S.STOPPING),
    (S.FINISHING, E.DISABLED): ("rest", S.STOPPING),
    (S.DONE, E.DISABLED): ("go_on", S.DONE),
    (S.STOPPING, E.DISABLED): ("go_on", S.STOPPING),
    (S.OFF, E.DISABLED): ("go_on", S.OFF),
    (S.LEAVING, E.DISABLED): ("go_on", S.LEAVING),
    (S.DONE, E.REARMED): ("go_on", S.IDLE),
    (S.DONE, E.TURNED_OFF): ("go_on", S.DONE),
    (S.DONE, E.TURNED_ON): ("go_on", S.DONE),
    (S.DONE, E.RESET): ("begin_again", S.IDLE),
    (S.DONE, E.LEAVE): ("go_on", S.GONE),
    (S.STOPPING, E.EMPTIED): ("go_on", S.OFF),
    (S.STOPPING, E.FINISHED): ("go_on", S.STOPPING),
    (S.STOPPING, E.TURNED_OFF): ("go_on", S.STOPPING),
    (S.STOPPING, E.TURNED_ON): ("come_back", S.ACTIVE),
    (S.STOPPING, E.LEAVE): ("go_on", S.LEAVING),
    (S.OFF, E.TURNED_OFF): ("go_on", S.OFF),
    (S.OFF, E.TURNED_ON): ("come_back", S.IDLE),
    (S.OFF, E.RESET): ("begin_again", S.OFF),
    (S.OFF, E.LEAVE): ("go_on", S.GONE),
    (S.LEAVING, E.EMPTIED): ("go_on", S.GONE),
    (S.LEAVING, E.FINISHED): ("go_on", S.LEAVING),
    (S.LEAVING, E.LEAVE): ("go_on", S.LEAVING),
    (S.LEAVING, E.TURNED_OFF): ("stop_all", S.LEAVING),
}
TAKES_SLOTS = frozenset({S.IDLE, S.ACTIVE})


class OpenSlot:
    """A slot that was admitted and has no final row yet.

    `held` says what it waits for, None when it does not wait at a gate. `fate` is the state and reason of its row if
    somebody else decided how it ends. `free` counts attempts that the machine failed, not the command.
    """

    __slots__ = (
        "attempt", "attempts", "delay", "fate", "free", "held", "pool", "retry", "since", "slot", "started", "waits_on",
        "wakes",
    )  # fmt: skip

    def __init__(self, slot: Slot, since: Instant) -> None:
        self.slot = slot
        self.since = since
        self.attempts = 0
        self.free = 0
        self.attempt: Attempt | None = None
        self.started: datetime | None = None
        self.delay: timedelta | None = None
        self.retry: Wake | None = None
        self.held: str | None = None
        self.fate: tuple[SlotState, str] | None = None
        self.waits_on: tuple[str, ...] = ()
        self.pool: tuple[str, ...] = ()
        self.wakes: list[Wake] = []


class Gates(Protocol):
    """What a job asks about the rest of the world; `engine.gates` answers."""

    def enter(self, job: Job, slot: OpenSlot) -> tuple[str, str] | None:
        """None: go on, places in pools are taken. Else ("hold" or a slot state, reason)."""
        ...

    def release(self, job: Job, slot: OpenSlot) -> None:
        """The slot takes no place any more and waits for nothing."""
        ...

    def enrol(self, run: Run, job: Job, slot: OpenSlot) -> None:
        """Facts about this run belong to this slot."""
        ...

    def changed(self, job: Job, row: RunRecord | None) -> None:
        """Something about the job changed that others may wait for; `row` if it is a decided slot."""
        ...


class Job:
    """`progress` is what survives a restart; `next` is the slot that is waited for; `recent` maps the nominal times of
    the last decided slots to their rows.
    """

    def __init__(self, context: Context, gates: Gates, node: Node) -> None:
        self._context = context
        self._gates = gates
        self._wake: Wake | None = None
        self._deadlines: list[Wake] = []
        self._stop_reason = ""
        self._slow = 0
        self._not_before: Instant | None = None
        self._pattern_found = False
        self._refused = False
        self.spec: JobSpec = node.spec
        self.schedule = node.schedule
        self.node = node
        self.state = State.IDLE
        self.anchor = context.now
        self.cursor: Instant | None = None
        self.last_end: Instant | None = None
        self.next: Slot | None = None
        self.open: list[OpenSlot] = []
        self.pending: deque[Slot] = deque()
        self.recent: dict[datetime, RunRecord] = {}
        self.paused: str | None = None
        self.ready: bool | None = None
        self.last_success: bool | None = None
        self.progress = Progress(self.spec.name, context.now.wall)

    # --- coming into force -------------------------------------------------------------------------------------

    def begin(self, progress: Progress | None, *, returns: bool = False) -> None:
        """Enter into force, with what is remembered from an earlier life, if anything. `returns`: the job was taken
        out of the file and is back, so nothing is owed for the time between.
        """
        now, spec = self._context.now, self.spec
        schedule, rule = repr(spec.schedule), repr(spec.stop)
        if progress is None or isinstance(spec.schedule, Once | Always):
            # both mean at every start, so what an earlier life did is no reason not to run
            kept = progress or Progress(spec.name, now.wall)
            self.progress = replace(kept, job=spec.name, anchor=now.wall, cursor=None, done=None)
            if progress is not None and progress.done and progress.stop == rule and _is_rule(progress.done):
                self.progress = replace(self.progress, done=progress.done)
        else:
            self.progress = replace(progress, job=spec.name)
            self.anchor = now.at_wall(progress.anchor)
            self.cursor = None if progress.cursor is None else now.at_wall(progress.cursor)
            self.last_end = None if progress.last_end is None else now.at_wall(progress.last_end)
            if progress.last_end is not None and progress.streak:
                self.last_success = progress.streak > 0
            if returns or progress.schedule != schedule:
                self._retime()
        self.progress = replace(self.progress, schedule=schedule, stop=rule)
        if progress is not None and progress.done is not None and progress.stop != rule:
            self.progress = replace(self.progress, done=self._stop_met())
        if self.progress.done is not None:
            self.state = State.DONE
        elif not spec.enabled:
            self.state = State.OFF
        self._context.do(Save(self.progress))
        self._watch_deadlines()
        self._arm()

    def become(self, node: Node, *, retime: bool, restart: bool, renamed: bool = False) -> None:
        """Take a changed definition: counters, cursor and live runs stay. Nothing is fired by the change itself."""
        before, now = self.spec, self._context.now
        self.node, self.spec, self.schedule = node, node.spec, node.schedule
        if renamed:
            self.pending = deque(replace(slot, job=node.spec.name) for slot in self.pending)
            self.progress = replace(self.progress, job=node.spec.name)
        if retime and before.schedule != node.spec.schedule:
            self._retime()
        self.progress = replace(self.progress, schedule=repr(node.spec.schedule), stop=repr(node.spec.stop))
        if before.stop != node.spec.stop and self.progress.done is not None:
            self.progress = replace(self.progress, done=self._stop_met())
            if self.progress.done is None and self.state is State.DONE:
                self._on(Event.REARMED)
                self.cursor = self.cursor and now  # nothing is owed for the time since
        if before.enabled != node.spec.enabled:
            self._switch(node.spec.enabled)
        self._context.do(Save(self.progress))
        self._watch_deadlines()
        self._check_stop()
        self._arm()
        if restart and self.state in TAKES_SLOTS and (self.open or self.pending):
            self.ask("restart", "reload")

    def _retime(self) -> None:
        self.anchor = self.cursor = self._context.now
        self.progress = replace(self.progress, anchor=self.anchor.wall, cursor=self.anchor.wall)
        for slot in self.pending:
            if slot.trigger in ("schedule", "catch_up"):
                self._decide(slot, "cancelled", "schedule changed")
        self.pending = deque(slot for slot in self.pending if slot.trigger not in ("schedule", "catch_up"))

    def _switch(self, enabled: bool) -> None:
        """`enabled` was edited: a timed run finishes as it was, a service stops."""
        self._stop_reason = "disabled"
        if enabled:
            self._on(Event.TURNED_ON)
        else:
            self._on(Event.TURNED_OFF if self.spec.is_service else Event.DISABLED)

    # --- requests from outside ---------------------------------------------------------------------------------

    def ask(
        self, trigger: Trigger, why: str = "", *, nominal: datetime | None = None, forced: bool = False
    ) -> None:
        """A slot beside the schedule: a person, a changed file, another job, or a restart asks for it."""
        when = nominal or self._context.now.wall
        while nominal is None and self.knows(when):
            when += MICROSECOND
        slot = Slot(self.spec.name, when, max(when, self._context.now.wall), trigger, forced)
        self._consider(slot, why)

    def knows(self, nominal: datetime) -> bool:
        """Whether a slot of this nominal time was decided lately, is open, pending, or the next to come."""
        return (
            nominal in self.recent
            or (self.next is not None and self.next.nominal == nominal)
            or any(held.slot.nominal == nominal for held in self.open)
            or any(slot.nominal == nominal for slot in self.pending)
        )

    def turn_off(self, reason: str) -> None:
        """No new slot; whatever runs is stopped."""
        self._stop_reason = reason
        self._on(Event.TURNED_OFF)

    def turn_on(self) -> None:
        self._on(Event.TURNED_ON)

    def reset(self) -> None:
        """Forget counters and `done`; begin as if new."""
        self._on(Event.RESET)

    def leave(self, reason: str) -> None:
        """The job was removed or the supervisor leaves: nothing new starts, live timed runs finish."""
        self._stop_reason = reason
        self._drop_pending(reason)
        if self.state is not State.GONE:
            self._on(Event.LEAVE)

    def stop_runs(self, reason: str, *, kill: bool = False) -> None:
        """End every open slot, as cancelled."""
        for held in list(self.open):
            self._end(held, ("cancelled", reason), kill=kill)

    def pause(self, reason: str | None) -> None:
        """Slots that come up are skipped while `reason` is not None."""
        self.paused = reason
        if reason is None and self.spec.is_service and not self.open:
            self._refused = False
            self._arm()

    # --- the schedule ------------------------------------------------------------------------------------------

    def _track(self) -> Track:
        return Track(
            self.anchor, self.cursor, self.last_end, self.progress.runs, max(0, -self.progress.streak)
        )

    def _slot_at(self, nominal: Instant) -> tuple[Slot, Instant]:
        spec = self.spec
        jitter = getattr(spec.schedule, "jitter", None)
        draw = 0.0
        if jitter is not None and jitter.mode == "random":
            draw = random.Random(f"{self._context.seed}/{spec.name}/{nominal.wall}").random()  # noqa: S311
        due = nominal.plus(self.schedule.delay(spec.name, nominal, draw))
        return Slot(spec.name, nominal.wall, due.wall), due

    def _arm(self) -> None:
        self._disarm()
        if self.state not in TAKES_SLOTS or (self.schedule.waits_for_end and (self.open or self.pending)):
            return
        if self.spec.is_service and self._refused:
            return  # else it would come up again in the same instant, for ever
        self._arm_for(self.schedule.next(self._track()))

    def _arm_for(self, nominal: Instant | None) -> None:
        self._disarm()
        if nominal is None:
            if self.schedule.ends and not self.open and not self.pending and self.state is State.IDLE:
                self._finish_with("its schedule has ended")
            return
        slot, due = self._slot_at(nominal)
        if self.schedule.waits_for_end and self._not_before is not None and self._not_before.mono > due.mono:
            due = self._not_before
            slot = replace(slot, due=max(slot.due, due.wall))
        self.next = slot
        self._wake = self._context.wake_at(due, self.schedule.rides, lambda _: self._come_due(nominal))

    def _disarm(self) -> None:
        self.next = None
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _come_due(self, nominal: Instant) -> None:
        slot, now = self.next, self._context.now
        assert slot is not None
        self._disarm()
        self.cursor = nominal
        if self.schedule.waits_for_end:
            self._consider(slot)
            if self._wake is None:
                self._arm()
            return
        following = self.schedule.next(self._track())
        late = now.wall - slot.due if self.schedule.rides == "wall" else self._lateness(nominal, slot)
        if late <= GRACE and (following is None or self._is_ahead(following)):
            self._consider(slot)
        else:
            following = self._come_due_late(slot, following)
        if self._wake is None and self.state in TAKES_SLOTS:
            self._arm_for(following)

    def _lateness(self, nominal: Instant, slot: Slot) -> timedelta:
        return (self._context.now.mono - nominal.mono) * MICROSECOND - (slot.due - slot.nominal)

    def _is_ahead(self, nominal: Instant) -> bool:
        _, due = self._slot_at(nominal)
        now = self._context.now
        return due.wall > now.wall if self.schedule.rides == "wall" else due.mono > now.mono

    def _come_due_late(self, first: Slot, following: Instant | None) -> Instant | None:
        """Several slots have passed, or one was missed. Returns the first nominal time that is still ahead."""
        missed = [first]
        while following is not None and not self._is_ahead(following):
            if len(missed) == MOST_MISSED_ROWS[self.schedule.rides]:
                following = self._leap(missed)
                continue
            missed.append(self._slot_at(following)[0])
            self.cursor = following
            following = self.schedule.next(self._track())
        newest, now = missed[-1], self._context.now.wall
        owes_one = self.schedule.rides == "mono"
        on_time = now - newest.due <= GRACE
        if on_time:
            missed.pop()
        rule = self.spec.catch_up
        if owes_one and on_time:
            decisions = [(slot, "skip", "missed") for slot in missed]
        else:
            if owes_one and rule.kind == "all":
                rule = replace(rule, kind="latest")
            decisions = [(slot, str(what), why) for slot, what, why in catchup.decide(rule, missed, now)]
            if on_time and rule.kind == "latest":
                decisions = [
                    (slot, "skip" if what == "run" else what, why or "missed")
                    for slot, what, why in decisions
                ]
        for slot, what, why in decisions:
            if what == "run":
                self._consider(replace(slot, trigger="catch_up"))
            else:
                self._decide(slot, "expired" if what == "expire" else "skipped", why)
        if on_time:
            self._consider(newest)
        return following

    def _leap(self, missed: list[Slot]) -> Instant | None:
        """Far too many slots were missed for a row each: the rest but the newest share one row."""
        now, low = self._context.now, self.cursor
        assert low is not None
        high = now if self.schedule.rides == "mono" else now.at_wall(now.wall)
        first = self.schedule.next(self._track())
        newest = first
        while (high.mono - low.mono) > 1 and newest is not None:
            middle = low.plus((high.mono - low.mono) // 2 * MICROSECOND)
            self.cursor = middle
            found = self.schedule.next(self._track())
            if found is not None and not self._is_ahead(found):
                low, newest = found, found
            else:
                high = middle
        assert newest is not None
        assert first is not None
        slot, _ = self._slot_at(first)
        self._decide(slot, "skipped", f"missed, as all others until {newest.wall:%Y-%m-%d %H:%M:%S}Z")
        missed.append(self._slot_at(newest)[0])
        self.cursor = newest
        return self.schedule.next(self._track())

    # --- deciding a slot ---------------------------------------------------------------------------------------

    def _consider(self, slot: Slot, why: str = "") -> None:
        self._refused = False
        refusal = self._refusal(slot)
        if refusal is not None:
            self._decide(slot, *refusal)
            return
        if slot.forced:
            self._admit(slot)
            return
        rule = self.spec.overlap
        if self.spec.is_service and slot.trigger in ("restart", "watch"):
            rule = _REPLACE
        match overlap.decide(rule, len(self.open), len(self.pending)):
            case "start":
                self._admit(slot)
            case "enqueue":
                self.pending.append(slot)
            case "keep_newest":
                for old in self.pending:
                    self._decide(old, "skipped", "superseded")
                self.pending = deque([slot])
            case "replace":
                for old in self.pending:
                    self._decide(old, "skipped", "superseded")
                self.pending = deque([slot])
                reason = f"replaced ({why})" if why else "replaced by the next slot"
                for held in list(self.open):
                    self._end(held, ("replaced", reason))
            case "queue_full":
                self._decide(slot, "skipped", "queue_full")
            case _:
                self._decide(slot, "skipped", "overlap")

    def _refusal(self, slot: Slot) -> tuple[SlotState, str] | None:
        """Why a slot is not even considered; None if it is."""
        now, deadline = self._context.now, self.spec.catch_up.start_deadline
        if self.state not in TAKES_SLOTS and not (slot.forced and self.state is State.DONE):
            return "skipped", self.state.name.lower() if self.state is State.DONE else "stopped"
        if self.paused is not None and not slot.forced:
            return "skipped", "paused"
        if deadline is not None and now.wall - slot.due > deadline:
            return "expired", "start_deadline"
        if (
            self._not_before is not None
            and not self.schedule.waits_for_end
            and slot.trigger in ("schedule", "catch_up")
            and now.mono < self._not_before.mono
        ):
            return "skipped", "slowdown"
        return None

    def _admit(self, slot: Slot) -> None:
        held = OpenSlot(slot, self._context.now)
        self.open.append(held)
        self._on(Event.OPENED)
        deadline = self.spec.catch_up.start_deadline
        if deadline is not None:
            left = max(timedelta(0), slot.due + deadline - self._context.now.wall)
            held.wakes.append(self._context.wake_in(left, lambda _: self._expire(held)))
        self.try_start(held)

    def _expire(self, held: OpenSlot) -> None:
        if held.attempts == 0 and held in self.open:
            self._close(held, "expired", "start_deadline")

    def try_start(self, held: OpenSlot) -> None:
        """Start the next attempt of an open slot, if the gates let it; else it is held, or closed."""
        answer = self._gates.enter(self, held)
        if answer is None:
            held.held = None
            self._start(held)
        elif answer[0] == "hold":
            held.held = answer[1]
        else:
            self._close(held, "skipped", answer[1])

    def _start(self, held: OpenSlot) -> None:
        context, slot = self._context, held.slot
        held.attempts += 1
        run = Run(context.new_run_id(), slot, held.attempts, context.generation)
        if held.attempts == 1:
            now = context.now.wall
            self._advance(slot)
            self.progress = replace(
                self.progress,
                runs=self.progress.runs + 1,
                first_start=self.progress.first_start or now,
                last_start=now,
            )
        held.attempt = Attempt(context, run, self.spec.ending)
        self._gates.enrol(run, self, held)
        row = self._row(held, "claimed", None)
        context.do(Start(run, self.spec, row, self.progress))
        times = self.spec.stop.times
        if (
            times is not None
            and not self.spec.stop.all
            and self.progress.runs >= times
            and self.state is State.ACTIVE
        ):
            self._finish_with(f"{times} runs" if times > 1 else "1 run")

    def _advance(self, slot: Slot) -> None:
        """The cursor of the progress follows the slots that the schedule named."""
        if slot.trigger in ("schedule", "catch_up"):
            cursor = self.progress.cursor
            self.progress = replace(
                self.progress, cursor=slot.nominal if cursor is None else max(cursor, slot.nominal)
            )

    def _decide(self, slot: Slot, state: SlotState, reason: str) -> None:
        """The slot ends without ever having been open."""
        self._refused = True
        self._advance(slot)
        row = RunRecord(
            slot.job, slot.nominal, slot.due, None, None, state, reason, None, 0, None, slot.trigger,
            self._context.generation,
        )  # fmt: skip
        self._keep(row)

    # --- what becomes of an attempt ----------------------------------------------------------------------------

    def run_started(self, held: OpenSlot, pid: int) -> None:
        attempt, now = held.attempt, self._context.now
        assert attempt is not None
        if held.started is None:
            held.started = now.wall
        late = (now.wall - held.slot.due).total_seconds()
        self._context.do(Note(self._row(held, "running", None), pid))
        self._context.announce(RunBegan(attempt.run, pid, late))
        attempt.on(Move.STARTED)
        self._gates.changed(self, None)

    def run_exited(self, held: OpenSlot, exit: Exit) -> None:  # noqa: A002
        assert held.attempt is not None
        held.attempt.on(Move.EXITED, exit)

    def run_ended(self, held: OpenSlot, exit: Exit, matched: Iterable[str]) -> None:  # noqa: A002
        attempt = held.attempt
        assert attempt is not None
        attempt.on(Move.ENDED, exit)
        found = frozenset(matched)
        self._pattern_found = self._pattern_found or "stop" in found
        outcome = verdict.judge(self.spec.success, attempt.exit or exit, found, attempt.ended_by)
        self._after(held, "ran", outcome, attempt.exit or exit)

    def spawn_failed(self, held: OpenSlot, reason: str, *, temporary: bool) -> None:
        attempt = held.attempt
        assert attempt is not None
        attempt.on(Move.SPAWN_FAILED)
        if temporary and held.fate is None and self.state in (State.ACTIVE, State.FINISHING):
            held.free += 1
            delay = backoff_delay(_SHORTAGE, held.free, 0.0)
            self._context.announce(Warned(self.spec.name, f"cannot start: {reason}; trying again"))
            self._retry_in(held, delay)
            return
        self._after(held, "spawn_failed", Verdict(False, reason), None)

    def _after(self, held: OpenSlot, state: SlotState, outcome: Verdict, exit: Exit | None) -> None:  # noqa: A002
        """An attempt is over: another one, or the end of the slot."""
        attempt, spec, context = held.attempt, self.spec, self._context
        assert attempt is not None
        code = None if exit is None else (exit.code if exit.signal is None else -exit.signal)
        tries = held.attempts - held.free
        again = (
            held.fate is None
            and self.state in (State.ACTIVE, State.FINISHING)
            and retry.wants_retry(spec.retry, tries, exit, outcome.success)
        )
        if not again:
            context.announce(RunFinished(attempt.run, outcome, code))
            self._close(held, state, outcome.text(), code, outcome)
            return
        delay = backoff_delay(spec.retry.backoff, tries, context.draw.random(), held.delay)
        held.delay = delay
        context.announce(RunFinished(attempt.run, outcome, code, context.now.wall + delay))
        row = self._row(held, "retrying", outcome.text(), code)
        context.do(Record(replace(row, ended=context.now.wall), self.progress))
        self._retry_in(held, delay)

    def _retry_in(self, held: OpenSlot, delay: timedelta) -> None:
        self._gates.release(self, held)
        held.attempt = None
        held.retry = self._context.wake_in(delay, lambda _: self._retry(held))

    def _retry(self, held: OpenSlot) -> None:
        held.retry = None
        self.try_start(held)

    def _end(self, held: OpenSlot, fate: tuple[SlotState, str], *, kill: bool = False) -> None:
        """Bring an open slot to an end that was decided here, not by its command."""
        if held not in self.open:
            return
        attempt = held.attempt
        if attempt is None or not attempt.live:
            self._close(held, *fate)
            return
        held.fate = held.fate or fate
        if kill:
            attempt.kill(fate[1])
        else:
            attempt.stop(fate[1])

    def _close(
        self,
        held: OpenSlot,
        state: SlotState,
        reason: str,
        code: int | None = None,
        outcome: Verdict | None = None,
    ) -> None:
        context, now = self._context, self._context.now
        if held.fate is not None:
            state, reason = held.fate
            outcome = None
        if held.retry is not None:
            held.retry.cancel()
        for wake in held.wakes:
            wake.cancel()
        self.open.remove(held)
        self._gates.release(self, held)
        self._advance(held.slot)
        recovered = outcome is not None and outcome.success and self.progress.streak < 0
        if outcome is not None:
            self._count(outcome, held, code)
        self._refused = held.attempts == 0
        if held.attempts:
            self.last_end = now
            self.progress = replace(self.progress, last_end=now.wall)
        row = replace(self._row(held, state, reason, code), ended=now.wall if held.attempts else None)
        held.attempt = None
        self._keep(row, outcome, recovered=recovered)
        self._check_stop()
        if (
            self.spec.is_service
            and held.attempts
            and state in ("ran", "spawn_failed")
            and self.state is State.ACTIVE
        ):
            self._check_restart(outcome)
        if not self.open:
            self._on(Event.EMPTIED)
        elif self.state is State.ACTIVE:
            self._take_pending()
        self._gates.changed(self, row)

    def _count(self, outcome: Verdict, held: OpenSlot, code: int | None) -> None:
        progress, now, good = self.progress, self._context.now, outcome.success
        self.last_success = good
        streak = max(progress.streak, 0) + 1 if good else min(progress.streak, 0) - 1
        self.progress = replace(
            progress,
            successes=progress.successes + good,
            failures=progress.failures + (not good),
            streak=streak,
            last_success=now.wall if good else progress.last_success,
        )
        self._slow_down(outcome, held, code)

    def _slow_down(self, outcome: Verdict, held: OpenSlot, code: int | None) -> None:
        rule, now = self.spec.slowdown, self._context.now
        backoff = rule.backoff if rule else _SERVICE_SLOWDOWN
        self._not_before = None
        if outcome.success or (rule and rule.on_exit is not None and code not in rule.on_exit):
            self._slow = 0
        else:
            # a run that lasted long was healthy for a while, so its failure begins a new row
            lasted = now.wall - held.started if held.started else timedelta(0)
            self._slow = 1 if self.spec.is_service and lasted >= backoff.max else self._slow + 1
            if rule is not None or self.spec.is_service:
                self._not_before = now.plus(backoff_delay(backoff, self._slow, self._context.draw.random()))
        if self.spec.is_service and held.started is not None:
            floor = now.plus(held.started + SERVICE_FLOOR - now.wall)
            if self._not_before is None or self._not_before.mono < floor.mono:
                self._not_before = floor

    def _check_restart(self, outcome: Verdict | None) -> None:
        rule, good = self.spec.restart, outcome is not None and outcome.success
        if rule == "never" or (rule == "on-failure" and good):
            self._finish_with(f"it ended and `restart` is `{rule}`")

    def _row(
        self, held: OpenSlot, state: SlotState, reason: str | None, code: int | None = None
    ) -> RunRecord:
        slot, attempt = held.slot, held.attempt
        return RunRecord(
            self.spec.name, slot.nominal, slot.due, held.started, None, state, reason,
            attempt.run.id if attempt else None, held.attempts, code, slot.trigger, self._context.generation,
        )  # fmt: skip

    def _keep(self, row: RunRecord, outcome: Verdict | None = None, *, recovered: bool = False) -> None:
        self.recent[row.nominal] = row
        if len(self.recent) > _OUTCOMES_KEPT:
            del self.recent[next(iter(self.recent))]
        self._context.do(Record(row, self.progress))
        self._context.announce(SlotDecided(row))
        for kind in _hooks_for(row, outcome, recovered=recovered):
            if getattr(self.spec.hooks, kind) is not None:
                self._context.do(RunHook(self.spec.name, kind, self.spec, row))
        if row.attempts == 0:
            self._gates.changed(self, row)

    # --- the end -----------------------------------------------------------------------------------------------

    def _stop_met(self) -> str | None:
        now, past = self._context.now, self._context.now.at_wall(stop.began(self.progress))
        return stop.met(
            self.spec.stop,
            self.progress,
            pattern_found=self._pattern_found,
            last_success=self.last_success if self.progress.runs else None,
            now=now.wall,
            elapsed=(now.mono - past.mono) * MICROSECOND,
        )

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
            self._deadlines.append(
                context.wake_at(self.anchor.plus(rule.for_), "mono", lambda _: self._check_stop())
            )
        if rule.until is not None:
            until = context.now.at_wall(rule.until)
            self._deadlines.append(context.wake_at(until, "wall", lambda _: self._check_stop()))

    def _finish_with(self, reason: str) -> None:
        self._stop_reason = reason
        self._on(Event.FINISHED)

    def _drop_pending(self, reason: str) -> None:
        pending, self.pending = self.pending, deque()
        for slot in pending:
            self._decide(slot, "cancelled", reason)
        for held in [held for held in self.open if held.attempts == 0]:
            self._end(held, ("cancelled", reason))

    def _take_pending(self) -> None:
        if self.pending and overlap.decide(self.spec.overlap, len(self.open), 0) == "start":
            self._consider(self.pending.popleft())

    # --- moves of the table ------------------------------------------------------------------------------------

    def _on(self, event: Event) -> None:
        try:
            move, state = TABLE[self.state, event]
        except KeyError:
            raise ImpossibleMove(
                f"job `{self.spec.name}` cannot take {event.name} in {self.state.name}"
            ) from None
        self.state = state
        getattr(self, "_" + move)()

    def _go_on(self) -> None:
        pass

    def _rest(self) -> None:
        self._disarm()
        self._drop_pending(self._stop_reason or "stopped")

    def _take_next(self) -> None:
        while self.pending and not self.open:
            self._consider(self.pending.popleft())
        if not self.open and self._wake is None:
            self._arm()

    def _finish(self) -> None:
        self._rest()
        self.progress = replace(self.progress, done=self._stop_reason)
        self._context.do(Save(self.progress))
        self._context.announce(JobDone(self.spec.name, self._stop_reason))
        self._gates.changed(self, None)

    def _stop_all(self) -> None:
        self._rest()
        self.stop_runs(self._stop_reason)

    def _come_back(self) -> None:
        self._refused = False
        if self.cursor is None:
            self.anchor = self._context.now
        elif not self.schedule.waits_for_end:
            self.cursor = self._context.now  # nothing is owed for the time while it was off
        if self.open:
            self.ask("restart", "started again")
        else:
            self._arm()

    def _begin_again(self) -> None:
        now = self._context.now
        kept = self.progress
        self.progress = replace(
            Progress(kept.job, now.wall, schedule=kept.schedule, stop=kept.stop),
            last_success=kept.last_success,
        )
        self.anchor, self.cursor, self._pattern_found = now, None, False
        self._slow, self._not_before, self._refused = 0, None, False
        self._context.do(Save(self.progress))
        self._watch_deadlines()
        self._arm()


def _hooks_for(row: RunRecord, outcome: Verdict | None, *, recovered: bool) -> list[str]:
    if row.state in ("skipped", "expired"):
        return ["on_skip"]
    if outcome is None:
        return []
    if not outcome.success:
        return ["on_failure"]
    return ["on_success", "on_recovery"] if recovered else ["on_success"]


def _is_rule(reason: str) -> bool:
    """Whether a job was done because of its stop rule, rather than because nothing more was to come."""
    return not reason.startswith(("its schedule", "it ended"))
