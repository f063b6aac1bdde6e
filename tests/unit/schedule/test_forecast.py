"""Starts to come, as `rpr next` lists them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from repeater.model.spec import Always, At, Backoff, Cron, Every, Growing, Jitter, JobSpec, Manual, Once, ProcessSpec
from repeater.model.time import Instant, Mono
from repeater.schedule.factory import schedule_for
from repeater.schedule.forecast import starts

NOW = Instant(datetime(2026, 1, 1, 12, tzinfo=UTC), Mono(0))
MINUTE = timedelta(minutes=1)


def forecast(spec, count=3, **job):
    made = JobSpec("job", ProcessSpec("true"), spec, **job)
    return list(starts(made, schedule_for(made), NOW, count))


def test_starts_are_strictly_after_the_instant_asked_for():
    assert [start.nominal - NOW.wall for start in forecast(Every(MINUTE))] == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    assert [start.nominal.day for start in forecast(Cron("0 12 * * *"))] == [2, 3, 4]


@pytest.mark.parametrize("spec", [Once(), Manual(), Always(), Growing(Backoff()), At(NOW.wall)])
def test_a_schedule_that_time_alone_does_not_start_has_no_forecast(spec):
    assert forecast(spec) == []


def test_a_job_that_is_not_enabled_has_no_forecast():
    assert forecast(Every(MINUTE), enabled=False) == []


def test_of_a_schedule_that_waits_only_the_first_start_is_known():
    assert len(forecast(Every(MINUTE, after_end=True))) == 1
    assert len(forecast(At(NOW.wall + MINUTE))) == 1


def test_due_has_the_stable_jitter_and_nothing_of_the_random_one():
    stable = forecast(Every(MINUTE, jitter=Jitter(span=MINUTE)))
    assert len({start.due - start.nominal for start in stable}) == 1
    assert stable[0].due > stable[0].nominal
    assert all(
        start.due == start.nominal for start in forecast(Every(MINUTE, jitter=Jitter(span=MINUTE, mode="random")))
    )
