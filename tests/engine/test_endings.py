"""How a run is brought to its end where two requests meet: a stop and a kill, a request and a process that starts."""

from __future__ import annotations

import pytest

from repeater.model.spec import Once, Termination
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

STUBBORN = frozenset({"TERM"})


@pytest.mark.parametrize("dying", [1, 5, 30])
def test_a_kill_during_the_grace_ends_the_grace(dying: float) -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=STUBBORN, dying=seconds(dying))})
    stage.apply(job("a", Once(), ending=Termination(stop_timeout=seconds(5))))
    stage.stop()
    stage.stop("stop")
    stage.advance(2)
    stage.stop("kill")
    stage.advance(dying - 0.1)
    assert stage.left == []
    stage.advance(0.2)
    assert len(stage.spawner.sweeps) == 1
    assert [name for _, name in stage.spawner.signals] == ["TERM"]
    assert stage.history("a") == ["cancelled(stopped) @0"]
    assert stage.left == [0]


def test_a_kill_after_the_exit_ends_the_drain_time() -> None:
    stage = Stage({"a": Act(leaves=seconds(300), dying=seconds(10))})
    stage.apply(job("a", Once(), ending=Termination(drain_timeout=seconds(5))))
    stage.advance(1)
    stage.stop()
    stage.stop("kill")
    stage.advance(11)
    assert len(stage.spawner.sweeps) == 1
    assert stage.left == [0]


@pytest.mark.parametrize("levels", [("kill",), ("stop", "kill"), ("kill", "stop"), ("kill", "kill")])
def test_a_kill_before_the_process_exists_kills_it_at_its_start(levels: tuple[str, ...]) -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=STUBBORN, starting=seconds(5))})
    stage.apply(job("a", Once(), ending=Termination(stop_timeout=seconds(100))))
    stage.advance(1)
    for level in levels:
        stage.stop(level)
    stage.advance(3)
    assert (stage.spawner.sweeps, stage.left) == ([], [])
    stage.advance(1.1)
    assert len(stage.spawner.sweeps) == 1
    assert stage.spawner.signals == []
    assert stage.history("a") == ["cancelled(stopped) @0"]
    assert stage.left == [0]


def test_a_stop_before_the_process_exists_gives_it_its_grace() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER, ignores=STUBBORN, starting=seconds(5))})
    stage.apply(job("a", Once(), ending=Termination(stop_timeout=seconds(3))))
    stage.advance(1)
    stage.stop()
    stage.stop("stop")
    stage.advance(4.1)
    assert [name for _, name in stage.spawner.signals] == ["TERM"]
    assert stage.spawner.sweeps == []
    stage.advance(3)
    assert len(stage.spawner.sweeps) == 1
    assert stage.left == [0]
