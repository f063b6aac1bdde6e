"""The table of one job: which state follows which event, and the move that `engine.job` makes with it.

    IDLE ──opened──> ACTIVE ──emptied──> IDLE        a stop condition: ──finished──> (FINISHING) ──> DONE
    any ──turned off──> (STOPPING) ──> OFF           removed, or the supervisor leaves: ──leave──> (LEAVING) ──> GONE

A pair that is not here cannot happen. Every move is here, so that the picture in the docs can be drawn from it. No code
but the table may be added.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Where a job is."""

    IDLE = auto()
    ACTIVE = auto()
    FINISHING = auto()
    DONE = auto()
    STOPPING = auto()
    INACTIVE = auto()
    DRAINING = auto()
    REMOVED = auto()

    __hash__ = object.__hash__  # the members are objects of their own; Enum's hashes a name, in Python


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
    RETURNED = auto()

    __hash__ = object.__hash__


S, E = State, Event
TABLE: dict[tuple[State, Event], tuple[str, State]] = {
    (S.IDLE, E.OPENED): ("no_op", S.ACTIVE),
    (S.IDLE, E.FINISHED): ("finish", S.DONE),
    (S.IDLE, E.TURNED_OFF): ("disarm", S.INACTIVE),
    (S.IDLE, E.TURNED_ON): ("no_op", S.IDLE),
    (S.IDLE, E.RESET): ("reset", S.IDLE),
    (S.IDLE, E.LEAVE): ("disarm", S.REMOVED),
    (S.ACTIVE, E.OPENED): ("no_op", S.ACTIVE),
    (S.ACTIVE, E.EMPTIED): ("take_next", S.IDLE),
    (S.ACTIVE, E.FINISHED): ("disarm", S.FINISHING),
    (S.ACTIVE, E.TURNED_OFF): ("stop_all", S.STOPPING),
    (S.ACTIVE, E.TURNED_ON): ("no_op", S.ACTIVE),
    (S.ACTIVE, E.RESET): ("reset", S.ACTIVE),
    (S.ACTIVE, E.LEAVE): ("disarm", S.DRAINING),
    (S.FINISHING, E.EMPTIED): ("finish", S.DONE),
    (S.FINISHING, E.FINISHED): ("no_op", S.FINISHING),
    (S.FINISHING, E.TURNED_OFF): ("stop_all", S.STOPPING),
    (S.FINISHING, E.TURNED_ON): ("no_op", S.FINISHING),
    (S.FINISHING, E.RESET): ("reset", S.ACTIVE),
    (S.FINISHING, E.LEAVE): ("disarm", S.DRAINING),
    (S.DONE, E.OPENED): ("no_op", S.FINISHING),
    (S.IDLE, E.DISABLED): ("disarm", S.INACTIVE),
    (S.ACTIVE, E.DISABLED): ("disarm", S.STOPPING),
    (S.FINISHING, E.DISABLED): ("disarm", S.STOPPING),
    (S.DONE, E.DISABLED): ("no_op", S.DONE),
    (S.STOPPING, E.DISABLED): ("no_op", S.STOPPING),
    (S.INACTIVE, E.DISABLED): ("no_op", S.INACTIVE),
    (S.DRAINING, E.DISABLED): ("no_op", S.DRAINING),
    (S.DONE, E.REARMED): ("no_op", S.IDLE),
    (S.DONE, E.TURNED_OFF): ("no_op", S.DONE),
    (S.DONE, E.TURNED_ON): ("no_op", S.DONE),
    (S.DONE, E.RESET): ("reset", S.IDLE),
    (S.DONE, E.LEAVE): ("no_op", S.REMOVED),
    (S.STOPPING, E.EMPTIED): ("no_op", S.INACTIVE),
    (S.STOPPING, E.FINISHED): ("no_op", S.STOPPING),
    (S.STOPPING, E.TURNED_OFF): ("no_op", S.STOPPING),
    (S.STOPPING, E.TURNED_ON): ("rearm", S.ACTIVE),
    (S.STOPPING, E.RESET): ("reset", S.STOPPING),
    (S.STOPPING, E.LEAVE): ("no_op", S.DRAINING),
    (S.INACTIVE, E.OPENED): ("no_op", S.STOPPING),
    (S.INACTIVE, E.TURNED_OFF): ("no_op", S.INACTIVE),
    (S.INACTIVE, E.TURNED_ON): ("rearm", S.IDLE),
    (S.INACTIVE, E.RESET): ("reset", S.INACTIVE),
    (S.INACTIVE, E.LEAVE): ("no_op", S.REMOVED),
    (S.DRAINING, E.EMPTIED): ("no_op", S.REMOVED),
    (S.DRAINING, E.FINISHED): ("no_op", S.DRAINING),
    (S.DRAINING, E.LEAVE): ("no_op", S.DRAINING),
    (S.DRAINING, E.RETURNED): ("no_op", S.ACTIVE),
    (S.DRAINING, E.TURNED_OFF): ("stop_all", S.DRAINING),
    (S.DRAINING, E.TURNED_ON): ("no_op", S.DRAINING),
    (S.DRAINING, E.RESET): ("no_op", S.DRAINING),
    (S.REMOVED, E.TURNED_OFF): ("no_op", S.REMOVED),
    (S.REMOVED, E.TURNED_ON): ("no_op", S.REMOVED),
    (S.REMOVED, E.DISABLED): ("no_op", S.REMOVED),
    (S.REMOVED, E.RESET): ("no_op", S.REMOVED),
    (S.REMOVED, E.LEAVE): ("no_op", S.REMOVED),
}
TAKES_SLOTS = frozenset({S.IDLE, S.ACTIVE})
