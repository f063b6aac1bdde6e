"""`every`: the grid has no drift, and with `after_end` there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import Every, Jitter
from repeater.model.time import Instant, Mono, to_us
from repeater.schedule.base import Track
from repeater.schedule.interval import EverySchedule

ANCHOR = Instant(datetime(2026, 1, 1, tzinfo=UTC), Mono(10_000_000))
SECOND = timedelta(seconds=1)
lengths = st.integers(1, 10**13).map(lambda n: timedelta(microseconds=n))


def at(seconds: float) -> Instant:
    return ANCHOR.plus(timedelta(seconds=seconds))


def test_the_first_slot_is_the_anchor_or_one_step_later():
    assert EverySchedule(Every(SECOND)).next(Track(ANCHOR)) == ANCHOR
    assert EverySchedule(Every(SECOND, immediate=False)).next(Track(ANCHOR)) == at(1)
    assert EverySchedule(Every(10 * SECOND, offset=3 * SECOND)).next(Track(ANCHOR)) == at(3)
    assert EverySchedule(Every(10 * SECOND, offset=3 * SECOND, immediate=False)).next(Track(ANCHOR)) == at(13)


def test_a_slot_is_strictly_after_the_cursor_even_if_the_cursor_is_one():
    every = EverySchedule(Every(10 * SECOND))
    assert every.next(Track(ANCHOR, ANCHOR)) == at(10)
    assert every.next(Track(ANCHOR, at(9.999999))) == at(10)
    assert every.next(Track(ANCHOR, at(10))) == at(20)
    assert every.next(Track(ANCHOR, at(86_405))) == at(86_410)


def test_a_cursor_before_the_anchor_makes_the_anchor_the_first_slot():
    assert EverySchedule(Every(10 * SECOND)).next(Track(ANCHOR, at(-100))) == ANCHOR
    assert EverySchedule(Every(10 * SECOND, immediate=False)).next(Track(ANCHOR, ANCHOR)) == at(10)


def test_the_grid_counts_on_the_monotonic_clock_when_the_wall_was_set():
    cursor = Instant(ANCHOR.wall + timedelta(days=300), Mono(ANCHOR.mono + 25_000_000))
    assert EverySchedule(Every(10 * SECOND)).next(Track(ANCHOR, cursor)) == at(30)


@given(lengths, st.integers(0, 10**16))
def test_every_slot_is_a_whole_number_of_steps_from_the_anchor(every, passed):
    cursor = ANCHOR.plus(timedelta(microseconds=passed))
    following = EverySchedule(Every(every)).next(Track(ANCHOR, cursor))
    assert (following.mono - ANCHOR.mono) % to_us(every) == 0
    assert 0 < following.mono - cursor.mono <= to_us(every)
    assert following.wall - ANCHOR.wall == timedelta(microseconds=following.mono - ANCHOR.mono)


def test_after_end_counts_from_the_end_of_the_run():
    schedule = EverySchedule(Every(10 * SECOND, after_end=True))
    assert schedule.waits_for_end
    assert schedule.next(Track(ANCHOR)) == ANCHOR
    assert schedule.next(Track(ANCHOR, ANCHOR, last_end=at(7.25))) == at(17.25)


def test_after_end_a_slot_without_a_run_counts_as_if_it_had_ended_at_once():
    schedule = EverySchedule(Every(10 * SECOND, after_end=True))
    assert schedule.next(Track(ANCHOR, at(17), last_end=at(7))) == at(27)
    assert schedule.next(Track(ANCHOR, at(17), last_end=None)) == at(27)


def test_after_end_without_a_distance_begins_at_the_end_of_the_run():
    schedule = EverySchedule(Every(timedelta(0), after_end=True))
    assert schedule.next(Track(ANCHOR)) == ANCHOR
    assert schedule.next(Track(ANCHOR, ANCHOR, last_end=at(7))) == at(7)
    assert schedule.next(Track(ANCHOR, ANCHOR, last_end=ANCHOR)) == at(0.000001)
    assert schedule.next(Track(ANCHOR, at(17), last_end=None)) == at(17.001), "the shortest interval"


@given(
    lengths,
    st.integers(0, 2**53 - 1).map(lambda n: n / 2**53),
    st.text(max_size=5),
    st.fractions(0, 1),
    st.none() | lengths,
)
def test_jitter_only_delays_and_never_reaches_the_next_slot(every, draw, job, share, span):
    for mode in ("stable", "random"):
        jitter = Jitter(span, None, mode) if span else Jitter(None, share, mode)
        schedule = EverySchedule(Every(every, jitter=jitter))
        delay = schedule.delay(job, ANCHOR, draw)
        width = to_us(min(every, span)) if span else to_us(every) * share
        assert timedelta(0) <= delay < every
        assert to_us(delay) <= width
        if mode == "stable":
            assert delay == schedule.delay(job, at(99), 0.5)


def test_stable_jitter_spreads_jobs_over_the_whole_width():
    schedule = EverySchedule(Every(100 * SECOND, jitter=Jitter(share=Fraction(1))))
    delays = sorted(schedule.delay(f"job{n}", ANCHOR, 0.0) for n in range(200))
    assert delays[0] < 5 * SECOND
    assert delays[-1] > 95 * SECOND
    assert max(b - a for a, b in pairwise(delays)) < 8 * SECOND


def test_no_jitter_means_no_delay():
    assert EverySchedule(Every(SECOND)).delay("job", ANCHOR, 0.99) == timedelta(0)
