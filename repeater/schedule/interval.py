"""`every`: a grid of instants from an anchor, or a fixed distance from the end of the run before.

Computed with whole microseconds on the monotonic clock, so there is no drift and no local time: a day here is 24 hours.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import Every
from repeater.model.time import Instant, to_us
from repeater.schedule.base import Track, least_step
from repeater.schedule.jitter import jitter_delay


@dataclass(frozen=True, slots=True)
class EverySchedule:
    """The schedule of an `Every`. It never ends."""

    spec: Every
    clock: Literal["mono"] = "mono"
    ends: bool = False

    @property
    def waits_for_end(self) -> bool:
        return self.spec.after_end

    def next(self, track: Track) -> Instant:
        """The next point of the grid; with `after_end`, `every` after the last end.

        A slot that passed without a run (skipped, or its end is not known) counts as if it had ended at once.
        """
        first = track.anchor.plus(self.spec.offset) if self.spec.offset else track.anchor
        if not self.spec.immediate:
            first = first.plus(self.spec.every)
        if track.cursor is None or track.cursor.mono < first.mono:
            return first
        if self.spec.after_end:
            return self._after_end(track, track.cursor)
        step = to_us(self.spec.every)
        passed = (track.cursor.mono - first.mono) // step
        return first.plus(self.spec.every * (passed + 1))

    def interval(self, track: Track) -> timedelta:  # noqa: ARG002
        return self.spec.every

    def count(self, track: Track, until: Instant) -> int:
        """The number of points of the grid after the cursor, up to and including `until`."""
        first = self.next(track)
        return max(0, (until.mono - first.mono) // to_us(self.spec.every) + 1)

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return jitter_delay(self.spec.jitter, job, self.spec.every, draw)

    def _after_end(self, track: Track, cursor: Instant) -> Instant:
        if track.last_end is not None:
            following = track.last_end.plus(self.spec.every)
            if following.mono > cursor.mono:
                return following
        return cursor.plus(max(self.spec.every, least_step(track)))
