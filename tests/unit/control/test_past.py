"""What a person means by a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from repeater.control.past import parse_moment

NOW = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "begin", "span"),
    [
        ("2026-11-26T02:21:00Z", "02:21:00", timedelta(seconds=1)),
        ("2026-11-26T03:21:00+01:00", "02:21:00", timedelta(seconds=1)),
        ("2026-11-26 02:21:00", "02:21:00", timedelta(seconds=1)),
        ("2026-11-26T02:21:07Z", "02:21:07", timedelta(seconds=1)),
        ("2026-11-26T02:21Z", "02:21:00", timedelta(minutes=1)),
        ("2026-11-26T03:21+01:00", "02:21:00", timedelta(minutes=1)),
        ("2026-11-26 02:21", "02:21:00", timedelta(minutes=1)),
        ("02:21:00", "02:21:00", timedelta(seconds=1)),
        ("02:21", "02:21:00", timedelta(minutes=1)),
        ("2026-11-26", "00:00:00", timedelta(days=1)),
    ],
)
def test_a_time_lasts_as_long_as_what_it_names(text: str, begin: str, span: timedelta) -> None:
    moment = parse_moment(text, UTC, NOW)
    assert (moment.begin.isoformat(), moment.span) == (f"2026-11-26T{begin}+00:00", span)
