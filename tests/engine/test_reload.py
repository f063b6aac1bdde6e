"""Hot reload in virtual time: what each class of change does to jobs that run."""

from __future__ import annotations

from datetime import timedelta

from repeater._lazy_dataclasses import replace
from repeater.model.events import SlotDecided, Warned
from repeater.model.run import Exit
from repeater.model.spec import (
    Always,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Manual,
    Once,
    OnChange,
    Overlap,
    ProcessSpec,
    Retry,
    Stop,
)
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH
from tests.fakes.spawn import FOR_EVER, Act, seconds
from tests.fakes.text import text_of


def other(text: str) -> ProcessSpec:
    return ProcessSpec(command=(text,), cwd="/")


def test_an_unchanged_job_notices_nothing() -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    tick, service = job("a", Every(seconds(1))), job("s", Always())
    stage.apply(tick, service)
    for _ in range(20):
        stage.advance(0.35)
        stage.apply(tick, service, job("b", Manual(), description=f"{stage.clock.now().mono}"))
    assert stage.starts("a") == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len([launch for launch in stage.spawner.launches if launch.env["RPR_JOB"] == "s"]) == 1


def test_a_changed_command_waits_for_the_next_run_of_a_timed_job() -> None:
    stage = Stage({"a": Act(lasts=seconds(3))})
    stage.apply(job("a", Every(seconds(5))))
    stage.advance(1)
    plan = stage.apply(job("a", Every(seconds(5)), process=other("new")))
    assert plan.jobs[0].reload == "next_run"
    stage.advance(5)
    assert [launch.argv for launch in stage.spawner.launches] == [("true",), ("new",)]
    assert stage.starts("a") == [0]
    assert stage.spawner.signals == []


def test_a_changed_command_restarts_a_service() -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    stage.apply(job("s", Always()))
    stage.advance(10)
    plan = stage.apply(job("s", Always(), process=other("new")))
    stage.advance(1)
    assert plan.jobs[0].reload == "restart"
    assert [launch.argv for launch in stage.spawner.launches] == [("true",), ("new",)]
    assert len(stage.spawner.live) == 1
    assert stage.history("s") == ["replaced(replaced (its definition changed)) @0"]


def test_a_changed_schedule_counts_from_now_and_fires_nothing() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(60))))
    stage.advance(30)
    stage.apply(job("a", Every(seconds(10))))
    stage.advance(9)
    assert stage.starts("a") == [0]
    stage.advance(12)
    assert stage.starts("a") == [0, 40, 50]


def test_an_earlier_cron_hour_does_not_run_retroactively() -> None:
    stage = Stage()
    stage.apply(job("a", Cron("0 23 * * *")))
    stage.advance(12 * 3600)
    stage.apply(job("a", Cron("0 5 * * *")))
    stage.advance(6 * 3600)
    assert stage.rows("a") == []
    stage.advance(12 * 3600)
    assert stage.starts("a") == [29 * 3600]


def test_counters_survive_a_change_of_schedule_and_of_name() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(1)), stop=Stop(times=5)))
    stage.advance(1.5)
    stage.apply(job("a", Every(seconds(2)), stop=Stop(times=5)))
    stage.advance(2)
    stage.apply(job("b", Every(seconds(2)), stop=Stop(times=5), moved_from="a"))
    stage.advance(60)
    assert stage.engine.jobs["b"].progress.runs == 5
    assert len(stage.rows("b")) == 5
    assert stage.rows("a") == []


def test_a_longer_stop_rule_rearms_a_job_that_is_done() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(1)), stop=Stop(times=2)))
    stage.advance(10)
    stage.apply(job("a", Every(seconds(1)), stop=Stop(times=4)))
    stage.advance(10)
    assert stage.starts("a") == [0, 1, 11, 12]


def test_a_removed_timed_job_finishes_its_run_and_a_service_stops() -> None:
    stage = Stage({"a": Act(lasts=seconds(5)), "s": Act(lasts=FOR_EVER)})
    stage.apply(job("a", Every(seconds(60))), job("s", Always()), job("b", Manual()))
    stage.advance(1)
    stage.apply(job("b", Manual()))
    assert stage.history("s") == ["cancelled(removed) @0"]
    stage.advance(10)
    assert stage.history("a") == ["ran @0"]


def test_a_removed_job_that_returns_keeps_its_counters_and_owes_nothing() -> None:
    stage = Stage()
    counted = job("a", Every(seconds(10)), stop=Stop(times=3))
    stage.apply(counted, job("b", Manual()))
    stage.advance(1)
    stage.apply(job("b", Manual()))
    stage.advance(100)
    stage.apply(counted, job("b", Manual()))
    stage.advance(100)
    assert stage.starts("a") == [0, 111, 121]


