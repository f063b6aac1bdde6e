"""Jitter: how long after its nominal time a slot is due. It only delays, and never reaches the next nominal time.

`stable` jitter is a hash of the job's name, the same in every process and on every machine, so that a job keeps its
delay and ten jobs of one schedule spread out. A cell keeps its delay if the order of its axes changes.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from repeater.model.spec import Jitter, cell_key
from repeater.model.time import MICROSECOND, to_us


def jitter_delay(jitter: Jitter | None, job: str, distance: timedelta | None, draw: float) -> timedelta:
    """The delay of one slot: from zero to less than the jitter's width, and to less than `distance`.

    `distance` is how far away the next nominal time is. If it is None, a share of it gives a delay of zero. Only
    `random` jitter uses `draw`, a number in [0, 1).
    """
    if jitter is None:
        return timedelta(0)
    widths = []
    if distance is not None:
        widths.append(to_us(distance))
        if jitter.share is not None:
            widths.append(to_us(distance) * jitter.share.numerator // jitter.share.denominator)
    if jitter.span is not None:
        widths.append(to_us(jitter.span))
    elif distance is None:
        return timedelta(0)
    width = min(widths)
    if width <= 0:
        return timedelta(0)
    part = width * stable_fraction(f"jitter/{cell_key(job)}") >> 64 if jitter.mode == "stable" else int(width * draw)
    return min(part, width - 1) * MICROSECOND


@lru_cache(maxsize=65_536)
def stable_fraction(text: str) -> int:
    """A number from 0 to 2**64 - 1 that depends on the text alone; `hash()` would differ in every process."""
    from hashlib import sha256

    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")
