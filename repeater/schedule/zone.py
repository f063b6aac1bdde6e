"""Wall times of a zone as instants: where its clock jumps, and which instants a pattern of wall times means.

A zone is a row of spans, each with one offset from UTC. Where the clock jumps ahead between two spans some wall times
do not exist (a *gap*), where it falls back some exist twice (a *fold*); what a slot does there is the job's policy, and
is decided here and nowhere else. Instants are naive UTC here, wall times naive local; names keep them apart.
No clock is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from repeater.model.time import MICROSECOND

Gap = Literal["next", "shift", "skip"]
Fold = Literal["first", "second", "both", "skip"]
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_NEAR = timedelta(hours=25)  # no clock was ever moved by more than a day
_SHAPE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", re.ASCII)


class Pattern(Protocol):
    """A set of wall times."""

    def after(self, wall: datetime) -> datetime | None:
        """The first one strictly after `wall`; None if there is none any more."""
        ...


class CountedPattern(Pattern, Protocol):
    """A set of wall times that can be counted without a walk over each of them."""

    def count(self, low: datetime, high: datetime) -> int:
        """The number of wall times after `low`, up to and including `high`."""
        ...

    def has_day(self, day: date) -> bool: ...


class Change(NamedTuple):
    """The clock is moved at an instant: the offsets `before` it and from then on (`then`)."""

    at: datetime
    before: timedelta
    then: timedelta


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises ValueError for anything else, with the nearest name.

    Abbreviations (`EST`) and fixed offsets (`Etc/GMT+5`) are refused although the database has some of them: the ones
    ignore daylight saving, the others have the opposite sign of what people mean.
    """
    if name in ("UTC", "Etc/UTC"):
        return ZoneInfo("UTC")
    area = name.partition("/")[0]
    if not _SHAPE.fullmatch(name) or name.isupper() or area in ("Etc", "SystemV"):
        right = _in_right_case(name)
        expected = f"`{right}`" if right else "a name like `Europe/Berlin`, or `UTC`"
        raise ValueError(f"found the time zone `{name[:60]}`, expected {expected}")
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"found the time zone `{name[:60]}`, which is unknown{_nearest(name)}") from None


def slot_after(pattern: Pattern, zone: ZoneInfo, gap: Gap, fold: Fold, utc: datetime) -> datetime | None:
    """The first instant strictly after `utc` that the pattern means in the zone; None if there is none any more."""
    if zone.key == "UTC":
        return pattern.after(utc)
    change = _last_change(zone, utc)
    floor, begin, offset = utc, utc, _offset(zone, utc)
    while True:
        found = _first_in_span(pattern, change, floor, offset, gap, fold)
        if found is None:
            return None
        following = next(_changes(zone, begin, found + _NEAR), None)
        if following is None or not _utc_offset_spans(following, found, offset, fold):
            return found
        if gap == "next" and following.then > following.before:
            lost = pattern.after(following.at + following.before - MICROSECOND)
            if lost is not None and lost < following.at + following.then:
                return following.at
        change, begin, offset = following, following.at, following.then
        floor = begin - MICROSECOND


def elapsed_slot_after(pattern: CountedPattern, zone: ZoneInfo, utc: datetime) -> datetime | None:
    """The first instant strictly after `utc` of a pattern that names every hour, and so follows elapsed time.

    A wall time in a gap gives no slot, and one that occurs twice gives two. Where the clock moves by a part of an hour
    (Lord Howe, 30 minutes), that alone would leave up to 90 minutes without a slot. So the next slot by the clock
    before the change is a slot too.
    """
    found = slot_after(pattern, zone, "skip", "both", utc)
    if zone.key == "UTC":
        return found
    for change in _changes(zone, utc - _HOUR, utc + _NEAR if found is None else found):
        if (change.then - change.before) % _HOUR:
            bridge = _bridge(pattern, change)
            if bridge is not None and bridge > utc and (found is None or bridge < found):
                return bridge
    return found


def _bridge(pattern: CountedPattern, change: Change) -> datetime | None:
    """The slot at or after a change by the offset before it, if none by the new offset comes sooner.

    None also where the pattern does not run through the change: it begins or ends there with a day.
    """
    wall = pattern.after(change.at + change.before - MICROSECOND)
    if wall is None or wall - change.before >= change.at + _HOUR:
        return None
    bridge = wall - change.before
    following = pattern.after(change.at + change.then - MICROSECOND)
    if following is not None and following - change.then <= bridge:
        return None
    runs_through = pattern.after(wall - _HOUR - MICROSECOND) == wall - _HOUR
    return bridge if runs_through and pattern.has_day((bridge + change.then).date()) else None


