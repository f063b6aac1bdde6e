"""Which of the missed slots still run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.run import Slot
from repeater.model.spec import CatchUp
from repeater.policy.catchup import decide

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def ago(hours: float, jitter: timedelta = timedelta(0)) -> Slot:
    nominal = NOW - timedelta(hours=hours)
    return Slot("job", nominal, nominal + jitter)


def fates(catch_up: CatchUp, *hours: float) -> list[str]:
    return [f"{what} {why.code}" for _, what, why in decide(catch_up, [ago(n) for n in hours], NOW)]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("skip", ["skip missed", "skip missed", "skip missed"]),
        ("latest", ["skip missed", "skip missed", "run missed"]),
        ("earliest", ["run missed", "skip missed", "skip missed"]),
        ("all", ["run missed", "run missed", "run missed"]),
    ],
)
def test_each_kind_runs_its_share_of_three(kind, wanted):
    assert fates(CatchUp(kind), 3, 2, 1) == wanted


@pytest.mark.parametrize("kind", ["skip", "latest", "earliest", "all"])
def test_nothing_missed_is_nothing_to_do(kind):
    assert decide(CatchUp(kind), [], NOW) == []


def test_the_answer_is_oldest_first_whatever_the_order_asked_in():
    slots = [ago(1), ago(3), ago(2)]
    assert [slot for slot, *_ in decide(CatchUp("all"), slots, NOW)] == [ago(3), ago(2), ago(1)]


def test_slots_further_back_than_the_window_expire():
    catch_up = CatchUp("earliest", window=2 * HOUR)
    assert fates(catch_up, 3, 2, 1) == ["expire catch_up_window", "run missed", "skip missed"]


def test_the_start_deadline_counts_from_due_and_its_end_is_still_in_time():
    catch_up = CatchUp("all", start_deadline=HOUR)
    assert fates(catch_up, 1.001, 1) == ["expire start_deadline", "run missed"]
    late = decide(catch_up, [ago(1.5, jitter=30 * MINUTE)], NOW)
    assert [what for _, what, _ in late] == ["run"]


def test_latest_is_the_newest_that_is_not_too_late():
    assert fates(CatchUp("latest", start_deadline=HOUR), 3, 2) == ["expire start_deadline"] * 2


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(1, "sssr"), (2, "rssr"), (3, "rrsr"), (4, "rrrr"), (100, "rrrr")],
)
def test_too_many_collapse_into_the_newest(most, wanted):
    answers = decide(CatchUp("all", most=most), [ago(n) for n in (4, 3, 2, 1)], NOW)
    assert "".join(what[0] for _, what, _ in answers) == wanted
    assert {why.code for _, what, why in answers if what == "skip"} <= {"catch_up_max"}


@given(
    kind=st.sampled_from(["skip", "latest", "earliest", "all"]),
    hours=st.lists(st.floats(0, 100), max_size=30, unique=True),
    most=st.integers(1, 10),
    window=st.integers(1, 50),
    deadline=st.none() | st.integers(0, 50),
)
def test_every_slot_gets_one_fate_and_no_more_than_allowed_run(kind, hours, most, window, deadline):
    slots = list({slot.nominal: slot for slot in map(ago, hours)}.values())
    catch_up = CatchUp(kind, window * HOUR, most, None if deadline is None else deadline * HOUR)
    answers = decide(catch_up, slots, NOW)
    assert [slot.nominal for slot, *_ in answers] == sorted(slot.nominal for slot in slots)
    run = [slot for slot, what, _ in answers if what == "run"]
    assert len(run) <= {"skip": 0, "latest": 1, "earliest": 1, "all": most}[kind]
    assert all(NOW - slot.nominal <= catch_up.window for slot in run)
    if kind in ("latest", "all") and run:
        assert run[-1] == [slot for slot, what, _ in answers if what != "expire"][-1]
