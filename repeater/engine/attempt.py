"""One attempt, from the order to start it until nothing of it is left: a table of state x event.

    STARTING ──started──> RUNNING ──exited──> DRAINING ──ended──> ENDED
                             │ stop, timed out     │ drain over
                             v                     v
                        TERMINATING ─grace over─> KILLING ──ended──> ENDED

Any state ends with LOST, when nobody knows any more. A pair that is not in `TABLE` cannot happen; if it does,
`InvalidTransition` names it. Every move is in the table, so that the picture in the docs can be drawn from it. Whether
a run is asked to end is decided elsewhere (`engine.job`); how it ends is decided here: the signal, the grace, the kill,
and how long output may follow the exit. Escalation waits for the whole tree, not for its first process.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import Enum, auto

from repeater.engine.actions import KillTree, SendSignal
from repeater.engine.context import Context
from repeater.engine.timers import Timer
from repeater.model.events import RunStopping
from repeater.model.reasons import STOPPED, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Run
from repeater.model.spec import Termination
from repeater.model.time import Instant


class State(Enum):
    """Where an attempt is."""

    STARTING = auto()
    RUNNING = auto()
    DRAINING = auto()
    TERMINATING = auto()
    KILLING = auto()
    ENDED = auto()

    __hash__ = object.__hash__  # the members are objects of their own; Enum's hashes a name, in Python


class Event(Enum):
    """What moves an attempt."""

    STARTED = auto()
    SPAWN_FAILED = auto()
    EXITED = auto()
    ENDED = auto()
    LOST = auto()
    STOP = auto()
    KILL = auto()
    TIMED_OUT = auto()
    GRACE_OVER = auto()
    DRAIN_OVER = auto()

    __hash__ = object.__hash__


S, E = State, Event
TABLE: dict[tuple[State, Event], tuple[str, State]] = {
    (S.STARTING, E.STARTED): ("arm_timeout", S.RUNNING),
    (S.STARTING, E.SPAWN_FAILED): ("cancel_timers", S.ENDED),
    (S.STARTING, E.STOP): ("stop_later", S.STARTING),
    (S.STARTING, E.KILL): ("kill_later", S.STARTING),
    (S.RUNNING, E.EXITED): ("drain", S.DRAINING),
    (S.RUNNING, E.ENDED): ("cancel_timers", S.ENDED),
    (S.RUNNING, E.STOP): ("terminate", S.TERMINATING),
    (S.RUNNING, E.TIMED_OUT): ("time_out", S.TERMINATING),
    (S.RUNNING, E.KILL): ("kill_tree", S.KILLING),
    (S.DRAINING, E.ENDED): ("cancel_timers", S.ENDED),
    (S.DRAINING, E.DRAIN_OVER): ("kill_tree", S.KILLING),
    (S.DRAINING, E.STOP): ("terminate", S.TERMINATING),
    (S.DRAINING, E.KILL): ("kill_tree", S.KILLING),
    (S.TERMINATING, E.EXITED): ("no_op", S.TERMINATING),
    (S.TERMINATING, E.ENDED): ("cancel_timers", S.ENDED),
    (S.TERMINATING, E.STOP): ("no_op", S.TERMINATING),
    (S.TERMINATING, E.GRACE_OVER): ("kill_tree", S.KILLING),
    (S.TERMINATING, E.KILL): ("kill_tree", S.KILLING),
    (S.KILLING, E.EXITED): ("no_op", S.KILLING),
    (S.KILLING, E.ENDED): ("cancel_timers", S.ENDED),
    (S.KILLING, E.STOP): ("no_op", S.KILLING),
    (S.KILLING, E.KILL): ("kill_tree", S.KILLING),
    **{
        (state, E.LOST): ("cancel_timers", S.ENDED)
        for state in (S.STARTING, S.RUNNING, S.DRAINING, S.TERMINATING, S.KILLING)
    },
}


_METHODS = {move: sys.intern(f"_{move}") for move, _ in TABLE.values()}


class InvalidTransition(AssertionError):
    """A fact that contradicts those before it: a fault in repeater, never in a job."""


class Attempt:
    """`exit` is how the first process ended, None while it lives. `ended_by` says why we ended it, None if we did not.

    `started` is when its process came to exist, None until then; `told` is when we were told, None if an earlier
    supervisor was.
    """

    __slots__ = (
        "_alarm",
        "_context",
        "_ending",
        "_grace",
        "_later",
        "ended_by",
        "exit",
        "run",
        "started",
        "state",
        "told",
    )

    def __init__(self, context: Context, run: Run, ending: Termination) -> None:
        self._context = context
        self._ending = ending
        self._alarm: Timer | None = None
        self._grace: timedelta = ending.stop_timeout
        self._later: Event | None = None
        self.run = run
        self.state = State.STARTING
        self.started: Instant | None = None
        self.told: Instant | None = None
        self.exit: Exit | None = None
        self.ended_by: Reason | None = None

    @property
    def live(self) -> bool:
        return self.state is not State.ENDED

    @property
    def is_starting(self) -> bool:
        """Whether its process was asked for and is not known to exist."""
        return self.state is State.STARTING

    def twin(self, context: Context) -> Attempt:
        """The same attempt a second time, which leads to no action of ours."""
        import copy  # foresight only, which few commands need

        twin = copy.copy(self)
        twin._context, twin._alarm = context, None
        return twin

    def on(self, event: Event, exit: Exit | None = None) -> None:  # noqa: A002
        """Make the move of `event`. `exit` comes with EXITED and ENDED."""
        try:
            move, state = TABLE[self.state, event]
        except KeyError:
            raise InvalidTransition(
                f"run {self.run.id} of `{self.run.slot.job}` cannot take {event.name} in {self.state.name}"
            ) from None
        if exit is not None and self.exit is None:
            self.exit = exit
        self.state = state
        getattr(self, _METHODS[move])()

    def begin(self, since: Instant) -> None:
        """Its process exists, since some moments ago perhaps."""
        self.started, self.told = since, self._context.now
        self.on(Event.STARTED)

    def resume(self, since: Instant) -> None:
        """It runs, and has since then: an earlier supervisor started it."""
        self.started = since
        self.state = State.RUNNING
        self._arm_timeout()

    def stop(self, reason: Reason) -> None:
        """Ask the run to end with its own signal and grace; asking again changes nothing."""
        if self.live:
            self.ended_by = self.ended_by or reason
            self.on(Event.STOP)

    def kill(self, reason: Reason) -> None:
        """End the run now."""
        if self.live:
            self.ended_by = self.ended_by or reason
            self.on(Event.KILL)

    def _set_alarm(self, length: timedelta, event: Event, since: Instant | None = None) -> None:
        self._drop_alarm()
        at = (since or self._context.now).plus(length)
        self._alarm = self._context.call_at(at, "mono", lambda _: self.on(event))

    def _drop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm_timeout(self) -> None:
        if self._ending.timeout is not None:
            self._set_alarm(self._ending.timeout, Event.TIMED_OUT, self.started)
        if self._later is not None:
            self.on(self._later)

    def _stop_later(self) -> None:
        self._later = self._later or Event.STOP

    def _kill_later(self) -> None:
        self._later = Event.KILL

    def _drain(self) -> None:
        self._set_alarm(self._ending.drain_timeout, Event.DRAIN_OVER)

    def note_timeout(self) -> None:
        """It was ended for its timeout, here or by whoever looked after it."""
        if self.ended_by is None and self._ending.timeout is not None:
            self.ended_by = because("timeout", after=self._ending.timeout)

    def _time_out(self) -> None:
        self.note_timeout()
        self._terminate()

    def _terminate(self) -> None:
        signal = self._ending.stop_signal
        slot = self.run.slot
        self._context.emit_event(RunStopping(slot.job, self.run.id, signal, self.ended_by or STOPPED))
        self._context.actions.append(SendSignal(self.run.id, signal))
        self._set_alarm(self._grace, Event.GRACE_OVER)

    def _kill_tree(self) -> None:
        self._drop_alarm()
        self._context.actions.append(KillTree(self.run.id))

    def _no_op(self) -> None:
        pass

    def _cancel_timers(self) -> None:
        self._drop_alarm()
