"""Slots that wait behind a live run: what becomes of them when the job is edited, renamed, stopped or removed."""

from __future__ import annotations

from repeater._lazy_dataclasses import replace
from repeater.model.spec import Always, CatchUp, Cron, Every, JobSpec, Manual, Overlap, Pool
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

QUEUE = Overlap("queue", queue_max=9)
TICKS = job("a", Every(seconds(10)), overlap=QUEUE)
OTHER = job("b", Manual())


def queued(spec: JobSpec = TICKS, lasts: float = 45, after: float = 25) -> Stage:
    """A stage with one live run since 0 s and, after 25 s, slots of 10 s and 20 s that wait."""
    stage = Stage({"a": [Act(lasts=seconds(lasts)), Act()], "c": Act()})
    stage.apply(spec, OTHER)
    stage.advance(after)
    return stage


def reasons(stage: Stage, name: str = "a") -> list[tuple[str, str | None]]:
    return [(row.state, None if row.reason is None else row.reason.code) for row in stage.rows(name)]


def test_a_removed_job_cancels_the_slots_of_its_queue() -> None:
    stage = queued()
    stage.apply(OTHER)
    assert reasons(stage) == [("cancelled", "removed")] * 2
    stage.advance(60)
    assert stage.history("a") == ["ran @0", "cancelled(removed) @10", "cancelled(removed) @20"]


def test_a_stopped_job_cancels_the_slots_of_its_queue() -> None:
    stage = queued()
    stage.request("stop", "a")
    stage.advance(60)
    assert reasons(stage) == [("cancelled", "stopped")] * 3
    assert len(stage.spawner.launches) == 1


def test_a_disabled_job_cancels_its_queue_and_finishes_its_run() -> None:
    stage = queued()
    stage.apply(replace(TICKS, enabled=False), OTHER)
    stage.advance(60)
    assert stage.history("a") == ["ran @0", "cancelled(disabled) @10", "cancelled(disabled) @20"]


def test_a_supervisor_that_shuts_down_cancels_the_slots_of_a_queue() -> None:
    stage = queued()
    stage.stop()
    stage.advance(60)
    assert stage.history("a") == ["ran @0", "cancelled(stopped) @10", "cancelled(stopped) @20"]
    assert stage.left == [0]


def test_a_removed_job_cancels_a_slot_that_waits_for_a_place() -> None:
    stage = Stage({"x": Act(lasts=FOR_EVER)})
    pools = (Pool("p", 1),)
    stage.apply(job("x", Always(), pool="p"), job("a", Every(seconds(60)), pool="p"), pools=pools)
    stage.advance(1)
    stage.apply(job("x", Always(), pool="p"), pools=pools)
    assert stage.history("a") == ["cancelled(removed) @0"]


def test_another_schedule_cancels_scheduled_slots_of_a_queue_only() -> None:
    stage = queued()
    stage.request("trigger", "a")
    stage.apply(replace(TICKS, schedule=Every(seconds(100))), OTHER)
    stage.advance(60)
    assert reasons(stage) == [
        ("succeeded", "success"),
        ("cancelled", "schedule_changed"),
        ("cancelled", "schedule_changed"),
        ("succeeded", "success"),
    ]
    assert stage.starts("a") == [0, 45]


def test_another_schedule_cancels_a_missed_slot_that_waits_to_be_caught_up() -> None:
    spec = job("a", Cron("* * * * *"), overlap=QUEUE, catch_up=CatchUp("latest"))
    stage = Stage({"a": Act(lasts=seconds(300))})
    stage.apply(spec)
    stage.advance(65)
    stage.clock.stall(seconds(190))
    stage.advance(0)
    assert [slot.trigger for slot in stage.engine.jobs["a"].pending] == ["schedule", "catch_up"]
    stage.apply(replace(spec, schedule=Cron("0 5 * * *")))
    stage.advance(600)
    assert reasons(stage)[-1] == ("cancelled", "schedule_changed")
    assert len(stage.spawner.launches) == 1


def test_an_edit_of_another_key_keeps_the_queue() -> None:
    stage = queued()
    stage.apply(replace(TICKS, description="other"), OTHER)
    stage.advance(60)
    assert stage.starts("a") == [0, 45, 45, 45, 45, 50, 60, 70, 80]


def test_a_renamed_job_runs_its_queue_under_the_new_name() -> None:
    stage = queued()
    stage.apply(replace(TICKS, name="c", group="c", moved_from="a"), OTHER)
    stage.advance(24)
    assert stage.history("a") == []
    assert stage.starts("c") == [0, 45, 45, 45, 45]
    assert {event.job for event in stage.store.find_records(most=100)} == {"c"}
    assert [launch.env["RPR_JOB"] for launch in stage.spawner.launches] == ["a", "c", "c", "c", "c"]


def test_a_renamed_job_stores_its_progress_under_the_new_name() -> None:
    stage = queued()
    stage.apply(replace(TICKS, name="c", group="c", moved_from="a"), OTHER)
    assert set(stage.store.progress) == {"b", "c"}
    assert {name: kept.job for name, kept in stage.store.progress.items()} == {"b": "b", "c": "c"}
    assert stage.store.progress["c"].runs == 1
    stage.advance(60)
    assert set(stage.store.progress) == {"b", "c"}
    assert stage.store.progress["c"] == stage.engine.jobs["c"].progress


def test_a_renamed_job_cancels_its_queue_under_the_new_name() -> None:
    stage = queued()
    stage.apply(replace(TICKS, name="c", group="c", moved_from="a", schedule=Every(seconds(100))), OTHER)
    assert stage.history("a") == []
    assert reasons(stage, "c") == [("cancelled", "schedule_changed")] * 2
