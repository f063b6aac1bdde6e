"""Rewrites the dialects of cron expressions in the one that `schedule.cron` reads.

Text in, text out: nicknames, the place of the seconds, `H`, `?`, `5L`, ranges from a value to itself, ranges around the
end of a field. Steps that are larger than their field are errors.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from repeater.errors import one_line
from repeater.schedule.jitter import stable_fraction

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST = 500
NAMES = ("minute", "hour", "day of month", "month", "day of week", "second")
# the last minute, hour, … that `H` may give; every month has a 28th
_HASHED = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6), (0, 59))
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6), (0, 59))
_BLANKS = re.compile(r"[ \t]+")
_H = re.compile(r"h(?:\(([0-9]{1,2})-([0-9]{1,2})\))?(?:/([0-9]{1,4}))?")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LAST_WEEKDAY = re.compile(r"([0-7]|" + "|".join(_WEEKDAYS) + r")l|l([0-7]|" + "|".join(_WEEKDAYS) + ")")

Seconds = Literal["first", "last"]


class Fields(NamedTuple):
    """Minute, hour, day of month, month and day of week, as texts; `second` is None for a five-field expression."""

    minute: str
    hour: str
    day: str
    month: str
    weekday: str
    second: str | None = None

    def text(self, seconds: Seconds | None) -> str:
        """The expression, with the seconds where they belong."""
        five = " ".join(self[:5])
        if self.second is None:
            return five
        return f"{self.second} {five}" if seconds == "first" else f"{five} {self.second}"


def split(expression: str, seconds: Seconds | None, job: str) -> Fields:
    """The fields of an expression in lower case. Raises ValueError when it has not as many as it must."""
    if len(expression) > LONGEST:
        raise ValueError(f"found `{clip(expression)}`, {len(expression)} characters; the limit is {LONGEST}")
    text = expression.strip(" \t").lower()
    if not text.isascii():
        raise ValueError(f"found `{clip(expression)}`, cron expressions have ASCII characters only")
    if text.startswith("@"):
        return _nickname(text, clip(expression), seconds)
    fields = _BLANKS.split(text)
    wanted = 5 if seconds is None else 6
    if len(fields) != wanted:
        hint = ""
        if seconds is None and len(fields) == 6:
            hint = '; six fields need `seconds = "first"` or `seconds = "last"`'
        raise ValueError(
            f"found `{clip(expression)}` with {len(fields) if text else 0} fields, expected {wanted}: "
            + ", ".join(_order(seconds))
            + hint
        )
    if seconds == "first":
        fields = [*fields[1:], fields[0]]
    return Fields(*[_tidy(index, field, job if "h" in field else "") for index, field in enumerate(fields)])


def clip(text: str) -> str:
    """The beginning of a text, short enough for a message."""
    return one_line(text if len(text) <= 60 else text[:57] + "...")


def _order(seconds: Seconds | None) -> list[str]:
    five = list(NAMES[:5])
    return five if seconds is None else ["second", *five] if seconds == "first" else [*five, "second"]


def _nickname(text: str, shown: str, seconds: Seconds | None) -> Fields:
    if text == "@reboot":
        raise ValueError('found `@reboot`; a job that runs once, at start, has `schedule = "once"`')
    if text not in NICKNAMES:
        raise ValueError(f"found `{shown}`, expected one of " + ", ".join(f"`{name}`" for name in NICKNAMES))
    minute, hour, day, month, weekday = NICKNAMES[text].split()
    return Fields(minute, hour, day, month, weekday, None if seconds is None else "0")


@lru_cache(maxsize=4096)
def _tidy(index: int, field: str, job: str) -> str:
    """There are fewer fields in the world than jobs that have them. Only `H` needs the job."""
    if re.match(r"r(\(|/|,|$)", field):
        raise ValueError(f"found `{field.upper()}`, random times differ at every start; `H` is the same for a job")
    return ",".join(_tidy_item(index, item, job) for item in field.split(","))


def _tidy_item(index: int, item: str, job: str) -> str:
    hashed = _H.fullmatch(item)
    if hashed:
        return _hash(index, item, hashed, job)
    if item == "?" and index in (2, 4):
        return "*"
    if index == 4:
        last = _LAST_WEEKDAY.fullmatch(item)
        if last:
            return f"l{_number(index, last[1] or last[2])}"
        name, mark, nth = item.partition("#")
        if mark:
            return f"{_number(index, name)}#{nth}"
    span, slash, step = item.partition("/")
    if slash and step.isdigit():
        _check_step(index, item, int(step))
    begin, dash, end = span.partition("-")
    if not dash or (slash and not (step.isdigit() and int(step))):
        return item
    low, high = _number(index, begin), _number(index, end)
    if not (low.isdigit() and high.isdigit()):
        return item
    return _range(index, item, int(low), int(high), int(step or 1))


def _check_step(index: int, item: str, step: int) -> None:
    low, high = RANGES[index]
    size = high - low + 1
    if step > size:
        raise ValueError(
            f"found `{item}` with a step of {step}, but the {NAMES[index]} field has {size} values, {low} to {high}; "
            f"expected a step from 1 to {size}"
        )


def _range(index: int, item: str, first: int, last: int, step: int) -> str:
    """A range that croniter reads as crontab(5) does: `5-5` is 5, and a range around the end is a list of numbers."""
    low, high = RANGES[index]
    size = high - low + 1
    if not (low <= first <= high and low <= last <= high) and index != 4:
        return item  # an error, which the reader words
    if index == 4:
        if first > 7 or last > 7:
            return item
        if last == 7 and first < 7:
            return ",".join(str(day % 7) for day in range(first, 8, step))
        first, last = first % 7, last % 7
    if first == last:
        return str(first)
    if first < last:
        return item
    return ",".join(str(low + (value - low) % size) for value in range(first, last + size + 1, step))


def _number(index: int, text: str) -> str:
    """A weekday or month as a number. Other text is only stripped of leading zeros."""
    names = {3: _MONTHS, 4: _WEEKDAYS}.get(index, ())
    if text in names:
        return str(names.index(text) + (index == 3))
    return str(int(text)) if text.isdigit() else text


def _hash(index: int, item: str, found: re.Match[str], job: str) -> str:
    """A number, or a stepped range, that depends on the job's name and the field alone."""
    low, high = _HASHED[index]
    if found[1] is not None:
        low, high = int(found[1]), int(found[2])
        if low >= high or low < RANGES[index][0] or high > RANGES[index][1]:
            first, last = RANGES[index]
            raise ValueError(
                f"found `{item.upper()}`, expected a range inside {first}-{last} in the {NAMES[index]} field"
            )
    number = stable_fraction(f"cron/{NAMES[index]}/{job}")
    if found[3] is None:
        return str(low + number % (high - low + 1))
    step = int(found[3])
    if step == 0:
        raise ValueError(f"found `{item.upper()}`, expected a step of at least 1")
    _check_step(index, item.upper(), step)
    start = low + number % min(step, high - low + 1)
    return str(start) if start + step > high else f"{start}-{high}/{step}"
