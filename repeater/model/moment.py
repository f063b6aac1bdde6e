"""Parses times as written by people and programs: `03:00`, `2026-11-24`, `2026-11-24T03:00:00Z`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from repeater._lazy_dataclasses import dataclass
from repeater.errors import UsageError
from repeater.model.units import parse_duration

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A range of time: `[begin, begin + span)`. `zone` is the time zone of a text without an offset.

    `gap` is the local time of the text if a clock change skipped it. `again` is the second instant of a local time
    that occurs twice.
    """

    text: str
    begin: datetime
    span: timedelta
    zone: tzinfo | None
    gap: datetime | None = None
    again: datetime | None = None


def parse_moment(text: str, zone: tzinfo | None, now: datetime) -> TimeRange:
    """Parse RFC 3339, a local date and time, a date, or a time of day (the last one before `now`).

    `zone` None is the zone of the machine. The range has the length of the unit of the text: second, minute or day.
    Raises UsageError.
    """
    given = text.strip()
    try:
        if len(given) <= 8 and ":" in given:
            clock = time.fromisoformat(given)
            local = datetime.combine(now.astimezone(zone).date(), clock)
            if (local.replace(tzinfo=zone) if zone else local).astimezone(UTC) > now:
                local -= DAY
            span = timedelta(minutes=1) if given.count(":") == 1 else timedelta(seconds=1)
            return _local_range(given, local, span, zone)
        if len(given) == 10:
            return _local_range(given, datetime.combine(date.fromisoformat(given), time()), DAY, zone)
        moment = datetime.fromisoformat(given)
        names_second = given[11:19].count(":") == 2 or moment.second != 0 or moment.microsecond != 0
        span = timedelta(seconds=1) if names_second else timedelta(minutes=1)
        if moment.tzinfo is None:
            return _local_range(given, moment, span, zone)
        return TimeRange(given, moment.astimezone(UTC), span, zone)
    except (ValueError, OverflowError):
        raise UsageError(
            f"cannot use time `{given[:60]}`: expected one like `03:00`, `2026-11-24`, or `2026-11-24T03:00:00Z`"
        ) from None


def parse_past(text: str, now: datetime) -> datetime:
    """An instant in UTC: as `parse_moment` in the local zone, `today`, `yesterday`, or an age such as `2h`.

    A day means its first instant. Raises ValueError.
    """
    return _parse(text, now, past=True)


def parse_future(text: str, now: datetime) -> datetime:
    """An instant in UTC: as `parse_past`, but a time of day and a duration mean the future. Also `tomorrow`."""
    return _parse(text, now, past=False)


_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}


def _parse(text: str, now: datetime, *, past: bool) -> datetime:
    given = text.strip()
    if given == "now":
        return now
    if given in _DAYS:
        return _day_begin(now, _DAYS[given])
    with suppress(ValueError):
        length = parse_duration(given)
        return now - length if past else now + length
    try:
        moment = parse_moment(given, None, now).begin
        if not past and len(given) <= 8 and ":" in given:
            local = datetime.combine(now.astimezone().date(), time.fromisoformat(given))
            today = local.astimezone(UTC)
            moment = today if today > now else (local + DAY).astimezone(UTC)
    except (UsageError, OverflowError):
        raise ValueError(
            "expected a time like `07:00` or `2026-11-24T03:00:00Z`, a date, "
            f"{'`yesterday`' if past else '`tomorrow`'}, or a duration like `2h`"
        ) from None
    return moment


def _day_begin(now: datetime, days: int) -> datetime:
    return datetime.combine(now.astimezone().date() + days * DAY, time()).astimezone(UTC)


def _local_range(text: str, local: datetime, span: timedelta, zone: tzinfo | None) -> TimeRange:
    def aware(fold: int) -> datetime:
        naive = local.replace(fold=fold)
        return (naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()).astimezone(UTC)

    try:
        first, second = aware(0), aware(1)
    except OverflowError:
        raise UsageError(f"cannot use time `{text}`: it does not exist in this time zone") from None
    if first.astimezone(zone).replace(tzinfo=None) != local:
        # PEP 495: in a gap fold 0 has the offset from before the gap, so the instant lies after the gap
        return TimeRange(text, first, span, zone, gap=local)
    return TimeRange(text, first, span, zone, again=second if second != first else None)
