"""Which supervisor is meant, the way to it, and the records of one that does not run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.app.files import caps, found_job_file, naming
from repeater.app.state import read_past, state_folder
from repeater.dataclass import dataclass
from repeater.errors import ForeignFile, RepeaterError, Unreachable, UsageError
from repeater.model.spec import JobSpec

if TYPE_CHECKING:
    from repeater.adapters.machine import Finding
    from repeater.control.client import Client
    from repeater.control.desk import Rows
    from repeater.model.run import RunRecord


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Which supervisor is meant: by its socket, its project, its state folder, or by the job file that is found."""

    project: str | None = None
    socket: str | None = None
    state_dir: str | None = None

    def found_project(self) -> str | None:
        """The project; None if no job file is there to tell."""
        return self.project or current_project()


def current_project(environ: Mapping[str, str] | None = None) -> str | None:
    """The project of the job file that would be used without a name; None if there is none."""
    from repeater.adapters.disk import Disk
    from repeater.jobfile import project_of

    environ = os.environ if environ is None else environ
    try:
        (name,) = found_job_file(environ)
    except ForeignFile:
        raise
    except UsageError:
        return None
    return project_of(str(Path(name).absolute()), Disk(), caps(environ), naming(name, environ))


def reach(where: Whereabouts) -> Client:
    """The supervisor that is meant. Raises Unreachable if it does not run, UsageError if none is meant."""
    from repeater.control import client

    if where.socket:
        return client.open_socket(where.socket)
    project = where.found_project()
    if project is None and where.state_dir is None:
        return _the_only_one()
    name = project or "unknown"
    found = reach_project(name, where.state_dir, guests=True)
    if found is None:
        raise Unreachable(
            f"cannot reach a supervisor of project `{name}`: none is running", hint="`rpr apply` starts one"
        )
    return found


def reach_project(project: str, state_dir: str | None, *, guests: bool) -> Client | None:
    """The supervisor of a project, None if it has none; `guests`: also one that keeps no state."""
    from repeater.control import client

    folder = state_folder(project, state_dir)
    return client.find(project, folder, os.environ, own_state=state_dir is not None, guests=guests)


def _the_only_one() -> Client:
    from repeater.control import client

    sockets = client.everyone(os.environ)
    if len(sockets) == 1:
        return client.open_socket(sockets[0])
    if sockets:
        names = ", ".join(f"`{Path(path).stem}`" for path in sockets[:8])
        raise UsageError(
            f"cannot choose a supervisor: no job file is here, and {len(sockets)} supervisors run",
            hint=f"name one with `--project`: {names}",
        )
    raise Unreachable(
        "cannot reach a supervisor: no job file is here, and none is running",
        hint="name its project with `--project`, or its socket with `--socket`",
    )


@dataclass(frozen=True, slots=True)
class Records:
    """What the state folder of a project tells without a supervisor. `past` is as `read_past` gives it."""

    project: str
    rows: Rows
    specs: tuple[JobSpec, ...]
    past: Mapping[str, Any]
    state: Path


@contextmanager
def records(where: Whereabouts) -> Iterator[Records | None]:
    """The records of a project, for as long as the context lasts; None if there are none."""
    from repeater.adapters.sqlite import open_reader
    from repeater.jobfile import rebuild

    project = where.found_project() or "unknown"
    reader = None if where.socket else open_reader(state_folder(project, where.state_dir))
    if reader is None:
        yield None
        return
    with closing(reader):
        document = reader.document()
        specs = rebuild(json.loads(document)) if document else {}

        def rows(jobs: Sequence[str] | None = None, most: int = 100, **filters: Any) -> list[RunRecord]:
            return list(reader.rows(jobs, most, **filters))

        folder = state_folder(project, where.state_dir)
        yield Records(project, rows, tuple(specs.values()), read_past(reader), folder)


def examine(where: Whereabouts) -> list[Finding]:
    """What this machine gives to repeater, and whether a supervisor of the project runs."""
    from repeater.adapters.machine import Finding, examine_machine
    from repeater.adapters.sqlite import VERSION, owner_of

    project = where.found_project()
    folder = state_folder(project or "unknown", where.state_dir)
    found = [*examine_machine(folder, os.environ), Finding("history", "ok", f"SQLite {VERSION}")]
    try:
        with reach(where) as client:
            told = client.ask("status", patience=5.0, jobs=["*"]).result()
        words = f"pid {told['pid']} of project `{told['project']}` answers at `{client.path}`"
        found.append(Finding("supervisor", "ok", words))
        found += [Finding("supervisor", "bad", trouble) for trouble in told["troubles"]]
    except RepeaterError as error:
        owner = owner_of(folder)
        if owner is None:
            found.append(Finding("supervisor", "note", error.message))
        else:
            words = f"pid {owner} uses `{folder}`, but no command can reach it: {error.message}"
            found.append(Finding("supervisor", "bad", words))
    return found
