"""Cron schedules: the only home of croniter.

croniter reads the fields, one by one, and walks the days of the calendar. It is not asked about time zones, as it runs
a daily 01:30 job twice in autumn (`schedule.zone` has our rules); nor about the two day fields together, which are
alternatives in crontab(5) only if neither begins with `*` (so the days are one walk or the union of two); nor about
`H`, as a hash id would change what `@daily` means. There are fewer fields and days than jobs: what croniter says is
remembered.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from repeater.model.spec import Cron
from repeater.model.time import MICROSECOND, Instant
from repeater.schedule.base import Track
from repeater.schedule.crontext import NAMES, RANGES, Fields, Seconds, clip, split
from repeater.schedule.jitter import jitter_delay
from repeater.schedule.zone import Fold, Gap, slot_after, zone_of

_NEAREST_WEEKDAY = re.compile(r"([0-9]+)w|w([0-9]+)")
_DAYS_AT_MOST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SOME_DAY = date(2000, 1, 1)
_DAY = timedelta(days=1)


def canonical(expression: str, seconds: Seconds | None = None, job: str = "") -> str:
    """The one text for what an expression means: `*/5` and `0-59/5` give the same. `H` becomes the job's numbers.

    Raises ValueError, with what was found and what is allowed.
    """
    return _read(split(expression, seconds, job), expression).fields.text(seconds)


def check_cron(
    expression: str,
    seconds: Seconds | None = None,
    timezone: str = "UTC",
    day_match: Literal["or", "and"] = "or",
    job: str = "",
) -> str:
    """The canonical text. Raises ValueError if the expression or the zone cannot be used, or if no date ever matches
    (30 February).
    """
    zone_of(timezone)
    meaning = _read(split(expression, seconds, job), expression)
    if not _branches(meaning, day_match):
        raise ValueError(f"found `{clip(expression)}`, which never matches any date")
    return meaning.fields.text(seconds)


def mean_rate(spec: Cron, job: str) -> Fraction:
    """Starts for each day in the long run, counted over four years; daylight saving is left out of it."""
    meaning = _read(split(spec.expression, spec.seconds, job), spec.expression)
    times = len(meaning.hours) * len(meaning.minutes) * len(meaning.seconds)
    return times * _share_of_days(_branches(meaning, spec.day_match))


@lru_cache(maxsize=1024)
def _share_of_days(branches: tuple[str, ...]) -> Fraction:
    if branches == ("0 0 * * *",):
        return Fraction(1)
    first, last = date(2023, 12, 31), date(2027, 12, 31)
    days = set()
    for branch in branches:
        day = _next_day(branch, first)
        while day is not None and day <= last:
            days.add(day)
            day = _next_day(branch, day)
    return Fraction(len(days), (last - first).days)


class CronSchedule:
    """The schedule of a `Cron`. What is costly happens at the first `next`."""

    __slots__ = ("_pattern", "_spec", "_zone", "ends", "job", "rides", "waits_for_end")

    def __init__(self, spec: Cron, job: str) -> None:
        self._spec = spec
        self._pattern: WallTimes | None = None
        self._zone = zone_of(spec.timezone)
        self.job = job
        self.rides: Literal["wall"] = "wall"
        self.waits_for_end = False
        self.ends = False

    def next(self, track: Track) -> Instant | None:
        """None only where the calendar ends, in the year 9999."""
        if track.cursor is None:
            wall = self._after(track.anchor.wall - MICROSECOND)
            return None if wall is None else track.anchor.at_wall(wall)
        wall = self._after(track.cursor.wall)
        return None if wall is None else track.cursor.at_wall(wall)

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:
        jitter = self._spec.jitter
        if jitter is None:
            return timedelta(0)
        following = self._after(nominal.wall)
        return jitter_delay(jitter, job, None if following is None else following - nominal.wall, draw)

    def _after(self, wall: datetime) -> datetime | None:
        spec = self._spec
        if self._pattern is None:
            meaning = _read(split(spec.expression, spec.seconds, self.job), spec.expression)
            self._pattern = WallTimes(meaning, spec.day_match)
        gap: Gap = spec.gap
        fold: Fold = spec.fold
        if self._pattern.every_hour:
            # what runs in every hour follows elapsed time: it names no wall time that could be lost or come twice
            gap, fold = "skip", "both"
        try:
            utc = slot_after(self._pattern, self._zone, gap, fold, wall.astimezone(UTC).replace(tzinfo=None))
        except OverflowError:
            return None
        return None if utc is None else utc.replace(tzinfo=UTC)


class WallTimes:
    """The wall times that an expression means, in order: its days, and in each of them the same times of day."""

    __slots__ = ("_days", "_minutes", "_seconds", "every_hour")

    def __init__(self, meaning: Meaning, day_match: Literal["or", "and"]) -> None:
        self._days = _branches(meaning, day_match)
        self._minutes = _minutes_of_day(meaning.hours, meaning.minutes)
        self._seconds = meaning.seconds
        self.every_hour = len(meaning.hours) == 24

    def after(self, wall: datetime) -> datetime | None:
        """The first wall time strictly after `wall`; None if there is none in the fifty years to come."""
        today = wall.date()
        day = self._day_after(today - _DAY)
        if day == today:
            minute = wall.hour * 60 + wall.minute
            place = bisect_left(self._minutes, minute)
            if self._minutes[place : place + 1] == (minute,):
                second = bisect_right(self._seconds, wall.second)
                if second < len(self._seconds):
                    return _wall_time(day, minute, self._seconds[second])
                place += 1
            if place < len(self._minutes):
                return _wall_time(day, self._minutes[place], self._seconds[0])
            day = self._day_after(day)
        return None if day is None else _wall_time(day, self._minutes[0], self._seconds[0])

    def _day_after(self, day: date) -> date | None:
        found = [following for branch in self._days if (following := _next_day(branch, day)) is not None]
        return min(found, default=None)


def _wall_time(day: date, minute: int, second: int) -> datetime:
    return datetime(day.year, day.month, day.day, minute // 60, minute % 60, second)  # noqa: DTZ001


@lru_cache(maxsize=4096)
def _minutes_of_day(hours: tuple[int, ...], minutes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(60 * hour + minute for hour in hours for minute in minutes)


# --- reading ----------------------------------------------------------------------------------------------------


class Meaning(NamedTuple):
    """An expression that was read. `days` and `months` are numbers, `days` None if they differ from month to month.

    `nth` is whether the days depend on the weeks of a month (`5#2`, `L5`, `15W`).
    """

    fields: Fields
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    seconds: tuple[int, ...]
    days: tuple[int, ...] | None
    months: tuple[int, ...]
    nth: bool


class Field(NamedTuple):
    """One field that was read: all `numbers` it names, in order, whether it has `L`, and `nth` as in Meaning."""

    text: str
    numbers: tuple[int, ...]
    last: bool = False
    nth: bool = False


def _read(fields: Fields, expression: str) -> Meaning:
    try:
        minute, hour, day, month, weekday, *second = [
            _field(index, field) for index, field in enumerate(fields) if field is not None
        ]
    except (ValueError, TypeError, KeyError):
        raise ValueError(_unreadable(fields, expression)) from None
    fields = Fields(
        minute.text,
        hour.text,
        # `1-31` beside a day field that begins with `*` asks for nothing
        "*" if day.text == "1-31" and weekday.text[0] == "*" else day.text,
        month.text,
        "*" if weekday.text == "0-6" and day.text[0] == "*" else weekday.text,
        second[0].text if second else None,
    )
    return Meaning(
        fields,
        minute.numbers,
        hour.numbers,
        second[0].numbers if second else (0,),
        None if day.last or day.nth else day.numbers,
        month.numbers,
        day.nth or weekday.nth,
    )


def _unreadable(fields: Fields, expression: str) -> str:
    """What is wrong with the first field that cannot be read."""
    for index, field in enumerate(fields):
        try:
            _field(index, field or "*")
        except (ValueError, TypeError, KeyError):
            low, high = RANGES[index]
            extra = {2: ", also `L` or `15W`", 3: ", also `jan`-`dec`", 4: ", also `sun`-`sat`, `5#2`, `L5`"}
            return (
                f"found `{clip(expression)}`, whose {NAMES[index]} field `{clip(field or '')}` cannot be read; allowed "
                f"are `*`, numbers from {low} to {7 if index == 4 else high}, ranges, lists and steps"
                f"{extra.get(index, '')}"
            )
    return f"found `{clip(expression)}`, which cannot be read"


@lru_cache(maxsize=65_536)
def _field(index: int, field: str) -> Field:
    """What croniter makes of a field by itself, as there are fewer fields in the world than expressions of them."""
    from croniter import croniter

    alone = ["*"] * 6
    alone[index] = field
    values, nth = croniter.expand(" ".join(alone))
    found, (low, high) = values[index], RANGES[index]
    near = _NEAREST_WEEKDAY.fullmatch(field) if index == 2 else None
    if near:
        return Field(f"{int(near[1] or near[2])}W", (), nth=True)
    if nth:
        marks = sorted((day, str(n)) for day, ns in nth.items() for n in ns)
        return Field(",".join(f"L{d}" if n == "l" else f"{d}#{n}" for d, n in marks), (), nth=True)
    numbers = list(range(low, high + 1)) if found == ["*"] else [n for n in found if n != "l"]
    last = "l" in found
    is_day = index in (2, 4)
    text = _day_text(index, field, numbers, last=last) if is_day else _text(numbers, low, high, star=True)
    return Field(text, tuple(numbers), last)


def _day_text(index: int, field: str, numbers: list[int], *, last: bool) -> str:
    """A day field. Whether it begins with `*` has a meaning of its own, so it does in the canonical text as well."""
    low, high = RANGES[index]
    starred = []
    if field.startswith("*"):
        first = field.partition(",")[0]
        if first == "*" or len(numbers) == high - low + 1:
            return "*"
        starred = [first]
        stepped = range(low, high + 1, int(first[2:]))
        numbers = [n for n in numbers if n not in stepped]
    rest = _text(numbers, low, high, star=False)
    return ",".join([*starred, *filter(None, [rest, "L" if last else ""])])


def _text(numbers: list[int], low: int, high: int, *, star: bool) -> str:
    """The shortest of `*`, `*/n`, `a-b`, `a-b/n` and lists of them."""
    if star and numbers == list(range(low, high + 1)):
        return "*"
    if len(numbers) > 1:
        step = numbers[1] - numbers[0]
        if step > 1 and star and numbers == list(range(low, high + 1, step)):
            return f"*/{step}"
        if step > 1 and len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
            return f"{numbers[0]}-{numbers[-1]}/{step}"
    parts: list[str] = []
    row: list[int] = []
    for number in [*numbers, -1]:
        if row and number != row[-1] + 1:
            parts.extend([f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row))
            row = []
        row.append(number)
    return ",".join(parts)


# --- days -------------------------------------------------------------------------------------------------------


def _branches(meaning: Meaning, day_match: Literal["or", "and"]) -> tuple[str, ...]:
    """The days as expressions whose union is meant, at midnight; those that never match are left out."""
    _, _, day, month, weekday, _ = meaning.fields
    possible = meaning.days is None or _exists(meaning.days[0], meaning.months)
    return _days_of(day, month, weekday, possible, meaning.nth, day_match == "or")


def _exists(day: int, months: tuple[int, ...]) -> bool:
    """Whether any of the months has such a day."""
    return day < 29 or any(day <= _DAYS_AT_MOST[month - 1] for month in months)


@lru_cache(maxsize=4096)
def _days_of(day: str, month: str, weekday: str, possible: bool, nth: bool, either: bool) -> tuple[str, ...]:
    if either and not day.startswith("*") and not weekday.startswith("*"):
        days, weekdays = f"0 0 {day} {month} *", f"0 0 * {month} {weekday}"
        return (days, weekdays) if possible else (weekdays,)
    both = f"0 0 {day} {month} {weekday}"
    if not possible or (nth and _next_day(both, _SOME_DAY) is None):
        return ()
    return (both,)


@lru_cache(maxsize=16_384)
def _next_day(expression: str, day: date) -> date | None:
    """The first day strictly after `day`; None if there is none in the fifty years to come."""
    from croniter import CroniterBadDateError

    try:
        # a walk has a position, so what is shared is copied
        found: datetime = copy.copy(_walk(expression)).get_next(datetime, datetime(day.year, day.month, day.day))  # noqa: DTZ001
    except (CroniterBadDateError, OverflowError, ValueError):
        return None
    return found.date()


@lru_cache(maxsize=4096)
def _walk(expression: str) -> Any:
    from croniter import croniter

    return croniter(expression, datetime(2000, 1, 1), ret_type=datetime, day_or=False)  # noqa: DTZ001
