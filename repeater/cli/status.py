"""`rpr status` and `rpr health`: the states of the jobs, and the health of the supervisor."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import click

from repeater._lazy_dataclasses import dataclass
from repeater.cli.options import json_option, utc_option
from repeater.cli.remote import (
    clock,
    colors,
    instant,
    jobs_argument,
    printable,
    reason_text,
    screen_size,
    supervisor_options,
    zone_name,
)
from repeater.cli.status_layout import FAILING, Row, frame, group_of, has_label, status_lines, totals, wrap
from repeater.errors import RepeaterError, Unreachable, UsageError
from repeater.model.time import age, span
from repeater.output.terminal import json_line

if TYPE_CHECKING:
    from repeater.apps.locate import Records, SupervisorSelector
    from repeater.apps.unattended import Unattended

_MOST_OUTPUTS = 5
_REFRESH = 1.0


@click.command(epilog="Example: rpr status 'db-*' --failed")
@jobs_argument
@click.option("--failed", is_flag=True, help="Show only jobs that are failing.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Show only jobs with this label. Repeatable: all labels must match.",
)
@click.option("--all", "show_all", is_flag=True, help="Show all jobs, also if they do not fit on the screen.")
@click.option("--watch", is_flag=True, help="Show the state again each second, until Ctrl-C. Needs a terminal.")
@utc_option
@json_option
@supervisor_options
def status(
    jobs: tuple[str, ...],
    failed: bool,
    labels: tuple[str, ...],
    show_all: bool,
    watch: bool,
    as_json: bool,
    where: SupervisorSelector,
) -> int:
    """Show the state of each job: failing jobs first, then jobs that are held, then the rest.

    Shows each job's state, the result and age of its last run, its next start, and, if it is not running, the reason.
    JOB is a name, a cell of a matrix, a glob, or a label as `key=value`. If no supervisor is running, this shows the
    last known state and the runs that continue. The exit code is then 6.

    On a terminal, jobs without a problem are left out if they do not fit on the screen.
    """

    def ask() -> tuple[_Answer, list[Mapping[str, Any]]]:
        answer = _ask(where, jobs)
        return answer, [
            item
            for item in answer.items
            if (not failed or group_of(item) == FAILING) and all(has_label(item, label) for label in labels)
        ]

    if watch:
        _watch(ask, as_json=as_json)
    answer, chosen = ask()
    if as_json:
        for item in chosen:
            sys.stdout.write(json_line(item) + "\n")
        return answer.code
    width, height = screen_size()
    if show_all or failed or labels or jobs:
        height = 0
    for line in _page(answer, chosen, width, height):
        print(line)
    return answer.code


def _watch(ask: Callable[[], tuple[_Answer, list[Mapping[str, Any]]]], *, as_json: bool) -> NoReturn:
    """Draw the page each second, until Ctrl-C."""
    if as_json:
        raise UsageError("cannot use `--watch` with `--json`", hint="`rpr events -f --json` follows the events")
    if not sys.stdout.isatty():
        raise UsageError(
            "cannot use `--watch`: standard output is not a terminal",
            hint="run `rpr status` repeatedly, or follow the events with `rpr events -f`",
        )
    sys.stdout.write("\x1b[2J")
    while True:
        answer, items = ask()
        width, height = screen_size()
        sys.stdout.write(frame(_page(answer, items, width, height), height))
        sys.stdout.flush()
        time.sleep(_REFRESH)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of the jobs. `jobs` is the number of all jobs."""

    items: Sequence[Mapping[str, Any]]
    headline: Sequence[str]
    jobs: int
    now: datetime
    code: int = 0


def _ask(where: SupervisorSelector, jobs: tuple[str, ...]) -> _Answer:
    from repeater.apps.locate import connect

    try:
        client = connect(where)
    except Unreachable as error:
        return _offline(where, jobs, error)
    with client:
        answer = client.ask("status", jobs=list(jobs))
        items = list(answer)
        about = answer.result()
    now = instant(about["now"])
    assert now is not None
    return _Answer(items, _headline(about, now), about["jobs"], now)


