"""`rpr projects`: the projects of this user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repeater.cli.options import json_option
from repeater.cli.remote import clock, print_json, print_table
from repeater.model.time import rfc3339

if TYPE_CHECKING:
    from repeater.apps.projects import Project

_COLORS = {"running": "32", "damaged": "31"}


@click.command(epilog="Example: rpr projects")
@json_option
def projects(as_json: bool) -> None:
    """Show the projects of this user.

    Lists each project with a state directory at the default location, and each running supervisor without one. A
    project with its state elsewhere (`--state-dir`) is not listed.
    """
    from repeater.apps.projects import known_projects

    found = known_projects()
    if as_json:
        for project in found:
            print_json(project.as_json())
        return
    rows = [(one.name, _state(one), str(one.jobs), clock(rfc3339(one.active)), _place(one)) for one in found]
    print_table(
        ("PROJECT", "STATE", "JOBS", "ACTIVE", "FILE"),
        rows,
        paint=lambda column, cell: _COLORS.get(cell) if column == 1 else None,
    )


def _state(project: Project) -> str:
    if project.problem is not None:
        return "damaged"
    return "running" if project.pid is not None else "stopped"


def _place(project: Project) -> str:
    if project.problem is not None:
        return project.problem
    if project.file is None:
        return "-"
    return project.file if project.has_file or project.file == "-" else f"{project.file} (does not exist)"
