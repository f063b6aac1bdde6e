"""Edges between jobs, places in pools and cells, probes, hooks. Virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from repeater.model.events import JobReady
from repeater.model.run import Exit
from repeater.model.spec import Always, CatchUp, Cron, Every, Hooks, Manual, Need, Once, Overlap, Pool, Probe, Stop
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

FAIL = Exit(code=1)


def need(name: str, condition: Any, **keys: Any) -> tuple[Need, ...]:
    return (Need(name, condition, **keys),)


def test_a_job_waits_until_what_it_needs_has_succeeded() -> None:
    stage = Stage({"migrate": Act(lasts=seconds(3))}, keep_alive=False)
    stage.apply(job("api", Once(), needs=need("migrate", "succeeded")), job("migrate", Once()))
    stage.advance(10)
    assert stage.starts("api") == [3]
    assert stage.left == [0]


def test_a_need_that_failed_for_good_skips_the_dependent_at_once() -> None:
    stage = Stage({"migrate": Act(lasts=seconds(3), exit=FAIL)}, keep_alive=False)
    stage.apply(
        job("api", Once(), needs=need("migrate", "succeeded")),
        job("web", Once(), needs=need("api", "succeeded")),
        job("migrate", Once()),
    )
    stage.advance(3)
    assert stage.history("api") == ["skipped(`migrate` has not succeeded) @0"]
    assert stage.history("web") == ["skipped(`api` has not succeeded) @0"]
    assert stage.left == [1]


def test_a_need_that_is_not_required_only_warns() -> None:
    stage = Stage({"migrate": Act(exit=FAIL)})
    stage.apply(job("migrate", Once()), job("api", Once(), needs=need("migrate", "succeeded", required=False)))
    stage.advance(1)
    assert stage.history("api") == ["ran @0"]


def test_a_need_that_takes_too_long_skips_the_dependent() -> None:
    stage = Stage({"slow": Act(lasts=FOR_EVER)})
    stage.apply(job("slow", Once()), job("api", Once(), needs=need("slow", "succeeded", timeout=seconds(30))))
    stage.advance(29)
    assert stage.rows("api") == []
    stage.advance(2)
    assert stage.history("api") == ["skipped(`slow` has not succeeded after 30s) @0"]


def test_a_service_is_needed_healthy_not_only_started() -> None:
    stage = Stage({"db": Act(lasts=FOR_EVER), "api": Act(lasts=FOR_EVER)})
    stage.prober.health["db"] = False
    ready = Probe(http="http://localhost/", every=seconds(1))
    stage.apply(job("api", Always(), needs=need("db", "healthy")), job("db", Always(), ready=ready))
    stage.advance(5)
    assert len(stage.spawner.live) == 1
    stage.prober.health["db"] = True
    stage.advance(1.1)
    assert len(stage.spawner.live) == 2
    assert [event.ready for event in stage.events if isinstance(event, JobReady)] == [True]


def test_while_holds_runs_as_long_as_the_need_is_not_met() -> None:
    stage = Stage({"db": Act(lasts=FOR_EVER)})
    ready = Probe(tcp="localhost:1", every=seconds(1), failures=2)
    stage.apply(
        job("db", Always(), ready=ready),
        job("poll", Every(seconds(10)), needs=need("db", "healthy", hold=True), overlap=Overlap("latest")),
    )
    stage.advance(15)
    assert stage.starts("poll") == [1, 10]
    stage.prober.health["db"] = False
    stage.advance(4.5)  # asked every five seconds while it is ready, then every second
    stage.advance(15.5)
    assert stage.starts("poll") == [1, 10]
    stage.prober.health["db"] = True
    stage.advance(6)
    assert len(stage.starts("poll")) >= 3


def test_a_live_probe_that_fails_restarts_the_service() -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    stage.apply(job("s", Always(), live=Probe(tcp="localhost:1", every=seconds(2), failures=3)))
    stage.advance(10)
    stage.prober.health["s"] = False
    stage.advance(6.5)
    assert stage.history("s") == ["replaced(replaced (its `live` probe failed)) @0"]
    assert len(stage.spawner.live) == 1


def test_an_edge_that_triggers_starts_the_dependent_for_the_same_slot() -> None:
    stage = Stage({"extract": [Act(lasts=seconds(2)), Act(exit=FAIL), Act()]})
    stage.apply(
        job("extract", Every(seconds(10))),
        job("load", Manual(), needs=need("extract", "succeeded", within="same_slot", trigger=True)),
        job("report", Manual(), needs=need("load", "succeeded", within="same_slot", trigger=True)),
    )
    stage.advance(25)
    assert stage.starts("load") == [2, 20]
    assert stage.starts("report") == [2, 20]
    assert stage.history("load")[1].startswith("skipped(`")
    assert stage.history("report")[1].startswith("skipped(`")


def test_same_slot_waits_for_the_slot_of_the_same_nominal_time() -> None:
    stage = Stage({"a": [Act(lasts=seconds(5)), Act(lasts=seconds(1), exit=FAIL)]})
    minutely = Cron("* * * * *")
    stage.apply(
        job("b", minutely, needs=need("a", "succeeded", within="same_slot")),
        job("a", minutely),
    )
    stage.advance(90)
    assert stage.starts("b") == [5]
    assert stage.history("b")[1] == "skipped(`a` has not succeeded) @60"


def test_a_pool_bounds_runs_over_all_its_jobs_and_keeps_their_order() -> None:
    stage = Stage(dict.fromkeys("abcd", Act(lasts=seconds(10))))
    jobs = [job(name, Once(), pool="disk") for name in "abcd"]
    stage.apply(*jobs, pools=(Pool("disk", 2),))
    stage.advance(1)
    assert len(stage.spawner.live) == 2
    stage.advance(30)
    assert [stage.starts(name) for name in "abcd"] == [[0], [0], [10], [10]]


def test_cells_of_a_matrix_run_at_most_max_parallel_at_once() -> None:
    stage = Stage(lambda launch: Act(lasts=seconds(10)))
    stage.apply(*[job(f"poll[r={n}]", Once(), group="poll", max_parallel=1) for n in range(3)])
    stage.advance(100)
    assert [stage.starts(f"poll[r={n}]") for n in range(3)] == [[0], [10], [20]]


def test_a_slot_held_at_a_gate_expires_with_its_start_deadline() -> None:
    stage = Stage({"a": Act(lasts=seconds(100))})
    late = job("b", Once(), pool="p", catch_up=CatchUp(start_deadline=seconds(20)))
    stage.apply(job("a", Once(), pool="p"), late, pools=(Pool("p", 1),))
    stage.advance(50)
    assert stage.history("b") == ["expired(start_deadline) @0"]


def held_at_a_pool(free_after: float, late: Any, **keys: Any) -> Stage:
    stage = Stage({"x": Act(lasts=seconds(free_after)), "b": [Act(lasts=seconds(12)), Act()]})
    stage.apply(job("x", Once(), pool="p"), job("b", late, pool="p", **keys), pools=(Pool("p", 1),))
    return stage


@pytest.mark.parametrize("free_after", [1, 15, 19.9])
def test_a_held_slot_starts_if_the_gate_opens_before_its_start_deadline(free_after: float) -> None:
    stage = held_at_a_pool(free_after, Once(), catch_up=CatchUp(start_deadline=seconds(20)))
    stage.advance(free_after + 12.1)
    assert stage.history("b") == ["ran @0"]
    assert stage.starts("b") == [free_after]


def test_a_held_slot_expires_at_its_start_deadline_and_not_before() -> None:
    stage = held_at_a_pool(100, Once(), catch_up=CatchUp(start_deadline=seconds(20)))
    stage.advance(19.999)
    assert stage.rows("b") == []
    stage.advance(0.001)
    assert stage.history("b") == ["expired(start_deadline) @0"]


def test_the_start_deadline_of_a_late_slot_counts_from_its_due_time() -> None:
    stage = held_at_a_pool(100, Every(seconds(60), immediate=False), catch_up=CatchUp(start_deadline=seconds(20)))
    stage.advance(59)
    stage.clock.stall(seconds(9))
    stage.advance(11.999)
    assert stage.rows("b") == []
    stage.advance(0.001)
    assert stage.history("b") == ["expired(start_deadline) @60"]


def test_a_start_deadline_ends_no_run_that_has_begun() -> None:
    stage = held_at_a_pool(1, Once(), catch_up=CatchUp(start_deadline=seconds(5)))
    stage.advance(20)
    assert stage.history("b") == ["ran @0"]


@pytest.mark.parametrize(
    ("condition", "code", "runs"),
    [
        ("completed", 0, True),
        ("completed", 1, True),
        ("failed", 0, False),
        ("failed", 1, True),
        ("succeeded", 0, True),
        ("succeeded", 1, False),
    ],
)
def test_a_need_is_met_by_the_end_that_its_condition_names(condition: Any, code: int, runs: bool) -> None:
    stage = Stage({"up": Act(lasts=seconds(3), exit=Exit(code=code))})
    stage.apply(job("up", Once()), job("down", Once(), needs=need("up", condition)))
    stage.advance(2.9)
    assert stage.rows("down") == []
    stage.advance(1)
    assert stage.history("down") == ["ran @0" if runs else f"skipped(`up` has not {condition}) @0"]


@pytest.mark.parametrize(
    ("condition", "code", "starts"),
    [("completed", 0, [3]), ("completed", 1, [3]), ("failed", 0, [13]), ("failed", 1, [3]), ("succeeded", 1, [13])],
)
def test_a_need_that_can_still_be_met_is_waited_for(condition: Any, code: int, starts: list[float]) -> None:
    stage = Stage(
        {"up": [Act(lasts=seconds(3), exit=Exit(code=code)), Act(lasts=seconds(3), exit=Exit(code=1 - code))]}
    )
    stage.apply(job("up", Every(seconds(10))), job("down", Once(), needs=need("up", condition)))
    stage.advance(15)
    assert stage.starts("down") == starts


@pytest.mark.parametrize(
    ("within", "asked_at", "starts"),
    [(10, 12, [12]), (10, 13, [13]), (10, 13.1, [63]), (10, 59, [63]), ("ever", 59, [59])],
)
def test_a_need_within_a_length_counts_from_the_last_end(within: Any, asked_at: float, starts: list[float]) -> None:
    stage = Stage({"up": Act(lasts=seconds(3))})
    length = within if within == "ever" else seconds(within)
    stage.apply(job("up", Every(seconds(60))), job("down", Manual(), needs=need("up", "succeeded", within=length)))
    stage.advance(asked_at)
    stage.request("trigger", "down")
    stage.advance(70)
    assert stage.starts("down") == starts


def test_services_stop_in_reverse_order_of_need() -> None:
    stage = Stage(lambda launch: Act(lasts=FOR_EVER))
    stage.apply(job("db", Always()), job("api", Always(), needs=need("db", "started")))
    stage.advance(5)
    stage.stop()
    stage.advance(1)
    ended = {row.job: row.ended for row in stage.rows()}
    assert ended["api"] <= ended["db"]  # type: ignore[operator]
    order = [run for run, _ in stage.spawner.signals]
    runs = {launch.env["RPR_JOB"]: launch.run for launch in stage.spawner.launches}
    assert order == [runs["api"], runs["db"]]


def test_hooks_get_the_facts_of_the_slot_and_failure_or_recovery() -> None:
    turns = iter([Act(), Act(exit=FAIL), Act()])
    stage = Stage(lambda launch: Act() if launch.kind == "hook" else next(turns))
    hooks = Hooks(on_success=("ok",), on_failure=("bad",), on_recovery=("again",), on_skip=("skip",))
    stage.apply(job("a", Every(seconds(10)), hooks=hooks, stop=Stop(times=3)))
    stage.advance(60)
    launches = [launch for launch in stage.spawner.launches if launch.kind == "hook"]
    assert [launch.argv[0] for launch in launches] == ["ok", "bad", "ok", "again"]
    assert launches[1].env["RPR_REASON"] == "exit 1"
    assert launches[1].env["RPR_EXIT"] == "1"


def test_a_hook_that_is_still_running_is_awaited_before_leaving() -> None:
    stage = Stage(lambda launch: Act(lasts=seconds(3 if launch.kind == "hook" else 0)), keep_alive=False)
    stage.apply(job("a", Once(), hooks=Hooks(on_success=("ok",))))
    stage.advance(2)
    assert stage.left == []
    stage.advance(2)
    assert stage.left == [0]
