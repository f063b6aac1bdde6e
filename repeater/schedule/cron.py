"""Cron schedules. The only module that imports croniter.

croniter expands one item of a field at a time: a number, a range, a step or a name. Five things it does not do, or does
differently from crontab(5), are done here or in `schedule.cron_parser`: time zones (a daily 01:30 job would run twice
in autumn; `schedule.zone` has the rules), the union of the two day fields, `H`, ranges around the end of a field, and
days that depend on the month (`L-3`, `LW`, `15W`, `fri#2`). Fields and months are cached: there are fewer of them than
jobs.
"""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from repeater.model.spec import Cron
from repeater.model.time import MICROSECOND, Instant
from repeater.schedule.base import Track
from repeater.schedule.cron_parser import NAMES, RANGES, Fields, Seconds, clip, split
from repeater.schedule.jitter import jitter_delay
from repeater.schedule.zone import Fold, Gap, count_slots, elapsed_slot_after, slot_after, zone_of

_MONTH_DAY = re.compile(r"l(?:-([1-9]|[12][0-9]|30))?(w)?|([0-9]{1,2})w|w([0-9]{1,2})")
_NTH_DAY = re.compile(r"l([0-7])|([0-7])#([1-5])")
_SOME_DAY = date(2000, 1, 1)
_DAY = timedelta(days=1)
_MOST_YEARS = 50  # the 29th of February is the same weekday after 40 years at most


def canonical(expression: str, seconds: Seconds | None = None, job: str = "") -> str:
    """The one text for what an expression means: `*/5` and `0-59/5` give the same. `H` becomes the job's numbers.

    Raises ValueError, with what was found and what is allowed.
    """
    return read(expression, seconds, job).fields.text(seconds)


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
    meaning = read(expression, seconds, job)
    if _days_of(meaning, day_match).after(_SOME_DAY) is None:
        raise ValueError(f"found `{clip(expression)}`, which never matches any date")
    return meaning.fields.text(seconds)


def mean_rate(spec: Cron, job: str) -> Fraction:
    """Starts per day in the long run, counted over four years, without daylight saving."""
    meaning = read(spec.expression, spec.seconds, job)
    times = len(meaning.hours) * len(meaning.minutes) * len(meaning.seconds)
    return times * _share_of_days(_days_of(meaning, spec.day_match))


@lru_cache(maxsize=1024)
def _share_of_days(days: Days) -> Fraction:
    first, last = date(2023, 12, 31), date(2027, 12, 31)
    return Fraction(days.number_between(first, last), (last - first).days)


class CronSchedule:
    """The schedule of a `Cron`. The first `next` does the costly work."""

    __slots__ = ("_pattern", "_spec", "_zone", "clock", "ends", "job", "waits_for_end")

    def __init__(self, spec: Cron, job: str) -> None:
        self._spec = spec
        self._pattern: WallTimes | None = None
        self._zone = zone_of(spec.timezone)
        self.job = job
        self.clock: Literal["wall"] = "wall"
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

    def count(self, track: Track, until: Instant) -> int:
        """The number of nominal times after the cursor, up to and including `until`, by the wall clock."""
        after = track.anchor.wall - MICROSECOND if track.cursor is None else track.cursor.wall
        low, high = _naive(after), _naive(until.wall)
        return count_slots(self._walls(), self._zone, low, high, self._slot_after)

    def _after(self, wall: datetime) -> datetime | None:
        try:
            utc = self._slot_after(_naive(wall))
        except OverflowError:
            return None
        return None if utc is None else utc.replace(tzinfo=UTC)

    def _slot_after(self, utc: datetime) -> datetime | None:
        pattern = self._walls()
        if pattern.every_hour:
            return elapsed_slot_after(pattern, self._zone, utc)
        gap: Gap = self._spec.gap
        fold: Fold = self._spec.fold
        return slot_after(pattern, self._zone, gap, fold, utc)

    def _walls(self) -> WallTimes:
        if self._pattern is None:
            spec = self._spec
            self._pattern = WallTimes(read(spec.expression, spec.seconds, self.job), spec.day_match)
        return self._pattern


def _naive(wall: datetime) -> datetime:
    return wall.astimezone(UTC).replace(tzinfo=None)


