"""What all parts of one engine share: the current reading of the clocks, the timers, and the list of actions.

It decides nothing. `Engine` sets `now` once for each fact, so that all decisions from one fact have the same instant.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from repeater.engine.actions import Action, Announce
from repeater.engine.clock_step import offset_of
from repeater.engine.timers import Timer, TimerQueue
from repeater.model.events import Event
from repeater.model.time import Instant, Mono, from_epoch_us, to_epoch_us


class Context:
    """The shared state of one engine.

    `actions` must be carried out in this order. `draw` gives random numbers for backoff and run ids, `seed` those of
    random jitter. `offset` is the wall time minus the monotonic reading, in microseconds, that distances are written
    with; it changes only when the wall clock is set. `boot` names this boot, and is empty if it is unknown.
    """

    __slots__ = ("actions", "boot", "draw", "generation", "now", "offset", "seed", "timers")

    def __init__(self, now: Instant, seed: int, boot: str = "") -> None:
        self.now = now
        self.offset = offset_of(now)
        self.boot = boot
        self.seed = seed
        self.draw = random.Random(seed)  # noqa: S311
        self.generation = 0
        self.timers = TimerQueue()
        self.actions: list[Action] = []

    @property
    def steady(self) -> Instant:
        """Now, with the wall time that distances are written with."""
        return Instant(from_epoch_us(self.now.mono + self.offset), self.now.mono)

    def reading(self, wall: datetime) -> Instant:
        """The instant of a time that was written with `offset`."""
        return Instant(wall, Mono(to_epoch_us(wall) - self.offset))

    def shown(self, mono: Mono) -> datetime:
        """The wall time of a monotonic reading, written with `offset`."""
        return from_epoch_us(mono + self.offset)

    def emit_event(self, event: Event) -> None:
        self.actions.append(Announce(event))

    def call_in(self, length: timedelta, call: Callable[[Instant], None]) -> Timer:
        """A distance from now, on the monotonic clock."""
        return self.timers.add(self.now.plus(length), "mono", call)

    def call_at(self, at: Instant, clock: Literal["wall", "mono"], call: Callable[[Instant], None]) -> Timer:
        return self.timers.add(at, clock, call)

    def new_run_id(self) -> str:
        """Twenty hexadecimal digits that sort by time: milliseconds since 1970, then a random tail."""
        milliseconds = int(self.now.wall.timestamp() * 1000)
        return f"{milliseconds:011x}{self.draw.getrandbits(36):09x}"
