"""`rpr status` and `rpr health`: the states of the jobs, and the health of the supervisor."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import clock, instant, jobs_argument, print_table, printable, reason_text, supervisor_options
from repeater.errors import RepeaterError, Unreachable
from repeater.model.time import age, span
from repeater.output.terminal import json_line

if TYPE_CHECKING:
    from repeater.apps.locate import Records, SupervisorSelector
    from repeater.apps.unattended import Unattended

_MOST_OUTPUTS = 5
_HEAD = ("JOB", "STATE", "LAST RUN", "NEXT START", "NOTE")
_COLORS = {
    "running": "32", "starting": "32", "failed": "31", "blocked": "33", "paused": "33", "throttled": "33",
    "retrying": "33", "down": "33", "stopped": "2", "disabled": "2", "done": "2", "idle": "2", "ok": "32",
    "stopping": "33",
}  # fmt: skip


@click.command(epilog="Example: rpr status 'db-*' --json")
@jobs_argument
@json_option
@supervisor_options
def status(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> int:
    """Show the state of each job.

    Shows each job's state, the result and age of its last run, its next start, and, if it is not running, the reason.
    JOB is a name, a cell of a matrix, a glob, or a label as `key=value`. If no supervisor is running, this shows the
    last known state and the runs that continue. The exit code is then 6.
    """
    from repeater.apps.locate import connect

    try:
        client = connect(where)
    except Unreachable as error:
        return _offline(where, jobs, error, as_json=as_json)
    with client:
        answer = client.ask("status", jobs=list(jobs))
        items = list(answer)
        about = answer.result()
    now = instant(about["now"])
    assert now is not None
    _print(items, _headline(about), now, as_json=as_json)
    return 0


def _print(items: Sequence[Mapping[str, Any]], headline: str, now: datetime, *, as_json: bool) -> None:
    if as_json:
        for item in items:
            sys.stdout.write(json_line(item) + "\n")
        return
    print(headline)
    if items:
        print_table(_HEAD, _rows(items, now), paint=_paint)
    for line in _last_lines(items):
        print(line)


def _offline(where: SupervisorSelector, jobs: tuple[str, ...], error: Unreachable, *, as_json: bool) -> int:
    """The state from the history, without a supervisor."""
    from repeater.apps.locate import records
    from repeater.apps.unattended import unattended_runs
    from repeater.control.commands.last_output import FAILURES, last_output_on_disk
    from repeater.control.commands.offline import offline_items, running_item
    from repeater.control.commands.status import LINES, RunningItem
    from repeater.output.run_reader import RunReader

    with records(where) as found:
        if found is None:
            raise error
        left, now = unattended_runs(found), datetime.now(UTC)
        running = defaultdict[str, list[RunningItem]](list)
        for one in left.runs:
            if one.job is not None:
                running[one.job].append(running_item(one.run, one.pid, one.since, now, one.row))
        items = offline_items(found.specs, jobs, found.rows, found.meta.progress, running)
        reader = RunReader(found.state)
        for item in items:
            if item["last"] is not None and item["last"]["outcome"] in FAILURES:
                item["last"]["output"] = last_output_on_disk(reader, item["job"], item["last"]["run"], LINES)
        headline = _offline_headline(found, left, now)
    _print(items, headline, now, as_json=as_json)
    return error.exit_code


def _offline_headline(found: Records, left: Unattended, now: datetime) -> str:
    count = len(found.specs)
    line = f"project {printable(found.project)}: {count} {'job' if count == 1 else 'jobs'}, no supervisor is running"
    if found.meta.supervisor_runs:
        last = found.meta.supervisor_runs[-1]
        end = "was killed" if last.ended is None else f"ended {age(last.ended, now)} ago"
        line += f"; the last one, pid {last.pid}, {end}"
    if left.runs:
        runs = "1 run continues" if len(left.runs) == 1 else f"{len(left.runs)} runs continue"
        line += f"\n{runs}, kept by the shim (pid {left.shim}): the next `rpr apply` takes over, `rpr down` stops"
    return line


def _headline(about: Mapping[str, Any]) -> str:
    count = about["jobs"]
    jobs = f"{count} {'job' if count == 1 else 'jobs'}"
    generation = f"generation {about['generation']}"
    process = f"pid {about['pid']}, up for {span(about['uptime'])}"
    lines = [f"project {printable(about['project'])}: {jobs}, {generation}, {process}"]
    if about.get("rejected"):
        lines.append(f"the current job files were rejected: {about['rejected']}")
    problems = [reason_text(problem) for problem in about.get("problem_reasons", ())] or about["problems"]
    lines += [f"problem: {problem}" for problem in problems]
    if faults := about.get("faults"):
        count = sum(fault["count"] for fault in faults)
        lines.append(f"{count} internal {'error' if count == 1 else 'errors'} contained; `rpr health` shows them")
    return "\n".join(lines)


def _rows(items: Iterable[Mapping[str, Any]], now: datetime) -> Iterable[tuple[str, ...]]:
    for item in items:
        yield item["job"], item["state"], _last(item, now), _next(item, now), "; ".join(filter(None, _notes(item, now)))


def _last_lines(items: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The last output lines of failed jobs."""
    failed = [item for item in items if item["last"] is not None and item["last"].get("output")]
    for item in failed[:_MOST_OUTPUTS]:
        yield f"{printable(item['job'])} printed last:"
        yield from (f"  {printable(line)}" for line in item["last"]["output"])
    if len(failed) > _MOST_OUTPUTS:
        yield "`rpr logs --failed` shows the output of all failed jobs"


