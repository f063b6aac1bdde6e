"""Limits that a daemon holds for several supervisors: asking, waiting, giving back, and life without it. Virtual time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from repeater._lazy_dataclasses import replace
from repeater.engine.simulate import simulate
from repeater.model.events import Warned
from repeater.model.run import Exit
from repeater.model.spec import Every, HttpAware, JobFile, Limit, Manual, Once, Overlap, Pool, RateLimited, Retry, Stop
from repeater.model.units import parse_rate
from repeater.schedule.backoff import Backoff
from tests.engine.stage import Stage, job
from tests.fakes.clock import FakeClock
from tests.fakes.rate_limiter import FakeDaemon
from tests.fakes.spawn import Act, Said, seconds
from tests.fakes.text import text_of

FAIL = Exit(code=1)


def shared(rate: str, fail: Any = "open", name: str = "api") -> Limit:
    return Limit(name, parse_rate(rate), shared=True, fail=fail)


def holds(starts: list[float], count: int, window: float) -> bool:
    ordered = sorted(round(start * 1e6) for start in starts)
    return all(late - early >= window * 1e6 for early, late in zip(ordered, ordered[count:], strict=False))


def several(number: int, script: Any = None, **keys: Any) -> tuple[FakeClock, FakeDaemon, list[Stage]]:
    clock = FakeClock()
    daemon = FakeDaemon(clock)
    return clock, daemon, [Stage(script, clock=clock, daemon=daemon, seed=one, **keys) for one in range(number)]


def warnings(stage: Stage) -> list[str]:
    return [str(text_of(event.reason)) for event in stage.events if isinstance(event, Warned)]


def held(stage: Stage, name: str) -> str | None:
    return text_of(stage.engine.jobs[name].open[0].wait_reason)


def test_supervisors_with_a_shared_limit_use_all_of_it_and_no_more() -> None:
    lag = iter(range(1_000_000))
    acts = lambda launch: Act(starting=timedelta(milliseconds=next(lag) * 37 % 90), lasts=seconds(0.2))  # noqa: E731
    clock, _, stages = several(4, acts)
    for stage in stages:
        jobs = [job(name, Every(seconds(1)), limit="api", overlap=Overlap("latest")) for name in "ab"]
        stage.apply(*jobs, limits=(shared("3/2s"),))
    clock.advance(timedelta(seconds=60))
    starts = [start for stage in stages for name in "ab" for start in stage.starts(name)]
    assert holds(starts, 3, 2)
    assert len(starts) >= 0.95 * 90


def test_a_held_slot_names_its_limit_and_the_time() -> None:
    clock, _, (one, two) = several(2)
    for stage in (one, two):
        stage.apply(job("a", Once(), limit="api"), limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=1))
    assert one.starts("a") == [0]
    assert held(two, "a") == "limit `api` (1/10s, shared) until 2026-01-01T00:00:10Z"
    clock.advance(timedelta(seconds=10))
    assert two.starts("a") == [10]


def test_a_slot_that_ends_while_it_waits_takes_no_place_from_others() -> None:
    clock, daemon, (one, two, three) = several(3)
    for stage in (one, two, three):
        stage.apply(job("a", Manual(), limit="api"), limits=(shared("1/10s"),))
    for stage in (one, two, three):
        stage.request("trigger", "a")
    two.request("stop", "a")
    assert daemon.book.stats(clock.now())["waiting"] == 1
    clock.advance(timedelta(seconds=10))
    assert three.starts("a") == [10]


def test_a_supervisor_that_exited_gives_back_what_it_did_not_use() -> None:
    clock, _, (one, two) = several(2, {"a": Act(starting=seconds(5))})
    for stage in (one, two):
        stage.apply(job("a", Once(), limit="api"), limits=(shared("1/10s"),))
    assert held(two, "a") is not None
    one.supervisor.close()
    one.quota.close()
    clock.advance(timedelta(seconds=6))
    assert two.starts("a") == [5]


def test_a_start_that_failed_is_there_for_others_at_once() -> None:
    clock, _, (one, two) = several(2)
    one.script["a"] = Act(refusal="no such command", starting=seconds(1))
    one.apply(job("a", Once(), limit="api"), limits=(shared("1/10s"),))
    two.apply(job("b", Once(), limit="api"), limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=2))
    assert two.starts("b") == [1]


def test_a_grant_that_a_pool_keeps_from_being_used_is_given_back() -> None:
    clock, daemon, (one, two) = several(2, {"long": Act(lasts=seconds(60))})
    one.apply(
        job("first", Manual(), limit="api"),
        job("long", Manual(), pool="db"),
        job("a", Manual(), limit="api", pool="db"),
        limits=(shared("1/10s"),), pools=(Pool("db", 1),),
    )  # fmt: skip
    two.apply(job("b", Manual(), limit="api"), limits=(shared("1/10s"),))
    one.request("trigger", "first")
    one.request("trigger", "a")  # it waits at the daemon, and has its place in the pool still to take
    one.request("trigger", "long")
    two.request("trigger", "b")
    clock.advance(timedelta(seconds=11))
    assert two.starts("b") == [10]
    assert daemon.book.stats(clock.now())["resources"][0]["used"] == 1
    assert held(one, "a") == "pool `db` is full"
    clock.advance(timedelta(seconds=60))
    assert one.starts("a") == [60]


def test_every_attempt_needs_a_grant_and_a_retry_pattern_reserves_it() -> None:
    clock, _, (one, two) = several(2, {"a": Act(exit=FAIL)})
    pattern = (seconds(0), seconds(3), seconds(6))
    limits = (shared("3/20s"),)
    schedule = RateLimited(parse_rate("100/1s"), pattern)
    one.apply(job("a", schedule, limit="api", stop=Stop(times=1)), limits=limits)
    two.apply(job("b", Once(), limit="api"), limits=limits)
    clock.advance(timedelta(seconds=15))
    assert [row.attempts for row in one.rows("a")] == [3]
    assert two.starts("b") == []  # two of the three places were reserved ahead
    clock.advance(timedelta(seconds=10))
    assert two.starts("b") == [20]


def test_the_slot_after_a_pattern_of_three_reserves_three_places_again() -> None:
    clock, daemon, (one, two) = several(2, {"a": Act(exit=FAIL)})
    limits = (shared("3/20s"),)
    schedule = RateLimited(parse_rate("100/1s"), (seconds(0), seconds(3), seconds(6)))
    one.apply(job("a", schedule, limit="api", stop=Stop(times=2)), limits=limits)
    clock.advance(timedelta(seconds=10))
    two.apply(job("b", Once(), limit="api"), limits=limits)
    clock.advance(timedelta(seconds=60))
    assert one.starts("a") == [0, 20]
    assert [row.attempts for row in one.rows("a")] == [3, 3]
    assert [(row.ended - row.started).total_seconds() for row in one.rows("a") if row.ended and row.started] == [6, 6]
    assert two.starts("b") == [40]  # the places at 20, 23 and 26 were taken before it asked
    assert daemon.refused == []
    assert sum(one["reserved"] for one in daemon.book.stats(clock.now())["resources"]) == 0


def test_a_retry_with_a_reserved_permit_does_not_wait_behind_other_slots() -> None:
    clock, daemon, (one,) = several(1, {"a": Act(exit=FAIL)})
    schedule = RateLimited(parse_rate("100/1s"), (seconds(0), seconds(3), seconds(6)))
    others = [job(name, Manual(), limit="api") for name in "bc"]
    one.apply(job("a", schedule, limit="api", stop=Stop(times=1)), *others, limits=(shared("3/20s"),))
    clock.advance(timedelta(seconds=1))
    for name in "bc":
        one.request("trigger", name)
    clock.advance(timedelta(seconds=40))
    (row,) = one.rows("a")
    assert (row.attempts, row.ended - row.nominal) == (3, seconds(6))  # type: ignore[operator]
    assert [one.starts(name) for name in "bc"] == [[20], [23]]
    assert daemon.refused == []
    assert sum(one["reserved"] for one in daemon.book.stats(clock.now())["resources"]) == 0


def test_attempts_not_reserved_together_are_requested_one_by_one() -> None:
    clock, daemon, (one,) = several(1, {"a": Act(exit=FAIL)})
    schedule = RateLimited(parse_rate("100/1s"), (seconds(0), seconds(3), seconds(6)))
    one.apply(job("a", schedule, limit="api", stop=Stop(times=1)), limits=(shared("2/20s"),))
    clock.advance(timedelta(seconds=4))
    assert daemon.book.stats(clock.now())["resources"][0]["reserved"] == 0
    clock.advance(timedelta(seconds=60))
    (row,) = one.rows("a")
    assert row.attempts == 3
    assert (row.ended - row.nominal).total_seconds() == 20  # type: ignore[operator]
    assert daemon.refused == []
    assert warnings(one) == []


def test_places_that_a_success_makes_needless_are_given_back() -> None:
    clock, _, (one, two) = several(2)
    schedule = RateLimited(parse_rate("100/1s"), (seconds(0), seconds(3)))
    one.apply(job("a", schedule, limit="api", stop=Stop(times=1)), limits=(shared("2/20s"),))
    two.apply(job("b", Once(), limit="api"), limits=(shared("2/20s"),))
    clock.advance(timedelta(seconds=1))
    assert two.starts("b") == [0]


def test_retries_without_a_pattern_request_like_first_attempts() -> None:
    clock, _, (one,) = several(1, {"a": [Act(exit=FAIL), Act()]})
    retry = Retry(attempts=2, backoff=Backoff("fixed", base=seconds(1)))
    one.apply(job("a", Once(), limit="api", retry=retry), limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=30))
    row = one.rows("a")[0]
    assert (row.attempts, text_of(row.reason)) == (2, "success")
    assert row.ended is not None
    assert (row.ended - row.nominal).total_seconds() == 10


def test_a_forced_run_starts_without_a_grant_and_counts_for_all() -> None:
    clock, _, (one, two) = several(2)
    for stage in (one, two):
        stage.apply(job("a", Manual(), limit="api"), limits=(shared("1/10s"),))
    one.request("trigger", "a")
    clock.advance(timedelta(seconds=5))
    two.request("trigger", "a", force=True)
    one.request("trigger", "a")
    clock.advance(timedelta(seconds=20))
    assert two.starts("a") == [5]
    assert one.starts("a") == [0, 15]


def test_a_push_back_to_one_job_delays_all_jobs_of_the_limit() -> None:
    clock, _, (one, two) = several(2, {"a": Act(says=(Said(b"HTTP/1.1 429\r\nRetry-After: 30\r\n\r\n"),))})
    aware = HttpAware()
    one.apply(job("a", Once(), limit="api", http_aware=aware), limits=(shared("9/1s"),))
    clock.advance(timedelta(seconds=1))
    two.apply(job("b", Once(), limit="api"), limits=(shared("9/1s"),))
    clock.advance(timedelta(seconds=60))
    assert two.starts("b") == [30]


# --- without the daemon ----------------------------------------------------------------------------------------------


def test_without_a_daemon_an_open_limit_is_local_and_that_is_reported_once() -> None:
    clock, daemon, (one, two) = several(2)
    daemon.running = False
    for stage in (one, two):
        jobs = [job(name, Once(), limit="api") for name in "abc"]
        stage.apply(*jobs, limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=30))
    for stage in (one, two):
        assert [stage.starts(name) for name in "abc"] == [[0], [10], [20]]
        assert warnings(stage) == [
            "cannot reach the rate-limit daemon at `fake`: none is running; enforcing limit `api` locally until it is back"
        ]


def test_without_a_daemon_a_closed_limit_starts_nothing_until_it_is_there() -> None:
    clock, daemon, (one,) = several(1)
    daemon.running = False
    one.apply(job("a", Once(), limit="api"), limits=(shared("1/10s", "closed"),))
    clock.advance(timedelta(seconds=20))
    assert one.starts("a") == []
    assert held(one, "a") == (
        "limit `api` (1/10s, shared): cannot reach the rate-limit daemon at `fake`: none is running"
    )
    daemon.start()
    clock.advance(timedelta(seconds=2))
    assert one.starts("a") == [21]
    assert warnings(one)[1:] == ["quota_found"]


def test_starts_without_the_daemon_are_reported_when_it_is_back() -> None:
    clock, daemon, (one, two) = several(2)
    daemon.running = False
    one.apply(job("a", Once(), limit="api"), limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=3))
    daemon.start()
    clock.advance(timedelta(seconds=1))
    two.apply(job("b", Once(), limit="api"), limits=(shared("1/10s"),))
    clock.advance(timedelta(seconds=20))
    assert one.starts("a") == [0]
    assert two.starts("b") == [10]


def test_a_crashed_daemon_blocks_no_waiting_slot_and_loses_no_start() -> None:
    clock, daemon, stages = several(5)
    for stage in stages:
        stage.apply(
            job("a", Every(seconds(1)), limit="api", overlap=Overlap("latest")), limits=(shared("2/5s", "closed"),)
        )
    clock.advance(timedelta(seconds=12))
    daemon.kill()
    clock.advance(timedelta(seconds=4))
    daemon.start()
    clock.advance(timedelta(seconds=24))
    starts = [start for stage in stages for start in stage.starts("a")]
    assert holds(starts, 2, 5)
    assert len(starts) >= 14


def test_an_edited_limit_is_requested_again() -> None:
    clock, _, (one,) = several(1)
    jobs = [job(name, Once(), limit="api") for name in "ab"]
    one.apply(*jobs, limits=(shared("1/1000s"),))
    clock.advance(timedelta(seconds=1))
    assert held(one, "b") is not None
    one.apply(*jobs, limits=(shared("2/1000s"),))
    clock.advance(timedelta(seconds=1))
    assert one.starts("b") == [1]
    one.apply(*jobs, job("c", Once(), limit="api"), limits=(shared("2/1000s"),))
    one.apply(*jobs, job("c", Once(), limit="api"), limits=(Limit("api", parse_rate("9/1s")),))
    clock.advance(timedelta(seconds=1))
    assert one.starts("c") == [2]


def test_a_simulation_takes_a_shared_limit_for_its_own() -> None:
    clock = FakeClock()
    jobs = tuple(job(name, Once(), limit="api") for name in "ab")
    rows = list(simulate(JobFile("x", jobs, (), (shared("1/10s", "closed"),)), clock.now(), seconds(60)))
    assert [(row.started - row.nominal).total_seconds() for row in rows if row.started] == [0, 10]


@pytest.mark.parametrize("former", [None, "other", "api"])
def test_a_shared_limit_counts_an_attempt_that_starts_after_its_job_joins(former: str | None) -> None:
    clock, daemon, (one, two) = several(2, {"joins": Act(starting=seconds(3))})
    user, joins, limit = job("user", Manual(), limit="api"), job("joins", Manual(), limit=former), shared("2/10s")
    before = replace(limit, shared=False)
    one.apply(user, joins, limits=(before if former == "api" else limit, Limit("other", parse_rate("9/1s"))))
    two.apply(user, limits=(limit,))
    two.request("trigger", "user")
    one.request("trigger", "joins")
    clock.advance(timedelta(seconds=1))
    one.apply(user, replace(joins, limit="api"), limits=(limit,))
    clock.advance(timedelta(seconds=4))
    two.request("trigger", "user")
    clock.advance(timedelta(seconds=15))
    assert one.starts("joins") == [3]
    assert two.starts("user") == [0, 10]
    assert daemon.refused == []
