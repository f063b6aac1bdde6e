"""Limits of starts, rates, push-back, and intervals that adapt, as the production engine has them. Virtual time."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from repeater._lazy_dataclasses import replace
from repeater.engine.simulate import simulate
from repeater.model.events import IntervalChanged, RunBegan, Warned
from repeater.model.run import Exit
from repeater.model.spec import (
    Adaptive,
    CatchUp,
    Every,
    HttpAware,
    JobFile,
    Limit,
    LoadAware,
    Manual,
    Once,
    Overlap,
    Pool,
    RateLimited,
    Retry,
    Stop,
)
from repeater.model.units import Rate, parse_rate
from repeater.schedule.backoff import Backoff
from repeater.schedule.load_aware import LoadReadings
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, Said, seconds
from tests.fakes.text import text_of

FAIL = Exit(code=1)


def limit(name: str, rate: str) -> Limit:
    return Limit(name, parse_rate(rate))


def all_starts(stage: Stage) -> list[float]:
    return sorted(start for name in stage.engine.jobs for start in stage.starts(name))


def holds(starts: list[float], count: int, window: float) -> bool:
    ordered = sorted(round(start * 1e6) for start in starts)
    return all(late - early >= window * 1e6 for early, late in zip(ordered, ordered[count:], strict=False))


# --- limits -----------------------------------------------------------------------------------------------------


def test_jobs_with_a_shared_limit_take_turns_and_never_exceed_a_window() -> None:
    stage = Stage()
    jobs = [job(name, Once(), limit="api") for name in "abcde"]
    stage.apply(*jobs, limits=(limit("api", "2/10s"),))
    stage.advance(60)
    assert [stage.starts(name) for name in "abcde"] == [[0], [0], [10], [10], [20]]


def test_a_slot_held_by_a_limit_names_the_limit_and_the_time() -> None:
    stage = Stage()
    stage.apply(job("a", Once(), limit="api"), job("b", Once(), limit="api"), limits=(limit("api", "1/10s"),))
    stage.advance(1)
    assert text_of(stage.engine.jobs["b"].open[0].wait_reason) == "limit `api` (1/10s) until 2026-01-01T00:00:10Z"


def test_the_next_start_counts_from_the_real_start_of_a_late_one() -> None:
    stage = Stage({"a": Act(starting=seconds(4))})
    stage.apply(job("a", Once(), limit="api"), job("b", Once(), limit="api"), limits=(limit("api", "1/10s"),))
    stage.advance(60)
    assert stage.starts("a") == [4]
    assert stage.starts("b") == [14]


def test_no_window_of_real_starts_is_exceeded_with_retries_and_slow_spawns() -> None:
    lag = iter(range(1_000_000))
    acts = lambda launch: Act(  # noqa: E731
        starting=timedelta(milliseconds=next(lag) * 37 % 900),
        lasts=seconds(0.2),
        exit=FAIL if next(lag) % 3 else Exit(0),
    )
    stage = Stage(acts)
    jobs = [
        job(
            f"j{n}",
            Every(seconds(3 + n)),
            limit="api",
            retry=Retry(3, Backoff(base=seconds(0.5))),
            overlap=Overlap("queue"),
        )
        for n in range(6)
    ]
    stage.apply(*jobs, limits=(limit("api", "5/10s"),))
    starts: list[float] = []
    stage.listeners.append(lambda event: starts.append(stage.now) if isinstance(event, RunBegan) else None)
    stage.advance(300)
    assert len(starts) > 100
    assert holds(starts, 5, 10)


def test_a_failed_start_does_not_count() -> None:
    stage = Stage({"a": Act(refusal="no such file")})
    stage.apply(job("a", Once(), limit="api"), job("b", Once(), limit="api"), limits=(limit("api", "1/1h"),))
    stage.advance(1)
    assert stage.starts("b") == [0]


def test_a_limit_and_a_pool_are_taken_together_or_not_at_all() -> None:
    stage = Stage({"a": Act(lasts=seconds(3)), "c": Act(lasts=seconds(3))})
    stage.apply(
        job("a", Once(), pool="p", limit="api"),
        job("b", Once(), pool="p", limit="api"),
        job("c", Once(), pool="p"),
        pools=(Pool("p", 1),),
        limits=(limit("api", "1/10s"),),
    )
    stage.advance(60)
    assert stage.starts("a") == [0]
    assert stage.starts("c") == [3]  # while `b` is held by the limit it keeps no place in the pool
    assert stage.starts("b") == [10]


def test_a_forced_start_passes_the_limit_and_counts() -> None:
    stage = Stage()
    stage.apply(job("a", Once(), limit="api"), job("b", Manual(), limit="api"), limits=(limit("api", "1/10s"),))
    stage.advance(1)
    stage.request("trigger", "b", force=True)
    stage.advance(1)
    assert stage.starts("b") == [1]
    stage.request("trigger", "b")
    stage.advance(60)
    assert stage.starts("b") == [1, 11]


def test_a_slot_that_a_limit_holds_too_long_expires() -> None:
    stage = Stage()
    late = job("b", Once(), limit="api", catch_up=CatchUp(start_deadline=seconds(20)))
    stage.apply(job("a", Once(), limit="api"), late, limits=(limit("api", "1/1h"),))
    stage.advance(30)
    assert stage.history("b") == ["expired(start_deadline) @0"]


def test_a_reload_keeps_the_ledger_and_an_edited_rate_counts_at_once() -> None:
    stage = Stage()
    every = job("a", Every(seconds(1)), limit="api", overlap=Overlap("latest"))
    stage.apply(every, limits=(limit("api", "2/10s"),))
    stage.advance(5)
    stage.apply(replace(every, description="new"), limits=(limit("api", "2/10s"),))
    stage.advance(7)
    assert stage.starts("a") == [0, 1, 10, 11]
    stage.apply(every, limits=(limit("api", "4/10s"),))
    stage.advance(2)
    assert stage.starts("a") == [0, 1, 10, 11, 12, 12]  # the one that was held and the one behind it


def test_a_renamed_job_keeps_its_rate() -> None:
    stage = Stage()
    rated = job("a", RateLimited(Rate(2, seconds(10))))
    stage.apply(rated)
    stage.advance(5)
    stage.apply(replace(rated, name="b", group="b", moved_from="a"))
    stage.advance(6)
    assert stage.starts("b") == [0, 0.000001, 10, 10.000001]


def test_a_restart_does_not_reset_a_limit() -> None:
    stage = Stage()
    jobs = [job(name, Every(seconds(1)), limit="api", overlap=Overlap("latest")) for name in "ab"]
    limits = (limit("api", "2/10s"),)
    stage.apply(*jobs, limits=limits)
    stage.advance(3)
    assert all_starts(stage) == [0, 0]
    after = stage.again(after=1)
    after.apply(*jobs, limits=limits)
    after.advance(20)
    starts = all_starts(after)
    assert starts[:3] == [0, 0, 10]
    assert holds(starts, 2, 10)


def test_simulation_shows_the_starts_that_a_limit_holds() -> None:
    jobs = [job(name, Every(seconds(60)), limit="api", overlap=Overlap("latest")) for name in "abc"]
    stage = Stage()
    stage.apply(*jobs, limits=(limit("api", "2/1m"),))
    start = stage.clock.now()
    rows = list(simulate(JobFile("t", tuple(jobs), (), (limit("api", "2/1m"),)), start, seconds(180)))
    begun = sorted(row.started for row in rows if row.started is not None)
    assert len(begun) == 6
    assert all(late - early >= seconds(60) for early, late in zip(begun, begun[2:], strict=False))
    stage.advance(179.9)
    assert sorted(row.started for row in stage.rows() if row.started is not None) == begun


# --- rate -------------------------------------------------------------------------------------------------------


def test_a_rate_starts_as_often_as_it_allows_and_no_more_in_any_window() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    stage.apply(job("a", RateLimited(Rate(3, seconds(10)))))
    stage.advance(25)
    assert [round(start, 3) for start in stage.starts("a")] == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_runs_longer_than_the_distance_of_a_rate_follow_each_other() -> None:
    stage = Stage({"a": Act(lasts=seconds(7))})
    stage.apply(job("a", RateLimited(Rate(2, seconds(10)))))
    stage.advance(30)
    assert [round(start, 3) for start in stage.starts("a")] == [0, 7, 14, 21]


def test_a_failed_run_is_retried_at_the_reserved_offsets_of_its_pattern() -> None:
    stage = Stage({"a": [Act(exit=FAIL), Act(exit=FAIL), Act(), Act()]})
    stage.apply(job("a", RateLimited(Rate(3, seconds(60)), (seconds(0), seconds(10), seconds(30))), stop=Stop(times=2)))
    stage.advance(200)
    first, second = stage.rows("a")
    assert first.attempts == 3
    assert (first.ended - first.started).total_seconds() == 30  # type: ignore[operator]
    assert (second.started - first.started).total_seconds() >= 60  # type: ignore[operator]


def test_each_of_two_slots_that_one_rate_holds_starts_at_its_own_instant() -> None:
    rated = RateLimited(Rate(1, seconds(10)), (seconds(0), seconds(10)))
    stage = Stage({"a": [Act(exit=FAIL), Act()]})
    begun: list[float] = []
    stage.listeners.append(lambda event: begun.append(stage.now) if isinstance(event, RunBegan) else None)
    stage.apply(job("a", rated, overlap=Overlap("allow")))
    stage.advance(1)  # the first attempt failed at 0; its retry has the place at 10
    stage.request("trigger", "a")  # held until 20
    stage.advance(4)
    stage.request("trigger", "a", force=True)  # counts, so the retry is held until 15
    stage.advance(6)
    stage.request("trigger", "a")  # asks for a later instant while the retry waits
    stage.advance(20)
    assert begun[:4] == [0, 5, 15, 25]


def test_a_success_gives_the_reserved_retries_back() -> None:
    stage = Stage()
    stage.apply(job("a", RateLimited(Rate(3, seconds(60)), (seconds(0), seconds(10), seconds(30)))))
    stage.advance(59)
    assert len(stage.starts("a")) >= 2


def test_a_rate_under_a_limit_holds_both() -> None:
    stage = Stage()
    stage.apply(
        job("a", RateLimited(Rate(3, seconds(10))), limit="api"),
        job("b", RateLimited(Rate(3, seconds(10))), limit="api"),
        limits=(limit("api", "4/10s"),),
    )
    stage.advance(99.9)
    for name in "ab":
        starts = stage.starts(name)
        assert holds(starts, 3, 10)
    together = all_starts(stage)
    assert holds(together, 4, 10)
    assert len(together) == 40


# --- push-back --------------------------------------------------------------------------------------------------

SLOW_DOWN = Said(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 25\r\n\r\n")


def test_a_push_back_delays_the_next_start_and_gives_the_reason() -> None:
    stage = Stage({"a": [Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    stage.advance(12)
    assert text_of(stage.engine.jobs["a"].open[0].wait_reason) == (
        "`Retry-After` of an HTTP 429 answer asks for 25s, until 2026-01-01T00:00:25Z"
    )
    stage.advance(30)
    assert stage.starts("a") == [0, 25, 30, 40]
    told = [str(text_of(event.reason)) for event in stage.events if isinstance(event, Warned)]
    assert told == ["pushed back: `Retry-After` of an HTTP 429 answer asks for 25s"]


def test_a_push_back_holds_retries_too() -> None:
    stage = Stage({"a": [Act(says=(SLOW_DOWN,), exit=FAIL), Act()]})
    stage.apply(job("a", Once(), http_aware=HttpAware(), retry=Retry(2, Backoff(base=seconds(1)))))
    stage.advance(60)
    (row,) = stage.rows("a")
    assert row.attempts == 2
    assert (row.ended - row.started).total_seconds() == 25  # type: ignore[operator]


def test_a_push_back_holds_every_job_of_the_same_limit_and_no_other() -> None:
    stage = Stage({"a": [Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(
        job("a", Once(), http_aware=HttpAware(), limit="api"),
        job("b", Every(seconds(10), immediate=False), limit="api"),
        job("c", Every(seconds(10), immediate=False)),
        limits=(limit("api", "100/1s"),),
    )
    stage.advance(31)
    assert stage.starts("b") == [25, 30]
    assert stage.starts("c") == [10, 20, 30]


def test_without_http_aware_output_holds_nothing() -> None:
    stage = Stage({"a": Act(says=(SLOW_DOWN,))})
    stage.apply(job("a", Every(seconds(10))))
    stage.advance(25)
    assert stage.starts("a") == [0, 10, 20]


def test_headers_on_stderr_and_the_body_on_stdout_are_one_answer() -> None:
    said = (
        Said(b"< HTTP/1.1 429 x\r\n< content-type: application/json\r\n", "stderr"),
        Said(b'{"retry_after": 15}'),
    )
    stage = Stage({"a": [Act(says=said), Act()]})
    stage.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    stage.advance(18)
    assert stage.starts("a") == [0, 15]


REFUSED = Said(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
UNREADABLE = Said(b"HTTP/1.1 502 x\r\nRetry-After: soon\r\n\r\n")


def reports(stage: Stage) -> list[str]:
    return [str(text_of(event.reason)) for event in stage.events if isinstance(event, Warned)]


def test_refusals_without_a_delay_hold_longer_until_one_run_is_not_refused() -> None:
    refused, fine = Act(says=(REFUSED,), exit=FAIL), Act()
    stage = Stage({"a": [refused, refused, refused, refused, fine, refused, fine]})
    stage.apply(job("a", Every(seconds(1)), http_aware=HttpAware(max_delay=seconds(6), min_delay=seconds(2))))
    stage.advance(30)
    assert stage.starts("a")[:8] == [0, 2, 6, 12, 18, 19, 21, 22]
    assert reports(stage)[1] == "pushed back: an HTTP 429 answer without a delay; blocked for 4s"


def test_the_number_of_refusals_survives_a_restart() -> None:
    stage = Stage({"a": Act(says=(REFUSED,), exit=FAIL)})
    stage.apply(job("a", Every(seconds(1)), http_aware=HttpAware()))
    stage.advance(2.5)  # refused at 0 and 1, so held until 3
    later = stage.again({"a": Act(says=(REFUSED,), exit=FAIL)})
    later.apply(job("a", Every(seconds(1)), http_aware=HttpAware()))
    later.advance(10)
    assert later.starts("a") == [0, 1, 3, 7]


def test_a_push_back_survives_a_restart() -> None:
    specs = (
        job("a", Every(seconds(10)), http_aware=HttpAware(), limit="api"),
        job("b", Every(seconds(10), immediate=False), limit="api"),
    )
    stage = Stage({"a": [Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(*specs, limits=(limit("api", "100/1s"),))
    stage.advance(5)
    later = stage.again(after=3)
    later.apply(*specs, limits=(limit("api", "100/1s"),))
    later.advance(4)
    assert text_of(later.engine.jobs["a"].open[0].wait_reason) == (
        "`Retry-After` of an HTTP 429 answer asks for 25s, until 2026-01-01T00:00:25Z"
    )
    later.advance(20)
    assert min(start for start in later.starts("a") if start > 0) == 25
    assert min(later.starts("b")) == 25


def test_a_push_back_that_is_over_holds_nothing_after_a_restart() -> None:
    stage = Stage({"a": [Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    stage.advance(5)
    later = stage.again({"a": Act()}, after=25)
    later.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    later.advance(11)
    assert later.starts("a")[-1] == 40


def test_a_push_back_is_no_longer_than_the_job_allows_now() -> None:
    stage = Stage({"a": [Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    stage.advance(5)
    later = stage.again()
    later.apply(job("a", Every(seconds(10)), http_aware=HttpAware(max_delay=seconds(8))))
    later.advance(30)
    assert later.starts("a")[1] == 13


def test_a_hint_that_cannot_be_read_is_an_event_once() -> None:
    stage = Stage({"a": [Act(says=(UNREADABLE,)), Act(says=(UNREADABLE,)), Act(says=(SLOW_DOWN,)), Act()]})
    stage.apply(job("a", Every(seconds(10)), http_aware=HttpAware()))
    stage.advance(25)
    assert reports(stage) == [
        "cannot read the delay in `Retry-After`: `soon`",
        "pushed back: `Retry-After` of an HTTP 429 answer asks for 25s",
    ]
    assert stage.starts("a") == [0, 10, 20]


# --- intervals that adapt ---------------------------------------------------------------------------------------


def test_an_adaptive_job_slows_down_when_slow_and_speeds_up_when_fast() -> None:
    slow, fast = Act(lasts=seconds(3)), Act(lasts=seconds(0.1))
    stage = Stage({"a": [slow, slow, fast, fast]})
    stage.apply(job("a", Adaptive(base=seconds(10), max=seconds(60), target_latency=seconds(1))))
    stage.advance(150)
    gaps = [round(late - early, 1) for early, late in pairwise(stage.starts("a"))]
    assert gaps[:4] == [23, 43, 28.7, 22.3]  # 3 s and doubled, again; then 0.1 s and a tenth of the base rate faster
    words = [str(text_of(event.reason)) for event in stage.events if isinstance(event, IntervalChanged)]
    assert words[0].startswith("every 20s: 3s is slow for 1s: slower")


def test_failures_open_the_circuit_and_one_success_closes_it() -> None:
    stage = Stage({"a": [Act(exit=FAIL)] * 4 + [Act()]})
    stage.apply(job("a", Adaptive(base=seconds(1), max=seconds(60))))
    stage.advance(140)
    assert stage.starts("a")[:6] == [0, 2, 6, 66, 126, 127]


def test_learnt_figures_outlive_the_supervisor_and_a_reset_clears_them() -> None:
    adaptive = job("a", Adaptive(base=seconds(1), max=seconds(60)))
    stage = Stage({"a": Act(exit=FAIL)})
    stage.apply(adaptive)
    stage.advance(7)
    after = stage.again()
    after.apply(adaptive)
    after.advance(1)
    assert after.engine.jobs["a"].progress.adaptive is not None
    assert after.engine.jobs["a"].progress.adaptive["open"] is True
    after.request("reset", "a")  # and so it runs again at once
    assert after.engine.jobs["a"].progress.adaptive["failures"] == 1


def test_a_job_that_follows_the_load_is_slower_on_a_busy_machine() -> None:
    stage = Stage()
    stage.load.readings = LoadReadings(cpu=0.2, memory=0.5, load=0.1)
    stage.apply(job("a", LoadAware(base=seconds(10), min=seconds(10), max=seconds(60))))
    stage.advance(15)
    stage.load.readings = LoadReadings(cpu=0.9, memory=0.5, load=0.1)
    stage.advance(60)
    assert [round(start) for start in stage.starts("a")] == [0, 10, 20, 50]
    assert any(
        "above the target" in str(text_of(event.reason)) for event in stage.events if isinstance(event, IntervalChanged)
    )


def test_the_load_is_read_only_for_jobs_that_follow_it() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(1))))
    stage.advance(10)
    assert stage.load.asked == 0
