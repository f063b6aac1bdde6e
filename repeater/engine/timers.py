"""Timers on both clocks.

There is one heap for each clock, because a step of the wall clock moves times of day but not distances. A cancelled
`Timer` is only marked. It leaves its heap when it comes up, or when more than half of the heap may be cancelled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from repeater.model.time import Instant, Mono, to_us


class Timer:
    """Something to do at an instant. `call` gets the actual reading of the clocks."""

    __slots__ = ("at", "call", "cancelled", "clock", "order")

    def __init__(self, at: Instant, clock: Literal["wall", "mono"], order: int, call: Callable[[Instant], None]):
        self.at = at
        self.clock = clock
        self.order = order
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call it. A second cancel, or one after the call, does nothing."""
        self.cancelled = True


class TimerQueue:
    """Timers in the order of their instants; those of one instant in the order in which they were added."""

    def __init__(self) -> None:
        self._wall: list[tuple[datetime, int, Timer]] = []
        self._mono: list[tuple[Mono, int, Timer]] = []
        self._number = 0
        self._tidy_at = 1024

    def add(self, at: Instant, clock: Literal["wall", "mono"], call: Callable[[Instant], None]) -> Timer:
        """Call at `at`, by the wall clock or the monotonic clock."""
        self._number += 1
        timer = Timer(at, clock, self._number, call)
        if clock == "wall":
            heapq.heappush(self._wall, (at.wall, timer.order, timer))
        else:
            heapq.heappush(self._mono, (at.mono, timer.order, timer))
        if len(self._wall) + len(self._mono) > self._tidy_at:
            self._tidy()
        return timer

    def pop_due(self, now: Instant) -> Timer | None:
        """Remove and return the earliest timer that is due; None if none is."""
        self._drop_cancelled()
        wall = self._wall[0][2] if self._wall and self._wall[0][0] <= now.wall else None
        mono = self._mono[0][2] if self._mono and self._mono[0][0] <= now.mono else None
        if wall is None and mono is None:
            return None
        if mono is None or (wall is not None and (wall.at.wall, wall.order) < (mono.at.wall, mono.order)):
            return heapq.heappop(self._wall)[2]
        return heapq.heappop(self._mono)[2]

    def wait(self, now: Instant) -> int | None:
        """Microseconds until the first timer is due, by its clock: 0 if it is due, None if there is none."""
        self._drop_cancelled()
        left = self._mono[0][0] - now.mono if self._mono else None
        if self._wall:
            until = to_us(self._wall[0][0] - now.wall)
            left = until if left is None else min(left, until)
        return None if left is None else max(0, left)

    def _drop_cancelled(self) -> None:
        """Remove cancelled timers from the top of both heaps."""
        while self._wall and self._wall[0][2].cancelled:
            heapq.heappop(self._wall)
        while self._mono and self._mono[0][2].cancelled:
            heapq.heappop(self._mono)

    def _tidy(self) -> None:
        self._wall = [entry for entry in self._wall if not entry[2].cancelled]
        self._mono = [entry for entry in self._mono if not entry[2].cancelled]
        heapq.heapify(self._wall)
        heapq.heapify(self._mono)
        self._tidy_at = max(1024, 2 * (len(self._wall) + len(self._mono)))
