"""What a step of the wall clock does to what is remembered about a job.

The engine counts distances on the monotonic clock, and writes them as wall times. `offset` is the wall time minus the
monotonic reading, in microseconds, that it uses for that; it changes only when the wall clock was set. Each progress
says which offset its times were written with, so a later supervisor of the same boot finds the exact readings again.

Times of day (`anchor` and `cursor` of a schedule by the wall clock) do not move with the clock. All other times
of a progress are distances, and move with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from repeater._lazy_dataclasses import replace
from repeater.model.run import Progress
from repeater.model.time import MICROSECOND, Instant, to_epoch_us

WhichClock = Literal["wall", "mono"]
_MILLISECOND = 1000  # microseconds
_PAST = ("first_start", "last_start", "last_end", "last_success", "began")
_DISTANCES = (*_PAST, "pushed_until")


def offset_of(now: Instant, former: Iterable[int] = ()) -> int:
    """The offset to use from now on, in microseconds, after the offsets `former` of this boot.

    It is a whole number of milliseconds, plus one microsecond for each time that the clock was set back. So no nominal
    time of an interval equals one that was decided before the clock was set back.
    """
    offset, steps = (to_epoch_us(now.wall) - now.mono) // _MILLISECOND * _MILLISECOND, 0
    for clock in former:
        was_set_back = offset < clock // _MILLISECOND * _MILLISECOND
        steps = max(steps, (clock + was_set_back) % _MILLISECOND)
    return offset + steps


def shifted(progress: Progress, step: int, by_clock: WhichClock, now: datetime) -> Progress:
    """The progress after times moved by `step` microseconds. `now` is the new wall time."""
    by = step * MICROSECOND
    names = [*_DISTANCES, "anchor", "cursor"] if by_clock == "mono" else list(_DISTANCES)
    if progress.pause_rides == "mono":
        names.append("paused_until")
    moved = {name: at + by for name in names if (at := getattr(progress, name)) is not None}
    if by_clock == "wall" and progress.cursor is None:
        moved["anchor"] = min(progress.anchor, now)  # else the first slot would wait for the former time of day
    clock = None if progress.clock is None else progress.clock + step
    return replace(progress, **moved, clock=clock)


def recalled(progress: Progress, by_clock: WhichClock, *, now: Instant, offset: int, boot: str) -> Progress:
    """The progress of an earlier supervisor with its times written with `offset`.

    In the same boot the readings of the monotonic clock are known, even if the wall clock was set meanwhile. In
    another boot only wall times can be compared, and a time that lies ahead counts as now: the clock was wrong then, or
    is wrong now.
    """
    if progress.began is None:
        progress = replace(progress, began=min(progress.anchor, progress.first_start or progress.anchor))
    if is_same_boot(progress, now, boot):
        assert progress.clock is not None
        return shifted(progress, offset - progress.clock, by_clock, now.wall)
    names = [*_PAST, "anchor", "cursor"] if by_clock == "mono" else list(_PAST)
    past = {name: min(at, now.wall) for name in names if (at := getattr(progress, name)) is not None}
    if by_clock == "wall" and progress.cursor is None:
        past["anchor"] = min(progress.anchor, now.wall)
    return replace(progress, **past, clock=offset, boot=boot or None)


def is_same_boot(progress: Progress, now: Instant, boot: str) -> bool:
    """Whether the monotonic readings of a progress can be compared with the current ones."""
    if not boot or progress.boot != boot or progress.clock is None:
        return False
    latest = max(at for at in (progress.began, progress.last_end, progress.last_start) if at is not None)
    return to_epoch_us(latest) - progress.clock <= now.mono
