"""Renames: counters, history, cursor and live runs follow the job, with a supervisor and without one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repeater._lazy_dataclasses import replace
from repeater.control.commands import supervisor
from repeater.errors import ApplyRefused
from repeater.model.reasons import reason
from repeater.model.run import INTERIM, Exit
from repeater.model.spec import Always, Every, JobSpec, Manual, Once, Stop
from repeater.plan.diff import moves
from tests.engine.stage import Stage, job
from tests.engine.test_plan_is_apply import SimulatedSupervisor
from tests.fakes.filesystem import MemoryDisk
from tests.fakes.spawn import FOR_EVER, Act, seconds


def cell(group: str, *axes: tuple[str, str], **keys: Any) -> JobSpec:
    name = f"{group}[{','.join('='.join(axis) for axis in axes)}]"
    return replace(job(name, **keys), group=group, cell=axes)


def test_a_rename_without_a_supervisor_keeps_counters_and_history() -> None:
    stage = Stage()
    stage.apply(job("a", Every(seconds(10)), stop=Stop(times=3)))
    stage.advance(25)
    again = stage.again(after=1)
    again.apply(job("b", Every(seconds(10)), stop=Stop(times=3), moved_from="a"))
    assert again.engine.jobs["b"].progress.done == reason("runs_reached", count=3)
    again.advance(60)
    assert again.history("b") == ["ran @0", "ran @10", "ran @20"]
    assert again.history("a") == []


def test_a_rename_without_a_supervisor_keeps_a_run_that_continues() -> None:
    stage = Stage({"a": Act(lasts=seconds(30))})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    again = stage.kept(away=5)
    again.apply(job("b", Manual(), moved_from="a"))
    assert [held.slot.job for held in again.engine.jobs["b"].open] == ["b"]
    again.advance(60)
    assert again.history("b") == ["ran @0"]
    assert all(row.job == "b" for row in again.store.find_records(most=100))


def test_a_rename_during_a_live_run_makes_one_record_under_the_new_name() -> None:
    stage = Stage({"a": Act(lasts=seconds(30))})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    stage.apply(job("b", Manual(), moved_from="a"))
    stage.advance(60)
    rows = list(stage.store.find_records(most=100))
    assert [(row.job, row.state) for row in rows] == [("b", "succeeded")]
    assert len({row.run for row in rows}) == len(rows) == 1
    assert stage.engine.jobs["b"].progress.successes == 1


def test_a_rename_during_a_live_run_and_a_crash_starts_no_second_attempt() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(job("a", Manual()))
    stage.request("trigger", "a")
    stage.advance(5)
    stage.apply(job("b", Manual(), moved_from="a"))
    stage.advance(5)
    again = stage.again(after=1)
    again.apply(job("b", Manual(), moved_from="a"))
    again.advance(60)
    assert [(row.job, row.state) for row in again.store.find_records(most=100)] == [("b", "interrupted")]
    assert again.spawner.launches == []


def test_a_live_service_follows_the_order_of_its_axes() -> None:
    stage = Stage({"m[x=1,y=2]": Act(lasts=FOR_EVER)})
    stage.apply(cell("m", ("x", "1"), ("y", "2"), schedule=Always()))
    stage.advance(5)
    stage.apply(cell("m", ("y", "2"), ("x", "1"), schedule=Always()))
    stage.advance(5)
    assert len(stage.spawner.launches) == 1
    assert list(stage.engine.jobs) == ["m[y=2,x=1]"]
    assert [held.slot.job for held in stage.engine.jobs["m[y=2,x=1]"].open] == ["m[y=2,x=1]"]


@pytest.mark.parametrize(
    ("known", "wanted", "found"),
    [
        (["a"], [job("b", moved_from="a")], {"b": "a"}),
        (["a", "b"], [job("b", moved_from="a")], {}),  # it has moved already
        (["a"], [job("c", moved_from=("b", "a"))], {"c": "a"}),  # over two generations
        (["b", "a"], [job("c", moved_from=("b", "a"))], {"c": "b"}),
        (["a"], [job("a"), job("b", moved_from="a")], {}),
        (["m[x=1,y=2]"], [cell("m", ("y", "2"), ("x", "1"))], {"m[y=2,x=1]": "m[x=1,y=2]"}),
        (["m[x=1,y=2]"], [cell("n", ("y", "2"), ("x", "1"), moved_from="m[y=2,x=1]")], {"n[y=2,x=1]": "m[x=1,y=2]"}),
        (["m"], [cell("n", ("x", "1"), moved_from="m[x=1]")], {"n[x=1]": "m"}),  # the only cell of a matrix
        (["m"], [cell("n", ("x", "1"), moved_from="m[x=1]"), cell("n", ("x", "2"), moved_from="m[x=2]")], {}),
        (["m"], [cell("m", ("x", "1"), moved_from="m")], {"m[x=1]": "m"}),
        (["m[x=1]"], [job("m", moved_from="m[x=1]")], {"m": "m[x=1]"}),
    ],
)
def test_the_state_follows(known: list[str], wanted: list[JobSpec], found: dict[str, str]) -> None:
    assert moves(known, {one.name: one for one in wanted}) == found


STEPS = st.lists(
    st.tuples(st.sampled_from(["rename", "rename", "crash", "restart", "keep", "edit", "trigger"]), st.integers(1, 40)),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(["every", "manual", "once"]), st.integers(0, 12))
def test_over_any_sequence_no_run_is_recorded_twice_and_counters_follow(
    steps: list[tuple[str, int]], kind: str, lasts: int
) -> None:
    schedule = {"every": Every(seconds(7)), "manual": Manual(), "once": Once()}[kind]
    stage = Stage(lambda _: Act(lasts=seconds(lasts)))  # type: ignore[arg-type]
    name, edits, begun = "j0", 0, 0
    stage.apply(job(name, schedule))
    for number, (step, wait) in enumerate(steps, 1):
        moved: str | None = None
        if step == "rename":
            name, moved = f"j{number}", name
        edits += step == "edit"
        if step in ("crash", "restart", "keep"):
            begun += len(stage.spawner.launches) if step != "keep" else 0
            stage = stage.kept(away=1) if step == "keep" else stage.again(after=1)
        if step == "trigger":
            stage.request("trigger", name)
        spec = job(name, schedule, moved_from=moved, description=str(edits))
        stage.apply(spec)
        stage.advance(wait)
    rows = list(stage.store.find_records(most=100_000))
    assert {row.job for row in rows} <= {name}
    runs = [row.run for row in rows if row.run is not None]
    assert len(runs) == len(set(runs))
    assert len(rows) == len({row.nominal for row in rows})
    assert stage.engine.jobs[name].progress.runs == len(runs)
    assert len([row for row in rows if row.state in INTERIM]) == len(stage.engine.jobs[name].open)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_removed_job_that_returns_under_a_new_name_keeps_its_state(between: bool, ended: bool) -> None:
    stage = Stage({"a": Act(lasts=seconds(10))})
    other = job("other", Manual())
    stage.apply(job("a", Manual()), other)
    stage.request("trigger", "a")
    stage.advance(5)
    stage.apply(other)
    stage.advance(10 if ended else 1)
    if between:
        stage.apply(other, job("more", Manual()))
    stage.apply(other, job("b", Manual(), moved_from="a"))
    stage.advance(30)
    assert stage.engine.jobs["b"].progress.successes == 1
    assert [(row.job, row.state) for row in stage.store.find_records(most=100)] == [("b", "succeeded")]
    assert (stage.store.progress["b"].runs, "a" in stage.store.progress) == (1, False)
    stage.apply(other)
    stage.apply(other, job("a", Manual(), moved_from="b"))
    assert stage.engine.jobs["a"].progress.runs == 1


def test_a_removed_job_whose_run_ended_meanwhile_returns_with_the_result() -> None:
    stage = Stage({"a": Act(lasts=seconds(10))})
    other = job("other", Manual())
    stage.apply(job("a", Manual()), other)
    stage.request("trigger", "a")
    stage.advance(5)
    stage.apply(other)
    stage.advance(10)
    stage.apply(job("a", Manual()), other)
    assert stage.engine.jobs["a"].progress.successes == 1


@pytest.mark.parametrize(
    ("active", "removed", "wanted", "found"),
    [
        (["x"], ["a"], [job("x"), job("b", moved_from="a")], {"b": "a"}),
        (["a"], ["b"], [job("b", moved_from="a")], {"b": "a"}),  # the active job comes first
        (["x"], ["a", "b"], [job("x"), job("b", moved_from="a")], {}),  # it has a state of its own
        (["x"], ["a"], [job("x", moved_from="a")], {}),
        ([], ["m[x=1,y=2]"], [cell("m", ("y", "2"), ("x", "1"))], {"m[y=2,x=1]": "m[x=1,y=2]"}),
        (
            ["n[x=1]"],
            ["m"],
            [cell("n", ("x", "1"), moved_from="m[x=1]"), cell("n", ("x", "2"), moved_from="m[x=2]")],
            {},
        ),
    ],
)
def test_the_state_of_a_removed_job_follows(
    active: list[str], removed: list[str], wanted: list[JobSpec], found: dict[str, str]
) -> None:
    assert moves(active, {one.name: one for one in wanted}, removed) == found


@pytest.mark.parametrize("restart", [False, True])
def test_a_rename_takes_the_active_job_before_one_that_was_removed(restart: bool) -> None:
    stage = Stage()
    stage.apply(job("a", Manual()), job("b", Manual()))
    for name in ("a", "a", "b"):
        stage.request("trigger", name)
        stage.advance(1)
    stage.apply(job("a", Manual()))
    if restart:
        stage = stage.again(after=1)
    stage.apply(job("b", Manual(), moved_from="a"))
    assert stage.engine.jobs["b"].progress.runs == 2
    assert stage.store.progress["b"].runs == 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_job_that_takes_the_name_of_a_removed_one_keeps_its_rows(restart: bool) -> None:
    stage = Stage({"a": Act(exit=Exit(code=1))})
    stage.apply(job("a", Every(seconds(10))), job("b", Every(seconds(10))))
    stage.advance(25)
    stage.apply(job("a", Every(seconds(10))))
    stage.advance(10)
    if restart:
        stage = stage.again(after=1)
    stage.apply(job("b", Every(seconds(10)), moved_from="a"))
    assert [row.state for row in stage.rows("b")] == ["failed"] * 4
    assert stage.engine.jobs["b"].progress.failures == 4


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_rename_onto_a_removed_job_with_a_live_run_is_refused(verb: str) -> None:
    simulated = SimulatedSupervisor(0)

    def ask(jobs: dict[str, Any], run: Any = supervisor.apply) -> dict[str, Any]:
        document = {
            "project": "p",
            "jobs": {name: {"command": "x", "schedule": "manual"} | jobs[name] for name in jobs},
        }
        simulated.disk = MemoryDisk({"/p/root.json": json.dumps(document)})
        return simulated.verb(run)[1]

    ask({"a": {}, "c": {}})
    for name in ("a", "c", "c"):  # a run of `a` lasts three seconds, one of `c` one second
        simulated.stage.request("trigger", name)
    simulated.stage.advance(2)
    ask({"c": {}})
    renamed = {"a": {"moved_from": "c"}}
    if verb == "plan":
        refused = ask(renamed, supervisor.plan)["refused"]
    else:
        with pytest.raises(ApplyRefused) as refusal:
            ask(renamed)
        refused = {"message": refusal.value.message, "hint": refusal.value.hint}
    assert refused == {
        "message": "cannot apply: `c` cannot be renamed to `a`, as a run of the removed job `a` is live",
        "hint": "apply again when that run has ended, or use another name",
    }
    simulated.stage.advance(2)
    assert ask(renamed, supervisor.plan)["refused"] is None
    ask(renamed)
    simulated.stage.advance(10)
    progress = simulated.stage.engine.jobs["a"].progress
    assert (progress.runs, progress.failures) == (1, 1)
    assert simulated.stage.store.progress["a"] == progress


@pytest.mark.parametrize("keep", [False, True])
def test_a_rename_at_a_start_takes_no_run_of_a_removed_job(keep: bool) -> None:
    stage = Stage({"b": Act(lasts=seconds(30))})
    stage.apply(job("a", Manual()), job("b", Manual()))
    stage.request("trigger", "b")
    stage.advance(1)
    stage.request("trigger", "a")
    stage.advance(1)
    stage.apply(job("a", Manual()))
    again = stage.kept(away=1) if keep else stage.again(after=1)
    again.apply(job("b", Manual(), moved_from="a"))
    assert again.engine.jobs["b"].open == []
    again.advance(60)
    assert again.history("b") == ["interrupted(supervisor_gone) @0", "ran @1"]
    progress = again.engine.jobs["b"].progress
    assert (progress.runs, progress.successes) == (1, 1)
    assert again.store.progress["b"] == progress
