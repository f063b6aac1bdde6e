"""`rpr plan`: what an apply would change, in jobs and in time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import files_argument, json_option, project_option, set_option, state_dir_option
from repeater.dataclass import dataclass, replace
from repeater.errors import PluginFailed
from repeater.model.plugins import Plugins
from repeater.model.spec import JobFile, JobSpec
from repeater.model.time import Instant, Mono, rfc3339
from repeater.observe.terminal import json_line, visible_text
from repeater.plan.diff import JobPlan, Plan, diff

if TYPE_CHECKING:
    from repeater.jobfile import Loaded

_SIGNS = {"add": "+", "remove": "-", "restart": "!", "retime": "~", "next_run": "~", "in_place": "~", "move": ">"}
_WORDS = {
    "add": "is new",
    "remove": "is removed",
    "restart": "restarts",
    "retime": "gets a new next start",
    "next_run": "changes with its next run",
    "in_place": "changes at once",
    "move": "is renamed",
    "keep": "stays as it is",
}
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan against the generation in force, with both sides' specs and, by job, old and new next starts.

    `done` says by job why it will not start again by itself; `now` is when the plan was made.
    """

    generation: int
    plan: Plan
    old: dict[str, JobSpec]
    new: dict[str, JobSpec]
    next: dict[str, tuple[datetime | None, datetime | None]]
    done: dict[str, str]
    now: datetime


@click.command(epilog="Example: rpr plan jobs.toml --detailed-exitcode")
@files_argument
@set_option
@project_option
@state_dir_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 if anything would change.")
@json_option
def plan(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    state_dir: str | None,
    detailed_exitcode: bool,
    as_json: bool,
) -> int:
    """Show what apply would change.

    Compares the files with the generation that was applied last for this project. Nothing is started, written or
    changed. `+` new, `-` removed, `~` changed without a restart, `!` restarted, `>` renamed.
    """
    from repeater.app import load_job_files

    loaded = load_job_files(files, set_vars=dict(set_vars), project=project)
    planned = read_plan(loaded, state_dir=state_dir, for_people=not as_json)
    if as_json:
        print(json_line(_as_json(planned)))
    else:
        print_plan(planned)
    return 10 if detailed_exitcode and planned.plan.changes_anything else 0


def read_plan(
    loaded: Loaded, *, state_dir: str | None = None, ephemeral: bool = False, for_people: bool = False
) -> Planned:
    """The plan from what was applied last (nothing, if `ephemeral`) to the files, as of now.

    What a plugin cannot say now, is not known. `for_people`: next starts of those entries only that are shown to them.
    """
    from repeater.app import asked_plugins, check_loaded

    if not ephemeral:
        check_loaded(loaded, state_dir)
    with asked_plugins(loaded) as plugins:
        return _read_plan(loaded.jobfile, plugins, state_dir=state_dir, ephemeral=ephemeral, for_people=for_people)


def _read_plan(
    jobfile: JobFile, plugins: Plugins, *, state_dir: str | None, ephemeral: bool, for_people: bool
) -> Planned:
    from repeater.app import in_force, nothing_applied
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import first_start, starts

    generation, before, done, marks = nothing_applied() if ephemeral else in_force(jobfile.project, state_dir)
    new = {job.name: marks.hide(job) for job in jobfile.jobs}
    old = {name: _aligned(job, new.get(name)) for name, job in before.items()}
    result = diff(old, new.values())
    now = Instant(datetime.now(UTC), Mono(0))

    def next_start(job: JobSpec | None) -> datetime | None:
        if job is None or not job.enabled:
            return None
        try:
            return next((start.due for start in starts(job, schedule_for(job, plugins), now, 1)), None)
        except PluginFailed:
            return None

    def first(job: JobSpec) -> datetime | None:
        try:
            return first_start(job, schedule_for(job, plugins), now)
        except PluginFailed:
            return None

    times: dict[str, tuple[datetime | None, datetime | None]] = {}
    changed = (entry for entry in result.jobs if entry.reload != "keep")
    for entry in islice(changed, _SHOWN) if for_people else result.jobs:
        wanted = new.get(entry.job)
        if entry.reload == "add" and wanted is not None:
            times[entry.job] = (None, first(wanted))
            continue
        after = next_start(wanted)
        same = entry.reload == "keep"
        times[entry.job] = (after if same else next_start(old.get(entry.moved_from or entry.job)), after)
    return Planned(generation + 1, result, old, new, times, done, now.wall)


