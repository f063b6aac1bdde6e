"""Edges with `trigger`: they fire for a decided run that met the condition, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from repeater.engine.facts import JobCommand
from repeater.model.events import JobReady, RunBegan
from repeater.model.run import Exit
from repeater.model.spec import Always, Every, Hooks, Manual, Need, Overlap, Probe
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds

BAD = Exit(code=1)


def dependent(condition: Any, **keys: Any) -> Any:
    need = Need("up", condition, trigger=True)
    return job("down", Manual(), needs=(need,), hooks=Hooks(on_skip="hook"), **keys)


@pytest.mark.parametrize(
    ("condition", "exits", "states"),
    [
        ("succeeded", [Exit(code=0), BAD, Exit(code=0)], ["succeeded", "skipped", "succeeded"]),
        ("failed", [Exit(code=0), BAD, Exit(code=0)], ["succeeded"]),
        ("completed", [Exit(code=0), BAD, Exit(code=0)], ["succeeded"] * 3),
        ("failed", [Exit(code=0)] * 3, []),
        ("succeeded", [BAD] * 3, ["skipped"] * 3),
    ],
)
def test_an_edge_starts_a_run_only_after_one_that_met_its_condition(condition: Any, exits: Any, states: Any) -> None:
    stage = Stage({"up": [Act(exit=one) for one in exits]})
    stage.apply(job("up", Manual()), dependent(condition))
    for _ in exits:
        stage.request("trigger", "up")
        stage.advance(10)
    assert [row.state for row in stage.rows("down")] == states
    skips = [launch for launch in stage.spawner.launches if launch.argv[-1] == "hook"]
    assert len(skips) == states.count("skipped")


def test_a_skipped_or_paused_upstream_starts_nothing() -> None:
    stage = Stage({"up": [Act(), Act(lasts=seconds(25))]})
    stage.apply(job("up", Every(seconds(10))), dependent("succeeded"))
    stage.advance(5)
    assert len(stage.rows("down")) == 1
    stage.advance(29)  # a long run; two slots are skipped meanwhile
    assert [row.state for row in stage.rows("up")].count("skipped") >= 1
    assert len(stage.rows("down")) == 1
    stage.advance(5)
    before = len(stage.rows("down"))
    stage.request("pause", "up")
    stage.advance(60)
    assert len(stage.rows("down")) == before


def test_a_request_for_several_jobs_gives_them_one_nominal_time() -> None:
    stage = Stage({"m1": Act(lasts=seconds(1)), "m2": Act(lasts=seconds(3))})
    needs = tuple(Need(name, "succeeded", within="same_slot", trigger=True) for name in ("m1", "m2"))
    stage.apply(job("m1", Manual()), job("m2", Manual()), job("down", Manual(), needs=needs))
    for _ in range(2):
        nominal = stage.clock.now().wall
        for name in ("m1", "m2"):
            stage.tell(JobCommand("trigger", name, nominal=nominal))
            stage.advance(0.1)
        stage.advance(10)
    assert [row.state for row in stage.rows("down")] == ["succeeded", "succeeded"]
    assert {row.nominal for row in stage.rows("m1")} == {row.nominal for row in stage.rows("m2")}


def test_a_request_for_a_job_started_by_an_edge_is_a_separate_slot() -> None:
    stage = Stage()
    stage.apply(job("up", Manual()), dependent("succeeded"))
    nominal = stage.clock.now().wall
    for name in ("up", "down"):
        stage.tell(JobCommand("trigger", name, nominal=nominal))
        stage.advance(1)
    assert [row.state for row in stage.rows("down")] == ["succeeded", "succeeded"]


def starts_edge(**keys: Any) -> Any:
    return job("down", Manual(), needs=(Need("up", "started", trigger=True),), **keys)


def test_an_edge_fires_once_for_each_start_of_a_service() -> None:
    stage = Stage({"up": [Act(lasts=seconds(30)), Act(lasts=seconds(100))], "down": Act(lasts=seconds(1))})
    stage.apply(job("up", Always(), ready=Probe(tcp="localhost:1", every=seconds(1), failures=1)), starts_edge())
    for healthy in (True, False, True, False):  # a change of readiness is no start
        stage.prober.health["up"] = healthy
        stage.advance(6)
    assert [event.ready for event in stage.events if isinstance(event, JobReady)] == [True, False, True, False]
    assert stage.starts("down") == [0]
    stage.advance(16)
    assert len(stage.spawner.live) == 1
    second = [event.run for event in stage.events if isinstance(event, RunBegan) and event.run.slot.job == "up"][1]
    assert [row.nominal for row in stage.rows("down")][1:] == [second.slot.due]


def test_an_edge_fires_for_each_of_several_runs_at_once() -> None:
    stage = Stage({"up": Act(lasts=seconds(25))})
    overlapping = Overlap("allow", max_instances=3)
    stage.apply(job("up", Every(seconds(10)), overlap=overlapping), starts_edge())
    stage.advance(25)
    assert stage.starts("down") == [0, 10, 20]


def test_an_edge_fires_at_the_start_of_a_process_not_at_the_request() -> None:
    stage = Stage({"up": Act(starting=seconds(4), lasts=seconds(2))})
    stage.apply(job("up", Manual()), starts_edge())
    stage.request("trigger", "up")
    stage.advance(3)
    assert stage.rows("down") == []
    stage.advance(60)
    assert stage.starts("down") == [4]


def test_a_run_that_is_adopted_fires_no_edge_a_second_time() -> None:
    stage = Stage({"up": Act(lasts=seconds(100))})
    stage.apply(job("up", Manual()), starts_edge())
    stage.request("trigger", "up")
    stage.advance(5)
    again = stage.kept(away=5)
    again.apply(job("up", Manual()), starts_edge())
    again.advance(100)
    assert again.starts("down") == [0]