def test_overlap_changes_in_place_for_a_run_that_is_live() -> None:
    stage = Stage({"a": Act(lasts=seconds(3.5))})
    stage.apply(job("a", Every(seconds(1))))
    stage.advance(1.5)
    plan = stage.apply(job("a", Every(seconds(1)), overlap=Overlap("latest")))
    assert plan.jobs[0].reload == "in_place"
    stage.advance(2.2)
    assert stage.history("a") == ["ran @0", "skipped(overlap) @1", "skipped(superseded) @2"]
    assert len(stage.spawner.live) == 1


def test_disabling_lets_the_live_run_finish_and_enabling_owes_nothing() -> None:
    stage = Stage({"a": Act(lasts=seconds(2))})
    on = job("a", Every(seconds(5)))
    stage.apply(on)
    stage.advance(1)
    stage.apply(replace(on, enabled=False))
    stage.advance(30)
    assert stage.history("a") == ["ran @0"]
    stage.apply(on)
    stage.advance(8)
    assert stage.starts("a") == [0, 35]


def test_a_restart_continues_counts_and_next_starts() -> None:
    stage = Stage({"a": Act()})
    counted = job("a", Every(seconds(10)), stop=Stop(times=4))
    stage.apply(counted)
    stage.advance(15)
    stage = stage.again(after=2)
    stage.apply(counted)
    stage.advance(60)
    assert stage.starts("a") == [0, 10, 20, 30]
    stage = stage.again(after=60, keep_alive=False)
    stage.apply(counted)
    stage.advance(60)
    assert stage.spawner.launches == []
    assert stage.left == [0]


def test_slots_missed_while_down_are_rows_with_a_reason() -> None:
    stage = Stage()
    minutely = job("a", Cron("* * * * *"))
    stage.apply(minutely)
    stage.advance(90)
    stage = stage.again(after=170)
    stage.apply(minutely)
    stage.advance(60)
    assert stage.history("a") == [
        "ran @0", "ran @60", "skipped(missed) @120", "skipped(missed) @180", "skipped(missed) @240", "ran @300",
    ]  # fmt: skip


def test_an_interval_missed_for_a_year_costs_few_rows_and_no_run() -> None:
    stage = Stage()
    fast = job("a", Every(seconds(1), immediate=False))
    stage.apply(fast)
    stage.advance(1.5)
    stage = stage.again(after=365 * 86400)
    stage.apply(fast)
    stage.advance(3)
    rows = stage.rows("a")
    assert len(rows) < 20
    assert [row.state for row in rows][-3:] == ["succeeded", "succeeded", "succeeded"]


def test_a_run_left_open_by_a_crash_is_interrupted_and_not_run_again() -> None:
    stage = Stage({"a": Act(lasts=seconds(100))})
    hourly = job("a", Every(seconds(3600)))
    stage.apply(hourly)
    stage.advance(5)
    stage = stage.again(after=5)
    stage.apply(hourly)
    stage.advance(3600)
    assert stage.history("a")[0].startswith("interrupted(")
    assert stage.starts("a")[1:] == []
    assert len(stage.spawner.launches) == 1


def test_once_runs_at_every_start_and_never_again_by_a_reload() -> None:
    stage = Stage()
    stage.apply(job("a", Once()), job("b", Manual()))
    stage.advance(5)
    stage.apply(job("a", Once()), job("b", Manual(), description="x"))
    stage.advance(5)
    assert stage.starts("a") == [0]
    stage = stage.again(after=10)
    stage.apply(job("a", Once()))
    stage.advance(5)
    assert stage.starts("a") == [0, 20]


def test_changed_files_run_a_watch_job_once_for_a_burst() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    stage.apply(job("a", OnChange(("src/**",)), process=ProcessSpec(command=("make",), cwd="/w")))
    for _ in range(5):
        stage.watcher.touch("/w/src/x.py")
        stage.advance(0.1)
    stage.advance(2)
    assert stage.starts("a") == [0.6]


def test_changed_files_restart_a_service() -> None:
    stage = Stage({"s": Act(lasts=FOR_EVER)})
    stage.apply(job("s", Always(), watch=("src/*.py",), process=ProcessSpec(command=("serve",), cwd="/w")))
    stage.advance(1)
    stage.watcher.touch("/w/src/x.py")
    stage.advance(1)
    assert stage.history("s") == ["replaced(replaced (files changed)) @0"]
    assert len(stage.spawner.live) == 1


