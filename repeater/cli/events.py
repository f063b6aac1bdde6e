"""`rpr events`: show recent and new events."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.event_text import event_text
from repeater.cli.options import json_option, utc_option
from repeater.cli.remote import (
    clock,
    jobs_argument,
    print_json,
    printable,
    reason_text,
    supervisor_options,
    zone_name,
)
from repeater.errors import Unreachable

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector


@click.command(epilog="Example: rpr events -f --json")
@jobs_argument
@click.option("-f", "--follow", is_flag=True, help="Follow new output until Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Show only the last N events.")
@utc_option
@json_option
@supervisor_options
def events(jobs: tuple[str, ...], follow: bool, tail: int | None, as_json: bool, where: SupervisorSelector) -> None:
    """Show recent events: starts, exits, decided slots, generations, warnings.

    Each line has the time, the job and a sentence; `--json` has the fields of the event.

    The supervisor keeps the last 2000 events in memory. `rpr history` shows the permanent record.
    """
    from repeater.apps.locate import connect

    args: dict[str, Any] = {"jobs": list(jobs), "follow": follow}
    if tail is not None:
        args["tail"] = tail
    with connect(where) as client:
        if not as_json:
            print(f"times in {zone_name(datetime.now(UTC))}", flush=True)
        try:
            for item in client.ask("events", patience=None if follow else 30.0, **args):
                if as_json:
                    print_json(item)
                else:
                    print(_line(item), flush=True)
        except Unreachable:
            if not follow:
                raise
            print("rpr: the supervisor has exited", file=sys.stderr)


def _line(item: dict[str, Any]) -> str:
    if "lost" in item:
        return f"… {item['lost']} events were dropped here"
    text = printable(event_text(item, clock, reason_text))
    job = f"{printable(item['job'])}: " if item.get("job") else ""
    return f"{clock(item['time'])} {job}{text}"
