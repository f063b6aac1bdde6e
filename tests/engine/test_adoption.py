"""A supervisor is killed, a keeper looks after its runs, and the next supervisor goes on with them."""

from __future__ import annotations

from datetime import timedelta

from repeater._lazy_dataclasses import replace
from repeater.model.events import RunAdopted, RunBegan
from repeater.model.run import Exit
from repeater.model.spec import (
    Always,
    Every,
    JobSpec,
    Need,
    Once,
    Overlap,
    Pool,
    Probe,
    ProcessSpec,
    Retry,
    Stop,
    Termination,
)
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, Said, seconds
from tests.fakes.text import text_of

EVERY_10 = Every(timedelta(seconds=10))
HOURLY = Every(timedelta(hours=1))


def launched(stage: Stage, name: str) -> int:
    return sum(launch.env["RPR_JOB"] == name for launch in stage.spawner.launches)


def test_a_service_continues_with_its_run_its_start_and_its_counters() -> None:
    first = Stage({"s": Act(lasts=FOR_EVER)})
    first.apply(job("s", Always()))
    first.advance(5)
    (run,) = first.spawner.live
    stage = first.kept(away=60)
    stage.apply(job("s", Always()))
    stage.advance(100)
    assert stage.spawner.live == {run}
    assert launched(stage, "s") == 1
    (held,) = stage.engine.jobs["s"].open
    assert held.started == first.engine.jobs["s"].open[0].started
    assert stage.engine.jobs["s"].progress.runs == 1
    assert [event.run.id for event in stage.events if isinstance(event, RunAdopted)] == [run]
    assert not [event for event in stage.events if isinstance(event, RunBegan)]
    stage.stop()
    assert (stage.history("s"), stage.left) == (["cancelled(stopped) @0"], [0])


def test_an_exit_without_a_supervisor_is_recorded_with_its_code_and_time() -> None:
    first = Stage({"a": Act(lasts=seconds(20), exit=Exit(code=7))})
    first.apply(job("a", HOURLY))
    first.advance(5)
    stage = first.kept(away=100)
    stage.apply(job("a", HOURLY))
    stage.advance(1)
    (row,) = stage.rows("a")
    assert (row.state, text_of(row.reason), row.exit, row.attempts) == ("failed", "exit 7", 7, 1)
    assert row.ended is not None
    assert row.started is not None
    assert row.ended - row.started == timedelta(seconds=20)
    progress = stage.engine.jobs["a"].progress
    assert (progress.runs, progress.failures, progress.streak, progress.last_end) == (1, 1, -1, row.ended)
    assert launched(stage, "a") == 1


def test_output_continues_at_its_last_position() -> None:
    act = Act(
        lasts=seconds(60), says=(Said(b"one\n"), Said(b"two\n", at=seconds(20)), Said(b"three\n", at=seconds(50)))
    )
    first = Stage({"a": act})
    first.apply(job("a", HOURLY))
    first.advance(5)
    assert [data for _, _, data in first.sink.calls] == [b"one\n"]
    stage = first.kept(away=30)
    stage.apply(job("a", HOURLY))
    stage.advance(60)
    assert [data for _, _, data in stage.sink.calls] == [b"two\n", b"three\n"]
    assert stage.history("a") == ["ran @0"]


def test_a_live_run_is_not_overlapped_and_its_slot_closes_once() -> None:
    first = Stage({"a": Act(lasts=seconds(35))})
    first.apply(job("a", EVERY_10))
    first.advance(5)
    stage = first.kept(away=10)
    stage.apply(job("a", EVERY_10))
    stage.advance(30)
    assert launched(stage, "a") == 2
    assert stage.history("a") == ["ran @0", "skipped(overlap) @10", "skipped(overlap) @20", "skipped(overlap) @30"]


def test_overlap_by_replacement_ends_an_adopted_run() -> None:
    first = Stage({"a": Act(lasts=FOR_EVER)})
    spec = job("a", EVERY_10, overlap=Overlap("replace"))
    first.apply(spec)
    first.advance(5)
    stage = first.kept()
    stage.apply(spec)
    stage.advance(6)
    assert stage.history("a") == ["replaced(replaced) @0"]
    assert len(stage.spawner.live) == 1


def test_a_timeout_counts_from_the_start_of_the_run_not_of_the_supervisor() -> None:
    spec = job("a", HOURLY, ending=Termination(timeout=timedelta(seconds=30)))
    first = Stage({"a": Act(lasts=FOR_EVER)})
    first.apply(spec)
    first.advance(10)
    stage = first.kept(away=10)
    stage.apply(spec)
    stage.advance(9)
    assert stage.rows("a") == []
    stage.advance(2)
    (row,) = stage.rows("a")
    assert text_of(row.reason) == "timed out after 30s"


def test_a_timeout_that_passed_meanwhile_ends_the_run_at_once() -> None:
    spec = job("a", HOURLY, ending=Termination(timeout=timedelta(seconds=30)))
    first = Stage({"a": Act(lasts=FOR_EVER)})
    first.apply(spec)
    first.advance(10)
    stage = first.kept(away=100)
    stage.apply(spec)
    stage.advance(1)
    assert stage.history("a") == ["failed(timed out after 30s) @0"]


