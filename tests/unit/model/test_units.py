"""Durations, rates, sizes and shares: one grammar each, exact values, and words for everything else."""

from __future__ import annotations

import time
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.units import (
    LONGEST,
    Rate,
    duration_text,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_share,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", timedelta(seconds=30)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("2d", timedelta(days=2)),
        ("1w2d", timedelta(days=9)),
        ("1.5h", timedelta(minutes=90)),
        ("0.000001s", timedelta(microseconds=1)),
        ("1us", timedelta(microseconds=1)),
        ("7µs", timedelta(microseconds=7)),
        ("7μs", timedelta(microseconds=7)),
        ("1m500ms", timedelta(seconds=60.5)),
        ("1h0m0s", timedelta(hours=1)),
        ("36525d", LONGEST),
        ("1m1ms", timedelta(seconds=60.001)),
        ("90m", timedelta(minutes=90)),
    ],
)
def test_a_duration_is_read_exactly(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    ["", "30", "1h30", "5 m", " 5m", "5m ", "5m\n", "1e9s", "1e9999s", "１０s", "٣s", "-5s", "+5s", "0s", "0", "nan", "inf", "infs",
     "s", "m", "1s1s", "1s1h", "1y", "1M", "1H", "1.s", ".5s", "1_000s", "0x10s", "1,5s", "1.5.5s", "PT5M", "00:30", "36526d",
     "0.1us", "1.0000001s", "100y", "\x005s", "5s\x00", "1h-30m", "9" * 10_240, "9" * 10_240 + "s", "1" + "0" * 18 + "s",
     "1s" * 5000, "½h", "5ｓ"],
)  # fmt: skip
def test_anything_else_is_not_a_duration(text):
    begin = time.monotonic()
    with pytest.raises(ValueError, match="found") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200
    assert time.monotonic() - begin < 1


def test_zero_is_a_duration_only_where_it_is_allowed():
    assert parse_duration("0s", zero=True) == timedelta(0)
    with pytest.raises(ValueError, match="more than zero"):
        parse_duration("0h0m", zero=False)


@given(st.integers(1, LONGEST // timedelta(microseconds=1)))
def test_a_formatted_duration_reads_back_as_itself(microseconds):
    length = timedelta(microseconds=microseconds)
    assert parse_duration(format_duration(length)) == length
    assert format_duration(-length) == "-" + format_duration(length)


@given(st.text(alphabet="0123456789.hmsdwuµ e-+", max_size=14) | st.text(max_size=10))
def test_no_text_breaks_the_parser_of_durations(text):
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) < length <= LONGEST
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(days=8), "8d"),
        (timedelta(microseconds=1_001_001), "1s1ms1us"),
        (timedelta(hours=-1), "-1h"),
    ],
)
def test_durations_are_written_short(length, text):
    assert format_duration(length) == text


# --- rates, sizes, shares ---------------------------------------------------------------------------------------


def test_a_rate_is_a_count_in_a_window():
    assert parse_rate("100/1h") == parse_rate("100/h") == Rate(100, timedelta(hours=1))
    assert parse_rate("5/1m30s") == Rate(5, timedelta(seconds=90))
    assert str(Rate(100, timedelta(hours=1))) == "100/1h"


@pytest.mark.parametrize(
    "text", ["", "100", "100/", "/1h", "0/1h", "-1/1h", "1.5/1h", "100/0s", "100/1", "1/1h/1h", "１/1h", "1 / 1h"]
)
def test_anything_else_is_not_a_rate(text):
    with pytest.raises(ValueError, match=r"found|in the rate"):
        parse_rate(text)


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**15))
def test_a_written_rate_reads_back_as_itself(count, microseconds):
    rate = Rate(count, timedelta(microseconds=microseconds))
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("10MB", 10_000_000),
        ("64KiB", 65_536),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1GiB", 1 << 30),
        ("1048576GiB", 1 << 50),
    ],
)
def test_a_size_is_read_exactly(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "10", "10 MB", "-1B", "1.5MB", "10mb", "10M", "1048577GiB", "9" * 5000 + "B", "１MB"]
)
def test_anything_else_is_not_a_size(text):
    with pytest.raises(ValueError, match="found"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_written_size_reads_back_as_itself(size):
    assert parse_size(format_size(size)) == size


def test_a_share_is_a_fraction_of_one():
    assert parse_share("10%") == Fraction(1, 10)
    assert parse_share("0.5%") == Fraction(1, 200)
    assert parse_share("100%") == 1
    assert parse_share("0%") == 0


@pytest.mark.parametrize("text", ["", "10", "%", "101%", "100.1%", "-1%", "1e1%", "10 %", "１%", "nan%"])
def test_anything_else_is_not_a_share(text):
    with pytest.raises(ValueError, match="expected a share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-1, "0s"), (0.0004, "400µs"), (0.0352, "35ms"), (0.9999, "999ms"), (1, "1.0s"), (4, "4.0s"),
        (9.99, "9.9s"), (10, "10s"), (59.9, "59s"), (125, "2m 05s"), (7500, "2h 05m"), (25_200, "7h"), (120, "2m"), (86_400, "1d"), (273_600, "3d 04h"),
    ],
)  # fmt: skip
def test_a_duration_for_people_is_short(seconds: float, text: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == text
