"""Intervals that follow the machine, as worked examples and as laws."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import LoadAware
from repeater.schedule.load_aware import LoadReadings, explain, interval
from repeater.sentences import sentence

SECOND = timedelta(seconds=1)
SPEC = LoadAware(base=10 * SECOND, min=5 * SECOND, max=60 * SECOND)


@pytest.mark.parametrize(
    ("cpu", "wanted"),
    [(0.0, 5), (0.5, 6), (0.7, 10), (0.85, 20), (0.9, 30), (0.95, 60), (1.0, 60), (1.2, 60)],
)
def test_the_interval_grows_as_the_free_cpu_shrinks(cpu: float, wanted: float) -> None:
    assert interval(SPEC, LoadReadings(cpu=cpu)) / SECOND == pytest.approx(wanted)


@pytest.mark.parametrize(("memory", "wanted"), [(0.6, 5), (0.8, 10), (0.9, 20)])
def test_the_interval_grows_as_the_free_memory_shrinks(memory: float, wanted: float) -> None:
    assert interval(SPEC, LoadReadings(memory=memory)) / SECOND == pytest.approx(wanted)


@pytest.mark.parametrize(("load", "wanted"), [(0.0, 5), (0.7, 7), (1.0, 10), (3.0, 30), (64.0, 60)])
def test_the_interval_is_in_proportion_to_the_load_average(load: float, wanted: float) -> None:
    assert interval(SPEC, LoadReadings(load=load)) / SECOND == pytest.approx(wanted)


def test_the_busiest_reading_decides_and_is_named() -> None:
    readings = LoadReadings(cpu=0.1, memory=0.9, load=1.5)
    assert interval(SPEC, readings) / SECOND == pytest.approx(20)
    assert sentence(explain(SPEC, LoadReadings(cpu=0.1, memory=0.6, load=1.5))) == (
        "every 15s: load 1.50 (target 1), above the target"
    )
    assert sentence(explain(SPEC, LoadReadings(cpu=0.5))).endswith("cpu 50% (target 70%), not above the target")


def test_without_a_reading_the_interval_is_base() -> None:
    assert interval(SPEC, None) == interval(SPEC, LoadReadings()) == SPEC.base
    assert sentence(explain(SPEC, None)) == "every 10s: no reading yet"


def test_by_default_a_free_machine_is_used_at_base() -> None:
    assert interval(LoadAware(), LoadReadings(0.0, 0.0, 0.0)) == LoadAware().base


def test_a_target_of_all_there_is_never_slows_down_before_the_end() -> None:
    spec = LoadAware(base=10 * SECOND, min=10 * SECOND, max=60 * SECOND, memory=Fraction(1))
    assert interval(spec, LoadReadings(memory=0.99)) == spec.base


READINGS = st.builds(
    LoadReadings, st.none() | st.floats(0, 2), st.none() | st.floats(0, 2), st.none() | st.floats(0, 1e300)
)
SPECS = st.builds(
    lambda bounds, cpu, memory, load: LoadAware(bounds[1], bounds[0], bounds[2], cpu, memory, load),
    st.lists(st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525)), min_size=3, max_size=3).map(sorted),
    st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6),
    st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6),
    st.floats(1e-3, 1e3),
)


@given(SPECS, READINGS)
def test_the_interval_is_always_within_its_bounds(spec: LoadAware, readings: LoadReadings) -> None:
    assert spec.min <= interval(spec, readings) <= spec.max
    assert sentence(explain(spec, readings))


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_busier_machine_never_gives_a_shorter_interval(one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert interval(SPEC, LoadReadings(cpu=low)) <= interval(SPEC, LoadReadings(cpu=high))
