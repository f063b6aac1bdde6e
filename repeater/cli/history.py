"""`rpr history`: show the records of slots, with or without a supervisor."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import (
    clock,
    instant,
    instant_option,
    jobs_argument,
    print_table,
    reason_text,
    supervisor_options,
)
from repeater.errors import Unreachable
from repeater.model.time import from_rfc3339
from repeater.model.units import format_duration
from repeater.output.terminal import json_line

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.control.commands.history import SlotItem

_COLORS = {"failed": "31", "success": "32", "running": "32", "interrupted": "31", "expired": "33", "replaced": "33"}
_OUTCOMES = ("success", "failed", "running", "skipped", "expired", "replaced", "cancelled", "interrupted")


@click.command(epilog="Example: rpr history backup --failed --since 7d")
@jobs_argument
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=25, show_default=True, help="Show at most N slots."
)
@click.option("--since", metavar="TIME", help="Show only slots from this time on: an age such as `2h`, or a time.")
@click.option("--until", metavar="TIME", help="Show only slots before this time.")
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice(_OUTCOMES),
    help="Show only slots with this outcome. Repeatable.",
)
@click.option("--failed", is_flag=True, help="Show only failed and interrupted slots.")
@click.option("--usage", is_flag=True, help="Show the CPU time and the peak memory of each run.")
@json_option
@supervisor_options
def history(
    jobs: tuple[str, ...],
    limit: int,
    since: str | None,
    until: str | None,
    outcomes: tuple[str, ...],
    failed: bool,
    usage: bool,
    as_json: bool,
    where: SupervisorSelector,
) -> None:
    """Show the history of scheduled runs, newest first.

    Includes slots that did not run, with the reason. Reads the state directory if no supervisor is running. Times are
    in the local time zone. `--json` has the keys of `rpr simulate --json` and `outcome`, `trigger`, `generation`,
    `command`, `memory` in bytes and `cpu` in seconds.
    """
    args = {
        "jobs": list(jobs),
        "limit": limit,
        "since": instant_option(since, "--since"),
        "until": instant_option(until, "--until"),
        "outcomes": [*outcomes, *(("failed", "interrupted") if failed else ())],
    }
    items = _rows(where, args)
    if as_json:
        for item in items:
            sys.stdout.write(json_line(item) + "\n")
        return
    rows = list(items)
    if rows:
        head: tuple[str, ...] = ("TIME", "JOB", "OUTCOME", "TOOK", "RUN", "REASON")
        cells = [_row(row) for row in rows]
        if usage:
            head = (*head[:4], "CPU", "MEMORY", *head[4:])
            cells = [(*one[:4], *_usage(row), *one[4:]) for one, row in zip(cells, rows, strict=True)]
        print_table(head, cells, paint=_paint)
    else:
        print("no matching slots", file=sys.stderr)


def _rows(where: SupervisorSelector, args: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    from repeater.apps.locate import connect

    try:
        client = connect(where)
    except Unreachable as error:
        return _from_disk(where, args, error)
    with client:
        return list(client.ask("history", **args))


def _from_disk(where: SupervisorSelector, args: Mapping[str, Any], error: Unreachable) -> list[SlotItem]:
    from repeater.apps.locate import records
    from repeater.control.commands.history import as_item, read

    with records(where) as found:
        if found is None:
            raise error
        given = {**args, "since": from_rfc3339(args["since"]), "until": from_rfc3339(args["until"])}
        return [as_item(row) for row in read(found.rows, found.specs, list(found.meta.progress), given)]


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    began, ended = instant(item["started"]), instant(item["ended"])
    took = format_duration(_rounded(ended - began)) if began and ended else ""
    reason = "" if item["outcome"] == "success" else reason_text(item)
    tries = f"attempt {item['attempts']}" if item["attempts"] > 1 else ""
    notes = "; ".join(
        part for part in (reason, tries, "" if item["trigger"] == "schedule" else item["trigger"]) if part
    )
    return clock(item["nominal"]), item["job"], item["outcome"], took, item["run"] or "", notes


def _usage(item: Mapping[str, Any]) -> tuple[str, str]:
    """CPU time and peak memory; empty if they are not known, as in records of older versions."""
    cpu, memory = item.get("cpu"), item.get("memory")
    return (
        "" if cpu is None else format_duration(_rounded(timedelta(seconds=cpu))),
        "" if memory is None else f"{memory / (1 << 20):.1f}MiB",
    )


def _rounded(length: timedelta) -> timedelta:
    unit = timedelta(milliseconds=1 if length < timedelta(seconds=10) else 1000)
    return max(timedelta(0), length - length % unit)


def _paint(column: int, cell: str) -> str | None:
    return _COLORS.get(cell) if column == 2 else None
