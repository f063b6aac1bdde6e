"""`rpr backup` and `rpr restore`: the state of a project in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from repeater.cli.remote import printable, supervisor_options

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector


@click.command(epilog="Example: rpr backup /backups/web-$(date +%F).tar.gz")
@click.argument("target", metavar="FILE")
@supervisor_options
def backup(target: str, where: SupervisorSelector) -> None:
    """Write the state of a project to FILE, also while its supervisor runs.

    Contains the history, the progress of all jobs, the output of runs, and the token of the HTTP API. FILE must not
    exist; only this user can read it. `rpr restore` reads it, also on another host.
    """
    from repeater.apps.backup import back_up

    made = back_up(where, target)
    print(f"{printable(target)}: {_content(made.project, made.slots, made.outputs)}")


@click.command(epilog="Example: rpr restore /backups/web-2026-11-24.tar.gz")
@click.argument("source", metavar="FILE")
@click.option("--project", metavar="NAME", envvar="RPR_PROJECT", help="Project name. Default: that of the backup.")
@click.option(
    "--state-dir",
    metavar="DIR",
    envvar="RPR_STATE_DIR",
    help="Directory of the state. Default: a directory named after the project.",
)
def restore(source: str, project: str | None, state_dir: str | None) -> None:
    """Replace the state of a project by that in FILE, which `rpr backup` wrote.

    Stops with an error while a supervisor of the project runs. If anything fails, the old state stays.
    """
    from repeater.apps.backup import restore as restore_state

    found, folder = restore_state(source, project, state_dir)
    print(f"{printable(str(folder))}: {_content(found.project, found.slots, found.outputs)}, as of {found.made}")


def _content(project: str, slots: int, outputs: int) -> str:
    slots_text = f"{slots} {'slot' if slots == 1 else 'slots'}"
    return f"project {printable(project)}, {slots_text}, {outputs} {'output' if outputs == 1 else 'outputs'}"
