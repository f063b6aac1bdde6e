"""The schedule of `adaptive` and `load`: an interval that changes, counted from the end of the previous run.

The track has the current interval (`Track.pace`). `schedule.adaptive` and `schedule.load_aware` compute it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.model.time import Instant
from repeater.schedule.base import Track


@dataclass(frozen=True, slots=True)
class AdaptiveSchedule:
    """The first slot at the anchor, every further one the pace after the last end; `base` while no pace is known.

    A slot that passed without a run counts as if it had ended at once. It never ends.
    """

    base: timedelta
    clock: Literal["mono"] = "mono"
    waits_for_end: bool = True
    ends: bool = False

    def next(self, track: Track) -> Instant:
        if track.cursor is None:
            return track.anchor
        pace = self.interval(track)
        if track.last_end is not None:
            following = track.last_end.plus(pace)
            if following.mono > track.cursor.mono:
                return following
        return track.cursor.plus(pace)

    def interval(self, track: Track) -> timedelta:
        return self.base if track.pace is None else track.pace

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)
