"""The projects of this user: what state folders there are at the usual place, and which supervisors run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.errors import RepeaterError
from repeater.model.time import rfc3339


@dataclass(frozen=True, slots=True)
class Project:
    """One project. `file` is its first job file, None for a state of 0.1.0 that was not used since.

    `pid` is that of its supervisor. `state_dir` is None for a supervisor that keeps no state. `active` is when its
    history was written last. `problem` says why its history cannot be read.
    """

    name: str
    file: str | None
    state_dir: str | None
    pid: int | None
    generation: int
    jobs: int
    active: datetime | None
    problem: str | None = None

    @property
    def has_file(self) -> bool:
        """Whether the job file exists."""
        return self.file is not None and Path(self.file).exists()

    def as_json(self) -> dict[str, Any]:
        return {
            "project": self.name,
            "file": self.file,
            "file_exists": self.has_file,
            "state_dir": self.state_dir,
            "pid": self.pid,
            "generation": self.generation,
            "jobs": self.jobs,
            "active": rfc3339(self.active),
            "problem": self.problem,
        }


def known_projects() -> list[Project]:
    """All of them by name: state folders at the usual place, and supervisors with a socket at the usual place."""
    from repeater.store.state_dir import state_folder

    usual = state_folder("project", os.environ).parent
    found = [_kept(folder) for folder in sorted(usual.iterdir()) if _is_state(folder)] if usual.is_dir() else []
    folders = {project.state_dir for project in found}
    found += [project for project in _running() if project.state_dir is None or project.state_dir not in folders]
    return sorted(found, key=lambda project: project.name)


def _is_state(folder: Path) -> bool:
    from repeater.store.state_dir import DATABASE, MARKER

    return (folder / DATABASE).exists() or (folder / MARKER).exists()


def _kept(folder: Path) -> Project:
    from repeater.store.origin import read_origin
    from repeater.store.reader import open_reader
    from repeater.store.state_dir import owner_of

    origin = read_origin(folder)
    generation, jobs, problem = 0, 0, None
    try:
        reader = open_reader(folder)
        if reader is not None:
            with closing(reader):
                generation, document = reader.generation(), reader.document()
                jobs = len(json.loads(document)) if document else 0
    except (RepeaterError, ValueError) as error:
        problem = str(error)
    return Project(
        folder.name,
        None if origin is None else origin.file,
        str(folder),
        owner_of(folder),
        generation,
        jobs,
        _written(folder),
        problem,
    )


def _written(folder: Path) -> datetime | None:
    """When the history changed last."""
    from repeater.store.state_dir import DATABASE

    times = []
    for name in (DATABASE, f"{DATABASE}-wal"):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _running() -> Iterator[Project]:
    """Supervisors with a socket at the usual place. One that does not answer in time is left out."""
    from repeater.control import client
    from repeater.store.origin import read_origin

    for path in client.running_sockets(os.environ):
        try:
            with client.open_socket(path) as connection:
                told = connection.ask("status", patience=5.0).result()
        except RepeaterError:
            continue
        folder = told["state_dir"] or None
        origin = None if folder is None else read_origin(Path(folder))
        yield Project(
            told["project"],
            None if origin is None else origin.file,
            folder,
            told["pid"],
            told["generation"],
            told["jobs"],
            None,
        )
