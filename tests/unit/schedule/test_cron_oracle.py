"""`schedule.cron` against a minute-by-minute scan, over the nights on which the clocks are moved."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from repeater.model.spec import Cron
from repeater.model.time import Instant, Mono
from repeater.schedule.base import Track
from repeater.schedule.cron import CronSchedule, canonical
from tests.unit.schedule import oracle

NIGHTS = [  # (zone, an instant near the change)
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("America/Santiago", datetime(2026, 9, 6, 4, tzinfo=UTC)),
    ("America/Santiago", datetime(2026, 4, 5, 3, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Asia/Pyongyang", datetime(2015, 8, 14, 15, tzinfo=UTC)),
    ("Asia/Pyongyang", datetime(2018, 5, 4, 15, tzinfo=UTC)),
]
ORDINARY = [("UTC", datetime(2026, 2, 28, 23, tzinfo=UTC)), ("Asia/Kolkata", datetime(2027, 12, 31, 12, tzinfo=UTC))]


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    """Lists of all forms that a field has: numbers, ranges, ranges around the end, steps and stars."""
    one = st.integers(low, high)
    step = st.integers(1, high - low + 1)
    two = st.tuples(one, one)
    item = st.one_of(
        one.map(str),
        two.map(lambda p: f"{p[0]}-{p[1]}"),
        st.tuples(two, step).map(lambda p: f"{p[0][0]}-{p[0][1]}/{p[1]}"),
        step.map(lambda n: f"*/{n}"),
        st.tuples(one, step).map(lambda p: f"{p[0]}/{p[1]}"),
        st.just("*"),
    )
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


def lists_with(plain: st.SearchStrategy[str], special: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(plain, special), min_size=1, max_size=3).map(",".join)


hours = st.one_of(
    st.sampled_from(["*", "*/1", "0-23", "0", "1", "2", "3", "1-3", "0,2", "23,0-2", "*/2"]), numbers(0, 23)
)
month_days = st.one_of(
    st.sampled_from(["L", "LW", "1W", "30W", "31W", "L-2W"]),
    st.integers(1, 30).map(lambda n: f"L-{n}"),
    st.integers(1, 31).map(lambda n: f"{n}W"),
)
nth_days = st.one_of(
    st.integers(0, 7).map(lambda n: f"L{n}"),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda p: f"{p[0]}#{p[1]}"),
)
days = st.one_of(st.sampled_from(["*", "*", "1-31", "*/2"]), numbers(1, 31), lists_with(numbers(1, 31), month_days))
weekdays = st.one_of(
    st.sampled_from(["*", "*", "7", "0", "5-7", "0-7/2", "3-7/2", "6-1", "*/2"]),
    numbers(0, 6),
    lists_with(numbers(0, 6), nth_days),
)
expressions = st.tuples(numbers(0, 59), hours, days, st.just("*"), weekdays).map(" ".join)


def instant(wall: datetime) -> Instant:
    return Instant(wall, Mono(7_000_000))


def starts(spec: Cron, begin: datetime, end: datetime) -> list[datetime]:
    schedule, cursor, found = CronSchedule(spec, "job"), instant(begin), []
    while (following := schedule.next(Track(cursor, cursor))) is not None and following.wall <= end:
        found.append(following.wall)
        cursor = following
    return found


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    expression=expressions,
    night=st.sampled_from([*NIGHTS, *ORDINARY]),
    gap=st.sampled_from(["next", "shift", "skip"]),
    fold=st.sampled_from(["first", "second", "both", "skip"]),
    match=st.sampled_from(["or", "or", "and"]),
    offset=st.integers(-26 * 60, 3 * 60),
)
@example("26-38 * * * 0", NIGHTS[7], "next", "first", "or", -600)
@example("30 0,2 * * *", NIGHTS[0], "shift", "both", "or", -600)
@example("0-59 2-3 * * *", NIGHTS[0], "shift", "first", "or", -600)
@example("*/7 0-2 * * *", NIGHTS[4], "next", "second", "or", -600)
@example("0 * * * *", NIGHTS[6], "next", "first", "or", -600)
@example("0 * * * *", NIGHTS[7], "next", "first", "or", -600)
@example("45 * 4 5 *", NIGHTS[9], "next", "first", "or", -600)
@example("0 * 15 8 *", NIGHTS[8], "next", "first", "or", -600)
@example("0 22-6/3 * * *", ORDINARY[0], "next", "first", "or", -600)
@example("0-7 * * * *", NIGHTS[0], "next", "first", "or", 0)
@example("0 0-7/2 * * *", NIGHTS[0], "next", "first", "or", 0)
@example("0 12 * * 0-7", NIGHTS[0], "next", "first", "or", 0)
def test_cron_starts_match_a_scan_of_every_minute(expression, night, gap, fold, match, offset):
    zone, change = night
    begin = change + timedelta(minutes=offset)
    end = begin + timedelta(hours=26)
    spec = Cron(canonical(expression), timezone=zone, day_match=match, gap=gap, fold=fold)
    found = starts(spec, begin, end)
    assert found == oracle.starts(expression, zone, begin, end, gap, fold, match)
    assert all(a < b for a, b in pairwise(found))


dates = st.one_of(days, st.sampled_from(["30", "31", "28-30", "L", "31W", "L-29", "29W,L-1W"]))
months = st.one_of(st.just("*"), st.sampled_from(["2", "2,4", "1", "11-2", "10-3/2", "*/3"]))
day_expressions = st.tuples(st.just("0"), st.just("12"), dates, months, weekdays).map(" ".join)


@settings(max_examples=100)
@given(day_expressions, st.sampled_from(["or", "and"]), st.dates(date(1999, 1, 1), date(2099, 1, 1)))
@example("0 12 29 2 *", "or", date(2024, 1, 1))
@example("0 12 31 2 1", "or", date(2024, 1, 1))
def test_the_days_of_five_years_are_those_of_the_calendar(expression, match, first):
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    means = oracle.Oracle(expression, match)
    noons = (begin + timedelta(days=n, hours=12) for n in range(5 * 366))
    wanted = [noon for noon in noons if means(noon.replace(tzinfo=None))]
    try:
        found = starts(Cron(canonical(expression), day_match=match), begin, begin + timedelta(days=5 * 366))
    except ValueError:
        found = []
    assert found == wanted


@given(expressions, st.sampled_from(["or", "and"]))
@settings(max_examples=150)
def test_the_canonical_text_of_a_canonical_text_is_itself(expression, match):
    text = canonical(expression)
    assert canonical(text) == text


ODD_YEARS = [
    ("Africa/Casablanca", 2026),  # back to standard time for Ramadan
    ("Africa/Juba", 2021),
    ("America/Caracas", 2016),  # half an hour, for good
    ("America/Nuuk", 2023),
    ("Antarctica/Casey", 2023),  # three hours, four times a year
    ("Antarctica/Troll", 2026),  # two hours
    ("Asia/Gaza", 2026),
    ("Asia/Pyongyang", 2015),
    ("Asia/Pyongyang", 2018),
    ("Asia/Tehran", 2022),
    ("Asia/Tokyo", 2026),
    ("Atlantic/Azores", 2026),
    ("Europe/Berlin", 1945),
    ("Europe/Dublin", 2026),
    ("Europe/Moscow", 2014),
    ("Pacific/Apia", 2011),  # a day that never was
    ("Pacific/Kwajalein", 1993),
    ("UTC", 2026),
]


@pytest.mark.parametrize(("zone", "year"), ODD_YEARS)
@pytest.mark.parametrize(("gap", "fold"), [("next", "first"), ("shift", "both")])
def test_a_whole_year_of_an_odd_zone_is_that_of_a_scan(zone, year, gap, fold):
    expression, begin = "0,15,45 0-4,12,22-23 * * *", datetime(year, 1, 1, tzinfo=UTC)
    end = begin + timedelta(days=365)
    means, tz = oracle.Oracle(expression), ZoneInfo(zone)
    walls = (begin.replace(tzinfo=None) + timedelta(minutes=15 * n - 2880) for n in range(369 * 96))
    wanted = {utc for wall in walls if means(wall) for utc in oracle.instants(wall, tz, gap, fold)}
    found = starts(Cron(expression, timezone=zone, gap=gap, fold=fold), begin, end)
    assert found == sorted(utc for utc in wanted if begin < utc <= end)