def _page(answer: _Answer, items: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    """The lines of the answer. The last output of failed jobs gets at most half of the screen."""
    is_colored = colors()
    head = [line for text in (*answer.headline, totals(items, answer.jobs)) for line in wrap(text, width, "  ")]
    printed = [line for text in _last_lines(items, height) for line in ([text] if not width else [_clip(text, width)])]
    rows = [_row(item, answer.now) for item in items]
    room = max(height - len(head) - len(printed) - 1, 1) if height else 0
    return [
        *head,
        *status_lines(rows, width, room, lambda text, code: f"\x1b[{code}m{text}\x1b[0m" if is_colored else text),
        *printed,
    ]


def _offline(where: SupervisorSelector, jobs: tuple[str, ...], error: Unreachable) -> _Answer:
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
        return _Answer(items, _offline_headline(found, left, now), len(found.specs), now, error.exit_code)


def _offline_headline(found: Records, left: Unattended, now: datetime) -> list[str]:
    line = f"project {printable(found.project)}: no supervisor is running"
    if found.meta.supervisor_runs:
        last = found.meta.supervisor_runs[-1]
        end = "was killed" if last.ended is None else f"ended {age(last.ended, now)} ago"
        line += f"; the last one, pid {last.pid}, {end}"
    lines = [f"{line}; times in {zone_name(now)}"]
    if left.runs:
        runs = "1 run continues" if len(left.runs) == 1 else f"{len(left.runs)} runs continue"
        lines.append(f"{runs}, kept by the shim (pid {left.shim}): the next `rpr apply` takes over, `rpr down` stops")
    return lines


def _headline(about: Mapping[str, Any], now: datetime) -> list[str]:
    process = f"generation {about['generation']}, pid {about['pid']}, up for {span(about['uptime'])}"
    lines = [f"project {printable(about['project'])}: {process}; times in {zone_name(now)}"]
    if about.get("rejected"):
        lines.append(f"the current job files were rejected: {about['rejected']}")
    problems = [reason_text(problem) for problem in about.get("problem_reasons", ())] or about["problems"]
    lines += [f"problem: {problem}" for problem in problems]
    if faults := about.get("faults"):
        count = sum(fault["count"] for fault in faults)
        lines.append(f"{count} internal {'error' if count == 1 else 'errors'} contained; `rpr health` shows them")
    return [part for line in lines for part in line.split("\n")]


def _row(item: Mapping[str, Any], now: datetime) -> Row:
    following, soon = _next(item, now)
    note = printable("; ".join(filter(None, _notes(item, now))))
    return Row(group_of(item), printable(item["job"]), item["state"], _last(item, now), following, soon, note)


def _last_lines(items: Iterable[Mapping[str, Any]], height: int) -> Iterable[str]:
    """The last output lines of failed jobs: at most half of the screen, but those of one job at least."""
    failed = [item for item in items if item["last"] is not None and item["last"].get("output")]
    shown = used = 0
    for item in failed[:_MOST_OUTPUTS]:
        used += 1 + len(item["last"]["output"])
        if height and shown and used > height // 2:
            break
        shown += 1
        yield f"{printable(item['job'])} printed last:"
        yield from (f"  {printable(line)}" for line in item["last"]["output"])
    if len(failed) > shown:
        yield "`rpr logs --failed` shows the output of all failed jobs"


def _last(item: Mapping[str, Any], now: datetime) -> str:
    last = item["last"]
    if last is None:
        return "never" if item["runs"] <= len(item["running"]) else "-"
    word = "ok" if last["outcome"] == "success" else last["outcome"]
    return f"{word} {age(instant(last['ended']), now)} ago" if last["ended"] else word


def _next(item: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """The next start, in full and short."""
    following = instant(item["next"])
    if following is None or item["state"] in ("paused", "throttled"):  # its slots are due but skipped
        return "-", "-"
    time = clock(item["next"], now)
    if following <= now:
        return time, "now"
    soon = f"in {age(now, following)}"
    return f"{time}, {soon}", soon


def _notes(item: Mapping[str, Any], now: datetime) -> Iterable[str]:
    if item["why"]:
        waited = f" (for {span(item['waited'])})" if item["waited"] else ""
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


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


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