def test_a_wall_clock_set_back_decides_no_slot_twice() -> None:
    stage = Stage()
    stage.apply(job("a", Cron("* * * * *")), job("b", Every(seconds(30))))
    stage.advance(125)
    stage.clock.set_wall(stage.clock.now().wall - seconds(100))
    stage.advance(240)
    decided = [
        event.row for event in stage.events if isinstance(event, SlotDecided)
    ]  # the store has one row for a slot
    crons = [row.nominal - EPOCH for row in decided if row.job == "a"]
    assert crons == [seconds(0), seconds(60), seconds(120), seconds(180), seconds(240)]
    assert len([row for row in decided if row.job == "b"]) == 13


def test_a_stall_of_a_minute_owes_an_interval_one_run() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(1))))
    stage.advance(2.5)
    stage.clock.stall(seconds(3))
    stage.advance(2)
    assert [row.state for row in stage.rows("a")] == ["succeeded"] * 3 + ["skipped"] * 2 + ["succeeded"] * 3


def test_the_exit_of_a_removed_last_run_ends_the_supervisor() -> None:
    stage = Stage({"a": Act(lasts=seconds(5), exit=Exit(code=0))}, keep_alive=False)
    stage.apply(job("a", Once()), job("b", Every(seconds(1))))
    stage.advance(1)
    stage.apply(job("b", Every(seconds(1)), stop=Stop(times=1)))
    stage.advance(0.5)
    assert stage.left == []
    stage.advance(5)
    assert stage.left == [0]


def test_at_least_once_retries_a_slot_left_open_by_a_crash() -> None:
    stage = Stage({"a": Act(lasts=seconds(100))})
    hourly = job("a", Every(seconds(3600)), delivery="at-least-once", stop=Stop(times=2))
    stage.apply(hourly)
    stage.advance(5)
    stage = stage.again({"a": Act(lasts=seconds(1))}, after=5)
    stage.apply(hourly)
    stage.advance(10)
    (row,) = stage.rows("a")
    assert (row.state, text_of(row.reason), row.attempts) == ("succeeded", "success", 2)
    assert stage.spawner.launches[0].env["RPR_ATTEMPT"] == "2"
    assert stage.engine.jobs["a"].progress.runs == 1


def test_a_pending_retry_continues_after_a_restart() -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))})
    retried = job("a", Every(seconds(3600)), retry=Retry(3, Backoff("fixed", base=seconds(30))))
    stage.apply(retried)
    stage.advance(5)
    stage = stage.again({"a": Act()}, after=5)
    stage.apply(retried)
    stage.advance(5)
    (row,) = stage.rows("a")
    assert (text_of(row.reason), row.attempts) == ("success", 2)


def test_an_after_end_job_that_allows_overlap_keeps_that_many_runs_going() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))}, keep_alive=False)
    back_to_back = Every(timedelta(0), after_end=True)
    stage.apply(job("a", back_to_back, overlap=Overlap("allow", max_instances=3), stop=Stop(times=7)))
    stage.advance(0.5)
    assert len(stage.spawner.live) == 3
    stage.advance(1)
    assert len(stage.spawner.live) == 3
    stage.advance(5)
    assert len(stage.rows("a")) == 7
    assert stage.left == [0]


def test_a_suspended_machine_is_downtime_for_cron_and_not_for_an_interval() -> None:
    stage = Stage()
    stage.apply(job("c", Cron("* * * * *")), job("i", Every(seconds(600))))
    stage.advance(65)
    stage.clock.suspend(seconds(600))
    stage.advance(65)
    assert [text_of(event.reason) for event in stage.events if isinstance(event, Warned)] == [
        "system was suspended for 600 s"
    ]
    states = [row.state for row in stage.rows("c")]
    assert states.count("skipped") >= 9
    assert len(stage.rows("i")) == 1


def test_catch_up_latest_runs_one_of_the_slots_that_a_suspend_missed() -> None:
    stage = Stage()
    stage.apply(job("c", Cron("* * * * *"), catch_up=CatchUp("latest")))
    stage.advance(65)
    stage.clock.suspend(seconds(600))
    stage.advance(1)
    stage.advance(30)
    caught = [row for row in stage.rows("c") if row.trigger == "catch_up"]
    assert [row.state for row in caught] == ["succeeded"]
    assert len({row.nominal for row in stage.rows("c")}) == len(stage.rows("c"))


def test_catch_up_all_runs_them_oldest_first() -> None:
    stage = Stage({"c": Act(lasts=seconds(1))})
    stage.apply(job("c", Cron("* * * * *"), catch_up=CatchUp("all"), overlap=Overlap("queue", queue_max=99)))
    stage.advance(65)
    stage.clock.suspend(seconds(300))
    stage.advance(45)
    started = [row.started for row in stage.rows("c")]
    assert len(started) == 7
    assert started == sorted(started)  # type: ignore[type-var]
