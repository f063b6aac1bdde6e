"""What a job does in time: grids, overlap, retries, stops. Virtual time, real engine and supervisor."""

from __future__ import annotations

from datetime import timedelta

import pytest

from repeater.model.run import Exit
from repeater.model.spec import Always, Backoff, Every, Manual, Once, Overlap, Retry, Slowdown, Stop, Termination
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds
from tests.fakes.text import text_of

FAIL = Exit(code=1)


def every(length: float, **keys: object) -> Every:
    return Every(seconds(length), **keys)  # type: ignore[arg-type]


def test_an_interval_keeps_its_grid_whatever_the_runs_last() -> None:
    stage = Stage({"a": Act(lasts=seconds(0.7))})
    stage.apply(job("a", every(1)))
    stage.advance(5.5)
    assert stage.starts("a") == [0, 1, 2, 3, 4]


def test_without_immediate_the_first_start_is_one_step_later() -> None:
    stage = Stage()
    stage.apply(job("a", every(10, immediate=False)))
    stage.advance(25)
    assert stage.starts("a") == [10, 20]


def test_after_end_counts_from_the_end_of_the_run() -> None:
    stage = Stage({"a": Act(lasts=seconds(3))})
    stage.apply(job("a", every(2, after_end=True)))
    stage.advance(11)
    assert stage.starts("a") == [0, 5]
    assert len(stage.spawner.live) == 1


def test_with_no_distance_one_run_follows_the_other() -> None:
    stage = Stage({"a": Act(lasts=seconds(3))})
    stage.apply(job("a", every(0, after_end=True)))
    stage.advance(10)
    assert stage.starts("a") == [0, 3, 6]
    assert len(stage.spawner.live) == 1


def test_runs_that_take_no_time_and_follow_each_other_have_separate_slots() -> None:
    stage = Stage({"a": Act(lasts=seconds(0))}, keep_alive=False)
    stage.apply(job("a", every(0, after_end=True), stop=Stop(times=50)))
    stage.advance(1)
    assert len({row.nominal for row in stage.rows("a")}) == 50
    assert stage.left == [0]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (Overlap("skip"), ["ran @0", "skipped(overlap) @1", "skipped(overlap) @2", "ran @3"]),
        (Overlap("latest"), ["ran @0", "skipped(superseded) @1", "ran @2"]),
        (Overlap("first"), ["ran @0", "ran @1", "skipped(overlap) @2", "skipped(overlap) @4"]),
        (Overlap("queue", queue_max=1), ["ran @0", "ran @1", "skipped(queue_full) @2"]),
        (Overlap("allow", max_instances=2), ["ran @0", "ran @1", "skipped(overlap) @2", "ran @3"]),
        (
            Overlap("replace"),
            ["replaced(replaced) @0", "replaced(replaced) @1"],
        ),
    ],
)
def test_a_slot_that_is_due_while_a_run_is_live_follows_overlap(overlap: Overlap, expected: list[str]) -> None:
    stage = Stage({"a": Act(lasts=seconds(2.5))})
    stage.apply(job("a", every(1), overlap=overlap))
    stage.advance(6)
    assert stage.history("a")[: len(expected)] == expected


def test_replace_waits_until_the_old_tree_is_empty() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}))})
    stage.apply(job("a", every(60), overlap=Overlap("replace"), ending=Termination(stop_timeout=seconds(5))))
    stage.advance(60)
    assert len(stage.spawner.launches) == 1
    stage.advance(4.9)
    assert len(stage.spawner.launches) == 1
    stage.advance(0.2)
    assert len(stage.spawner.launches) == 2
    assert stage.history("a") == ["replaced(replaced) @0"]


def test_a_timeout_terminates_then_kills_the_tree() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}))})
    stage.apply(job("a", Once(), ending=Termination(timeout=seconds(3), stop_timeout=seconds(2))))
    stage.advance(4.9)
    assert [name for _, name in stage.spawner.signals] == ["TERM"]
    stage.advance(0.2)
    assert stage.history("a") == ["failed(timed out after 3s) @0"]
    (row,) = stage.rows("a")
    assert row.exit == -9
    assert row.ended is not None
    assert row.started is not None
    assert row.ended - row.started == timedelta(seconds=5)


def test_a_background_child_that_holds_the_output_is_swept_after_the_drain() -> None:
    stage = Stage({"a": Act(leaves=seconds(300))})
    stage.apply(job("a", Once(), ending=Termination(drain_timeout=seconds(2))))
    stage.advance(1.9)
    assert stage.rows("a") == []
    stage.advance(0.2)
    assert stage.history("a") == ["ran @0"]
    assert stage.rows("a")[0].exit == 0


