"""Instants on two clocks that are never mixed.

`Wall` (an aware `datetime` in UTC) is a time of day for people, cron and records; it may jump. `Mono` (whole
microseconds of a clock that never jumps and has no meaning outside this boot) is for intervals, timeouts and delays.
Both have the resolution of `datetime`, so adding a `timedelta` to either is exact. Nothing here reads a clock: an
`Instant` is one reading of both clocks, and the caller of the engine reads them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NewType, overload

from repeater._lazy_dataclasses import dataclass

Mono = NewType("Mono", int)
"""Microseconds of a monotonic clock; its zero has no meaning."""

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(length: timedelta) -> int:
    """The length in whole microseconds; exact."""
    return (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds


def after(mono: Mono, length: timedelta) -> Mono:
    """The monotonic instant `length` later."""
    return Mono(mono + to_us(length))


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """One reading of both clocks."""

    wall: datetime
    mono: Mono

    def plus(self, length: timedelta) -> Instant:
        """The instant `length` later, if the wall clock is not set meanwhile."""
        return Instant(self.wall + length, Mono(self.mono + to_us(length)))

    def at_wall(self, wall: datetime) -> Instant:
        """The instant at which the wall clock will show `wall`, if the clock is not set meanwhile."""
        return Instant(wall, Mono(self.mono + to_us(wall - self.wall)))

    def at_mono(self, mono: Mono) -> Instant:
        """The instant of a monotonic reading, if the wall clock is not set meanwhile."""
        return Instant(self.wall + timedelta(microseconds=mono - self.mono), mono)


def to_epoch_us(wall: datetime) -> int:
    """Whole microseconds since 1970, the form of storage."""
    return to_us(wall - _EPOCH)


def from_epoch_us(number: int) -> datetime:
    """The inverse of `number_of`."""
    return _EPOCH + timedelta(microseconds=number)


@overload
def rfc3339(wall: datetime) -> str: ...


@overload
def rfc3339(wall: datetime | None) -> str | None: ...


def rfc3339(wall: datetime | None) -> str | None:
    """UTC with `Z`, microseconds only if there are any: `2026-11-23T03:00:00Z`. None stays None."""
    if wall is None:
        return None
    if wall.tzinfo is not UTC:
        wall = wall.astimezone(UTC)
    return wall.isoformat()[:-6] + "Z"  # instead of `+00:00`


def offset_text(local: datetime) -> str:
    """The offset of a local time from UTC: `+02:00`, with seconds only if there are any (`+00:53:28`)."""
    return local.isoformat(timespec="seconds")[19:]


def parse_instant(text: str, *, allow_local: bool = False) -> datetime:
    """An instant in UTC, from a date and time with an offset. Raises ValueError or OverflowError.

    `allow_local`: the offset can be missing. The text is then a date, or a date and time, in the zone of the machine.
    """
    wall = datetime.fromisoformat(text.strip() if allow_local else text)
    if wall.tzinfo is None and not allow_local:
        raise ValueError(f"`{text}` has no UTC offset")
    return wall.astimezone(UTC)


def from_rfc3339(text: str | None) -> datetime | None:
    """The inverse of `rfc3339`. Raises as `parse_instant`."""
    return None if text is None else parse_instant(text)


def age(since: datetime | None, now: datetime) -> str:
    """The time from `then` in one or two units: `3s`, `12m`, `2h 05m`, `4d`."""
    return "" if since is None else span((now - since).total_seconds())


def span(seconds: float) -> str:
    """A length in one or two units, rounded down: `3s`, `12m`, `2h 05m`, `4d`. A negative one gives `0s`."""
    left = max(0, int(seconds))
    if left < 3600:
        return f"{left}s" if left < 60 else f"{left // 60}m"
    if left < 86_400:
        return f"{left // 3600}h {left % 3600 // 60:02}m" if left % 3600 >= 60 else f"{left // 3600}h"
    return f"{left // 86_400}d"
