"""How close slots may be, and how many of them one turn decides."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from repeater.engine.next_slot import MOST_IN_TURN
from repeater.model.events import SlotDecided, Warned
from repeater.model.spec import (
    LEAST_DISTANCE,
    Adaptive,
    Backoff,
    Every,
    Growing,
    LoadAware,
    Plugin,
    RateLimited,
    ScheduleSpec,
)
from repeater.model.time import to_us
from repeater.model.units import Rate
from repeater.schedule.base import Track
from repeater.schedule.factory import schedule_for
from tests.engine.stage import Stage, job
from tests.fakes.clock import EPOCH, FakeClock
from tests.fakes.plugins import FakePlugins
from tests.fakes.spawn import Act, seconds

STEP = timedelta(microseconds=1)
CLOSE: dict[str, ScheduleSpec] = {
    "every": Every(LEAST_DISTANCE),
    "after_end": Every(timedelta(0), after_end=True),
    "backoff": Growing(Backoff("fixed", LEAST_DISTANCE)),
    "adaptive": Adaptive(LEAST_DISTANCE, LEAST_DISTANCE, LEAST_DISTANCE),
    "load": LoadAware(LEAST_DISTANCE, LEAST_DISTANCE, LEAST_DISTANCE),
    "rate": RateLimited(Rate(10**9, timedelta(seconds=1))),
    "plugin": Plugin.of("steps", {}),
    "plugin that waits": Plugin.of("steps", {"waits": True}),
}


def steps(keys: dict[str, Any], track: dict[str, Any]) -> str:
    after = datetime.fromisoformat(track["after"] or track["anchor"])
    return (after + LEAST_DISTANCE).isoformat()


def tiny_steps(keys: dict[str, Any], track: dict[str, Any]) -> str:
    return (datetime.fromisoformat(track["after"] or track["anchor"]) + STEP).isoformat()


@pytest.mark.parametrize("name", CLOSE)
def test_slots_without_a_run_are_the_least_distance_apart(name: str) -> None:
    clock = FakeClock()
    schedule = schedule_for(job("a", CLOSE[name]), FakePlugins({"steps": steps}))
    track = Track(clock.now(), clock.now())
    for _ in range(50):
        following = schedule.next(track)
        assert following is not None
        assert track.cursor is not None
        assert following.mono - track.cursor.mono >= to_us(LEAST_DISTANCE)
        track = Track(track.anchor, following)


@pytest.mark.parametrize("name", CLOSE)
def test_a_turn_after_a_long_stall_decides_a_bounded_number_of_slots(name: str) -> None:
    stage = Stage({"a": Act(lasts=seconds(0.2))}, plugins=FakePlugins({"steps": steps}))
    stage.apply(job("a", CLOSE[name]), job("b", Every(seconds(10))))
    stage.advance(0.3)
    stage.request("pause", "a")
    stage.advance(0.202)
    stage.events.clear()
    stage.clock.stall(timedelta(minutes=1))
    stage.clock.settle()
    decided = sum(isinstance(event, SlotDecided) and event.row.job == "a" for event in stage.events)
    assert 0 < decided <= MOST_IN_TURN + 2
    stage.request("resume", "a")
    stage.advance(0.3)
    assert stage.starts("b")[-1] >= 60, "other jobs go on"
    assert stage.starts("a")[-1] >= 60


def test_a_plugin_whose_starts_are_too_close_has_failed() -> None:
    stage = Stage(plugins=FakePlugins({"steps": tiny_steps}))
    stage.apply(job("a", Plugin.of("steps", {})), job("b", Every(seconds(1))))
    stage.advance(10)
    assert len(stage.starts("a")) <= 12
    assert stage.starts("b") == list(range(11))
    assert any(isinstance(event, Warned) and event.job == "a" for event in stage.events)
    assert stage.clock.now().wall > EPOCH
