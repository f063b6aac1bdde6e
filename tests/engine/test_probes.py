"""What the answer of a probe does, also one that comes too late."""

from __future__ import annotations

import pytest

from repeater._lazy_dataclasses import replace
from repeater.engine.facts import ProbeReported
from repeater.model.events import JobReady, RunBegan
from repeater.model.reasons import Reason
from repeater.model.run import Exit
from repeater.model.spec import Always, Probe
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH
from tests.fakes.spawn import FOR_EVER, Act, seconds

PROBE = Probe(tcp="localhost:1", every=seconds(1), failures=1)
BAD = Reason("probe_failed", {"error": "fake"})


def ready_events(stage: Stage) -> list[bool]:
    return [event.ready for event in stage.events if isinstance(event, JobReady)]


def silence(stage: Stage) -> None:
    """The prober takes every question and answers none: the test does."""
    stage.prober.run_probe = lambda *_: None  # type: ignore[method-assign]


def answer(stage: Stage, kind: str, ok: bool) -> None:
    stage.tell(ProbeReported("web", kind, ok, None if ok else BAD))  # type: ignore[arg-type]
    stage.clock.settle()


def test_a_good_answer_after_the_end_of_the_run_makes_nothing_ready() -> None:
    stage = Stage({"web": Act(lasts=seconds(3), exit=Exit(code=1))})
    silence(stage)
    stage.apply(job("web", Always(), ready=PROBE))
    stage.advance(3.5)
    assert not stage.spawner.live
    answer(stage, "ready", True)
    assert stage.engine.jobs["web"].ready is False
    assert ready_events(stage) == []


def test_a_bad_answer_after_the_end_of_the_run_restarts_nothing() -> None:
    stage = Stage({"web": Act(lasts=seconds(3), exit=Exit(code=1))})
    silence(stage)
    stage.apply(job("web", Always(), live=PROBE))
    stage.advance(3.5)
    answer(stage, "live", False)
    assert not stage.spawner.live
    stage.advance(0.6)
    assert len(stage.spawner.live) == 1
    assert stage.starts("web") == [0]


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("removed", [("ready",), ("live",), ("ready", "live")])
def test_an_answer_after_its_probe_was_removed_does_nothing(removed: tuple[str, ...], ok: bool) -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    silence(stage)
    both = job("web", Always(), ready=PROBE, live=PROBE)
    stage.apply(both)
    stage.advance(2)
    stage.apply(replace(both, **dict.fromkeys(removed)))
    stage.advance(2)
    launches = len(stage.spawner.launches)
    for kind in removed:
        answer(stage, kind, ok)
    stage.advance(5)
    assert len(stage.spawner.launches) == launches
    assert ready_events(stage) == []
    assert len(stage.spawner.live) == 1


def test_a_service_whose_ready_probe_was_removed_is_not_unready() -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    spec = job("web", Always(), ready=PROBE)
    stage.prober.health["web"] = False
    stage.apply(spec)
    stage.advance(2)
    stage.apply(replace(spec, ready=None))
    stage.advance(2)
    assert stage.engine.jobs["web"].ready is None


def test_a_probe_is_not_asked_again_after_the_run_has_ended() -> None:
    asked: list[float] = []
    stage = Stage({"web": Act(lasts=seconds(3.5), exit=Exit(code=0))})
    ask = stage.prober.run_probe
    stage.prober.run_probe = lambda *given: (asked.append(stage.now), ask(*given))[1]  # type: ignore[func-returns-value,method-assign]
    stage.apply(job("web", Always(), restart="never", live=PROBE))
    stage.advance(20)
    assert asked == [1, 2, 3]


def test_a_service_that_is_restarted_is_asked_at_one_pace() -> None:
    asked: list[float] = []
    stage = Stage({"web": [Act(lasts=seconds(7)), Act(lasts=FOR_EVER)]})
    ask = stage.prober.run_probe
    stage.prober.run_probe = lambda *given: (asked.append(stage.now), ask(*given))[1]  # type: ignore[func-returns-value,method-assign]
    stage.apply(job("web", Always(), live=replace(PROBE, every=seconds(5))))
    stage.advance(24)
    (again,) = [event.run.slot.due for event in stage.events if isinstance(event, RunBegan)][1:]
    start = (again - EPOCH).total_seconds()
    assert asked == [5, *(start + length for length in (5, 10, 15) if start + length <= 24)]
    assert len(asked) >= 3


def remade(probe: Probe) -> Probe:
    """An equal probe, as a file that is read again holds it."""
    return replace(probe, every=seconds(probe.every.total_seconds()))


def test_a_live_probe_continues_after_an_edit_of_another_key() -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    spec = job("web", Always(), live=PROBE)
    stage.apply(spec)
    stage.advance(2.5)
    plan = stage.apply(replace(spec, description="other", live=remade(PROBE)))
    assert plan.jobs[0].reload == "in_place"
    stage.advance(5)
    assert len(stage.spawner.launches) == 1
    stage.prober.health["web"] = False
    stage.advance(1)
    stage.prober.health["web"] = True
    stage.advance(20)
    assert len(stage.spawner.launches) == 2


@pytest.mark.parametrize("kind", ["ready", "live"])
def test_a_probe_continues_after_a_rename(kind: str) -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER), "new": Act(lasts=FOR_EVER)})
    stage.prober.health["web"] = kind == "live"
    stage.apply(job("web", Always(), **{kind: PROBE}))
    stage.advance(2.5)
    stage.apply(job("new", Always(), moved_from="web", **{kind: remade(PROBE)}))
    assert len(stage.spawner.launches) == 1
    stage.prober.health["new"] = kind == "ready"
    stage.advance(1)
    stage.prober.health["new"] = True
    stage.advance(20)
    assert len(stage.spawner.launches) == (1 if kind == "ready" else 2)
    assert stage.engine.jobs["new"].ready is (True if kind == "ready" else None)


@pytest.mark.parametrize("probe", [PROBE, Probe(log="listening")], ids=["tcp", "log"])
def test_an_answer_under_a_former_name_counts_for_the_renamed_job(probe: Probe) -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    silence(stage)
    stage.apply(job("web", Always(), ready=probe))
    stage.advance(1.5)
    stage.apply(job("site", Always(), moved_from="web", ready=probe))
    stage.apply(job("new", Always(), moved_from="site", ready=probe))
    answer(stage, "ready", True)
    assert stage.engine.jobs["new"].ready is True
    assert [event.job for event in stage.events if isinstance(event, JobReady)] == ["new"]


def test_an_answer_for_a_removed_job_with_a_former_name_does_nothing() -> None:
    stage = Stage({"web": Act(lasts=FOR_EVER)})
    silence(stage)
    stage.apply(job("web", Always(), ready=PROBE))
    stage.advance(1.5)
    stage.apply(job("new", Always(), moved_from="web", ready=PROBE))
    stage.apply(job("web", Always(), moved_from="new", ready=PROBE))
    stage.apply()
    answer(stage, "ready", True)
    assert ready_events(stage) == []


def test_an_answer_of_an_earlier_run_does_not_double_the_questions() -> None:
    asked: list[float] = []
    stage = Stage({"web": [Act(lasts=seconds(2.5)), Act(lasts=FOR_EVER)]})
    stage.prober.run_probe = lambda *_: asked.append(stage.now)  # type: ignore[method-assign]
    stage.apply(job("web", Always(), live=PROBE))
    stage.advance(3)  # the first run was asked at 1 s; the second one began at 2.5 s
    assert (len(stage.spawner.live), asked) == (1, [1])
    answer(stage, "live", True)
    stage.advance(3)
    assert asked == [1, 4]
