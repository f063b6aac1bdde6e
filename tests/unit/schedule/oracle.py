"""What a cron expression means, minute by minute: the judge of `schedule.cron`. Knows no croniter and no shortcut."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


def numbers(field: str, low: int, high: int) -> set[int]:
    """The values of a field of lists, ranges (also around the end) and steps."""
    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        first, dash, last = span.partition("-")
        a = low if span == "*" else int(first)
        b = high if span == "*" or (step and not dash) else int(last or first)
        b += (high - low + 1) if b < a else 0
        found |= {low + (value - low) % (high - low + 1) for value in range(a, b + 1, int(step or 1))}
    return found


class Oracle:
    """Wall times of an expression, one at a time: `(wall) -> bool`."""

    def __init__(self, expression: str, day_match: str = "or") -> None:
        minute, hour, self.day, month, self.weekday = expression.split()
        self.minutes, self.hours, self.months = numbers(minute, 0, 59), numbers(hour, 0, 23), numbers(month, 1, 12)
        self.either = day_match == "or" and self.day[0] != "*" and self.weekday[0] != "*"

    def __call__(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        day, weekday = self._day(wall), self._weekday(wall)
        return day or weekday if self.either else day and weekday

    def _day(self, wall: datetime) -> bool:
        last = calendar.monthrange(wall.year, wall.month)[1]
        return any(
            wall.day == last if item == "L" else wall.day in numbers(item, 1, 31) for item in self.day.split(",")
        )

    def _weekday(self, wall: datetime) -> bool:
        today, last = wall.isoweekday() % 7, calendar.monthrange(wall.year, wall.month)[1]
        for item in self.weekday.split(","):
            if item[0] == "L":
                hit = today == int(item[1:]) % 7 and wall.day > last - 7
            elif "#" in item:
                day, _, nth = item.partition("#")
                hit = today == int(day) % 7 and (wall.day - 1) // 7 + 1 == int(nth)
            else:
                hit = today in {value % 7 for value in numbers(item, 0, 7 if "7" in item else 6)}
            if hit:
                return True
        return False


def starts(
    expression: str,
    zone: str,
    begin: datetime,
    end: datetime,
    gap: str = "next",
    fold: str = "first",
    match: str = "or",
) -> list[datetime]:
    """Every start strictly after `begin`, up to and with `end` (both UTC), in order."""
    means, tz = Oracle(expression, match), ZoneInfo(zone)
    if len(means.hours) == 24:
        found = {utc for utc in _every(begin, end) if means(utc.astimezone(tz).replace(tzinfo=None))}
    else:
        walls = _every(begin.replace(tzinfo=None) - 2 * DAY, end.replace(tzinfo=None) + 2 * DAY)
        found = {utc for wall in walls if means(wall) for utc in instants(wall, tz, gap, fold)}
    return sorted(utc for utc in found if begin < utc <= end)


DAY = timedelta(days=1)


def _every(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin <= end:
        yield begin
        begin += MINUTE


def instants(wall: datetime, tz: ZoneInfo, gap: str, fold: str) -> set[datetime]:
    first, second = (wall.replace(tzinfo=tz, fold=n).astimezone(UTC) for n in (0, 1))
    if first.astimezone(tz).replace(tzinfo=None) != wall:  # a wall time that does not exist
        if gap == "skip":
            return set()
        if gap == "shift":
            return {first}
        while wall.replace(tzinfo=tz).astimezone(UTC).astimezone(tz).replace(tzinfo=None) != wall:
            wall += MINUTE
        return {wall.replace(tzinfo=tz).astimezone(UTC)}
    return {"first": {first}, "second": {second}, "both": {first, second}}.get(
        fold, {first} if first == second else set()
    )
