"""Warnings about cron expressions: valid, but probably not what their author means.

Found in the expression as it was written, because the canonical text no longer shows it.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from repeater.schedule.cron import read
from repeater.schedule.cron_parser import NAMES, RANGES, Seconds, split

_JOB = "any"  # `H` is one number for each job; which one does not matter here


class Doubt(NamedTuple):
    """A message, and how the expression is written if something else is meant."""

    message: str
    hint: str


@lru_cache(maxsize=4096)
def doubts(expression: str, seconds: Seconds | None = None) -> tuple[Doubt, ...]:
    """The warnings about an expression that `check_cron` accepts."""
    if expression.strip().startswith("@"):
        return ()
    found = _too_often(expression, seconds)
    return (*([found] if found else []), *_odd_steps(expression, seconds))


def _too_often(expression: str, seconds: Seconds | None) -> Doubt | None:
    """`* 16 * * *` starts every minute of an hour. Ranges such as `* 9-17 * * *` are not doubtful."""
    fields, meaning = split(expression, seconds, _JOB), read(expression, seconds, _JOB)
    texts = meaning.fields
    day_numbers = () if texts.day == "*" else meaning.day.numbers
    weekday_numbers = () if texts.weekday == "*" else meaning.weekday.numbers
    # from fine to coarse: name, is it `*`, numbers, days that depend on the month
    levels = [
        ("minute", texts.minute == "*", meaning.minutes, False),
        ("hour", texts.hour == "*", meaning.hours, False),
        ("day", texts.day == texts.weekday == "*", (*day_numbers, *weekday_numbers), _has_month_days(fields.day)),
        ("month", texts.month == "*", meaning.months, False),
    ]
    if len(meaning.seconds) > 1:
        levels.insert(0, ("second", texts.second == "*", meaning.seconds, False))
    finest, is_star, *_ = levels[0]
    if not is_star:
        return None
    for name, star, numbers, special in levels[1:]:
        if star:
            continue
        if special or all(b - a > 1 for a, b in pairwise(sorted(numbers))):
            return Doubt(
                f"found `{expression}`, which starts every {finest} of each {name} that it names",
                f"for one start put a number into the {finest} field, such as `0`",
            )
        return None
    return None


def _has_month_days(day: str) -> bool:
    return "l" in day or "w" in day


def _odd_steps(expression: str, seconds: Seconds | None) -> list[Doubt]:
    """`*/31` fits once, `*/45` twice and unevenly: neither is a start every so often."""
    found = []
    for index, field in enumerate(split(expression, seconds, _JOB)):
        if field is None:
            continue
        low, high = RANGES[index]
        size, name = high - low + 1, NAMES[index]
        for item in field.split(","):
            span, _, step = item.partition("/")
            if span != "*" or not step.isdigit():
                continue
            by = int(step)
            if low + by > high and by > 1:
                message = f"found `{item}` in the {name} field, which is only `{low}`"
                found.append(Doubt(message, f"write `{low}`, or a duration: `every`"))
            elif size < 2 * by < 2 * size and index in (0, 1, 5):
                message = f"found `{item}` in the {name} field, which is `{low},{low + by}`: not evenly spaced"
                found.append(Doubt(message, "for even distances use `every`"))
    return found
