"""A preview of a plan shows each job as it is after the plan was applied."""

from __future__ import annotations

from repeater.engine.preview import foresee
from repeater.model.run import Exit
from repeater.model.spec import Every, JobFile, Stop
from repeater.plan.diff import diff
from repeater.plan.graph import wire
from tests.engine.stage import Stage, job
from tests.fakes.spawn import Act, seconds


def test_preview_uses_the_exit_status_of_the_last_run() -> None:
    stage = Stage({"a": Act(exit=Exit(code=7))})
    stage.apply(job("a", Every(seconds(10))))
    stage.advance(1)
    changed = job("a", Every(seconds(10)), stop=Stop(on_exit=(7,)))
    engine = stage.engine
    plan = diff({name: found.spec for name, found in engine.jobs.items()}, [changed])
    graph = wire(JobFile(project="p", jobs=(changed,)), None, {})
    preview = foresee(engine, plan.jobs, graph, stage.clock.now())
    stage.apply(changed)
    done = engine.jobs["a"].progress.done
    assert done is not None
    assert preview["a"].new.done == done