def test_a_failed_attempt_is_retried_as_if_nothing_had_happened() -> None:
    spec = job("a", HOURLY, retry=Retry(attempts=2))
    first = Stage({"a": [Act(lasts=seconds(20), exit=Exit(code=1)), Act()]})
    first.apply(spec)
    first.advance(5)
    stage = first.kept(away=60)
    stage.apply(spec)
    stage.advance(30)
    assert stage.history("a") == ["ran @0"]
    assert stage.rows("a")[0].attempts == 2
    assert launched(stage, "a") == 2


def test_a_job_that_runs_once_does_not_run_again_beside_its_adopted_run() -> None:
    first = Stage({"a": Act(lasts=seconds(30))})
    first.apply(job("a", Once()))
    first.advance(5)
    stage = first.kept(away=5, keep_alive=False)
    stage.apply(job("a", Once()))
    stage.advance(60)
    assert stage.history("a") == ["ran @0"]
    assert stage.left == [0]


def test_the_last_of_n_runs_ends_the_job() -> None:
    spec = job("a", EVERY_10, stop=Stop(times=2))
    first = Stage({"a": [Act(), Act(lasts=seconds(30))]})
    first.apply(spec)
    first.advance(15)
    stage = first.kept(away=5, keep_alive=False)
    stage.apply(spec)
    stage.advance(60)
    assert stage.history("a") == ["ran @0", "ran @10"]
    assert text_of(stage.engine.jobs["a"].progress.done) == "2 runs"
    assert stage.left == [0]


def test_an_adopted_run_holds_its_place_in_a_pool() -> None:
    pools = (Pool("db", 1),)
    first = Stage({"a": Act(lasts=seconds(30))})
    jobs = (job("a", HOURLY, pool="db"), job("b", HOURLY, pool="db"))
    first.apply(*jobs, pools=pools)
    first.advance(5)
    stage = first.kept(away=1)
    stage.apply(*jobs, pools=pools)
    stage.advance(5)
    assert launched(stage, "b") == 0
    stage.advance(30)
    assert launched(stage, "a") == 1


def test_needs_see_an_adopted_service() -> None:
    service = job("s", Always(), ready=Probe(tcp="localhost:1"))
    needing = job("a", EVERY_10, needs=(Need("s", "healthy"),))
    first = Stage({"s": Act(lasts=FOR_EVER)})
    first.apply(service, needing)
    first.advance(5)
    stage = first.kept()
    stage.apply(service, needing)
    stage.advance(20)
    assert stage.engine.jobs["s"].ready is True
    assert launched(stage, "s") == 1
    assert launched(stage, "a") >= 2


def test_a_service_that_was_ready_by_a_line_is_so_still() -> None:
    service = job("s", Always(), ready=Probe(log="up"))
    first = Stage({"s": Act(lasts=FOR_EVER)})
    first.apply(service)
    first.advance(5)
    stage = first.kept()
    stage.apply(service)
    stage.advance(1)
    assert stage.engine.jobs["s"].ready is True


def test_a_service_changed_meanwhile_is_restarted_and_a_timed_job_is_not() -> None:
    first = Stage({"s": Act(lasts=FOR_EVER), "a": Act(lasts=seconds(30))})
    first.apply(job("s", Always()), job("a", HOURLY))
    first.advance(5)

    def changed(spec: JobSpec) -> JobSpec:
        return replace(spec, process=ProcessSpec(command=("other",), cwd="/"))

    stage = first.kept()
    stage.apply(changed(job("s", Always())), changed(job("a", HOURLY)), stale=frozenset({"s", "a"}))
    stage.advance(60)
    assert stage.history("s") == ["replaced(replaced (its definition changed while no supervisor was running)) @0"]
    assert [launch.argv for launch in stage.spawner.launches if launch.env["RPR_JOB"] == "s"] == [("true",), ("other",)]
    assert stage.history("a") == ["ran @0"]


def test_a_job_that_was_disabled_meanwhile_finishes_and_a_service_stops() -> None:
    first = Stage({"s": Act(lasts=FOR_EVER), "a": Act(lasts=seconds(30))})
    first.apply(job("s", Always()), job("a", HOURLY))
    first.advance(5)
    stage = first.kept()
    stage.apply(job("s", Always(), enabled=False), job("a", HOURLY, enabled=False))
    stage.advance(60)
    assert stage.history("s") == ["cancelled(disabled) @0"]
    assert stage.history("a") == ["ran @0"]


def test_an_unknown_run_is_interrupted_beside_those_that_continue() -> None:
    first = Stage({"a": Act(lasts=FOR_EVER), "b": Act(starting=FOR_EVER)})
    first.apply(job("a", HOURLY), job("b", HOURLY))
    first.advance(5)
    stage = first.kept()
    stage.apply(job("a", HOURLY), job("b", HOURLY))
    stage.advance(5)
    assert stage.history("b") == ["interrupted(supervisor_gone) @0"]
    assert len(stage.spawner.live) == 1


def test_a_second_crash_changes_nothing() -> None:
    first = Stage({"s": Act(lasts=FOR_EVER), "a": Act(lasts=seconds(50), exit=Exit(code=3))})
    jobs = (job("s", Always()), job("a", HOURLY))
    first.apply(*jobs)
    stage = first
    for _ in range(4):
        stage.advance(5)
        stage = stage.kept(away=10)
        stage.apply(*jobs)
    stage.advance(10)
    assert launched(stage, "s") == launched(stage, "a") == 1
    assert stage.history("a") == ["failed(exit 3) @0"]
    assert stage.engine.jobs["a"].progress.failures == 1
