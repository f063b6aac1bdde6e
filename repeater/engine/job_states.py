"""The states of one job, and what changes them.

Theory of operation
===================

A job has one state machine, and each attempt of it has another one (`engine.attempt`). There are two machines because a
job outlives its attempts: it waits, it may have several slots open at once, and it must remember that it is done. The
machine of a job knows only whether slots are open, not what they do. The machine of an attempt knows only its
processes.

A slot is one scheduled time of the job. It is *open* from its admission until its final record. An open slot waits at a
limit, has a live run, or waits for its next attempt. The states follow from two questions:

                                     takes new slots         takes no new slots
    no slot is open                  IDLE                    DONE, INACTIVE, REMOVED
    at least one slot is open        ACTIVE                  FINISHING, STOPPING, DRAINING

The columns differ in their reason. A job that takes no new slots is in one of three rows of states:

    FINISHING -> DONE        a stop condition is met, or the schedule has ended. Open slots finish. `reset` starts over.
    STOPPING -> INACTIVE     the user stopped the job, or `enabled` is false. `start` continues.
    DRAINING -> REMOVED      the job was removed from the job file, or the supervisor exits. Only a job that comes back
                             to the job file while it drains (RETURNED) becomes active again.

So a job cannot become idle while a slot is open: `EMPTIED` alone leads from the second line to the first one, when the
last open slot has its final record. Events that need no change of state are in the table too, with the move `no_op`. A
pair of state and event that is not in the table is a bug, and raises `InvalidTransition`.

A slot may also open in DONE, if it is forced (`rpr trigger --force`), and in INACTIVE, if the live run of an earlier
supervisor is adopted. The job is FINISHING or STOPPING until that slot ends, and then has its former state again.

    IDLE ──opened──> ACTIVE ──emptied──> IDLE        a stop condition: ──finished──> (FINISHING) ──> DONE
    any ──turned off──> (STOPPING) ──> INACTIVE      removed, or exit: ──leave──> (DRAINING) ──> REMOVED

What a move does is in `engine.job`, in the method of its name. The move happens after the change of state, so that
everything that it starts sees the new state. A test draws the diagram of the docs from this table.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """The states of a job."""

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
    """What changes the state of a job."""

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