def count_slots(
    pattern: CountedPattern,
    zone: ZoneInfo,
    low: datetime,
    high: datetime,
    following: Callable[[datetime], datetime | None],
) -> int:
    """The number of slots after one instant, up to and including another.

    `following` gives the slot after an instant. It is asked only around the changes of the zone; elsewhere wall times
    are counted by the day.
    """
    total, at = 0, low
    for change in () if zone.key == "UTC" else _changes(zone, low - _DAY, high + _DAY):
        reach = abs(change.then - change.before) + _HOUR
        quiet = min(max(change.at - reach, at), high)
        total += _count_quiet(pattern, zone, at, quiet)
        at, end = quiet, min(max(change.at + reach, quiet), high)
        while (slot := following(at)) is not None and slot <= end:
            total, at = total + 1, slot
        at = end
    return total + _count_quiet(pattern, zone, at, high)


def _count_quiet(pattern: CountedPattern, zone: ZoneInfo, low: datetime, high: datetime) -> int:
    if high <= low:
        return 0
    offset = _offset(zone, low)
    return pattern.count(low + offset, high + offset)


def _first_in_span(
    pattern: Pattern, change: Change | None, floor: datetime, offset: timedelta, gap: Gap, fold: Fold
) -> datetime | None:
    """The first instant after `floor` as if the clock were not moved any more. `change`, if near, began the span."""
    wall = floor + offset
    shifted = None
    if change is not None and change.then < change.before and fold in ("first", "skip"):
        wall = max(wall, change.at + change.before - MICROSECOND)
    if change is not None and change.then > change.before and gap == "shift":
        lost = pattern.after(max(floor, change.at - MICROSECOND) + change.before)
        if lost is not None and lost < change.at + change.then:
            shifted = lost - change.before
    found = pattern.after(wall)
    if found is None:
        return shifted
    return found - offset if shifted is None else min(found - offset, shifted)


def _utc_offset_spans(change: Change, found: datetime, offset: timedelta, fold: Fold) -> bool:
    """Whether a candidate found with the offset before `change` is not to be had before it."""
    if found >= change.at:
        return True
    repeated = change.then < change.before and found + offset >= change.at + change.then
    return repeated and fold in ("second", "skip")


def _offset(zone: ZoneInfo, utc: datetime) -> timedelta:
    offset = utc.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _last_change(zone: ZoneInfo, utc: datetime) -> Change | None:
    """The change at or before an instant if it is near enough to matter."""
    last = None
    for last in _changes(zone, utc - _NEAR, utc):  # noqa: B007
        pass
    return last


def _changes(zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[Change]:
    """The changes strictly after one instant, up to and with another."""
    for year in range(after.year, until.year + 1):
        for change in _changes_of_year(zone.key, year):
            if after < change.at <= until:
                yield change


@lru_cache(maxsize=4096)
def _changes_of_year(key: str, year: int) -> tuple[Change, ...]:
    """All changes of a year. `zoneinfo` does not list them, so every day is checked; no day has two."""
    zone = ZoneInfo(key)
    changes = []
    low = datetime(year, 1, 1)  # noqa: DTZ001 - naive UTC
    end = datetime(year + 1, 1, 1) if year < 9999 else datetime(9999, 12, 30)  # noqa: DTZ001
    before = _offset(zone, low)
    while low < end:
        high = min(low + _DAY, end)
        then = _offset(zone, high)
        if then != before:
            changes.append(Change(_moment(zone, low, high, before), before, then))
        low, before = high, then
    return tuple(changes)


def _moment(zone: ZoneInfo, low: datetime, high: datetime, before: timedelta) -> datetime:
    """The second in (low, high] at which the offset is no longer `before`."""
    first, last = 0, int((high - low).total_seconds())
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(zone, low + timedelta(seconds=middle)) == before:
            first = middle
        else:
            last = middle
    return low + timedelta(seconds=last)


def _in_right_case(name: str) -> str | None:
    """The name of the database that differs from `name` in upper and lower case alone, or in blanks around it."""
    from zoneinfo import available_timezones

    wanted = name.strip().casefold()
    if wanted in ("utc", "etc/utc", "gmt", "z"):
        return "UTC"
    found = (one for one in available_timezones() if "/" in one and one.casefold() == wanted)
    return next((one for one in found if one.partition("/")[0] not in ("Etc", "SystemV")), None)


def _nearest(name: str) -> str:
    right = _in_right_case(name)
    if right is not None:
        return f"; did you mean `{right}`?"
    import difflib
    from zoneinfo import available_timezones

    near = difflib.get_close_matches(name, sorted(available_timezones()), 1, 0.6)
    return f"; did you mean `{near[0]}`?" if near else ""
