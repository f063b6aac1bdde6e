"""Late texts that are rendered away from the loop: the run starts when they are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from repeater.errors import RepeaterError
from repeater.model.spec import Always, Every, ProcessSpec
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

SLOW = ProcessSpec(("echo", "{{ run.id | upper }}"), cwd="/", late=("command[1]",))
PLAIN = ProcessSpec(("echo", "{{ run.attempt }}"), cwd="/", late=("command[1]",))


class Renderer:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[ProcessSpec, Callable[[ProcessSpec | RepeaterError], None]]] = []

    def render(
        self, process: ProcessSpec, run: Mapping[str, Any], then: Callable[[ProcessSpec | RepeaterError], None]
    ) -> None:
        assert {"id", "attempt", "nominal", "due", "trigger"} <= set(run)
        self.asked.append((process, then))

    def close(self) -> None:
        pass

    def answer(self, stage: Stage, cause: str = "") -> None:
        _, then = self.asked.pop(0)
        done = ProcessSpec(("echo", "done"), cwd="/")
        stage.clock.call_soon(lambda: then(RepeaterError(cause) if cause else done))
        stage.advance(0)


def test_a_run_starts_when_its_texts_are_there_and_others_do_not_wait() -> None:
    renderer = Renderer()
    stage = Stage({"slow": Act(lasts=seconds(1)), "plain": Act(lasts=seconds(1))}, renderer=renderer)
    stage.apply(job("slow", Every(seconds(10)), process=SLOW), job("plain", Every(seconds(10)), process=PLAIN))
    stage.advance(5)
    assert (len(stage.history("plain")), stage.history("slow")) == (1, [])
    renderer.answer(stage)
    stage.advance(2)
    assert len(stage.history("slow")) == 1
    assert [process for process, _ in renderer.asked] == []


def test_a_slot_whose_text_cannot_be_rendered_fails() -> None:
    renderer = Renderer()
    stage = Stage(renderer=renderer)
    stage.apply(job("slow", Every(seconds(10)), process=SLOW))
    stage.advance(1)
    renderer.answer(stage, "cannot render `command[1]`: it takes more than 0.25s of CPU time")
    assert [(row.state, row.outcome) for row in stage.rows("slow")] == [("spawn_failed", "failed")]
    stage.advance(10)
    renderer.answer(stage)
    stage.advance(1)
    assert [row.outcome for row in stage.rows("slow")][-1:] == ["success"]


def test_a_run_that_is_stopped_while_its_texts_are_rendered_ends() -> None:
    renderer = Renderer()
    stage = Stage({"slow": Act(lasts=FOR_EVER)}, renderer=renderer)
    stage.apply(job("slow", Always(), process=SLOW))
    stage.advance(1)
    stage.request("stop", "slow")
    stage.advance(1)
    renderer.answer(stage)
    stage.advance(30)
    assert stage.spawner.live == frozenset()
    assert renderer.asked == []
