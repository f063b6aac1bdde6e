"""`rate`: as often as a rate allows, in any window. What it allows is known to a ledger (`policy.limit`), not here."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import LEAST_DISTANCE, RateLimited
from repeater.model.time import Instant
from repeater.schedule.base import Track, least_step


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """The first slot at the anchor, every further one when the rate allows it and the run before has ended.

    Without a ledger to ask, as in a forecast, slots are evenly spread. It never ends.
    """

    spec: RateLimited
    clock: Literal["mono"] = "mono"
    waits_for_end: bool = True
    ends: bool = False

    def next(self, track: Track) -> Instant:
        if track.cursor is None:
            return track.anchor
        if track.earliest is None:
            return track.cursor.plus(self.interval(track))
        return max(track.cursor.plus(least_step(track)), track.earliest, key=lambda instant: instant.mono)

    def interval(self, track: Track) -> timedelta:  # noqa: ARG002
        return max(LEAST_DISTANCE, self.spec.rate.window / self.spec.rate.count)

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)
