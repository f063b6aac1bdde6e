"""The schedule that counts from the end of the run before, at a pace that changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.time import Instant
from repeater.schedule.adaptive_schedule import AdaptiveSchedule
from repeater.schedule.base import Track
from tests.fakes.clock import FakeClock

SECOND = timedelta(seconds=1)
BEGIN = FakeClock().now()
SCHEDULE = AdaptiveSchedule(10 * SECOND)


def after(seconds: float) -> Instant:
    return BEGIN.plus(seconds * SECOND)


@pytest.mark.parametrize(
    ("cursor", "last_end", "pace", "wanted"),
    [
        (None, None, None, 0),
        (0, None, None, 10),
        (0, 3, None, 13),
        (0, 3, 20, 23),
        (13, 3, None, 23),  # the slot of 13 s passed without a run
        (23, 3, None, 33),
        (13, 3, 20, 23),
        (30, 3, 20, 50),
    ],
)
def test_a_slot_without_a_run_counts_as_an_end(
    cursor: float | None, last_end: float | None, pace: float | None, wanted: float
) -> None:
    track = Track(
        BEGIN,
        None if cursor is None else after(cursor),
        None if last_end is None else after(last_end),
        pace=None if pace is None else pace * SECOND,
    )
    assert SCHEDULE.next(track) == after(wanted)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_the_next_slot_lies_after_the_cursor(cursor: int, last_end: int, pace: int) -> None:
    track = Track(BEGIN, after(cursor), after(last_end), pace=pace * SECOND)
    assert SCHEDULE.next(track).mono > after(cursor).mono
