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


@given(
    kind=st.sampled_from(KINDS),
    base=st.integers(1, 10**12),
    most=st.integers(1, 10**12),
    k=st.integers(1, 10**6),
    draw=st.floats(0, 1, exclude_max=True),
    jitter=st.sampled_from(["none", "full", "equal"]),
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


@given(st.sampled_from(["linear", "exponential", "fibonacci", "polynomial"]), st.integers(1, 200))
def test_delays_grow(kind, k):
    backoff = Backoff(kind, SECOND, max=timedelta(days=9999))
    assert backoff_delay(backoff, k, 0.0) <= backoff_delay(backoff, k + 1, 0.0)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 60), st.floats(1, 10))
def test_decorrelated_jitter_lies_between_the_base_and_the_multiple_of_the_delay_before(draw, before, multiplier):
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


@given(st.sampled_from(KINDS), st.sampled_from(["none", "full", "equal"]), st.integers(0, 300), st.integers(0, 10**9))
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
