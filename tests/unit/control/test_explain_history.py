"""What a person means by a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.control.commands.explain_history import explain
from repeater.model.history_meta import HistoryMeta, SupervisorRun
from repeater.model.moment import TimeRange, parse_moment
from repeater.model.time import from_epoch_us

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


# --- when no supervisor ran -----------------------------------------------------------------------------------------


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-26T{text}Z")


def downtime(moment: str, *lives: tuple[str, str | None], is_alive: bool = False) -> list[str]:
    """The codes and times that `why` says about a minute. `lives` are in the order of their record."""
    meta = HistoryMeta(tuple(SupervisorRun(at(began), at(ended) if ended else None, 1) for began, ended in lives))
    answer = explain(
        None,
        "a",
        parse_moment(f"2026-11-26T{moment}Z", UTC, NOW),
        lambda *_, **__: [],
        meta,
        at("23:00:00"),
        is_alive=is_alive,
    )
    return [
        " ".join([fact.code, *(f"{from_epoch_us(value):%H:%M}" for value in fact.detail.values())])
        for fact in answer.facts
        if fact.code != "not_active"
    ]


def test_downtime_lies_between_the_nearest_ends_of_sessions() -> None:
    lives = [("08:00:00", "09:00:00"), ("10:00:00", "11:00:00")]
    assert downtime("08:30:00", *lives) == []
    assert downtime("09:30:00", *lives) == ["supervisor_down 09:00 10:00"]
    assert downtime("11:30:00", *lives) == ["supervisor_down 11:00"]
    assert downtime("07:30:00", *lives) == ["lives_unknown_before 08:00"]
    assert downtime("12:00:00", ("08:00:00", "09:00:00"), ("10:00:00", None), is_alive=True) == []


def test_sessions_with_a_clock_ahead_do_not_swap_the_ends_of_a_downtime() -> None:
    lives = [("13:00:00", "13:05:00"), ("10:10:00", "10:20:00"), ("10:30:00", "10:40:00")]
    assert downtime("10:25:00", *lives) == ["clock_was_set_back 13:05 10:10", "supervisor_down 10:20 10:30"]
    assert downtime("12:00:00", *lives) == ["clock_was_set_back 13:05 10:10", "supervisor_down 10:40 13:00"]
    assert downtime("14:00:00", *lives) == ["supervisor_down 13:05"]


def test_a_session_with_a_clock_set_back_has_no_downtime_inside() -> None:
    assert downtime("12:00:00", ("13:00:00", "10:30:00")) == ["clock_was_set_back 13:00 10:30"]
    assert downtime("22:59:00", ("23:30:00", None), is_alive=True) == ["lives_unknown_before 23:00"]


@given(
    st.lists(st.tuples(st.integers(0, 86_399), st.one_of(st.none(), st.integers(0, 86_399))), min_size=1, max_size=6),
    st.integers(0, 82_800),
    st.booleans(),
)
def test_a_downtime_begins_before_it_ends_whatever_the_clock_did(
    lives: list[tuple[int, int | None]], moment: int, is_alive: bool
) -> None:
    begin = at("00:00:00")
    runs = tuple(
        SupervisorRun(begin + timedelta(seconds=began), None if ended is None else begin + timedelta(seconds=ended), 1)
        for began, ended in lives
    )
    when = TimeRange("", begin + timedelta(seconds=moment), timedelta(seconds=1), UTC)
    answer = explain(None, "a", when, lambda *_, **__: [], HistoryMeta(runs), at("23:00:00"), is_alive=is_alive)
    for fact in answer.facts:
        since, until = fact.detail.get("since"), fact.detail.get("until")
        if fact.code == "supervisor_down":
            assert from_epoch_us(since) <= when.begin
            assert until is None or when.begin <= from_epoch_us(until)
        if fact.code == "clock_was_set_back":
            assert from_epoch_us(until) <= when.begin <= from_epoch_us(since)
