"""Adaptive intervals, as worked examples and as laws."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.model.spec import Adaptive
from repeater.model.time import Instant, Mono
from repeater.schedule.adaptive import AdaptiveState, explain, interval, observe
from repeater.schedule.adaptive_schedule import AdaptiveSchedule
from repeater.schedule.base import Track
from repeater.sentences import sentence

MS = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
SPEC = Adaptive(target_latency=100 * MS)
OK, SLOW, FAST, FAILED = (True, 100 * MS), (True, 250 * MS), (True, 40 * MS), (False, 100 * MS)


def after(*runs: tuple[bool, timedelta], spec: Adaptive = SPEC, state: AdaptiveState | None = None) -> AdaptiveState:
    for success, latency in runs:
        state = observe(spec, state, success=success, latency=latency)
    assert state is not None
    return state


def paces(*runs: tuple[bool, timedelta], spec: Adaptive = SPEC) -> list[float]:
    return [interval(spec, after(*runs[: count + 1], spec=spec)) / SECOND for count in range(len(runs))]


def test_before_the_first_run_the_interval_is_base() -> None:
    assert interval(SPEC, None) == SPEC.base
    assert sentence(explain(SPEC, None)) == "every 1s: no run yet"


def test_every_slow_run_doubles_the_interval_up_to_max() -> None:
    assert paces(*[SLOW] * 7) == [2, 4, 8, 16, 32, 60, 60]


def test_every_fast_run_adds_a_tenth_of_the_base_rate_down_to_min() -> None:
    rates = [1 / pace for pace in paces(*[FAST] * 100)]
    assert rates[:10] == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0], abs=1e-4)
    assert rates[-1] == 10


def test_a_usual_run_leads_a_slow_job_back_to_base_and_no_further() -> None:
    assert paces(SLOW, *[OK] * 8)[1:] == pytest.approx([1.666666, 1.428571, 1.25, 1.111110, 1, 1, 1, 1], abs=1e-5)


def test_a_usual_run_does_not_slow_down_a_job_that_earned_speed() -> None:
    fast = after(FAST, FAST)
    assert after(OK, OK, state=fast).pace == fast.pace


def test_a_failure_doubles_the_interval_whatever_its_latency() -> None:
    state = after(OK, (False, timedelta(0)))
    assert state.pace == 2 * SECOND
    assert state.latency == 0.1


def test_the_circuit_opens_after_three_failures_or_six_for_a_proven_job() -> None:
    def opens_at(proven: int) -> int:
        state = after(*[OK] * proven) if proven else None
        count = 0
        while state is None or not state.open:
            state = after(FAILED, state=state)
            count += 1
        return count

    assert opens_at(0) == 3
    assert opens_at(100) == 6


@pytest.mark.parametrize(("every", "opens"), [(2, True), (3, False), (10, False)])
def test_the_circuit_follows_the_share_of_failures(every: int, opens: bool) -> None:
    state, opened = None, False
    for number in range(200):
        state = observe(SPEC, state, success=number % every != 0, latency=OK[1])
        opened = opened or state.open
    assert opened is opens


def test_an_open_circuit_waits_max_and_closes_at_base_after_a_good_trial() -> None:
    broken = after(FAILED, FAILED, FAILED)
    assert broken.open
    assert interval(SPEC, broken) == SPEC.max
    still = after(FAILED, state=broken)
    assert still.open
    assert interval(SPEC, still) == SPEC.max
    mended = after(SLOW, state=still)
    assert not mended.open
    assert interval(SPEC, mended) == SPEC.base
    assert after(FAILED, state=mended).open is False  # what was before is forgotten


def test_without_a_target_the_usual_latency_is_learnt() -> None:
    spec = Adaptive()
    assert paces(OK, (True, 199 * MS), spec=spec) == [1, 1]
    assert paces(OK, OK, (True, 200 * MS), spec=spec) == [1, 1, 2]
    assert paces(OK, OK, (True, 50 * MS), spec=spec)[2] == pytest.approx(10 / 11, abs=1e-5)
    settled = after(*[(True, 400 * MS)] * 80, state=after(OK, spec=spec), spec=spec)
    assert settled.usual == pytest.approx(0.4, abs=0.01)
    assert settled.pace == spec.base


def test_a_run_that_takes_no_time_is_fast_and_never_slow() -> None:
    spec = Adaptive()
    assert paces(*[(True, timedelta(0))] * 2, spec=spec)[1] < 1


def test_every_change_is_explained() -> None:
    assert sentence(explain(SPEC, after(SLOW))) == (
        "every 2s: 250ms is slow for 100ms: slower (success 93%, latency 250ms, target 100ms, circuit closed)"
    )
    assert "40ms is fast for 100ms: faster" in sentence(explain(SPEC, after(FAST)))
    assert "the run failed: slower" in sentence(explain(SPEC, after(FAILED)))
    assert "normal latency: back towards base" in sentence(explain(SPEC, after(SLOW, OK)))
    assert "normal latency: no change" in sentence(explain(SPEC, after(OK)))
    assert "35% of runs failed (limit 30%): the circuit is open" in sentence(explain(SPEC, after(*[FAILED] * 3)))
    assert "the trial run failed: the circuit stays open" in sentence(explain(SPEC, after(*[FAILED] * 4)))
    assert "the trial run succeeded: the circuit is closed" in sentence(explain(SPEC, after(*[FAILED] * 3, OK)))
    assert "usually 100ms, circuit closed" in sentence(explain(Adaptive(), after(OK, spec=Adaptive())))


def test_narrower_bounds_hold_at_once_after_an_edit() -> None:
    state = after(*[SLOW] * 5)
    assert interval(replace(SPEC, max=5 * SECOND), state) == 5 * SECOND
    assert interval(replace(SPEC, min=50 * SECOND), state) == 50 * SECOND


RUNS = st.lists(st.tuples(st.booleans(), st.timedeltas(timedelta(0), timedelta(days=2))), max_size=60)
SPECS = st.builds(
    lambda bounds, target, slow, fast, share: Adaptive(bounds[1], bounds[0], bounds[2], target, slow, fast, share),
    st.lists(st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525)), min_size=3, max_size=3).map(sorted),
    st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=1)),
    st.floats(1, 1e6),
    st.floats(1e-6, 1),
    st.floats(1e-6, 1),
)


@given(SPECS, RUNS)
def test_the_interval_stays_within_bounds_and_the_state_survives_a_restart(
    spec: Adaptive, runs: list[tuple[bool, timedelta]]
) -> None:
    state = None
    for success, latency in runs:
        state = observe(spec, state, success=success, latency=latency)
        assert spec.min <= interval(spec, state) <= spec.max
        assert AdaptiveState.from_json(json.loads(json.dumps(state.as_json()))) == state
        assert sentence(explain(spec, state)).startswith("every ")


@pytest.mark.parametrize(
    "damage",
    [{"pace": "1s"}, {"pace": -1}, {"pace": 10**30}, {"successes": float("nan")}, {"usual": -2}, {"latency": []}],
)
def test_a_state_that_makes_no_sense_is_none(damage: dict[str, object]) -> None:
    assert AdaptiveState.from_json(after(OK).as_json() | damage) is None
    assert AdaptiveState.from_json({}) is None


def test_the_next_slot_is_the_pace_after_the_last_end() -> None:
    schedule, anchor = AdaptiveSchedule(SECOND), Instant(datetime(2027, 1, 1, tzinfo=UTC), Mono(0))
    end = anchor.plus(3 * SECOND)
    assert schedule.next(Track(anchor)) == anchor
    assert schedule.next(Track(anchor, anchor, end)) == end.plus(SECOND)
    assert schedule.next(Track(anchor, anchor, end, pace=5 * SECOND)) == end.plus(5 * SECOND)
    assert schedule.next(Track(anchor, anchor, None, pace=5 * SECOND)) == anchor.plus(5 * SECOND)
    assert schedule.next(Track(anchor, end.plus(9 * SECOND), end)) == end.plus(10 * SECOND)
