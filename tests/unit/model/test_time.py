"""Two clocks, and instants as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.time import Instant, Mono, after, from_rfc3339, rfc3339, to_us

NOW = Instant(datetime(2026, 11, 23, 3, tzinfo=UTC), Mono(1_000_000))
lengths = st.integers(-(10**15), 10**15).map(lambda n: timedelta(microseconds=n))


@given(lengths)
def test_both_clocks_move_by_the_same_length_exactly(length):
    later = NOW.plus(length)
    assert later.wall - NOW.wall == length
    assert later.mono - NOW.mono == to_us(length) == length // timedelta(microseconds=1)
    assert after(NOW.mono, length) == later.mono
    assert NOW.at_wall(later.wall) == later == NOW.at_mono(later.mono)


def test_micros_are_exact_where_a_float_is_not():
    length = timedelta(days=36_525, microseconds=1)
    assert to_us(length) == 36_525 * 86_400 * 1_000_000 + 1
    assert to_us(timedelta(microseconds=-1)) == -1


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (datetime(2026, 11, 23, 3, tzinfo=UTC), "2026-11-23T03:00:00Z"),
        (datetime(2026, 11, 23, 3, 0, 0, 5, tzinfo=UTC), "2026-11-23T03:00:00.000005Z"),
        (datetime(2026, 11, 23, 3, tzinfo=timezone(timedelta(hours=5))), "2026-11-22T22:00:00Z"),
        (None, None),
    ],
)
def test_instants_are_written_in_utc(wall, text):
    assert rfc3339(wall) == text
    assert from_rfc3339(text) == wall


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_written_instant_reads_back_as_itself(wall):
    assert from_rfc3339(rfc3339(wall)) == wall


@pytest.mark.parametrize("text", ["2026-11-23T03:00:00", "2026-11-23", "now", "", "2026-13-01T00:00:00Z"])
def test_a_text_without_an_offset_is_not_an_instant(text):
    with pytest.raises(ValueError, match=r"offset|isoformat|month"):
        from_rfc3339(text)
