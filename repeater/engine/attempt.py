"""One attempt, from the order to start it until none of its processes is left: a table of state x event.

    STARTING ──started──> RUNNING ──exited──> DRAINING ──ended──> ENDED
                             │ stop, timed out     │ drain over
                             v                     v
                        TERMINATING ─grace over─> KILLING ──ended──> ENDED

LOST ends every state: the end of the run is unknown. A pair that is not in `TABLE` cannot happen; if it does,
`InvalidTransition` names it. Every move is in the table, so that the diagram in the docs can be drawn from it.
`engine.job` decides whether a run must end. This module decides how: the signal, the grace, the kill, and how long
output may follow the exit. The grace is over when the whole process tree is gone, not when the first process is.
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
    """The states of an attempt."""

    STARTING = auto()
    RUNNING = auto()
    DRAINING = auto()
    TERMINATING = auto()
    KILLING = auto()
    ENDED = auto()

    __hash__ = object.__hash__  # the members are objects of their own; Enum's hashes a name, in Python


class Event(Enum):
    """What changes the state of an attempt."""

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
    """A fact that contradicts an earlier one. That is a bug in repeater, not in a job."""


class Attempt:
    """The state of one attempt.

    `exit` is how its first process ended, None while it runs. `ended_by` is why the engine ended it, None if it did
    not. `started` is since when its process exists. `reported` is when the report of the start came, None if an earlier
    supervisor got it.
    """

    __slots__ = (
        "_context",
        "_ending",
        "_grace",
        "_later",
        "_timer",
        "ended_by",
        "exit",
        "reported",
        "run",
        "started",
        "state",
    )

    def __init__(self, context: Context, run: Run, ending: Termination) -> None:
        self._context = context
        self._ending = ending
        self._timer: Timer | None = None
        self._grace: timedelta = ending.stop_timeout
        self._later: Event | None = None
        self.run = run
        self.state = State.STARTING
        self.started: Instant | None = None
        self.reported: Instant | None = None
        self.exit: Exit | None = None
        self.ended_by: Reason | None = None

    @property
    def live(self) -> bool:
        return self.state is not State.ENDED

    @property
    def is_starting(self) -> bool:
        """Whether its start was ordered and is not confirmed."""
        return self.state is State.STARTING

    def twin(self, context: Context) -> Attempt:
        """A second object of the same attempt, for a preview."""
        import copy  # only a preview needs it

        twin = copy.copy(self)
        twin._context, twin._timer = context, None
        return twin

    def on(self, event: Event, exit: Exit | None = None) -> None:  # noqa: A002
        """Change the state by `event`. `exit` comes with EXITED and ENDED."""
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
        """Its process exists since `since`."""
        self.started, self.reported = since, self._context.now
        self.on(Event.STARTED)

    def resume(self, since: Instant) -> None:
        """It runs since then, because an earlier supervisor started it."""
        self.started = since
        self.state = State.RUNNING
        self._arm_timeout()

    def stop(self, reason: Reason) -> None:
        """End the run with its stop signal and grace. A second call changes nothing."""
        if self.live:
            self.ended_by = self.ended_by or reason
            self.on(Event.STOP)

    def kill(self, reason: Reason) -> None:
        """End the run now."""
        if self.live:
            self.ended_by = self.ended_by or reason
            self.on(Event.KILL)

    def _arm_timer(self, length: timedelta, event: Event, since: Instant | None = None) -> None:
        self._disarm_timer()
        at = (since or self._context.now).plus(length)
        self._timer = self._context.call_at(at, "mono", lambda _: self.on(event))

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm_timeout(self) -> None:
        if self._ending.timeout is not None:
            self._arm_timer(self._ending.timeout, Event.TIMED_OUT, self.started)
        if self._later is not None:
            self.on(self._later)

    def _stop_later(self) -> None:
        self._later = self._later or Event.STOP

    def _kill_later(self) -> None:
        self._later = Event.KILL

    def _drain(self) -> None:
        self._arm_timer(self._ending.drain_timeout, Event.DRAIN_OVER)

    def note_timeout(self) -> None:
        """Its timeout ended it, here or in the shim."""
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
        self._arm_timer(self._grace, Event.GRACE_OVER)

    def _kill_tree(self) -> None:
        self._disarm_timer()
        self._context.actions.append(KillTree(self.run.id))

    def _no_op(self) -> None:
        pass

    def _cancel_timers(self) -> None:
        self._disarm_timer()
