"""`status` and `why` without a supervisor: the last known state of each job, with the keys of the live answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from repeater._lazy_dataclasses import replace
from repeater.control.commands.explain_history import explain_offline
from repeater.control.commands.offline import offline_items, running_item
from repeater.control.commands.status import describe
from repeater.model.history_meta import HistoryMeta
from repeater.model.run import Exit
from repeater.model.spec import Every, Manual, Once
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds


def left() -> tuple[Stage, list[Any]]:
    """A stage whose supervisor is gone, and its jobs."""
    stage = Stage({"bad": Act(exit=Exit(code=3)), "web": Act(lasts=timedelta(days=9))})
    specs = [
        job("web", Every(seconds(60))),
        job("bad", Every(seconds(60))),
        job("once", Once()),
        job("asked", Manual()),
        replace(job("off", Every(seconds(60))), enabled=False),
    ]
    stage.apply(*specs)
    stage.request("pause", "asked")
    stage.advance(61)
    return stage, specs


def rows(stage: Stage) -> Any:
    return lambda jobs=None, most=100, **filters: list(stage.store.find_records(jobs, most, **filters))


def test_each_job_has_its_last_known_state() -> None:
    stage, specs = left()
    progress = {name: one.progress for name, one in stage.engine.jobs.items()}
    (row,) = [one for one in rows(stage)(["web"]) if one.outcome == "running"]
    now = stage.clock.now().wall
    live = {"web": [running_item("r", 7, now - seconds(5), now, row)]}
    items = offline_items(specs, [], rows(stage), progress, live)
    assert {item["job"]: item["state"] for item in items} == {
        "web": "running", "bad": "down", "once": "done", "asked": "paused", "off": "disabled",
    }  # fmt: skip
    assert (items[0]["running"][0]["pid"], items[0]["running"][0]["seconds"]) == (7, 5.0)
    assert (items[1]["last"]["exit"], items[1]["consecutive_failures"]) == (3, 2)
    assert [item["job"] for item in offline_items(specs, ["b*"], rows(stage), progress, {})] == ["bad"]


def test_the_keys_are_those_of_a_running_supervisor() -> None:
    stage, specs = left()
    (item, *_) = offline_items(specs, [], rows(stage), {}, {})
    assert list(item) == list(describe(stage.engine.jobs["web"], stage.clock.now()))


def test_why_shows_the_running_job_and_the_result_of_the_last_run() -> None:
    stage, specs = left()
    now = stage.clock.now().wall
    progress = {name: one.progress for name, one in stage.engine.jobs.items()}
    meta = HistoryMeta(progress=progress)
    running = {"web": (7, now - seconds(5), 9)}
    told = explain_offline("web", "", specs, rows(stage), meta, now, running=running)
    assert told["reason_code"] == "runs_unattended"
    assert told["fact_reasons"][0]["detail"] == {"pid": 9}
    told = explain_offline("bad", "", specs, rows(stage), meta, now, running=running)
    assert told["reason_code"] == "no_supervisor"
    assert [one["reason_code"] for one in told["fact_reasons"]] == ["last_run_ended", "failed_in_row"]
    told = explain_offline("asked", "", specs, rows(stage), meta, now)
    assert [one["reason_code"] for one in told["fact_reasons"]] == ["never_ran", "paused_until"]
