"""Times relative to now: ages, days by name, and times of day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from repeater.model.moment import parse_future, parse_past
from repeater.model.time import rfc3339

NOW = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)  # 11:30 in Berlin


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "past", "future"),
    [
        ("now", "2026-11-24T10:30:00Z", "2026-11-24T10:30:00Z"),
        ("1h30m", "2026-11-24T09:00:00Z", "2026-11-24T12:00:00Z"),
        ("today", "2026-11-23T23:00:00Z", "2026-11-23T23:00:00Z"),
        ("yesterday", "2026-11-22T23:00:00Z", "2026-11-22T23:00:00Z"),
        ("tomorrow", "2026-11-24T23:00:00Z", "2026-11-24T23:00:00Z"),
        ("07:00", "2026-11-24T06:00:00Z", "2026-11-25T06:00:00Z"),
        ("12:00", "2026-11-23T11:00:00Z", "2026-11-24T11:00:00Z"),
        ("11:30", "2026-11-24T10:30:00Z", "2026-11-25T10:30:00Z"),
        ("2026-11-20", "2026-11-19T23:00:00Z", "2026-11-19T23:00:00Z"),
        ("2026-11-20T03:00:00Z", "2026-11-20T03:00:00Z", "2026-11-20T03:00:00Z"),
    ],
)
def test_a_relative_time_counts_back_or_ahead(text: str, past: str, future: str) -> None:
    assert (rfc3339(parse_past(text, NOW)), rfc3339(parse_future(text, NOW))) == (past, future)


@pytest.mark.parametrize("text", ["", "soon", "25:99", "0s", "2026-13-01", "99999d"])
def test_any_other_text_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time like `07:00`"):
        parse_past(text, NOW)
