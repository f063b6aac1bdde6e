"""Which supervisor is meant, the way to it, and the records of one that does not run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater._lazy_dataclasses import dataclass
from repeater.apps.job_files import found_job_file, input_limits, naming
from repeater.apps.state import state_folder
from repeater.errors import ForeignFile, RepeaterError, Unreachable, UsageError
from repeater.model.spec import JobSpec

if TYPE_CHECKING:
    from repeater.apps.doctor import CheckResult
    from repeater.control.client import Client
    from repeater.control.context import FindRecords
    from repeater.model.history_meta import HistoryMeta
from repeater.model.run import SlotRecord


@dataclass(frozen=True, slots=True)
class SupervisorSelector:
    """Which supervisor is meant: by its socket, its project, its state folder, or by the job file that is named or
    found.
    """

    project: str | None = None
    socket: str | None = None
    state_dir: str | None = None
    file: str | None = None

    def found_project(self) -> str | None:
        """The project; None if no job file names it. Raises UsageError for a file that does not exist."""
        if self.project or self.file is None:
            return self.project or current_project()
        if not Path(self.file).is_file():
            raise UsageError(f"cannot use `--file {self.file}`: there is no such file")
        return current_project({**os.environ, "RPR_FILE": self.file})


def current_project(environ: Mapping[str, str] | None = None) -> str | None:
    """The project of the job file that would be used without a name; None if there is none."""
    from repeater.jobfile.project import project_of
    from repeater.system.filesystem import Filesystem

    environ = os.environ if environ is None else environ
    try:
        (name,) = found_job_file(environ)
    except ForeignFile:
        raise
    except UsageError:
        return None
    return project_of(str(Path(name).absolute()), Filesystem(), input_limits(environ), naming(name, environ))


def connect(where: SupervisorSelector) -> Client:
    """The supervisor that is meant. Raises Unreachable if it does not run, UsageError if none is meant."""
    from repeater.control import client

    if where.socket:
        return client.open_socket(where.socket)
    project = where.found_project()
    if project is None and where.state_dir is None:
        return _single_running()
    name = project or "unknown"
    found = connect_project(name, where.state_dir, guests=True)
    if found is None:
        raise Unreachable(
            f"cannot reach a supervisor of project `{name}`: none is running", hint="start one with `rpr apply`"
        )
    return found


def connect_project(project: str, state_dir: str | None, *, guests: bool) -> Client | None:
    """The supervisor of a project, None if it has none; `guests`: also one that keeps no state."""
    from repeater.control import client

    folder = state_folder(project, state_dir)
    return client.find(project, folder, os.environ, own_state=state_dir is not None, guests=guests)


def _single_running() -> Client:
    from repeater.control import client

    sockets = client.running_sockets(os.environ)
    if len(sockets) == 1:
        return client.open_socket(sockets[0])
    if sockets:
        names = ", ".join(f"`{Path(path).stem}`" for path in sockets[:8])
        raise UsageError(
            f"cannot choose a supervisor: there is no job file here, and {len(sockets)} supervisors are running",
            hint=f"name one with `--project`: {names}",
        )
    raise Unreachable(
        "cannot reach a supervisor: there is no job file here, and none is running",
        hint="name its project with `--project`, or its socket with `--socket`",
    )


@dataclass(frozen=True, slots=True)
class Records:
    """The contents of the state directory of a project, read without a supervisor."""

    project: str
    rows: FindRecords
    specs: tuple[JobSpec, ...]
    meta: HistoryMeta
    state: Path


@contextmanager
def records(where: SupervisorSelector) -> Iterator[Records | None]:
    """The records of a project, for as long as the context lasts; None if there are none."""
    from repeater.jobfile.load import rebuild
    from repeater.store.reader import open_reader

    project = where.found_project() or "unknown"
    reader = None if where.socket else open_reader(state_folder(project, where.state_dir))
    if reader is None:
        yield None
        return
    with closing(reader):
        document = reader.document()
        specs = rebuild(json.loads(document)) if document else {}

        def rows(jobs: Sequence[str] | None = None, most: int = 100, **filters: Any) -> list[SlotRecord]:
            return list(reader.rows(jobs, most, **filters))

        folder = state_folder(project, where.state_dir)
        yield Records(project, rows, tuple(specs.values()), reader.history_meta(), folder)


def run_doctor(where: SupervisorSelector) -> list[CheckResult]:
    """What this machine gives to repeater, and whether a supervisor of the project runs."""
    from repeater.apps.doctor import CheckResult, run_checks
    from repeater.store.database import VERSION
    from repeater.store.state_dir import owner_of

    project = where.found_project()
    folder = state_folder(project or "unknown", where.state_dir)
    found = [*run_checks(folder, os.environ), CheckResult("history", "ok", f"SQLite {VERSION}")]
    try:
        with connect(where) as client:
            told = client.ask("status", patience=5.0, jobs=["*"]).result()
        words = f"pid {told['pid']} of project `{told['project']}` answers at `{client.path}`"
        found.append(CheckResult("supervisor", "ok", words))
        found += [CheckResult("supervisor", "bad", trouble) for trouble in told["problems"]]
    except RepeaterError as error:
        owner = owner_of(folder)
        if owner is None:
            found.append(CheckResult("supervisor", "note", error.message))
        else:
            words = f"pid {owner} uses `{folder}`, but commands cannot reach it: {error.message}"
            found.append(CheckResult("supervisor", "bad", words))
    return found
