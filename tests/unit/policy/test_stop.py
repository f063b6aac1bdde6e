"""When a job is done, and what it says then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.model.reasons import Reason
from repeater.model.run import Progress
from repeater.model.spec import Stop
from repeater.policy.stop import met
from repeater.sentences import sentence

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FRESH = Progress("job", START)


def reason(
    stop: Stop,
    progress: Progress = FRESH,
    *,
    pattern: bool = False,
    last: bool | None = None,
    at: timedelta = timedelta(0),
):
    found = met(stop, progress, pattern_found=pattern, last_success=last, now=START + at, elapsed=at)
    return None if found is None else sentence(found)


@pytest.mark.parametrize(
    ("stop", "progress", "words"),
    [
        (Stop(times=1), replace(FRESH, runs=1), "1 run"),
        (Stop(times=10), replace(FRESH, runs=9), None),
        (Stop(times=10), replace(FRESH, runs=10), "10 runs"),
        (Stop(times=10), replace(FRESH, runs=12), "12 runs"),
        (Stop(successes=2), replace(FRESH, runs=9, successes=1), None),
        (Stop(successes=2), replace(FRESH, successes=2), "2 successes"),
        (Stop(failures=1), replace(FRESH, failures=1), "1 failure"),
        (Stop(failures=2), replace(FRESH, failures=1), None),
        (Stop(consecutive_failures=3), replace(FRESH, failures=9, streak=-2), None),
        (Stop(consecutive_failures=3), replace(FRESH, failures=9, streak=4), None),
        (Stop(consecutive_failures=3), replace(FRESH, failures=9, streak=-3), "3 consecutive failures"),
    ],
)
def test_counts_stop_when_they_are_reached(stop, progress, words):
    assert reason(stop, progress) == words


def test_nothing_asked_for_is_never_met():
    busy = replace(FRESH, runs=10**9, successes=10**9, failures=10**9, streak=-(10**9))
    for every in (False, True):
        assert reason(Stop(all=every), busy, pattern=True, last=False, at=timedelta(days=9999)) is None


def test_time_is_over_exactly_at_its_end():
    moment = timedelta(microseconds=1)
    assert reason(Stop(for_=MINUTE), at=MINUTE - moment) is None
    assert reason(Stop(for_=MINUTE), at=MINUTE) == "1m passed"
    until = Stop(until=START + MINUTE)
    assert reason(until, at=MINUTE - moment) is None
    assert reason(until, at=MINUTE) == "2026-01-01T00:01:00Z reached"


def test_for_is_measured_by_the_clock_that_is_never_set_if_it_is_given():
    stop, wrong = Stop(for_=MINUTE), START + timedelta(days=9)
    assert met(stop, FRESH, pattern_found=False, last_success=None, now=wrong, elapsed=MINUTE / 2) is None
    found = met(stop, FRESH, pattern_found=False, last_success=None, now=START, elapsed=MINUTE)
    assert found == Reason("time_passed", {"length": 60_000_000})


def test_the_verdict_of_a_run_stops_only_by_itself():
    assert reason(Stop(on_success=True), last=True) == "a run succeeded"
    assert reason(Stop(on_success=True), last=False) is None
    assert reason(Stop(on_success=True), replace(FRESH, successes=5, streak=5), last=None) is None
    assert reason(Stop(on_failure=True), last=False) == "a run failed"
    assert reason(Stop(on_failure=True), last=None) is None


@pytest.mark.parametrize(
    ("stop", "last", "code", "words"),
    [
        (Stop(on_exit=(2, 127)), False, 127, "a run exited with 127"),
        (Stop(on_exit=(2, 127)), False, 1, None),
        (Stop(on_exit=(0,)), True, 0, "a run exited with 0"),
        (Stop(except_exit=(75,)), False, 1, "a run exited with 1"),
        (Stop(except_exit=(75,)), False, 75, None),
        (Stop(except_exit=(75,)), True, 0, None),
        (Stop(on_exit=(2,), except_exit=(75,)), None, None, None),
    ],
)
def test_an_exit_code_stops_when_it_is_named_or_not(stop, last, code, words):
    found = met(stop, FRESH, pattern_found=False, last_success=last, now=START, last_exit=code)
    assert (None if found is None else sentence(found)) == words


def test_a_pattern_stops_when_it_was_found():
    assert reason(Stop(pattern="x"), pattern=True) == "output matched the stop pattern"
    assert reason(Stop(pattern="x")) is None
    assert reason(Stop(times=2), pattern=True) is None


def test_all_wants_every_condition_and_names_them():
    stop = Stop(times=3, successes=2, for_=MINUTE, all=True)
    done = replace(FRESH, runs=3, successes=2)
    assert reason(stop, done, at=MINUTE) == "3 runs, 2 successes, 1m passed"
    assert reason(stop, done) is None
    assert reason(stop, replace(done, successes=1), at=MINUTE) is None


def test_all_remembers_the_last_verdict_at_a_deadline():
    stop = Stop(for_=MINUTE, on_success=True, all=True)
    assert reason(stop, replace(FRESH, streak=2), at=MINUTE) == "1m passed, a run succeeded"
    assert reason(stop, replace(FRESH, streak=-2), at=MINUTE) is None


@given(
    st.none() | st.integers(1, 5), st.none() | st.integers(1, 5), st.none() | st.integers(1, 100),
    st.integers(0, 6), st.integers(0, 6), st.integers(0, 120),
)  # fmt: skip
def test_any_is_met_where_one_condition_is_and_all_where_each_is(times, failures, minutes, runs, failed, passed):
    given_ = {"times": times, "failures": failures, "for_": minutes and minutes * MINUTE}
    progress = replace(FRESH, runs=runs, failures=failed)
    alone = [reason(Stop(**{key: value}), progress, at=passed * MINUTE) for key, value in given_.items() if value]
    assert (reason(Stop(**given_), progress, at=passed * MINUTE) is not None) == any(alone)
    met_all = reason(Stop(**given_, all=True), progress, at=passed * MINUTE) is not None
    assert met_all == (bool(alone) and all(alone))