def test_a_failed_run_is_tried_again_in_its_slot() -> None:
    stage = Stage({"a": [Act(exit=FAIL), Act(exit=FAIL), Act()]})
    retry = Retry(3, Backoff("exponential", base=seconds(1)))
    stage.apply(job("a", every(100), retry=retry))
    stage.advance(50)
    (row,) = stage.rows("a")
    assert (row.state, text_of(row.reason), row.attempts, row.exit) == ("succeeded", "success", 3, 0)
    assert row.ended is not None
    assert (row.ended - row.nominal).total_seconds() == 3  # waits of 1 s and 2 s


def test_retries_hold_the_slot_against_the_next() -> None:
    stage = Stage({"a": Act(exit=FAIL)})
    stage.apply(job("a", every(1), retry=Retry(2, Backoff("fixed", base=seconds(1.5)))))
    stage.advance(1.8)
    assert stage.history("a")[:2] == ["failed(exit 1) @0", "skipped(overlap) @1"]


def test_times_ends_right_after_the_last_run_not_at_the_next_tick() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))}, keep_alive=False)
    stage.apply(job("a", every(3600), stop=Stop(times=1)))
    stage.advance(1)
    assert stage.left == [0]
    assert text_of(stage.engine.jobs["a"].progress.done) == "1 run"


def test_a_job_that_failed_last_makes_the_exit_code_1() -> None:
    stage = Stage({"a": Act(exit=FAIL)}, keep_alive=False)
    stage.apply(job("a", Once()))
    stage.advance(1)
    assert stage.left == [1]


def test_for_lets_a_live_run_finish_and_starts_no_other() -> None:
    stage = Stage({"a": Act(lasts=seconds(4))}, keep_alive=False)
    stage.apply(job("a", every(3), stop=Stop(for_=seconds(5)), overlap=Overlap("queue", queue_max=5)))
    stage.advance(5)
    assert stage.left == []
    stage.advance(20)
    assert stage.left == [0]
    assert stage.starts("a") == [0, 4]


def test_consecutive_failures_end_a_job() -> None:
    stage = Stage({"a": [Act(exit=FAIL), Act(), Act(exit=FAIL), Act(exit=FAIL), Act()]}, keep_alive=False)
    stage.apply(job("a", every(1), stop=Stop(consecutive_failures=2)))
    stage.advance(60)
    assert stage.starts("a") == [0, 1, 2, 3]
    assert stage.left == [1]


def test_a_success_between_failures_resets_the_count_in_a_row() -> None:
    acts = [Act(exit=FAIL), Act(exit=FAIL), Act()]
    stage = Stage({"a": [*acts, *acts, *acts, Act(exit=FAIL), Act(exit=FAIL), Act(exit=FAIL), Act()]}, keep_alive=False)
    stage.apply(job("a", every(1), stop=Stop(consecutive_failures=3)))
    streaks = []
    stage.advance(0.5)
    for _ in range(12):
        streaks.append(stage.engine.jobs["a"].progress.streak)
        stage.advance(1)
    assert streaks == [-1, -2, 1] * 3 + [-1, -2, -3]
    assert stage.left == [1]


def test_successes_in_a_row_are_counted_from_the_last_failure() -> None:
    stage = Stage({"a": [Act(exit=FAIL), Act(), Act(), Act(), Act(exit=FAIL), Act()]})
    stage.apply(job("a", every(1)))
    streaks = []
    stage.advance(0.5)
    for _ in range(6):
        streaks.append(stage.engine.jobs["a"].progress.streak)
        stage.advance(1)
    assert streaks == [-1, 1, 2, 3, -1, 1]


def test_slowdown_skips_slots_until_the_delay_after_the_failures_is_over() -> None:
    stage = Stage({"a": [Act(exit=FAIL), Act(exit=FAIL), Act()]})
    stage.apply(job("a", every(1), slowdown=Slowdown(Backoff("fixed", base=seconds(2.5)))))
    stage.advance(7.5)
    assert stage.starts("a") == [0, 3, 6, 7]
    assert stage.history("a")[1:3] == ["skipped(slowdown) @1", "skipped(slowdown) @2"]


def test_a_service_is_started_again_more_and_more_slowly() -> None:
    stage = Stage({"a": Act(exit=FAIL)})
    stage.apply(job("a", Always()))
    stage.advance(20)
    assert stage.starts("a") == [0, 1, 3, 7, 15]