class WallTimes:
    """The wall times of an expression, in order: its days, and on each of them the same times of day."""

    __slots__ = ("_days", "_has", "_minutes", "_seconds", "_seen", "every_hour")

    def __init__(self, meaning: Meaning, day_match: Literal["or", "and"]) -> None:
        self._days = _days_of(meaning, day_match)
        self._minutes = _minutes_of_day(meaning.hours, meaning.minutes)
        self._seconds = meaning.seconds
        self.every_hour = len(meaning.hours) == 24
        self._seen = _SOME_DAY  # the last day that was checked, and whether it matches
        self._has = self._days.has(_SOME_DAY)

    def after(self, wall: datetime) -> datetime | None:
        """The first wall time strictly after `wall`; None if there is none in the next fifty years."""
        today = wall.date()
        if today != self._seen:
            self._seen, self._has = today, self._days.has(today)
        if self._has:
            minute = wall.hour * 60 + wall.minute
            place = bisect_left(self._minutes, minute)
            if self._minutes[place : place + 1] == (minute,):
                second = bisect_right(self._seconds, wall.second)
                if second < len(self._seconds):
                    return _wall_time(today, minute, self._seconds[second])
                place += 1
            if place < len(self._minutes):
                return _wall_time(today, self._minutes[place], self._seconds[0])
        day = self._days.after(today)
        return None if day is None else _wall_time(day, self._minutes[0], self._seconds[0])

    def has_day(self, day: date) -> bool:
        return self._days.has(day)

    def count(self, low: datetime, high: datetime) -> int:
        """The number of wall times after `low`, up to and including `high`."""
        if high <= low:
            return 0
        whole = self._days.number_between(low.date() - _DAY, high.date() - _DAY)
        return whole * len(self._minutes) * len(self._seconds) + self._passed(high) - self._passed(low)

    def _passed(self, wall: datetime) -> int:
        """The number of wall times of this day up to and including `wall`."""
        if not self._days.has(wall.date()):
            return 0
        minute = wall.hour * 60 + wall.minute
        place = bisect_left(self._minutes, minute)
        passed = place * len(self._seconds)
        if self._minutes[place : place + 1] == (minute,):
            passed += bisect_right(self._seconds, wall.second)
        return passed


