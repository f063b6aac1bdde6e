"""What every schedule is: a pure function from what happened to the next instant.

A schedule never reads a clock and keeps no state: the same `Track` gives the same answer, so the engine may ask again
at any time, and forecasts, simulations and live runs agree. Only `schedule.factory` lists the kinds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Protocol, runtime_checkable

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import LEAST_DISTANCE
from repeater.model.time import MICROSECOND, Instant


@dataclass(frozen=True, slots=True)
class Track:
    """What a schedule may know about its job.

    `anchor` is where its grid begins. `cursor` is the instant after which the next slot is wanted, exclusive: the last
    decided nominal time, or the moment of a change; None when no slot was decided and the anchor itself may be one.
    `last_end` is the end of the last decided run, None before the first or while it is not known; `runs` counts
    decided runs, `failures_in_row` the failures since the last success. `pace` is the interval that `adaptive` and
    `load` want now, `earliest` the instant that a `rate` allows; None while nothing is known.
    """

    anchor: Instant
    cursor: Instant | None = None
    last_end: Instant | None = None
    runs: int = 0
    failures_in_row: int = 0
    pace: timedelta | None = None
    earliest: Instant | None = None


def least_step(track: Track) -> timedelta:
    """How far the next slot is from the cursor at least, for schedules that wait for the end of a run.

    A run may follow the end of the run before at once. After a slot without a run it is `LEAST_DISTANCE`.
    """
    has_run = track.cursor is not None and track.last_end is not None and track.last_end.mono >= track.cursor.mono
    return MICROSECOND if has_run else LEAST_DISTANCE


class Schedule(Protocol):
    """`clock` is the clock that its instants follow: `wall` for times of day, `mono` for distances."""

    @property
    def clock(self) -> Literal["wall", "mono"]: ...

    @property
    def waits_for_end(self) -> bool:
        """Whether the next slot counts from the end of the run before, so that it is unknown while one is live."""
        ...

    @property
    def ends(self) -> bool:
        """Whether None from `next`, with no run live, means that no slot will ever come (`once`, `at`)."""
        ...

    def next(self, track: Track) -> Instant | None:
        """The first nominal time strictly after `track.cursor`.

        None when the schedule has ended, or when the next slot depends on something that has not happened yet. Only
        asked while no run is live if the schedule waits for its end.
        """
        ...

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:
        """The jitter of one slot: zero or more, and less than the distance to the next nominal time.

        `draw` in [0, 1) is the random number of this slot, used only by `random` jitter.
        """
        ...


@runtime_checkable
class CountsSlots(Protocol):
    """A schedule that can count nominal times without a walk over each of them."""

    def count(self, track: Track, until: Instant) -> int:
        """The number of nominal times after `track.cursor`, up to and including `until`."""
        ...
