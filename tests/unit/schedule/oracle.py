"""What a cron expression means, minute by minute: the judge of `schedule.cron`. Knows no croniter and no shortcut."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@lru_cache(maxsize=1024)
def numbers(field: str, low: int, high: int) -> set[int]:
    """The values of a field of lists, ranges (also around the end) and steps. A weekday 7 is 0."""
    return {value for value in range(low, high + 1) for item in field.split(",") if _is_hit(value, item, low, high)}


def _is_hit(value: int, item: str, low: int, high: int) -> bool:
    size = high - low + 1
    span, slash, step = item.partition("/")
    first, dash, last = span.partition("-")
    whole_week = span == "0-7" and high == 6  # 7 is Sunday again, so the distance from 0 to 7 would be 0
    if span == "*" or whole_week:
        first, last, dash = str(low), str(high), "-"
    begin = int(first)
    end = int(last) if dash else (high if slash else begin)
    distance = (value - begin) % size
    return distance <= (end - begin) % size and distance % int(step or 1) == 0


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
        return any(self._is_month_day(item.upper(), wall) for item in self.day.split(","))

    @staticmethod
    def _is_month_day(item: str, wall: datetime) -> bool:
        length = calendar.monthrange(wall.year, wall.month)[1]
        if not (item.startswith("L") or item.endswith("W")):
            return wall.day in numbers(item, 1, 31)
        text = item.removesuffix("W")
        wanted = length + int(text[1:] or 0) if text[0] == "L" else int(text)
        if not 1 <= wanted <= length:
            return False
        if not item.endswith("W"):
            return wall.day == wanted
        workdays = [day for day in range(1, length + 1) if calendar.weekday(wall.year, wall.month, day) < 5]
        return wall.day == min(workdays, key=lambda day: abs(day - wanted))

    def _weekday(self, wall: datetime) -> bool:
        today, last = wall.isoweekday() % 7, calendar.monthrange(wall.year, wall.month)[1]
        for item in self.weekday.split(","):
            if item[0] == "L":
                hit = today == int(item[1:]) % 7 and wall.day > last - 7
            elif "#" in item:
                day, _, nth = item.partition("#")
                hit = today == int(day) % 7 and (wall.day - 1) // 7 + 1 == int(nth)
            else:
                hit = today in numbers(item, 0, 6)
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
        found |= {utc for change in _every(_quarter(begin) - HOUR, end, 15) for utc in bridge(change, tz, means)}
    else:
        walls = _every(begin.replace(tzinfo=None) - 2 * DAY, end.replace(tzinfo=None) + 2 * DAY)
        found = {utc for wall in walls if means(wall) for utc in instants(wall, tz, gap, fold)}
    return sorted(utc for utc in found if begin < utc <= end)


DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def bridge(change: datetime, tz: ZoneInfo, means: Oracle) -> set[datetime]:
    """The extra slot of an hourly expression where the clock is moved by a part of an hour at this very minute."""
    before = (change - MINUTE).astimezone(tz).utcoffset()
    if not (change.astimezone(tz).utcoffset() - before) % HOUR:
        return set()
    for utc in (change + n * MINUTE for n in range(60)):
        if means(utc.astimezone(tz).replace(tzinfo=None)):
            return set()
        old = (utc + before).replace(tzinfo=None)
        if means(old):
            new = utc.astimezone(tz).replace(tzinfo=None)
            same_days = means(old - HOUR) and any(means(new.replace(hour=0, minute=n)) for n in range(60))
            return {utc} if same_days else set()
    return set()


def _every(begin: datetime, end: datetime, minutes: int = 1) -> Iterator[datetime]:
    while begin <= end:
        yield begin
        begin += minutes * MINUTE


def _quarter(moment: datetime) -> datetime:
    """The quarter of an hour before a moment: no clock is moved at another minute."""
    return moment - (moment.minute % 15) * MINUTE


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
