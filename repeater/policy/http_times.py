"""The delay that a value of a rate-limit header or JSON field names: a number, a duration, or an instant.

    120   120.5   120 seconds   2m59.56s   1m30.123456789s   PT30S   00:01:30       a delay
    1798804800, and in milli-, micro- and nanoseconds                               an instant since 1970
    Fri, 01 Jan 2027 13:02:00 CET   2027-01-01T12:02Z   Tue Jan 05 2027 09:02:42 GMT+0100 (...)   an instant

Instants are compared with a reading of the server's clock, the `Date` of the answer, where there is one. Parameters
(`60;w=60`) are ignored. Pure; nothing here raises on text from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from math import isfinite
from typing import Any

from repeater.model.units import LONGEST

UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds in each unit that a field may name."""

_LONGEST_TEXT = 80
_LARGEST = 10**40
_AN_INSTANT = 1_000_000_000  # seconds: such a number is an instant since 1970 and not a delay of 31 years
_WORDS = {
    "ns": 1e-9, "nano": 1e-9, "nanosecond": 1e-9,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "micro": 1e-6, "microsecond": 1e-6,
    "ms": 1e-3, "msec": 1e-3, "milli": 1e-3, "millisecond": 1e-3,
    "s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0, "w": 604800.0, "week": 604800.0,
}  # fmt: skip
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"
_PIECE = re.compile(rf"({_NUMBER})\s?([a-zµμ]{{1,12}})(?:\s*(?:,|and)?\s*)", re.IGNORECASE)
_ISO = re.compile(
    r"P(?:([0-9.]{1,9})W)?(?:([0-9.]{1,9})D)?(?:T(?:([0-9.]{1,9})H)?(?:([0-9.]{1,9})M)?(?:([0-9.]{1,12})S)?)?",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"(?:([0-9]{1,5})\.)?([0-9]{1,3}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,9})?)")
_ZONE = re.compile(r"(?<=[\s0-9])([A-Za-z]{2,5})$")
_HOURS = {
    "UTC": 0, "UT": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2,
    "EEST": 3, "MSK": 3, "SAST": 2, "PKT": 5, "SGT": 8, "HKT": 8, "AWST": 8, "JST": 9, "KST": 9, "ACST": 9.5,
    "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13, "ART": -3, "BRT": -3, "ADT": -3, "AST": -4, "EDT": -4, "EST": -5,
    "CDT": -5, "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8, "AKDT": -8, "AKST": -9, "HST": -10,
}  # fmt: skip
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def delay_of(value: Any, now: datetime, unit: float = 1.0) -> timedelta | None:
    """The delay from `now` (aware) that a value names; zero if it lies in the past. None if it cannot be read.

    `unit` is the length in seconds of one, for a number without a unit of its own.
    """
    if isinstance(value, str):
        return _of_text(value, now, unit)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(max(-_LARGEST, min(value, _LARGEST)))  # an `int` may be too large for a `float`
    return _of_number(value, now, unit) if isinstance(value, float) else None


def unit_of(word: str) -> float | None:
    """Seconds in a unit: `s`, `min`, `millis`, `seconds`; None for another word."""
    word = word.lower()
    return _WORDS.get(word) or _WORDS.get(word.removesuffix("s"))


def longest_of(values: Iterable[str], now: datetime, unit: float = 1.0) -> timedelta | None:
    """The longest delay of several values, each perhaps a list. None if there is none, or if one cannot be
    read and no other asks for a delay.
    """
    delays = [delay_of(part, now, unit) for value in values for part in parts_of(value)]
    known = [delay for delay in delays if delay is not None]
    return None if len(known) < len(delays) and not any(known) else max(known, default=None)


def parts_of(value: str) -> list[str]:
    """The elements of a list in a header's value. The comma in `Fri, 01 Jan 2027` does not separate."""
    parts: list[str] = []
    for part in (piece.strip() for piece in value[:1000].split(",")):
        if parts and parts[-1][:3].lower() in _WEEKDAYS and parts[-1].isalpha():
            parts[-1] += f", {part}"
        elif part:
            parts.append(part)
    return parts or [value.strip()]


def instant_of(text: str) -> datetime | None:
    """A date of HTTP (RFC 9110, 5.6.7) or RFC 3339, or one with a known zone name, in UTC; None for anything else.

    A date without a zone is taken for UTC; one with an unknown name of a zone cannot be read.
    """
    if len(text) > _LONGEST_TEXT or not any(sign.isdigit() for sign in text):
        return None
    text = re.sub(r"\s*\([^)]*\)$", "", text.strip())
    text = re.sub(r"\b(?:GMT|UTC)(?=[+-][0-9])", "", text)
    zone, named = timedelta(0), _ZONE.search(text)
    if named is not None:
        hours = _HOURS.get(named[1].upper())
        if hours is None:
            return None
        text, zone = f"{text[: named.start()].strip()} -0000", timedelta(hours=hours)
    from email.utils import parsedate_to_datetime

    for read in (_of_iso_8601, parsedate_to_datetime):
        try:
            date = read(text)
            return (date if date.tzinfo else date.replace(tzinfo=timezone(zone))).astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _of_iso_8601(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix(" -0000"))


def _of_text(text: str, now: datetime, unit: float) -> timedelta | None:
    if len(text) > 4 * _LONGEST_TEXT:
        return None
    text = text.strip().strip('"').split(";", 1)[0].strip()
    if not text or len(text) > _LONGEST_TEXT:
        return None
    if re.fullmatch(rf"[+-]?(?:{_NUMBER})(?:e[+-]?[0-9]{{1,3}})?", text, re.IGNORECASE):
        return _of_number(float(text), now, unit)
    seconds = _of_pieces(text)
    if seconds is None:
        seconds = _of_iso(text)
    if seconds is None and (clock := _CLOCK.fullmatch(text)) is not None:
        days, hours, minutes, rest = clock.groups(default="0")
        seconds = int(days) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(rest)
    if seconds is not None:
        return _length(seconds)
    instant = instant_of(text)
    return None if instant is None else max(timedelta(0), instant - now)


def _of_pieces(text: str) -> float | None:
    """Numbers, each with a unit: `2m59.56s`, `120 seconds`, `1 minute 30 seconds`."""
    place, seconds = 0, 0.0
    while place < len(text):
        piece = _PIECE.match(text, place)
        if piece is None:
            return None
        unit = unit_of(piece[2])
        if unit is None:
            return None
        seconds += float(piece[1]) * unit
        place = piece.end()
    return seconds


def _of_iso(text: str) -> float | None:
    match = _ISO.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    try:
        counts = [float(count or 0) for count in match.groups()]
    except ValueError:
        return None
    return sum(count * unit for count, unit in zip(counts, (604800, 86400, 3600, 60, 1), strict=True))


def _of_number(number: float, now: datetime, unit: float) -> timedelta | None:
    if not isfinite(number):
        return None
    if number * unit < _AN_INSTANT:
        return _length(number * unit)
    for finer in (1.0, 1e-3, 1e-6, 1e-9):  # seconds from 1970 on to 5138, then milliseconds, and so on
        if number * finer < 100 * _AN_INSTANT:
            return _length(number * finer - now.timestamp())
    return LONGEST


def _length(seconds: float) -> timedelta | None:
    if not isfinite(seconds):
        return None
    return LONGEST if seconds >= LONGEST.total_seconds() else timedelta(seconds=max(0.0, seconds))
