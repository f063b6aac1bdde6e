"""Limits that cannot hold their jobs are named, with the jobs; all others are not."""

from fractions import Fraction

import pytest

from repeater.jobfile.limit_capacity import mean_rate, overcommitted_limits
from tests.unit.jobfile.loading import job, road

DAY = 86_400_000_000


def told(text):
    return [message for _, message in overcommitted_limits(road(text).jobfile)]


def test_a_limit_too_small_for_its_jobs_is_named_with_the_largest_users():
    text = """
        [limits.api]
        rate = "10/1m"
        [jobs]
        a = { command = "true", schedule = "every 5s", limit = "api" }
        b = { command = "true", schedule = "* * * * *", limit = "api" }
        c = { command = "true", schedule = "every 1s" }
        """
    assert told(text) == ["limit `api` allows 10 starts in 1m, its jobs ask for 13: `a` 12, `b` 1"]


def test_a_limit_that_is_full_to_the_brim_is_well():
    text = '[limits.api]\nrate = "10/1m"\n[jobs.a]\ncommand = "true"\nlimit = "api"\nschedule = "every {}"\n'
    assert told(text.format("6s")) == []
    assert told(text.format("5999999us")) != []


def test_disabled_and_waiting_jobs_need_no_capacity():
    text = """
        [limits.api]
        rate = "1/1h"
        [jobs]
        a = { command = "true", schedule = "every 1s", limit = "api", enabled = false }
        b = { command = "true", schedule = { every = "1s", after_end = true }, limit = "api" }
        c = { command = "true", schedule = { rate = "100/1s" }, limit = "api" }
        """
    assert told(text) == []


@pytest.mark.parametrize(
    ("expression", "a_day"),
    [
        ("* * * * *", 1440), ("*/15 * * * *", 96), ("0 9-17 * * *", 9), ("0 0 * * 1", Fraction(209, 1461)),
        ("0 0 1 * *", Fraction(48, 1461)), ("0 0 29 2 *", Fraction(1, 1461)), ("0 0 13 * 5", Fraction(250, 1461)),
    ],
)  # fmt: skip
def test_the_mean_rate_of_a_cron_job_counts_its_times_and_its_days(expression, a_day):
    assert mean_rate(job(f'schedule = "{expression}"')) * DAY == a_day
