"""`rpr events`: show recent and new events."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import clock, jobs_argument, print_json, printable, supervisor_options
from repeater.errors import Unreachable

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector

_LEFT_OUT = {"time", "event", "job"}


@click.command(epilog="Example: rpr events -f --json")
@jobs_argument
@click.option("-f", "--follow", is_flag=True, help="Follow new output until Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Show only the last N events.")
@json_option
@supervisor_options
def events(jobs: tuple[str, ...], follow: bool, tail: int | None, as_json: bool, where: SupervisorSelector) -> None:
    """Show recent events: starts, exits, decided slots, generations, warnings.

    The supervisor keeps the last 2000 events in memory. `rpr history` shows the permanent record.
    """
    from repeater.apps.locate import connect

    args: dict[str, Any] = {"jobs": list(jobs), "follow": follow}
    if tail is not None:
        args["tail"] = tail
    with connect(where) as client:
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
    rest = " ".join(
        f"{name}={_value(value)}"
        for name, value in item.items()
        if name not in _LEFT_OUT and value not in (None, "", [])
    )
    job = f" {printable(item['job'])}" if item.get("job") else ""
    return f"{clock(item['time'])} {item['event']}{job} {rest}".rstrip()


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(printable, map(str, value)))
    text = printable(str(value))
    return f'"{text}"' if " " in text else text