def test_a_service_that_ran_long_is_restarted_at_once() -> None:
    stage = Stage({"a": [Act(lasts=seconds(100), exit=FAIL)]})
    stage.apply(job("a", Always()))
    stage.advance(400)
    assert stage.starts("a") == [0, 101, 202]


def test_a_service_with_restart_never_is_done_when_it_ends() -> None:
    stage = Stage({"a": Act(lasts=seconds(2))}, keep_alive=False)
    stage.apply(job("a", Always(), restart="never"))
    stage.advance(10)
    assert stage.left == [0]


@pytest.mark.parametrize(
    ("restart", "acts", "runs"),
    [
        ("on-failure", [Act(exit=FAIL), Act(exit=FAIL), Act(), Act()], 3),
        ("on-failure", [Act(), Act()], 1),
        ("on-failure", [Act(exit=FAIL)] * 4 + [Act(lasts=FOR_EVER)], 5),
        ("always", [Act(), Act(exit=FAIL), Act(), Act(lasts=FOR_EVER)], 4),
        ("never", [Act(exit=FAIL), Act()], 1),
    ],
)
def test_a_service_is_restarted_as_its_restart_key_declares(restart: str, acts: list[Act], runs: int) -> None:
    stage = Stage({"s": acts}, keep_alive=False)
    stage.apply(job("s", Always(), restart=restart))
    stage.advance(300)
    assert len(stage.spawner.launches) == runs
    lives = acts[runs - 1].lasts == FOR_EVER
    assert len(stage.spawner.live) == lives
    assert stage.left == ([] if lives else [1 if acts[runs - 1].exit == FAIL else 0])


@pytest.mark.parametrize("between", ["", "trigger", "restart"])
def test_a_service_that_was_stopped_runs_again_after_a_start(between: str) -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    stage.apply(job("s", Always()))
    stage.advance(5)
    stage.request("stop", "s")
    stage.advance(1)
    assert not stage.spawner.live
    if between:
        stage.request(between, "s")
        stage.advance(1)
        assert not stage.spawner.live
    stage.request("start", "s")
    stage.advance(5)
    assert len(stage.spawner.live) == 1
    assert len(stage.spawner.launches) == 2


def test_a_stopped_timed_job_continues_with_its_next_slot_after_a_start() -> None:
    stage = Stage()
    stage.apply(job("a", every(10)))
    stage.advance(5)
    stage.request("stop", "a")
    stage.advance(30)
    stage.request("start", "a")
    stage.advance(10)
    assert stage.history("a") == ["ran @0", "ran @40"]


def test_manual_jobs_alone_do_not_keep_the_supervisor() -> None:
    stage = Stage(keep_alive=False)
    stage.apply(job("a", Manual()), job("b", Once()))
    stage.advance(1)
    assert stage.left == [0]
    assert stage.rows("a") == []


def test_a_trigger_obeys_overlap_unless_forced() -> None:
    stage = Stage({"a": Act(lasts=seconds(10))})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(1)
    stage.request("trigger", "a")
    stage.request("trigger", "a", force=True)
    assert len(stage.spawner.live) == 2
    assert [row.state for row in stage.rows("a")] == ["skipped"]


def test_a_claim_that_fails_starts_nothing() -> None:
    stage = Stage()
    stage.store.failing = OSError(28, "No space left on device")
    stage.apply(job("a", Once()))
    stage.advance(0.5)
    assert stage.spawner.launches == []
    stage.store.failing = None
    stage.advance(60)
    assert len(stage.spawner.launches) == 1


def test_draining_lets_timed_runs_finish_and_stops_services() -> None:
    stage = Stage({"a": Act(lasts=seconds(5)), "s": Act(lasts=FOR_EVER)})
    stage.apply(job("a", every(60)), job("s", Always()))
    stage.advance(1)
    stage.stop()
    assert [run for run, name in stage.spawner.signals if name == "TERM"] != []
    assert stage.left == []
    stage.advance(4)
    assert stage.left == [0]
    assert stage.history("a") == ["ran @0"]
    assert stage.history("s") == ["cancelled(stopped) @0"]


def test_a_second_stop_ends_everything_with_its_signal() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(job("a", Once()))
    stage.advance(1)
    stage.stop()
    stage.stop("stop")
    assert stage.left == [0]
    assert stage.history("a") == ["cancelled(stopped) @0"]


def test_a_third_stop_kills() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=frozenset({"TERM"}))})
    stage.apply(job("a", Once()))
    stage.stop()
    stage.stop("stop")
    assert stage.left == []
    stage.stop("kill")
    assert stage.left == [0]