def _wall_time(day: date, minute: int, second: int) -> datetime:
    return datetime(day.year, day.month, day.day, minute // 60, minute % 60, second)  # noqa: DTZ001


@lru_cache(maxsize=4096)
def _minutes_of_day(hours: tuple[int, ...], minutes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(60 * hour + minute for hour in hours for minute in minutes)


# --- reading ----------------------------------------------------------------------------------------------------


class MonthDay(NamedTuple):
    """A day of the month that depends on the month: `L` is 0, `L-3` is -3. `near`: the nearest weekday (`15W`)."""

    number: int
    near: bool

    @property
    def text(self) -> str:
        if self.number > 0:
            return f"{self.number}W"
        return f"L{self.number or ''}{'W' if self.near else ''}"


class NthDay(NamedTuple):
    """The n-th such weekday of the month, 0 is Sunday (`5#2`). `nth` 0 is the last one (`L5`)."""

    weekday: int
    nth: int

    @property
    def text(self) -> str:
        return f"{self.weekday}#{self.nth}" if self.nth else f"L{self.weekday}"


class Field(NamedTuple):
    """One field: its canonical text, all numbers that it names, in order, and the days that depend on the month."""

    text: str
    numbers: tuple[int, ...]
    month_days: tuple[MonthDay, ...] = ()
    nth_days: tuple[NthDay, ...] = ()


class Meaning(NamedTuple):
    """An expression that was read. `fields` are canonical texts."""

    fields: Fields
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day: Field
    months: tuple[int, ...]
    weekday: Field


def read(expression: str, seconds: Seconds | None, job: str) -> Meaning:
    """The meaning of an expression. Raises ValueError, with what was found and what is allowed."""
    fields = split(expression, seconds, job)
    try:
        minute, hour, day, month, weekday, *second = [
            _field(index, field) for index, field in enumerate(fields) if field is not None
        ]
    except (ValueError, TypeError, KeyError):
        raise ValueError(_unreadable(fields, expression)) from None
    texts = Fields(
        minute.text,
        hour.text,
        # `1-31` beside a day field that begins with `*` restricts nothing
        "*" if day.text == "1-31" and weekday.text[0] == "*" else day.text,
        month.text,
        "*" if weekday.text == "0-6" and day.text[0] == "*" else weekday.text,
        second[0].text if second else None,
    )
    seconds_of = second[0].numbers if second else (0,)
    return Meaning(texts, seconds_of, minute.numbers, hour.numbers, day, month.numbers, weekday)


def _unreadable(fields: Fields, expression: str) -> str:
    """What is wrong with the first field that cannot be read."""
    for index, field in enumerate(fields):
        try:
            _field(index, field or "*")
        except (ValueError, TypeError, KeyError):
            low, high = RANGES[index]
            extra = {
                2: ", also `L`, `L-3`, `LW` or `15W`",
                3: ", also `jan`-`dec`",
                4: ", also `sun`-`sat`, `5#2`, `L5`",
            }
            return (
                f"found `{clip(expression)}`, whose {NAMES[index]} field `{clip(field or '')}` cannot be read; allowed "
                f"are `*`, numbers from {low} to {7 if index == 4 else high}, ranges, lists and steps"
                f"{extra.get(index, '')}"
            )
    return f"found `{clip(expression)}`, which cannot be read"


@lru_cache(maxsize=65_536)
def _field(index: int, field: str) -> Field:
    """The field of this index (minute is 0). Raises ValueError, TypeError or KeyError, as croniter does."""
    low, high = RANGES[index]
    numbers: set[int] = set()
    month_days: set[MonthDay] = set()
    nth_days: set[NthDay] = set()
    for item in field.split(","):
        if item == "*":
            numbers.update(range(low, high + 1))
        elif index == 2 and (found := _MONTH_DAY.fullmatch(item)):
            month_days.add(_month_day(found))
        elif index == 4 and (found := _NTH_DAY.fullmatch(item)):
            weekday, nth = (found[1], 0) if found[1] else (found[2], int(found[3]))
            nth_days.add(NthDay(int(weekday) % 7, nth))
        else:
            numbers.update(_expand(index, item))
    ordered = sorted(numbers)
    text = _day_text(index, field, ordered) if index in (2, 4) else _text(ordered, low, high, star=True)
    if text != "*":
        special = [one.text for one in sorted(month_days, key=lambda one: (one.number > 0, abs(one.number), one.near))]
        text = ",".join(filter(None, [text, *special, *(one.text for one in sorted(nth_days))]))
    return Field(text, tuple(ordered), tuple(sorted(month_days)), tuple(sorted(nth_days)))


def _month_day(found: re.Match[str]) -> MonthDay:
    number = found[3] or found[4]
    if number is None:
        return MonthDay(-int(found[1] or 0), found[2] is not None)
    if not 1 <= int(number) <= 31:
        raise ValueError(number)
    return MonthDay(int(number), near=True)


def _expand(index: int, item: str) -> list[int]:
    """The numbers of one item, by croniter."""
    from croniter import croniter

    if not item:
        raise ValueError(item)
    alone = ["*"] * 6
    alone[index] = item
    values, nth = croniter.expand(" ".join(alone))
    if nth:
        raise ValueError(item)
    low, high = RANGES[index]
    found = values[index]
    return list(range(low, high + 1)) if found == ["*"] else [int(one) for one in found]


def _day_text(index: int, field: str, numbers: list[int]) -> str:
    """A day field. A leading `*` has a meaning of its own, so the canonical text keeps it."""
    low, high = RANGES[index]
    starred = []
    if field.startswith("*"):
        first = field.partition(",")[0]
        if first == "*" or len(numbers) == high - low + 1:
            return "*"
        starred = [first]
        stepped = range(low, high + 1, int(first[2:]))
        numbers = [n for n in numbers if n not in stepped]
    return ",".join(filter(None, [*starred, _text(numbers, low, high, star=False)]))


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


class Days(NamedTuple):
    """Days of the calendar. `either`: a day that fits one of the two fields is enough; otherwise it must fit both."""

    months: tuple[int, ...]
    days: tuple[int, ...]
    month_days: tuple[MonthDay, ...]
    weekdays: tuple[int, ...]
    nth_days: tuple[NthDay, ...]
    either: bool

    def has(self, day: date) -> bool:
        return day.month in self.months and day.day in self._of_month(day.year, day.month)

    def after(self, day: date) -> date | None:
        """The first day strictly after `day`; None if there is none in the next fifty years."""
        year, month, passed = day.year, day.month, day.day
        until = min(day.year + _MOST_YEARS, 9999)
        while year <= until:
            if month in self.months:
                found = self._of_month(year, month)
                place = bisect_right(found, passed)
                if place < len(found):
                    return date(year, month, found[place])
            passed = 0
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return None

    def number_between(self, low: date, high: date) -> int:
        """The number of days after `low`, up to and including `high`."""
        total, year, month, passed = 0, low.year, low.month, low.day
        while (year, month) <= (high.year, high.month):
            if month in self.months:
                found = self._of_month(year, month)
                end = high.day if (year, month) == (high.year, high.month) else 31
                total += bisect_right(found, end) - bisect_right(found, passed)
            passed = 0
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return total

    def _of_month(self, year: int, month: int) -> tuple[int, ...]:
        first, length = calendar.monthrange(year, month)
        return _month_of(self, (first + 1) % 7, length)


@lru_cache(maxsize=16_384)
def _month_of(days: Days, first: int, length: int) -> tuple[int, ...]:
    """The days of a month of this length that begins on this weekday, 0 is Sunday."""
    by_date = {day for day in days.days if day <= length}
    by_date.update(day for one in days.month_days if (day := _day_of(one, first, length)))
    by_week = {day for day in range(1, length + 1) if (first + day - 1) % 7 in days.weekdays}
    for weekday, nth in days.nth_days:
        same = range(1 + (weekday - first) % 7, length + 1, 7)
        if nth <= len(same):
            by_week.add(same[nth - 1])
    return tuple(sorted(by_date | by_week if days.either else by_date & by_week))


def _day_of(one: MonthDay, first: int, length: int) -> int:
    """The day of a month; 0 if the month has none."""
    day = one.number if one.number > 0 else length + one.number
    if not 1 <= day <= length:
        return 0
    weekday = (first + day - 1) % 7
    if one.near and weekday == 6:
        return day - 1 if day > 1 else day + 2
    if one.near and weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _days_of(meaning: Meaning, day_match: Literal["or", "and"]) -> Days:
    day, weekday = meaning.day, meaning.weekday
    either = day_match == "or" and "*" not in (meaning.fields.day[0], meaning.fields.weekday[0])
    return Days(meaning.months, day.numbers, day.month_days, weekday.numbers, weekday.nth_days, either)
