"""Cron schedules: the only home of croniter.

croniter reads expressions and walks naive local time; what a time zone makes of that is the business of
`schedule.zone`, for croniter itself runs a daily 01:30 job twice in autumn. Its own rule for the two day fields is not
used either: crontab(5) has them as alternatives only if neither begins with `*`, so an expression becomes one walk or
the union of two. It is never given a hash id, as that would change what `@daily` means. Expressions are read once and
remembered.
"""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime, timedelta
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
_FIRST_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time


def canonical(expression: str, seconds: Seconds | None = None, job: str = "") -> str:
    """The one text for what an expression means: `*/5` and `0-59/5` give the same. `H` becomes the job's numbers.

    Raises ValueError, with what was found and what is allowed.
    """
    return _read(split(expression, seconds, job), clip(expression)).fields.text(seconds)


def check_cron(
    expression: str,
    seconds: Seconds | None = None,
    timezone: str = "UTC",
    day_match: Literal["or", "and"] = "or",
    job: str = "",
) -> None:
    """Raises ValueError if the expression or the zone cannot be used, or if no date ever matches (30 February)."""
    zone_of(timezone)
    meaning = _read(split(expression, seconds, job), clip(expression))
    if not _branches(meaning, day_match):
        raise ValueError(f"found `{clip(expression)}`, which never matches any date")


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
    """The wall times that an expression means, in order. Remembers the last answers, which are often asked again."""

    __slots__ = ("_answers", "_unit", "_walks", "every_hour")

    def __init__(self, meaning: Meaning, day_match: Literal["or", "and"]) -> None:
        self.every_hour = meaning.every_hour
        # a walk has a position: each schedule needs its own, what was read may be shared
        self._walks = [copy.copy(_walk(branch)) for branch in _branches(meaning, day_match)]
        self._unit = "minute" if meaning.fields.second is None else "second"
        self._answers: list[tuple[datetime, datetime]] = []

    def after(self, wall: datetime) -> datetime | None:
        """The first wall time strictly after `wall`; None if there is none in the fifty years to come."""
        wall = wall.replace(microsecond=0) if self._unit == "second" else wall.replace(second=0, microsecond=0)
        for low, high in self._answers:
            if low <= wall < high:
                return high
        found = min((time for walk in self._walks if (time := _step(walk, wall)) is not None), default=None)
        if found is not None:
            self._answers = [*self._answers[-1:], (wall, found)]
        return found


def _step(walk: Any, wall: datetime) -> datetime | None:
    from croniter import CroniterBadDateError

    try:
        found: datetime = walk.get_next(datetime, wall)
    except (CroniterBadDateError, OverflowError, ValueError):
        return None
    return found


# --- reading ----------------------------------------------------------------------------------------------------


class Meaning(NamedTuple):
    """An expression that was read: canonical fields, and the sets of days and months where they are plain numbers.

    `nth` is whether the days depend on the weeks of a month (`5#2`, `L5`, `15W`).
    """

    fields: Fields
    days: frozenset[int] | None
    months: frozenset[int]
    every_hour: bool
    nth: bool


class Field(NamedTuple):
    """One field that was read: all `numbers` it names, in order, whether it has `L`, and `nth` as in Meaning."""

    text: str
    numbers: tuple[int, ...]
    last: bool = False
    nth: bool = False


def _read(fields: Fields, shown: str) -> Meaning:
    six = fields.second is not None
    minute, hour, day, month, weekday, *second = (
        _field(index, field, shown) for index, field in enumerate(fields) if field is not None
    )
    days = None if day.last or day.nth else frozenset(day.numbers)
    return Meaning(
        Fields(
            minute.text,
            hour.text,
            # `1-31` beside a day field that begins with `*` asks for nothing
            "*" if day.text == "1-31" and weekday.text[0] == "*" else day.text,
            month.text,
            "*" if weekday.text == "0-6" and day.text[0] == "*" else weekday.text,
            second[0].text if six else None,
        ),
        days,
        frozenset(month.numbers),
        hour.text == "*",
        day.nth or weekday.nth,
    )


def _field(index: int, field: str, shown: str) -> Field:
    try:
        return _field_alone(index, field)
    except (ValueError, TypeError, KeyError):
        low, high = RANGES[index]
        extra = {2: ", also `L` or `15W`", 3: ", also `jan`-`dec`", 4: ", also `sun`-`sat`, `5#2`, `L5`"}
        raise ValueError(
            f"found `{shown}`, whose {NAMES[index]} field `{clip(field)}` cannot be read; allowed are `*`, numbers "
            f"from {low} to {7 if index == 4 else high}, ranges, lists and steps{extra.get(index, '')}"
        ) from None


@lru_cache(maxsize=65_536)
def _field_alone(index: int, field: str) -> Field:
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


def _branches(meaning: Meaning, day_match: Literal["or", "and"]) -> list[str]:
    """The expressions, seconds last, whose union is meant; those that never match are left out."""
    fields = meaning.fields
    possible = meaning.days is None or any(min(meaning.days) <= _DAYS_AT_MOST[month - 1] for month in meaning.months)
    either = day_match == "or" and not fields.day.startswith("*") and not fields.weekday.startswith("*")
    if either:
        days, weekdays = fields._replace(weekday="*").text("last"), fields._replace(day="*").text("last")
        return [days, weekdays] if possible else [weekdays]
    both = fields.text("last")
    if not possible or (meaning.nth and _step(copy.copy(_walk(both)), _FIRST_DAY) is None):
        return []
    return [both]


@lru_cache(maxsize=65_536)
def _walk(expression: str) -> Any:
    from croniter import croniter

    return croniter(expression, _FIRST_DAY, ret_type=datetime, day_or=False)
