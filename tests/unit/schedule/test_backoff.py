"""Growing delays: the rows of each kind, their cap, and numbers too large for a float."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import Backoff, Growing
from repeater.model.time import Instant, Mono
from repeater.schedule.backoff import GrowingSchedule, backoff_delay
from repeater.schedule.base import Track

SECOND = timedelta(seconds=1)
ANCHOR = Instant(datetime(2026, 1, 1, tzinfo=UTC), Mono(0))
KINDS = ("fixed", "linear", "exponential", "fibonacci", "polynomial", "decorrelated-jitter")


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        (Backoff("fixed", SECOND), [1, 1, 1, 1, 1, 1, 1, 1]),
        (Backoff("linear", SECOND, increment=2 * SECOND), [1, 3, 5, 7, 9, 11, 13, 15]),
        (Backoff("exponential", SECOND), [1, 2, 4, 8, 16, 32, 60, 60]),
        (Backoff("exponential", SECOND, multiplier=1.5), [1, 1.5, 2.25, 3.375, 5.0625]),
        (Backoff("fibonacci", SECOND), [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 60, 60]),
        (Backoff("polynomial", SECOND), [1, 4, 9, 16, 25, 36, 49, 60]),
        (Backoff("polynomial", SECOND, exponent=0.5), [1, 1.414214]),
        (Backoff("fixed", timedelta(minutes=5), max=SECOND), [1]),
    ],
)
def test_the_first_delays_of_each_kind(backoff, seconds):
    delays = [backoff_delay(backoff, k, 0.5) for k in range(1, len(seconds) + 1)]
    assert delays == [timedelta(seconds=n) for n in seconds]


@pytest.mark.parametrize("kind", ["linear", "exponential", "fibonacci", "polynomial"])
@pytest.mark.parametrize("k", [100, 10_000, 10**9, 10**400])
def test_no_number_of_tries_is_too_large(kind, k):
    assert backoff_delay(Backoff(kind, SECOND, max=timedelta(days=36_525)), k, 0.0) <= timedelta(days=36_525)
    assert backoff_delay(Backoff(kind), k, 0.0) == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("jitter", "delays"),
    [("none", [8, 8, 8, 8]), ("full", [0, 2, 4, 7]), ("equal", [4, 5, 6, 7.5])],
)
@pytest.mark.parametrize("kind", ["fixed", "linear", "exponential", "fibonacci", "polynomial"])
def test_jitter_takes_its_share_of_the_delay(kind, jitter, delays):
    backoff = Backoff(kind, 8 * SECOND, jitter=jitter)
    assert [backoff_delay(backoff, 1, draw) / SECOND for draw in (0.0, 0.25, 0.5, 0.875)] == delays


def test_equal_jitter_of_an_odd_delay_rounds_down():
    backoff = Backoff("fixed", timedelta(microseconds=7), jitter="equal")
    assert [backoff_delay(backoff, 1, draw) / timedelta(microseconds=1) for draw in (0.0, 0.5, 0.999)] == [3, 5, 6]


@pytest.mark.parametrize("jitter", ["none", "full", "equal"])
@pytest.mark.parametrize("kind", KINDS)
@given(
    base=st.integers(1, 10**12),
    most=st.integers(1, 10**12),
    k=st.integers(1, 10**6),
    draw=st.floats(0, 1, exclude_max=True),
    multiplier=st.floats(1, 1e6),
    exponent=st.floats(0, 1e3),
)
def test_a_delay_is_never_negative_and_never_longer_than_the_most(
    kind, base, most, k, draw, jitter, multiplier, exponent
):
    longest = timedelta(microseconds=most)
    backoff = Backoff(kind, timedelta(microseconds=base), longest, SECOND, multiplier, exponent, jitter)
    plain = backoff_delay(Backoff(kind, timedelta(microseconds=base), longest, SECOND, multiplier, exponent), k, draw)
    delay = backoff_delay(backoff, k, draw)
    assert timedelta(0) <= delay <= plain <= longest
    if jitter == "equal" and kind != "decorrelated-jitter":
        assert delay >= plain // 2


@pytest.mark.parametrize("kind", ["linear", "exponential", "fibonacci", "polynomial"])
@given(k=st.integers(1, 200))
def test_delays_grow(kind, k):
    backoff = Backoff(kind, SECOND, max=timedelta(days=9999))
    assert backoff_delay(backoff, k, 0.0) <= backoff_delay(backoff, k + 1, 0.0)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 60), st.floats(1, 10))
def test_decorrelated_jitter_lies_between_base_and_a_multiple_of_the_last(draw, before, multiplier):
    backoff = Backoff("decorrelated-jitter", SECOND, max=100 * SECOND, multiplier=multiplier)
    delay = backoff_delay(backoff, 9, draw, before * SECOND)
    assert SECOND <= delay <= min(100, max(1, multiplier * before)) * SECOND
    assert backoff_delay(backoff, 1, 0.0) == SECOND
    assert backoff_delay(backoff, 1, 0.999999) <= multiplier * SECOND
    assert backoff_delay(backoff, 9, 0.999999, 2 * SECOND) > 1.9 * multiplier * SECOND or multiplier < 1.1


# --- the schedule -----------------------------------------------------------------------------------------------


def test_growing_gaps_follow_the_ends_of_runs():
    schedule = GrowingSchedule(Growing(Backoff("fibonacci", SECOND)), "job")
    assert schedule.waits_for_end
    assert schedule.next(Track(ANCHOR)) == ANCHOR
    cursor, gaps = ANCHOR, []
    for runs in range(1, 7):
        end = cursor.plus(timedelta(seconds=0.5))
        cursor = schedule.next(Track(ANCHOR, cursor, end, runs))
        gaps.append((cursor.mono - end.mono) / 1e6)
    assert gaps == [1, 1, 2, 3, 5, 8]


@pytest.mark.parametrize("jitter", ["none", "full", "equal"])
@pytest.mark.parametrize("kind", KINDS)
@given(runs=st.integers(0, 300), end=st.integers(0, 10**9))
def test_growing_gaps_are_the_same_when_asked_again_and_lie_ahead(kind, jitter, runs, end):
    spec = Growing(Backoff(kind, SECOND, jitter=jitter))
    cursor = ANCHOR.plus(timedelta(microseconds=5))
    track = Track(ANCHOR, cursor, ANCHOR.plus(timedelta(microseconds=end)), runs)
    following = GrowingSchedule(spec, "job").next(track)
    assert following == GrowingSchedule(spec, "job").next(track)
    assert following.mono > cursor.mono


def test_a_lost_end_counts_from_the_slot_itself():
    schedule = GrowingSchedule(Growing(Backoff("fixed", SECOND)), "job")
    cursor = ANCHOR.plus(10 * SECOND)
    assert schedule.next(Track(ANCHOR, cursor, None, 3)) == cursor.plus(SECOND)
    assert schedule.next(Track(ANCHOR, cursor, ANCHOR, 3)) == cursor.plus(SECOND)


def decorrelated_gaps(monkeypatch, draw, most, numbers):
    """The gaps in seconds after these numbers of runs, each delay drawn with the same number."""
    monkeypatch.setattr("repeater.schedule.backoff.stable_fraction", lambda _: int(draw * 2**64))
    spec = Growing(Backoff("decorrelated-jitter", SECOND, max=most * SECOND, multiplier=3.0))
    schedule, cursor = GrowingSchedule(spec, "job"), ANCHOR.plus(SECOND)
    return [(schedule.next(Track(ANCHOR, cursor, cursor, runs)).mono - cursor.mono) / 1e6 for runs in numbers]


def test_each_decorrelated_delay_derives_from_the_one_before(monkeypatch):
    # 1 + draw * (3 * before - 1), the first from the base
    assert decorrelated_gaps(monkeypatch, 0.5, 100, [1, 2, 3, 4, 5]) == [2, 3.5, 5.75, 9.125, 14.1875]
    assert decorrelated_gaps(monkeypatch, 0.25, 100, [1, 2, 3]) == [1.5, 1.875, 2.15625]
    assert decorrelated_gaps(monkeypatch, 0.0, 100, [1, 2, 32, 33, 300]) == [1, 1, 1, 1, 1]


def test_a_decorrelated_delay_after_many_runs_has_forgotten_the_first(monkeypatch):
    gaps = decorrelated_gaps(monkeypatch, 0.25, 100, [31, 32, 33, 34, 300])
    assert gaps == pytest.approx([3] * 5, abs=0.02)
