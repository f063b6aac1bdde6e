"""`schedule.cron` against cronsim, a second implementation, for random expressions of all forms.

cronsim reads no ranges around the end of a field, so each random item has two texts: what is written for us, and the
same numbers as a list for cronsim.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from repeater.model.spec import Cron
from repeater.model.time import Instant, Mono
from repeater.schedule.base import Track
from repeater.schedule.cron import CronSchedule, canonical

Both = tuple[str, str]


def same(text: str) -> Both:
    return text, text


def around(first: int, last: int, step: int, low: int, high: int) -> Both:
    """A range, also around the end: `22-6/3`, and for cronsim `22,1,4`."""
    values, value = [], first
    for place in range(high - low + 1):
        if place % step == 0:
            values.append(value)
        if value == last:
            break
        value = low if value == high else value + 1
    return f"{first}-{last}" + (f"/{step}" if step > 1 else ""), ",".join(map(str, values))


def items(low: int, high: int, *, star: bool = True) -> st.SearchStrategy[Both]:
    one, step = st.integers(low, high), st.integers(1, high - low + 1)
    forms = [
        one.map(lambda n: same(str(n))),
        st.builds(around, one, one, st.one_of(st.just(1), step), st.just(low), st.just(high)),
        st.builds(lambda n, by: (f"{n}/{by}", f"{n}-{high}/{by}"), one, step),  # cronsim counts day 7 of the week, too
    ]
    if star:
        forms += [st.just(same("*")), step.map(lambda by: same(f"*/{by}"))]
    return st.one_of(forms)


def lists(*kinds: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    return st.lists(st.one_of(*kinds), min_size=1, max_size=4).map(
        lambda found: (",".join(one for one, _ in found), ",".join(other for _, other in found))
    )


last_days = st.sampled_from([same("L"), same("LW")])
named_days = st.sampled_from([same("SUN"), same("mon"), same("fri-sat"), same("7"), same("5-7"), same("1-7/3")])
nth_days = st.one_of(
    st.integers(0, 7).map(lambda day: same(f"{day}L")),
    st.builds(lambda day, nth: same(f"{day}#{nth}"), st.integers(0, 6), st.integers(1, 5)),
)
named_months = st.sampled_from([same("JAN"), same("feb-apr"), ("nov-feb", "11,12,1,2")])
star = st.just(same("*"))
minutes, hours = lists(items(0, 59)), lists(items(0, 23))
days = st.one_of(star, lists(items(1, 31), last_days))
months = st.one_of(star, star, lists(items(1, 12), named_months))
weekdays = st.one_of(star, lists(items(0, 6), nth_days, named_days))


def ours(expression: str, zone: str, seconds: str | None, begin: datetime, count: int) -> list[datetime]:
    schedule = CronSchedule(Cron(canonical(expression, seconds), seconds, zone), "job")
    cursor, found = Instant(begin, Mono(0)), []
    while len(found) < count and (cursor := schedule.next(Track(cursor, cursor))) is not None:
        found.append(cursor.wall)
    return found


def theirs(expression: str, begin: datetime, count: int) -> list[datetime]:
    try:
        return list(islice(CronSim(expression, begin), count))
    except CronSimError as error:
        assert "day-of-month" in str(error)  # noqa: PT017 - it refuses days that no month of the list has
        assume(False)
        raise


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    st.tuples(minutes, hours, days, months, weekdays),
    st.one_of(st.none(), lists(items(0, 59))),
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001
)
def test_random_expressions_match_cronsim(fields, second, begin):
    if second is not None:
        fields = (second, *fields)
    one, other = (" ".join(texts) for texts in zip(*fields, strict=True))
    begin = begin.replace(microsecond=0, tzinfo=UTC)
    found = ours(one, "UTC", None if second is None else "first", begin, 8)
    assert found == theirs(other, begin, 8)


NIGHTS = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    lists(items(0, 59, star=False)),
    lists(items(0, 23, star=False)),
    st.sampled_from(NIGHTS),
    st.integers(-30, -4),
)
def test_fixed_times_match_cronsim_on_nights_of_clock_changes(minute, hour, night, offset):
    zone, change = night
    begin = change + timedelta(hours=offset)
    schedule = CronSchedule(Cron(canonical(f"* {hour[0]} * * *")), "job")
    assume(not schedule._walls().every_hour)  # what names every hour follows elapsed time, in cronsim only `*` does
    found = ours(f"{minute[0]} {hour[0]} * * *", zone, None, begin, 40)
    wanted = theirs(f"{minute[1]} {hour[1]} * * *", begin.astimezone(ZoneInfo(zone)), 40)
    assert found == [start.astimezone(UTC) for start in wanted]


@pytest.mark.parametrize(("low", "high", "index"), [(0, 59, 0), (0, 23, 1), (1, 31, 2), (1, 12, 3), (0, 6, 4)], ids=str)
def test_every_range_around_the_end_with_every_step_is_its_list(low, high, index):
    size = high - low + 1
    steps, stride = (range(1, size + 1), 1) if size < 25 else ((2, 7, size), 2)
    for first in range(low, high + 1, stride):
        for last in range(low, first, stride):
            for step in steps:
                text, listed = around(first, last, step, low, high)
                one, other = ["0", "0", "*", "*", "*"], ["0", "0", "*", "*", "*"]
                one[index], other[index] = text, listed
                assert canonical(" ".join(one)) == canonical(" ".join(other))