def _last(item: Mapping[str, Any], now: datetime) -> str:
    last = item["last"]
    if last is None:
        return "never" if item["runs"] <= len(item["running"]) else "-"
    word = "ok" if last["outcome"] == "success" else last["outcome"]
    return f"{word} {age(instant(last['ended']), now)} ago" if last["ended"] else word


def _next(item: Mapping[str, Any], now: datetime) -> str:
    following = instant(item["next"])
    if following is None or item["state"] in ("paused", "throttled"):  # its slots are due but skipped
        return "-"
    return f"{clock(item['next'], now)}, in {age(now, following)}" if following > now else clock(item["next"], now)


def _notes(item: Mapping[str, Any], now: datetime) -> Iterable[str]:
    if item["why"]:
        waited = f" (for {item['waited']}s)" if item["waited"] else ""
        yield reason_text(item, "why", now) + waited
    for run in item["running"]:
        yield f"pid {run['pid']} for {span(run['seconds'])}"
    if item["pending"]:
        yield f"{item['pending']} queued"
    if item["ready"] is False and item["service"]:
        yield "not ready"
    if faults := item.get("faults"):
        yield f"internal error in {faults[0]['owner']}: {faults[0]['error']}"
    if failures := item["consecutive_failures"]:
        last = item["last"] or {}
        reason = reason_text(last) if last else ""
        if failures == 1 or item["state"] == "throttled":
            yield reason
        else:
            yield f"failed {failures} times in a row" + (f" ({reason})" if reason else "")


def _paint(column: int, cell: str) -> str | None:
    return _COLORS.get(cell.partition(" ")[0]) if column in (1, 2) else None


@click.command(epilog="Example: HEALTHCHECK CMD rpr health --quiet --ready")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; report through the exit code only.")
@click.option("--ready", is_flag=True, help="Exit with code 0 even while job files are rejected. For container probes.")
@json_option
@supervisor_options
def health(quiet: bool, ready: bool, as_json: bool, where: SupervisorSelector) -> int:
    """Check the health of the supervisor. Exit code 0: healthy. Exit code 1: not healthy.

    Healthy means: it answers, can write its history, is not shutting down, every service with a `ready` probe is ready,
    and the current job files are active.
    """
    from repeater.apps.locate import connect

    try:
        with connect(where) as client:
            result = client.ask("health", patience=5.0).result()
    except RepeaterError as error:
        unreachable = {"reason": error.message, "reason_code": "unreachable", "detail": {"error": error.message}}
        result = {"ok": False, "ready": False, "problems": [error.message], "problem_reasons": [unreachable]}
    if as_json:
        print(json_line(result))
    elif not quiet:
        problems = [*map(reason_text, result["problem_reasons"])] if "problem_reasons" in result else result["problems"]
        faults = [reason_text(fault) or f"internal error: {fault['error']}" for fault in result.get("faults", ())]
        print("\n".join([*(problems or ["ok"]), *faults]))
    return 0 if result["ok"] or (ready and result.get("ready")) else 1
