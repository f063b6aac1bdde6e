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
    OFF = auto()
    LEAVING = auto()
    GONE = auto()

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
    (S.FINISHING, E.TURNED_ON): ("go_on", S.FINISHING),
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
    (S.STOPPING, E.RESET): ("begin_again", S.STOPPING),
    (S.STOPPING, E.LEAVE): ("go_on", S.LEAVING),
    (S.OFF, E.OPENED): ("go_on", S.STOPPING),
    (S.OFF, E.TURNED_OFF): ("go_on", S.OFF),
    (S.OFF, E.TURNED_ON): ("come_back", S.IDLE),
    (S.OFF, E.RESET): ("begin_again", S.OFF),
    (S.OFF, E.LEAVE): ("go_on", S.GONE),
    (S.LEAVING, E.EMPTIED): ("go_on", S.GONE),
    (S.LEAVING, E.FINISHED): ("go_on", S.LEAVING),
    (S.LEAVING, E.LEAVE): ("go_on", S.LEAVING),
    (S.LEAVING, E.RETURNED): ("go_on", S.ACTIVE),
    (S.LEAVING, E.TURNED_OFF): ("stop_all", S.LEAVING),
    (S.LEAVING, E.TURNED_ON): ("go_on", S.LEAVING),
    (S.LEAVING, E.RESET): ("go_on", S.LEAVING),
    (S.GONE, E.TURNED_OFF): ("go_on", S.GONE),
    (S.GONE, E.TURNED_ON): ("go_on", S.GONE),
    (S.GONE, E.DISABLED): ("go_on", S.GONE),
    (S.GONE, E.RESET): ("go_on", S.GONE),
    (S.GONE, E.LEAVE): ("go_on", S.GONE),
}
TAKES_SLOTS = frozenset({S.IDLE, S.ACTIVE})
