"""`rpr plan`: the changes of jobs and next starts that an apply would make."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from repeater._lazy_dataclasses import dataclass, replace
from repeater.cli.change_classes import SIGNS, WORDS
from repeater.cli.options import files_argument, json_option, project_option, set_option, state_dir_option
from repeater.errors import ApplyRefused, PluginFailed
from repeater.model.plugins import Plugins
from repeater.model.spec import JobFile, JobSpec
from repeater.model.time import Instant, Mono, from_rfc3339, rfc3339
from repeater.output.terminal import json_line, visible_text
from repeater.plan.diff import JobPlan, diff, moves
from repeater.sentences import sentence

if TYPE_CHECKING:
    from repeater.apps.state import Stored
    from repeater.control.client import Client
    from repeater.jobfile.load import Loaded

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of a plan. `changes` are (key, old, new); `counters` are the runs, successes and failures of a job that
    was removed earlier; `like` is an equal job that is removed.
    """

    job: str
    reload: str
    changes: tuple[tuple[str, Any, Any], ...] = ()
    moved_from: str | None = None
    old_next: datetime | None = None
    new_next: datetime | None = None
    schedule: Any = None
    enabled: bool = True
    done: str | None = None
    counters: tuple[int, int, int] | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """The changes of an apply. `shared` are changed pools and limits (`pool` or `limit`, name, old, new); `refused` is
    the reason why the apply would be refused, with a hint. `now` is the time of the plan.
    """

    generation: int
    entries: tuple[Entry, ...]
    now: datetime
    shared: tuple[tuple[str, str, Any, Any], ...] = ()
    refused: tuple[str, str | None] | None = None

    @property
    def changes_anything(self) -> bool:
        return bool(self.shared) or any(entry.reload != "keep" for entry in self.entries)


@click.command(epilog="Example: rpr plan jobs.toml --detailed-exitcode")
@files_argument
@set_option
@project_option
@state_dir_option
@click.option("--only", multiple=True, metavar="JOB", help="Plan only these jobs, as with `apply --only`. Repeatable.")
@click.option("--allow-removals", is_flag=True, help="Plan for `apply --allow-removals`.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with code 10 if anything would change.")
@json_option
def plan(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    state_dir: str | None,
    only: tuple[str, ...],
    allow_removals: bool,
    detailed_exitcode: bool,
    as_json: bool,
) -> int:
    """Show what apply would change.

    Compares the files with the active jobs of the running supervisor. Without a supervisor, compares them with the
    generation that was applied last. Nothing is started, written or changed. `+` new, `-` removed, `~` changed without
    a restart, `!` restarted, `>` renamed.
    """
    from repeater.apps.identity import first_file
    from repeater.apps.locate import connect_project
    from repeater.apps.reload_worker import load_selected
    from repeater.cli.lifecycle import files_and_settings

    loaded = load_selected(files, set_vars, only, project=project)
    running = None if "-" in files else connect_project(loaded.jobfile.project, state_dir, guests=False)
    if running is None:
        allowed = allow_removals or bool(only)
        planned = read_plan(loaded, state_dir=state_dir, for_people=not as_json, allow_removals=allowed)
    else:
        with running:
            request = files_and_settings(running, files, set_vars, first_file(loaded.name))
            planned = ask_plan(running, {**request, "only": list(only), "allow_removals": allow_removals})
    if as_json:
        print(json_line(_as_json(planned)))
    else:
        print_plan(planned)
    return 10 if detailed_exitcode and planned.changes_anything else 0


def ask_plan(client: Client, request: Mapping[str, Any]) -> Planned:
    """The plan from a running supervisor."""
    answer = client.ask("plan", patience=120.0, **request)
    entries = tuple(map(_entry_of, answer))
    result = answer.result()
    shared = tuple(
        (kind, one["name"], one["old"], one["new"])
        for kind, key in (("pool", "pools"), ("limit", "limits"))
        for one in result[key]
    )
    refused = result["refused"]
    return Planned(
        result["generation"],
        entries,
        datetime.now(UTC),
        shared,
        None if refused is None else (refused["message"], refused["hint"]),
    )


