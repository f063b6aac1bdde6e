"""Which files a job watches, after its first generation and after an edit of its file."""

from __future__ import annotations

import pytest

from repeater._lazy_dataclasses import replace
from repeater.jobfile.single_job import build_single_job
from repeater.model.dump import dump_job
from repeater.model.spec import Always, Every, JobSpec, Manual, OnChange, ProcessSpec, ScheduleSpec, Stop
from tests.engine.stage import Stage, job
from tests.fakes.spawn import FOR_EVER, Act, seconds

MAKE = ProcessSpec(command=("make",), cwd="/w")


def runs_after(stage: Stage, path: str) -> int:
    """How many runs a change of one file starts."""
    before = len(stage.spawner.launches)
    stage.watcher.touch(path)
    stage.advance(2)
    return len(stage.spawner.launches) - before


def build(name: str, table: dict[str, object]) -> JobSpec:
    spec, faults = build_single_job(name, table, "/w")
    assert faults == []
    return spec


def watching(globs: tuple[str, ...], kind: str, **keys: object) -> JobSpec:
    if kind == "timed":
        return job("a", OnChange(globs), process=MAKE, **keys)
    return job("a", Always(), watch=globs, process=MAKE, **keys)


@pytest.mark.parametrize("kind", ["timed", "service"])
def test_a_reload_with_other_globs_watches_those_and_no_others(kind: str) -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER if kind == "service" else seconds(1))})
    stage.apply(watching(("src/*",), kind))
    stage.advance(1)
    stage.apply(watching(("docs/*",), kind))
    assert runs_after(stage, "/w/src/x.py") == 0
    assert runs_after(stage, "/w/docs/x.md") == 1


def test_a_change_during_a_run_starts_one_more_run() -> None:
    stage = Stage({"a": Act(lasts=seconds(10))})
    made = build("a", {"command": ["make"], "schedule": {"watch": ["src/*"], "debounce": "1s"}})
    stage.apply(made)
    for _ in range(3):
        stage.watcher.touch("/w/src/x.py")
        stage.advance(3)
    stage.advance(30)
    assert stage.starts("a") == [1, 11]


@pytest.mark.parametrize(
    ("schedule", "overlap", "kind"),
    [
        ({"watch": "*"}, None, "latest"),
        ({"watch": "*"}, "skip", "skip"),
        ({"watch": "*"}, "queue", "queue"),
        ("every 5s", None, "skip"),
        ("always", None, "skip"),
        ("every 5s", "latest", "latest"),
    ],
)
def test_the_default_overlap_depends_on_the_schedule(schedule: object, overlap: str | None, kind: str) -> None:
    made = build("a", {"command": "make", "schedule": schedule} | ({"overlap": overlap} if overlap else {}))
    assert made.overlap.kind == kind
    assert build("a", dump_job(made)) == made


def test_a_service_without_its_former_watch_is_not_restarted() -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER)})
    stage.apply(watching(("src/*",), "service"))
    stage.apply(job("a", Always(), process=MAKE))
    assert runs_after(stage, "/w/src/x.py") == 0
    assert stage.watcher.watched == {}


def test_other_ignores_are_active_after_a_reload() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    stage.apply(job("a", OnChange(("src/*",)), process=MAKE))
    stage.apply(job("a", OnChange(("src/*",), ("*.log",)), process=MAKE))
    assert runs_after(stage, "/w/src/x.log") == 0
    assert runs_after(stage, "/w/src/x.py") == 1


@pytest.mark.parametrize("kind", ["timed", "service"])
def test_globs_are_watched_in_the_folder_of_an_edited_cwd(kind: str) -> None:
    stage = Stage({"a": Act(lasts=FOR_EVER if kind == "service" else seconds(1))})
    before = watching(("src/*",), kind)
    stage.apply(before)
    stage.advance(1)
    stage.apply(replace(before, process=replace(MAKE, cwd="/v")))
    stage.advance(15)
    assert runs_after(stage, "/w/src/x.py") == 0
    assert runs_after(stage, "/v/src/x.py") == 1


def test_a_reload_of_another_key_keeps_a_change_in_its_debounce() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))})
    before = job("a", OnChange(("src/*",), debounce=seconds(5)), process=MAKE)
    stage.apply(before)
    stage.watcher.touch("/w/src/x.py")
    stage.advance(3)
    stage.apply(replace(before, description="other"))
    stage.advance(3)
    assert stage.starts("a") == [5]


def test_a_removed_job_watches_nothing_and_runs_for_no_earlier_change() -> None:
    stage = Stage()
    other = job("b", Manual())
    stage.apply(job("a", OnChange(("src/*",), debounce=seconds(5)), process=MAKE), other)
    stage.watcher.touch("/w/src/x.py")
    stage.advance(1)
    stage.apply(other)
    assert stage.watcher.watched == {}
    stage.advance(10)
    assert stage.spawner.launches == []


@pytest.mark.parametrize(("schedule", "stays"), [(OnChange(("src/*",)), True), (Manual(), False)])
def test_only_a_job_that_watches_files_keeps_an_idle_supervisor(schedule: ScheduleSpec, stays: bool) -> None:
    stage = Stage(keep_alive=False)
    stage.apply(job("a", schedule, process=MAKE), job("b", Every(seconds(1)), stop=Stop(times=1)))
    stage.advance(60)
    assert stage.left == ([] if stays else [0])


def test_a_done_job_that_watches_files_does_not_keep_the_supervisor() -> None:
    stage = Stage({"a": Act(lasts=seconds(1))}, keep_alive=False)
    stage.apply(job("a", OnChange(("src/*",)), process=MAKE, stop=Stop(times=1)))
    stage.advance(5)
    assert stage.left == []
    stage.watcher.touch("/w/src/x.py")
    stage.advance(5)
    assert stage.left == [0]
