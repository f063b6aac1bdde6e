"""`rpr history`: show the records of slots, with or without a supervisor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option, utc_option
from repeater.cli.remote import (
    clock,
    colors,
    instant,
    instant_option,
    jobs_argument,
    printable,
    reason_text,
    screen_size,
    supervisor_options,
    zone_name,
)
from repeater.cli.table_layout import table_lines
from repeater.errors import Unreachable
from repeater.model.time import from_rfc3339
from repeater.model.units import duration_text
from repeater.output.terminal import json_line

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.control.commands.history import SlotItem

_COLORS = {"failed": "31", "success": "32", "running": "32", "interrupted": "31", "expired": "35", "replaced": "35"}
_OUTCOMES = ("success", "failed", "running", "skipped", "expired", "replaced", "cancelled", "interrupted")


@click.command(epilog="Example: rpr history backup --failed --since 7d")
@jobs_argument
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=25, show_default=True, help="Show at most N slots."
)
@click.option(
    "--since", metavar="TIME", help="Show only slots from this time on: a time, `yesterday`, or an age such as `2h`."
)
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
@utc_option
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
    in the local time zone, or with `--utc` in UTC. `--json` has the keys of `rpr simulate --json` and `outcome`,
    `trigger`, `generation`, `command`, `memory` in bytes and `cpu` in seconds.
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
        zone, _, _ = zone_name(datetime.now(UTC)).partition(",")
        head: tuple[str, ...] = (f"TIME ({zone})", "JOB", "OUTCOME", "TOOK", "REASON", "RUN")
        cells = [slot_cells(row) for row in rows]
        if usage:
            head = (*head[:4], "CPU", "MEMORY", *head[4:])
            cells = [(*one[:4], *_usage(row), *one[4:]) for one, row in zip(cells, rows, strict=True)]
        shown = [tuple(map(printable, one)) for one in cells]
        width, _ = screen_size()
        last = len(head) - 1
        paint = _paint if colors() else lambda _column, _cell, padded: padded
        for line in table_lines(head, shown, width, name=1, text=last - 1, optional=last, paint=paint):
            print(line)
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


def slot_cells(item: Mapping[str, Any], show: Callable[[datetime], str] | None = None) -> tuple[str, ...]:
    """Time, job, outcome, duration, reason and run id of a slot. `show` formats instants, by default `clock`."""
    began, ended = instant(item["started"]), instant(item["ended"])
    took = duration_text(ended - began) if began and ended else ""
    reason = "" if item["outcome"] == "success" else reason_text(item, show=show)
    tries = f"attempt {item['attempts']}" if item["attempts"] > 1 else ""
    notes = "; ".join(
        part for part in (reason, tries, "" if item["trigger"] == "schedule" else item["trigger"]) if part
    )
    nominal = instant(item["nominal"])
    time = show(nominal) if show and nominal else clock(item["nominal"])
    return time, item["job"], item["outcome"], took, notes, item["run"] or ""


def _usage(item: Mapping[str, Any]) -> tuple[str, str]:
    """CPU time and peak memory; empty if they are not known, as in records of older versions."""
    cpu, memory = item.get("cpu"), item.get("memory")
    return (
        "" if cpu is None else duration_text(timedelta(seconds=cpu)),
        "" if memory is None else f"{memory / (1 << 20):.1f}MiB",
    )


def _paint(column: int, cell: str, padded: str) -> str:
    code = "1" if column < 0 else _COLORS.get(cell) if column == 2 else None
    return f"\x1b[{code}m{padded}\x1b[0m" if code else padded