def _entry_of(item: Mapping[str, Any]) -> Entry:
    def instant(text: str | None) -> datetime | None:
        return None if text is None else from_rfc3339(text)

    return Entry(
        item["job"],
        item["class"],
        tuple((change["key"], change["old"], change["new"]) for change in item["changes"]),
        item["from"],
        instant(item["next"]["old"]),
        instant(item["next"]["new"]),
        item["schedule"],
        item["enabled"],
        item["done"],
        (item["runs"], item["successes"], item["failures"]) if item["returns"] else None,
        item["like"],
    )


def read_plan(
    loaded: Loaded,
    *,
    state_dir: str | None = None,
    ephemeral: bool = False,
    for_people: bool = False,
    allow_removals: bool = False,
) -> Planned:
    """The plan from the last applied generation (empty if `ephemeral`) to the current files.

    If a plugin does not answer, its result is unknown. `for_people`: compute next starts only for displayed entries.
    """
    from repeater.apps.identity import check_loaded
    from repeater.apps.plugins import plugin_catalog
    from repeater.apps.state import in_force, nothing_applied

    if not ephemeral:
        check_loaded(loaded, state_dir)
    with plugin_catalog(loaded) as plugins:
        stored = nothing_applied() if ephemeral else in_force(loaded.jobfile.project, state_dir)
        planned = plan_from(stored, loaded.jobfile, plugins, for_people=for_people)
    if ephemeral or allow_removals:
        return planned
    from repeater.supervisor.reload import guard_removals

    try:
        guard_removals(
            [entry.moved_from or entry.job for entry in planned.entries if entry.reload != "add"], loaded.jobfile.jobs
        )
    except ApplyRefused as refusal:
        return replace(planned, refused=(refusal.message, refusal.hint))
    return planned


def plan_from(stored: Stored, jobfile: JobFile, plugins: Plugins, *, for_people: bool = False) -> Planned:
    """The plan from the generation that a store has. `for_people` as in `read_plan`."""
    from repeater.model.dump import dump_schedule
    from repeater.plan.extras import aligned, diff_extras, extras_of
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import first_start, starts

    new = {job.name: stored.marks.hide(job) for job in jobfile.jobs}
    extras = extras_of(jobfile, stored.marks)
    new_names = {former: name for name, former in moves(stored.specs, new).items()}
    old = {
        name: aligned(job, new.get(new_names.get(name, name)), stored.extras, extras)
        for name, job in stored.specs.items()
    }
    result = diff(old, new.values(), stored.removed)
    shared = () if stored.extras is None else diff_extras(stored.extras, extras)
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

    def entry_of(entry: JobPlan, *, is_shown: bool) -> Entry:
        wanted = new.get(entry.job)
        before_, after = None, None
        if is_shown and entry.reload == "add" and wanted is not None:
            after = first(wanted)
        elif is_shown:
            after = next_start(wanted)
            before_ = after if entry.reload == "keep" else next_start(old.get(entry.moved_from or entry.job))
        return Entry(
            entry.job,
            entry.reload,
            tuple((change.key, change.old, change.new) for change in entry.changes),
            entry.moved_from,
            before_,
            after,
            None if wanted is None else dump_schedule(wanted.schedule),
            wanted is not None and wanted.enabled,
            None if (why := stored.done.get(entry.job)) is None else sentence(why),
            like=entry.like,
        )

    changed = (entry.job for entry in result.jobs if entry.reload != "keep")
    shown = set(islice(changed, _SHOWN) if for_people else (entry.job for entry in result.jobs))
    entries = tuple(entry_of(entry, is_shown=entry.job in shown) for entry in result.jobs)
    changes = tuple((one.kind, one.name, one.old, one.new) for one in shared)
    return Planned(stored.generation + 1, entries, now.wall, changes)


