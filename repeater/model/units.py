"""Durations, rates, sizes and shares as people write them: parse and format.

Each has one grammar. A number without a unit is an error, because its unit is ambiguous. Durations are those of Go
(https://pkg.go.dev/time#ParseDuration) plus `d` and `w`, largest unit first, each unit once; the resolution is one
microsecond. A `d` is always 24 hours. Errors are ValueError that names the found and the allowed value; the caller
adds the position.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import dataclass
from repeater.errors import one_line

if TYPE_CHECKING:
    from fractions import Fraction

_UNITS = {  # microseconds
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
    "µs": 1,
    "μs": 1,
}
_PART = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?(ms|[uµμ]s|[wdhms])")
LONGEST = timedelta(days=36_525)
DURATION_FORM = "a duration like `30s`, `1h30m`, `500ms` or `2d`"

_SIZE_UNITS = {"B": 1, "kB": 1000, "KB": 1000, "MB": 10**6, "GB": 10**9, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = r"([0-9]{1,16})(B|kB|KB|MB|GB|KiB|MiB|GiB)"
_RATE = r"([0-9]{1,9})/(.+)"
_PERCENT = r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%"


def parse_duration(text: str, *, zero: bool = False) -> timedelta:
    """The length that `text` names: from 1us up to 36525d, or from zero if `zero` is true.

    Raises ValueError for anything else.
    """
    billionths = _billionths(text) if text else None
    if billionths is None:
        raise ValueError(f"found `{_clip(text)}`, expected {DURATION_FORM}")
    total, finer = divmod(billionths, 10**9)
    if finer:
        raise ValueError(f"found `{_clip(text)}`, which is finer than `1us`, the smallest step")
    if total > LONGEST // timedelta(microseconds=1):
        raise ValueError(f"found `{_clip(text)}`, longer than the limit, `{format_duration(LONGEST)}`")
    if total == 0 and not zero:
        raise ValueError(f"found `{_clip(text)}`, expected more than zero, at least `1us`")
    return timedelta(microseconds=total)


def _billionths(text: str) -> int | None:
    """The length in billionths of a microsecond, the finest resolution of a text; None if it is not a duration."""
    total, place, smallest = 0, 0, 10**15
    while place < len(text):
        part = _PART.match(text, place)
        if part is None or _UNITS[part[3]] >= smallest:
            return None
        smallest = _UNITS[part[3]]
        total += int(part[1] + (part[2] or "").ljust(9, "0")) * smallest
        place = part.end()
    return total


_PAIRS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


@lru_cache(maxsize=1024)
def format_duration(length: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same length; `0s` for zero, `-` before a negative."""
    left = length // timedelta(microseconds=1)
    if left == 0:
        return "0s"
    sign, left = ("-", -left) if left < 0 else ("", left)
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return sign + "".join(parts)


def duration_text(length: timedelta) -> str:
    """A length for people, rounded down: `400µs`, `35ms`, `4.0s`, `42s`, `2m 05s`, `2h 05m`, `7h`, `3d 04h`."""
    left = max(0, length // timedelta(microseconds=1))
    if left < 1000:
        return f"{left}µs" if left else "0s"
    if left < 1_000_000:
        return f"{left // 1000}ms"
    seconds = left // 1_000_000
    if seconds < 60:
        return f"{seconds}.{left % 1_000_000 // 100_000}s" if seconds < 10 else f"{seconds}s"
    size, unit, part, name = next(one for one in _PAIRS if seconds >= one[0])
    count, rest = seconds // size, seconds % size // part
    return f"{count}{unit}" + (f" {rest:02}{name}" if rest else "")


def format_approx(seconds: float) -> str:
    """A length to three digits, for people: `50.4ms`, `1.25s`, `1h2m`."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.3g}µs"
    if seconds < 1000:
        return f"{seconds * 1000:.3g}ms" if seconds < 0.9995 else f"{seconds:.3g}s"
    return format_duration(timedelta(seconds=round(seconds)))


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts in any window of length `window`."""

    count: int
    window: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.window)}"


def parse_rate(text: str) -> Rate:
    """`100/1h`; a unit alone means one of it (`100/h`). Raises ValueError."""
    match = re.fullmatch(_RATE, text)
    if match is None:
        raise ValueError(f"found `{_clip(text)}`, expected a rate like `100/1h`")
    window = match[2] if match[2][:1].isdigit() else "1" + match[2]
    count = int(match[1])
    if count == 0:
        raise ValueError(f"found `{_clip(text)}`, expected at least 1 start in the window")
    try:
        return Rate(count, parse_duration(window))
    except ValueError as error:
        raise ValueError(f"in the rate `{_clip(text)}`: {error}") from None


def parse_size(text: str) -> int:
    """Bytes: `10MB` is 10 000 000, `64KiB` is 65 536. Raises ValueError."""
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise ValueError(f"found `{_clip(text)}`, expected a size like `10MB` or `64KiB`")
    size = int(match[1]) * _SIZE_UNITS[match[2]]
    if size > 1 << 50:
        raise ValueError(f"found `{_clip(text)}`, larger than the limit, `1048576GiB`")
    return size


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads back as the same number of bytes."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_share(text: str) -> Fraction:
    """`10%` as a fraction from 0 to 1. Raises ValueError."""
    from fractions import Fraction

    match = re.fullmatch(_PERCENT, text)
    if match is None or Fraction(match[1]) > 100:
        raise ValueError(f"found `{_clip(text)}`, expected a share like `10%`, at most `100%`")
    return Fraction(match[1]) / 100


def _clip(text: str) -> str:
    return one_line(text if len(text) <= 40 else text[:37] + "...")
