"""Cron: tables of what people expect, zone by zone and field by field."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import Cron, Jitter
from repeater.model.time import Instant, Mono
from repeater.schedule.base import Track
from repeater.schedule.cron import CronSchedule, canonical, check_cron


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local_starts(zone: str, expression: str, begin: str, count: int, **spec: str) -> list[str]:
    """The next starts after a wall time of the zone, as `month-day hour:minute offset`."""
    schedule = CronSchedule(Cron(expression, timezone=zone, **spec), "job")
    cursor = Instant(datetime.fromisoformat(begin).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC), Mono(0))
    found = []
    for _ in range(count):
        following = schedule.next(Track(cursor, cursor))
        assert following is not None
        assert following.wall > cursor.wall
        found.append(f"{following.wall.astimezone(ZoneInfo(zone)):%m-%d %H:%M %z}")
        cursor = following
    return found


# --- daylight saving --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "starts"),
    [
        ("next", ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("shift", ["03-28 02:30 +0100", "03-29 03:30 +0200", "03-30 02:30 +0200"]),
        ("skip", ["03-28 02:30 +0100", "03-30 02:30 +0200", "03-31 02:30 +0200"]),
    ],
)
def test_a_wall_time_in_the_spring_gap_follows_the_gap_policy(gap, starts):
    assert local_starts("Europe/Berlin", "30 2 * * *", "2026-03-28", 3, gap=gap) == starts


@pytest.mark.parametrize(
    ("fold", "starts"),
    [
        ("first", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
        ("second", ["11-01 01:30 -0500", "11-02 01:30 -0500"]),
        ("both", ["11-01 01:30 -0400", "11-01 01:30 -0500"]),
        ("skip", ["11-02 01:30 -0500", "11-03 01:30 -0500"]),
    ],
)
def test_a_wall_time_in_the_autumn_fold_follows_the_fold_policy(fold, starts):
    assert local_starts("America/New_York", "30 1 * * *", "2026-11-01", 2, fold=fold) == starts


def test_two_slots_that_a_gap_moves_to_one_instant_are_one():
    starts = local_starts("Europe/Berlin", "0,30 2-3 * * *", "2026-03-29", 3)
    assert starts == ["03-29 03:00 +0200", "03-29 03:30 +0200", "03-30 02:00 +0200"]
    shifted = local_starts("Europe/Berlin", "0,30 2-3 * * *", "2026-03-29", 3, gap="shift")
    assert shifted == ["03-29 03:00 +0200", "03-29 03:30 +0200", "03-30 02:00 +0200"]


@pytest.mark.parametrize("hour", ["*", "*/1", "0-23", "0-11,12-23"])
def test_a_wildcard_hour_follows_elapsed_time(hour):
    for night, hours in (("2026-03-29", 23), ("2026-10-25", 25)):
        begin = datetime.fromisoformat(night).replace(tzinfo=ZoneInfo("Europe/Berlin"))
        end = begin + timedelta(days=1)
        schedule = CronSchedule(Cron(f"30 {hour} * * *", timezone="Europe/Berlin"), "job")
        cursor, found = Instant(begin.astimezone(UTC), Mono(0)), []
        while (cursor := schedule.next(Track(cursor, cursor))).wall < end.astimezone(UTC):
            found.append(cursor.wall)
        assert len(found) == hours
        assert {b - a for a, b in pairwise(found)} == {timedelta(hours=1)}


def test_an_hour_field_short_of_one_hour_is_fixed_wall_time():
    starts = local_starts("Europe/Berlin", "30 0-22 * * *", "2026-10-25T01:45", 3)
    assert starts == ["10-25 02:30 +0200", "10-25 03:30 +0100", "10-25 04:30 +0100"]


def test_lord_howe_moves_its_clock_by_half_an_hour():
    spring = local_starts("Australia/Lord_Howe", "10 2 * * *", "2026-10-04", 2)
    assert spring == ["10-04 02:30 +1100", "10-05 02:10 +1100"]
    assert local_starts("Australia/Lord_Howe", "10 2 * * *", "2026-10-04", 1, gap="shift") == ["10-04 02:40 +1100"]
    autumn = local_starts("Australia/Lord_Howe", "45 1 * * *", "2026-04-05", 2)
    assert autumn == ["04-05 01:45 +1100", "04-06 01:45 +1030"]
    both = local_starts("Australia/Lord_Howe", "45 1 * * *", "2026-04-05", 2, fold="both")
    assert both == ["04-05 01:45 +1100", "04-05 01:45 +1030"]


@pytest.mark.parametrize("expression", ["0 * * * *", "10 * * * *", "45 * * * *", "0,20,40 * * * *", "*/7 * * * *"])
def test_an_hourly_job_starts_within_an_hour_where_clocks_move_by_half(expression):
    for begin in ("2026-10-03T10:00", "2026-04-04T10:00"):
        schedule = CronSchedule(Cron(expression, timezone="Australia/Lord_Howe"), "job")
        cursor = schedule.next(Track(Instant(utc(begin), Mono(0))))
        usual = max(_distances(schedule, cursor, timedelta(hours=2)))
        assert max(_distances(schedule, cursor, timedelta(hours=12))) <= usual


def _distances(schedule: CronSchedule, first: Instant, length: timedelta) -> list[timedelta]:
    walls, cursor = [first.wall], first
    while walls[-1] - first.wall < length:
        cursor = schedule.next(Track(cursor, cursor))
        walls.append(cursor.wall)
    return [b - a for a, b in pairwise(walls)]


def test_an_hourly_job_of_one_day_gets_no_start_on_another_day():
    starts = local_starts("Asia/Pyongyang", "0 * 15 8 *", "2015-08-14T22:00", 2)
    assert starts == ["08-15 00:00 +0830", "08-15 01:00 +0830"]


def test_a_day_that_apia_never_had_runs_when_the_next_one_begins():
    starts = local_starts("Pacific/Apia", "0 12 * * *", "2011-12-29", 3)
    assert starts == ["12-29 12:00 -1000", "12-31 00:00 +1400", "12-31 12:00 +1400"]
    skipped = local_starts("Pacific/Apia", "0 12 * * *", "2011-12-29", 2, gap="skip")
    assert skipped == ["12-29 12:00 -1000", "12-31 12:00 +1400"]


def test_santiago_has_nights_without_midnight():
    starts = local_starts("America/Santiago", "0 0 * * *", "2026-09-05T12:00", 2)
    assert starts == ["09-06 01:00 -0300", "09-07 00:00 -0300"]
    assert local_starts("America/Santiago", "30 23 * * *", "2026-04-04T12:00", 2, fold="both") == [
        "04-04 23:30 -0300",
        "04-04 23:30 -0400",
    ]


def test_the_next_slot_is_strictly_after_an_instant_at_the_clock_change():
    change = Instant(utc("2026-03-29T01:00:00"), Mono(0))
    schedule = CronSchedule(Cron("30 2,3 * * *", timezone="Europe/Berlin"), "job")
    before = Instant(change.wall - timedelta(microseconds=1), Mono(0))
    assert schedule.next(Track(before, before)).wall == change.wall
    assert schedule.next(Track(change, change)).wall == utc("2026-03-29T01:30:00")


# --- fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "starts"),
    [
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 L 2 *", ["2026-02-28", "2027-02-28", "2028-02-29"]),
        ("0 0 31 * *", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("0 0 * * fri#2", ["2026-01-09", "2026-02-13"]),
        ("0 0 * * 5L", ["2026-01-30", "2026-02-27"]),
        ("0 0 * * L5", ["2026-01-30", "2026-02-27"]),
        ("0 0 * * friL", ["2026-01-30", "2026-02-27"]),
        ("0 0 15W * *", ["2026-01-15", "2026-02-16", "2026-03-16"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * sun", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * fri-mon", ["2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05", "2026-01-09"]),
        ("0 0 1 jan,JUL *", ["2026-07-01", "2027-01-01"]),
        ("0 0 1 nov-feb *", ["2026-02-01", "2026-11-01", "2026-12-01", "2027-01-01"]),
        ("@weekly", ["2026-01-04", "2026-01-11"]),
        ("@monthly", ["2026-02-01", "2026-03-01"]),
        ("@yearly", ["2027-01-01", "2028-01-01"]),
        ("0 0 13 * 5", ["2026-01-02", "2026-01-09", "2026-01-13", "2026-01-16"]),
        ("0 0 1 * fri#1", ["2026-01-02", "2026-02-01", "2026-02-06"]),
        ("0 0 */10 * 5", ["2026-05-01", "2026-07-31", "2026-08-21"]),
        ("0 0 31 2 1", ["2026-02-02", "2026-02-09"]),
        ("0 0 31W * *", ["2026-01-30", "2026-03-31", "2026-05-29", "2026-07-31"]),
        ("0 0 30W * *", ["2026-01-30", "2026-03-30", "2026-04-30", "2026-05-29"]),
        ("0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 0 L-3 * *", ["2026-01-28", "2026-02-25", "2026-03-28"]),
        ("0 0 L-30 * *", ["2026-03-01", "2026-05-01", "2026-07-01"]),
        ("0 0 1W,15W * *", ["2026-01-15", "2026-02-02", "2026-02-16", "2026-03-02"]),
        ("0 0 * * 1,5#2", ["2026-01-05", "2026-01-09", "2026-01-12", "2026-01-19"]),
        ("0 0 1,LW * *", ["2026-01-30", "2026-02-01", "2026-02-27"]),
    ],
)
def test_days_of_expressions(expression, starts):
    schedule, cursor, found = CronSchedule(Cron(expression), "job"), Instant(utc("2026-01-01"), Mono(0)), []
    for _ in starts:
        cursor = schedule.next(Track(cursor, cursor))
        found.append(f"{cursor.wall:%Y-%m-%d}")
    assert found == starts


def test_day_match_and_wants_both_days():
    schedule = CronSchedule(Cron("0 0 13 * 5", day_match="and"), "job")
    cursor = Instant(utc("2026-01-01"), Mono(0))
    assert schedule.next(Track(cursor, cursor)).wall == utc("2026-02-13")


def test_seconds_are_read_at_the_position_that_the_job_declares():
    begin = Instant(utc("2026-01-01T00:00:00.5"), Mono(0))
    first = CronSchedule(Cron("*/20 0 * * * *", seconds="first"), "job")
    last = CronSchedule(Cron("0 * * * * */20", seconds="last"), "job")
    cursor = begin
    for second in ("00:00:20", "00:00:40", "01:00:00", "01:00:20"):
        assert first.next(Track(cursor, cursor)) == last.next(Track(cursor, cursor))
        cursor = first.next(Track(cursor, cursor))
        assert f"{cursor.wall:%H:%M:%S}" == second


def test_the_anchor_itself_may_be_a_slot_only_if_nothing_was_decided():
    noon = Instant(utc("2026-01-01T12:00:00"), Mono(5))
    schedule = CronSchedule(Cron("0 12 * * *"), "job")
    assert schedule.next(Track(noon)) == noon
    assert schedule.next(Track(noon, noon)).wall == utc("2026-01-02T12:00:00")


def test_the_monotonic_reading_keeps_its_distance_from_the_wall():
    cursor = Instant(utc("2026-01-01T11:59:00"), Mono(1_000))
    assert CronSchedule(Cron("0 12 * * *"), "job").next(Track(cursor, cursor)).mono == 1_000 + 60_000_000


def test_the_calendar_ends_without_an_error():
    cursor = Instant(utc("9999-12-31T23:59:00"), Mono(0))
    assert CronSchedule(Cron("* * * * *"), "job").next(Track(cursor, cursor)) is None
    assert CronSchedule(Cron("* * * * *", timezone="Europe/Berlin"), "job").next(Track(cursor, cursor)) is None


# --- canonical texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("*/5 * * * *", "0-59/5 * * * *"),
        ("*/30 * * * *", "0,30 * * * *"),
        ("@daily", "0 0 * * *"),
        ("0 0 * * 7", "00 00 * * SUN"),
        ("0 0-23 * * *", "@hourly"),
        ("0 0 1-31 * *", "0 0 ? * ?"),
        ("0 0 * * 0-6", "0 0 * * *"),
        ("0 0 * 1-12 *", "0\t0  *  *  *"),
        ("0 0 * * 1-5", "0 0 * * mon,tue,wed,thu,fri"),
        ("5-5 * * * *", "5 * * * *"),
        ("59/15 * * * *", "59 * * * *"),
        ("0 22-2 * * *", "0 0-2,22,23 * * *"),
        ("0 0 * * 5l", "0 0 * * LFRI"),
        ("0 22-6/3 * * *", "0 22,1,4 * * *"),
        ("50-10/5 * * * *", "0,5,10,50,55 * * * *"),
        ("0 0 28-3 * *", "0 0 28,29,30,31,1,2,3 * *"),
        ("0 0 * nov-mar/2 *", "0 0 * 11,1,3 *"),
        ("0 0 * * fri-mon/2", "0 0 * * 5,0"),
        ("0 0 * * 7-3/2", "0 0 * * 0,2"),
        ("0 0 *,5 * *", "0 0 * * *"),
        ("0 0 ?,5 * 1", "0 0 * * 1"),
        ("0 0 5,* * 1", "0 0 1-31 * 1"),
        ("0 9 * * *,fri#2", "0 9 * * *"),
        ("0 9 * * fri#2,mon,7L", "0 9 * * 1,L0,5#2"),
        ("0 9 15w,LW,1,l-3 * *", "0 9 1,LW,L-3,W15 * *"),
    ],
)
def test_two_texts_for_the_same_times_have_one_canonical_text(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 */2 * 1", "0 0 1-31/2 * 1"),
        ("0 0 1 * 1", "0 0 1 * *"),
        ("0 0 1-31 * 1", "0 0 * * 1"),
        ("H * * * *", "0 * * * *"),
    ],
)
def test_texts_that_mean_different_times_stay_different(one, other):
    assert canonical(one, None, "backup") != canonical(other, None, "backup")


def test_hashed_fields_depend_on_the_job_and_on_nothing_else():
    text = canonical("H H(0-5) H * H", None, "backup")
    code = "from repeater.schedule.cron import canonical; print(canonical('H H(0-5) H * H', None, 'backup'))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == text
    assert len({canonical("H H * * *", None, f"job{n}") for n in range(100)}) > 90


@given(st.text(min_size=1, max_size=20), st.integers(1, 59))
def test_hashed_fields_stay_in_their_ranges(job, step):
    minute, hour, day, month, weekday = canonical("H H(9-17) H H H", None, job).split()
    assert 0 <= int(minute) <= 59
    assert 9 <= int(hour) <= 17
    assert 1 <= int(day) <= 28
    assert 1 <= int(month) <= 12
    assert 0 <= int(weekday) <= 6
    schedule = CronSchedule(Cron(canonical(f"H/{step} * * * *", None, job)), job)
    first = schedule.next(Track(Instant(utc("2026-01-01"), Mono(0))))
    assert first.wall < utc("2026-01-01") + timedelta(minutes=step)


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "with 0 fields, expected 5"),
        ("* * * *", "with 4 fields, expected 5: minute, hour, day of month, month, day of week"),
        ("* * * * * *", 'six fields need `seconds = "first"`'),
        ("* * * * * * *", "with 7 fields"),
        ("60 * * * *", "minute field `60`"),
        ("* 24 * * *", "hour field `24`"),
        ("* * 0 * *", "day of month field `0`"),
        ("* * 32 * *", "day of month field `32`"),
        ("* * * 13 *", "month field `13`"),
        ("* * * * 8", "day of week field `8`"),
        ("*/0 * * * *", "minute field `*/0`"),
        ("5-5/0 * * * *", "minute field `5-5/0`"),
        ("-1 * * * *", "minute field `-1`"),
        ("1,,2 * * * *", "minute field `1,,2`"),
        ("a b c d e", "minute field `a`"),
        ("* * * * fri#6", "day of week field"),
        ("* * 32W * *", "day of month field `32w`"),
        ("* * L-31 * *", "day of month field `l-31`"),
        ("* * * * L", "day of week field `l`"),
        ("* * * * 5#6", "day of week field `5#6`"),
        ("* * * * 5W", "day of week field `5w`"),
        ("5L * * * *", "minute field `5l`"),
        ("*/90 * * * *", "a step of 90, but the minute field has 60 values, 0 to 59"),
        ("* 5/25 * * *", "a step of 25, but the hour field has 24 values"),
        ("* * 1-31/32 * *", "a step of 32, but the day of month field has 31 values"),
        ("* * * */13 *", "a step of 13, but the month field has 12 values"),
        ("* * * * */8", "a step of 8, but the day of week field has 7 values"),
        ("H/90 * * * *", "a step of 90, but the minute field has 60 values"),
        ("H(0-9)/61 * * * *", "a step of 61, but the minute field has 60 values"),
        ("R * * * *", "random times"),
        ("R(0-9)/3 * * * *", "random times"),
        ("H(9-5) * * * *", "expected a range inside 0-59"),
        ("H(0-99) * * * *", "expected a range inside 0-59"),
        ("H/0 * * * *", "a step of at least 1"),
        ("@reboot", 'schedule = "once"'),
        ("@fortnightly", "expected one of `@yearly`"),
        ("５ * * * *", "ASCII"),
        ("0\u00a00 * * *", "ASCII"),
        ("0 0 30 2 *", "never matches"),
        ("0 0 31 4,6,9,11 *", "never matches"),
        ("0 0 * * " + "1," * 400 + "1", "the limit is 500"),
    ],
)
def test_an_unreadable_expression_is_refused_with_a_clear_message(expression, words):
    with pytest.raises(ValueError, match="found") as caught:
        check_cron(expression)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_expression_that_both_days_make_impossible_is_refused_with_both():
    check_cron("0 0 20 * fri#1")
    with pytest.raises(ValueError, match="never matches"):
        check_cron("0 0 20 * fri#1", day_match="and")


@pytest.mark.parametrize(
    "zone",
    ["EST", "CET", "EST5EDT", "GMT+3", "Etc/GMT+5", "+01:00", "UTC+2", "Mars/X", "europe/berlin", "", "../etc/passwd",
     "Europe/../Europe/Berlin", "posix/Europe/Berlin", "localtime", "Europe/Berlin\0", "/etc/localtime", "Ünïcode/Berlin"],
)  # fmt: skip
def test_only_names_of_areas_are_time_zones(zone):
    with pytest.raises(ValueError, match="time zone"):
        check_cron("0 0 * * *", timezone=zone)


def test_the_nearest_zone_is_named():
    with pytest.raises(ValueError, match="did you mean `Europe/Berlin`"):
        check_cron("0 0 * * *", timezone="Europe/Berln")


@given(st.text(max_size=40) | st.text(alphabet="0123456789*/-,LWHR#?@ ", max_size=40))
def test_no_text_breaks_the_reader(text):
    try:
        check_cron(text)
    except ValueError as error:
        assert str(error).startswith("found `")  # noqa: PT017 - most texts are refused, some are right


# --- jitter -----------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["*/5 * * * *", "0 3 * * *", "0 0 29 2 *"]),
    st.integers(1, 10**12),
    st.text(max_size=9),
    st.floats(0, 1, exclude_max=True),
)
def test_jitter_stays_before_the_next_slot(expression, width, job, draw):
    for mode in ("stable", "random"):
        jitter = Jitter(span=timedelta(microseconds=width), mode=mode)
        schedule = CronSchedule(Cron(expression, jitter=jitter), job)
        nominal = schedule.next(Track(Instant(utc("2026-05-05"), Mono(0))))
        following = schedule.next(Track(nominal, nominal))
        delay = schedule.delay(job, nominal, draw)
        assert timedelta(0) <= delay < min(following.wall - nominal.wall, timedelta(microseconds=width))
