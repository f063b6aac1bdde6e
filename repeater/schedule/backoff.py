"""Delays that grow with the number of tries, and the schedule made of them.

`backoff_delay` is a pure function of the given random number; retries, slowdowns and the `backoff` schedule all use
it. Decorrelated jitter follows https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import Backoff, Growing
from repeater.model.time import MICROSECOND, Instant, to_us
from repeater.schedule.base import Track, least_step
from repeater.schedule.jitter import stable_fraction

_REMEMBERED = 32  # tries that decorrelated jitter looks back: earlier ones have no effect


def backoff_delay(backoff: Backoff, k: int, draw: float, previous: timedelta | None = None) -> timedelta:
    """How long to wait after the k-th consecutive failure, k >= 1: at most `backoff.max`.

    `draw` in [0, 1) is the random number of this delay, for `jitter` and for decorrelated jitter; `previous` is the
    delay before this one, used by decorrelated jitter only (None: this is the first).
    """
    base, most = to_us(backoff.base), to_us(backoff.max)
    if backoff.kind == "decorrelated-jitter":
        before = base if previous is None else to_us(previous)
        return min(most, base + int(draw * max(0.0, backoff.multiplier * before - base))) * MICROSECOND
    delay = min(most, _grown(backoff, max(1, k), base, most))
    if backoff.jitter == "full":
        delay = int(delay * draw)
    elif backoff.jitter == "equal":
        delay = delay // 2 + int((delay - delay // 2) * draw)
    return delay * MICROSECOND


def _grown(backoff: Backoff, k: int, base: int, most: int) -> int:
    """The k-th delay in microseconds; `most` or more where it would be beyond it."""
    match backoff.kind:
        case "fixed":
            return base
        case "linear":
            return base + (k - 1) * to_us(backoff.increment)
        case "fibonacci":
            delay, following = base, base
            for _ in range(k - 1):
                if delay >= most:
                    break
                delay, following = following, delay + following
            return delay
    try:
        factor = backoff.multiplier ** (k - 1) if backoff.kind == "exponential" else float(k) ** backoff.exponent
        return round(min(base * factor, float(most)))
    except OverflowError:
        return most


@dataclass(frozen=True, slots=True)
class GrowingSchedule:
    """The first slot at the anchor, every further one a delay of the backoff after the end of the run before.

    Its random numbers are hashes of job, anchor and count, so the same track always gives the same slot.
    """

    spec: Growing
    job: str
    clock: Literal["mono"] = "mono"
    waits_for_end: bool = True
    ends: bool = False

    def next(self, track: Track) -> Instant:
        if track.cursor is None:
            return track.anchor
        delay = self.interval(track)
        if track.last_end is not None:
            following = track.last_end.plus(delay)
            if following.mono > track.cursor.mono:
                return following
        return track.cursor.plus(max(delay, least_step(track)))

    def interval(self, track: Track) -> timedelta:
        return self._nth(track.anchor, max(1, track.runs))

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)

    def _nth(self, anchor: Instant, k: int) -> timedelta:
        backoff = self.spec.backoff
        if backoff.kind != "decorrelated-jitter":
            return backoff_delay(backoff, k, self._draw(anchor, k))
        first = max(1, k - _REMEMBERED + 1)
        delay = None if first == 1 else backoff.max
        for step in range(first, k + 1):
            delay = backoff_delay(backoff, step, self._draw(anchor, step), delay)
        assert delay is not None
        return delay

    def _draw(self, anchor: Instant, k: int) -> float:
        return (stable_fraction(f"backoff/{self.job}/{anchor.wall.isoformat()}/{k}") >> 11) / 2**53