def print_plan(planned: Planned, *, err: bool = False, brief: bool = False) -> None:
    """The plan as text. `brief` omits the changed keys."""
    stream = sys.stderr if err else sys.stdout
    entries = [entry for entry in planned.entries if entry.reload != "keep"]
    kept = len(planned.entries) - len(entries)
    width = max((len(entry.job) for entry in entries[:_SHOWN]), default=0)
    for entry in entries[:_SHOWN]:
        print(f"{SIGNS[entry.reload]} {entry.job:<{width}}  {_describe(entry, planned.now)}", file=stream)
        for key, old, new in () if brief else entry.changes:
            print(f"    {key}: {_show(old)} -> {_show(new)}", file=stream)
    for entry in [one for one in planned.entries if one.reload == "keep" and one.done][:_SHOWN]:
        print(f"= {entry.job:<{width}}  is done: {entry.done}", file=stream)
    if len(entries) > _SHOWN:
        print(f"  and {len(entries) - _SHOWN} more", file=stream)
    for kind, name, old, new in planned.shared[:_SHOWN]:
        sign = "+" if old is None else "-" if new is None else "~"
        print(f"{sign} {kind} {name}: {_show_shared(old)} -> {_show_shared(new)}", file=stream)
    for entry in [one for one in entries if one.like is not None][:_SHOWN]:
        print(
            f"? was `{entry.like}` renamed to `{entry.job}`? The jobs are equal; "
            f'`moved_from = "{entry.like}"` keeps counters and history',
            file=stream,
        )
    if planned.refused is not None:
        message, hint = planned.refused
        print(f"! {message}" + (f" ({hint})" if hint else ""), file=stream)
    changed = len(entries) + len(planned.shared)
    counts = [f"{changed} to change" if changed else "no changes"]
    if kept:
        counts.append(f"{kept} unchanged")
    print(f"generation {planned.generation}: {', '.join(counts)}", file=stream)


def _describe(entry: Entry, now: datetime) -> str:
    words = WORDS[entry.reload]
    if entry.reload == "move":
        words += f" from {entry.moved_from}"
    if entry.reload == "add":
        if entry.counters is not None:
            words = f"is back{_renamed(entry)} with its counters" + (f", done: {entry.done}" if entry.done else "")
        elif entry.moved_from:
            words = f"is back{_renamed(entry)}"
        return f"{words}; {_first_words(entry, now)}"
    if any(key == "schedule" and (old == "always") != (new == "always") for key, old, new in entry.changes):
        kind = "service" if entry.schedule == "always" else "timed job"
        words += f"; becomes a {kind}; its current run is stopped"
    if entry.old_next != entry.new_next:
        words += f"; next start {_clock(entry.old_next)} -> {_clock(entry.new_next)}"
    return words


def _renamed(entry: Entry) -> str:
    return f", renamed from {entry.moved_from}," if entry.moved_from else ""


def _first_words(entry: Entry, now: datetime) -> str:
    if not entry.enabled:
        return "disabled"
    schedule, after = entry.schedule, entry.new_next
    text = (
        schedule if isinstance(schedule, str) else ", ".join(f"{key} {_show(value)}" for key, value in schedule.items())
    )
    if after is None:
        return text
    return f"{text}; starts at once" if after <= now else f"{text}; first start {_clock(after)}"


def _show_shared(table: Any) -> str:
    return "none" if table is None else ", ".join(f"{key} {_show(value)}" for key, value in table.items())


def _clock(instant: datetime | None) -> str:
    return "none" if instant is None else f"{instant.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _show(value: Any) -> str:
    if value is None:
        return "(default)"
    return visible_text(value) if isinstance(value, str) else json_line(value)


def _as_json(planned: Planned) -> dict[str, Any]:
    """The plan as JSON: fixed keys, and further keys if they have a value."""
    fields: dict[str, Any] = {"generation": planned.generation, "jobs": list(map(_entry_json, planned.entries))}
    for kind, key in (("pool", "pools"), ("limit", "limits")):
        changes = [{"name": name, "old": old, "new": new} for one, name, old, new in planned.shared if one == kind]
        fields |= {key: changes} if changes else {}
    if planned.refused is not None:
        message, hint = planned.refused
        fields["refused"] = {"message": message, "hint": hint}
    return fields


def _entry_json(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "job": entry.job,
        "class": entry.reload,
        "changes": [{"key": key, "old": old, "new": new} for key, old, new in entry.changes],
        "next": {"old": rfc3339(entry.old_next), "new": rfc3339(entry.new_next)},
    }
    further: dict[str, Any] = {"from": entry.moved_from, "done": entry.done, "like": entry.like}
    if entry.counters is not None:
        further |= dict(zip(("runs", "successes", "failures"), entry.counters, strict=True))
    return fields | {key: value for key, value in further.items() if value is not None}
