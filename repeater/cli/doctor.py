"""`rpr doctor`: check the features of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repeater.cli.options import json_option
from repeater.cli.remote import print_json, print_table, supervisor_options

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector

_COLORS = {"ok": "32", "bad": "31"}


@click.command(epilog="Example: rpr doctor")
@json_option
@supervisor_options
def doctor(as_json: bool, where: SupervisorSelector) -> int:
    """Check this machine: processes, limits, clock, state directory, sockets.

    Changes nothing. Exit code 1: there is a problem that prevents rpr from working correctly.
    """
    from repeater.apps.locate import run_doctor
    from repeater.apps.unattended import unattended_checks

    found = [*run_doctor(where), *unattended_checks(where)]
    if as_json:
        for finding in found:
            print_json({"topic": finding.topic, "level": finding.level, "text": finding.text})
    else:
        rows = ((finding.topic, finding.level, finding.text) for finding in found)
        print_table(("TOPIC", "", ""), rows, paint=lambda column, cell: _COLORS.get(cell) if column == 1 else None)
    return 1 if any(finding.level == "bad" for finding in found) else 0
