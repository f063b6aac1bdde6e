"""Backups of the state of a project, and their way back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from repeater.apps.locate import SupervisorSelector
from repeater.apps.state import state_folder
from repeater.errors import UsageError
from repeater.model.time import rfc3339

if TYPE_CHECKING:
    from repeater.store.backup import Backup


def back_up(where: SupervisorSelector, target: str) -> Backup:
    """Write the state of a project into a new file, while a supervisor runs or not."""
    from repeater.store.backup import write_backup

    project = where.found_project()
    if project is None and where.state_dir is None:
        raise UsageError("cannot choose a project: no job file is here", hint="name one with `--project`")
    folder = state_folder(project or "unknown", where.state_dir)
    made = rfc3339(datetime.now(UTC).replace(microsecond=0))
    assert made is not None
    return write_backup(folder, project or folder.name, Path(target), made)


def restore(source: str, project: str | None, state_dir: str | None) -> tuple[Backup, Path]:
    """Replace the state of a project, by default of that which the backup names. Returns where the state is."""
    from repeater.store.backup import read_about, restore_backup

    name = str(read_about(Path(source))["project"])
    folder = state_folder(project or name, state_dir)
    return restore_backup(Path(source), folder, keeps_origin=project in (None, name)), folder