def _aligned(stored: JobSpec, wanted: JobSpec | None) -> JobSpec:
    """What is not stored with a generation cannot be compared: take it to be the same."""
    if wanted is None:
        return stored
    process = replace(
        stored.process,
        env_from_files=wanted.process.env_from_files,
        late=wanted.process.late,
    )
    return replace(stored, group=wanted.group, cell=wanted.cell, process=process)


def print_plan(planned: Planned, *, err: bool = False, brief: bool = False) -> None:
    """The plan for people. `brief` leaves out the keys that changed."""
    stream = sys.stderr if err else sys.stdout
    entries = [entry for entry in planned.plan.jobs if entry.reload != "keep"]
    kept = len(planned.plan.jobs) - len(entries)
    width = max((len(entry.job) for entry in entries[:_SHOWN]), default=0)
    for entry in entries[:_SHOWN]:
        print(f"{_SIGNS[entry.reload]} {entry.job:<{width}}  {_describe(planned, entry)}", file=stream)
        for change in () if brief else entry.changes:
            print(f"    {change.key}: {_show(change.old)} -> {_show(change.new)}", file=stream)
    for name in [entry.job for entry in planned.plan.jobs if entry.reload == "keep" and entry.job in planned.done][
        :_SHOWN
    ]:
        print(f"= {name:<{width}}  is done: {planned.done[name]}", file=stream)
    if len(entries) > _SHOWN:
        print(f"  and {len(entries) - _SHOWN} more", file=stream)
    counts = [f"{len(entries)} to change" if entries else "no change"]
    if kept:
        counts.append(f"{kept} unchanged")
    print(f"generation {planned.generation}: {', '.join(counts)}", file=stream)


def _describe(planned: Planned, entry: JobPlan) -> str:
    words = _WORDS[entry.reload]
    if entry.moved_from:
        words += f" from {entry.moved_from}"
    before, after = planned.next[entry.job]
    if entry.reload == "add":
        spec = planned.new[entry.job]
        return f"{words}; {_first_words(spec, after, planned.now)}"
    if before != after:
        words += f"; next start {_clock(before)} -> {_clock(after)}"
    return words


def _first_words(spec: JobSpec, after: datetime | None, now: datetime) -> str:
    from repeater.model.dump import dump_job

    if not spec.enabled:
        return "disabled"
    schedule = dump_job(spec).get("schedule", "once")
    text = (
        schedule if isinstance(schedule, str) else ", ".join(f"{key} {_show(value)}" for key, value in schedule.items())
    )
    if after is None:
        return text
    return f"{text}; starts at once" if after <= now else f"{text}; first start {_clock(after)}"


def _clock(instant: datetime | None) -> str:
    return "none" if instant is None else f"{instant.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _show(value: Any) -> str:
    if value is None:
        return "(default)"
    return visible_text(value) if isinstance(value, str) else json_line(value)


def _as_json(planned: Planned) -> dict[str, Any]:
    return {
        "generation": planned.generation,
        "jobs": [
            {
                "job": entry.job,
                "class": entry.reload,
                "changes": [{"key": change.key, "old": change.old, "new": change.new} for change in entry.changes],
                "next": dict(zip(("old", "new"), map(rfc3339, planned.next[entry.job]), strict=True)),
            }
            for entry in planned.plan.jobs
        ],
    }
