"""Job files on the real disk: which file is meant, and reading it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from repeater.apps.plugins import Installed
from repeater.errors import ForeignFile, RepeaterError, UsageError
from repeater.model.units import parse_duration, parse_size

if TYPE_CHECKING:
    from repeater.jobfile.document import InputLimits
    from repeater.jobfile.load import Loaded
    from repeater.jobfile.project import NameProject

JOB_FILES = tuple(f"{stem}{suffix}" for stem in ("repeater", "jobs") for suffix in (".toml", ".yaml", ".yml"))


def load_job_files(
    paths: Sequence[str] = (),
    *,
    set_vars: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    project: str | None = None,
    unnamed: str | None = None,
) -> Loaded:
    """Read the job files from disk. No path: `RPR_FILE`, or the nearest of `JOB_FILES`, looked for upward.

    `project` wins over the key `project`. `unnamed` is the project of files without the key; None: by their folder.
    Raises JobFileError with every problem, UsageError if there is no file at all, RepeaterError if it takes more than
    `RPR_MAX_RELOAD_TIME` of CPU time.
    """
    from repeater.jobfile.load import load
    from repeater.system.filesystem import Filesystem

    environ = os.environ if environ is None else environ
    names = tuple(paths) or found_job_file(environ)
    stdin = sys.stdin.buffer.read(input_limits(environ).file_size + 1) if "-" in names else b""
    with Installed() as catalog, time_limit(environ):
        return load(
            names,
            files=Filesystem(),
            folder=str(Path.cwd()),
            set_vars=set_vars,
            environ=environ,
            stdin=stdin,
            caps=input_limits(environ),
            catalog=catalog,
            name=naming(names[0], environ, project, unnamed),
        )


def naming(
    file: str, environ: Mapping[str, str], project: str | None = None, unnamed: str | None = None
) -> NameProject:
    """How a project gets its name; arguments as those of `load_job_files`. Raises UsageError for an impossible name."""
    from repeater.apps.identity import default_name, first_file

    if project is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", project):
        raise UsageError(
            f"cannot use project `{project[:80]}`: expected a name of letters, digits, `.`, `_` and `-`, at most 64"
        )

    def name(key: str | None, folder: str) -> str:
        return project or key or unnamed or default_name(folder, first_file(file), environ)

    return name


def reading_time(environ: Mapping[str, str]) -> int:
    """Seconds of CPU time that reading job files may take. Raises UsageError."""
    text = environ.get("RPR_MAX_RELOAD_TIME") or "10s"
    try:
        return max(1, round(parse_duration(text).total_seconds()))
    except ValueError as error:
        raise UsageError(f"cannot use `RPR_MAX_RELOAD_TIME={text}`: {error}") from None


class _OutOfTime(Exception):
    """Reading took too long. It ends the template that is rendered, and is a problem with the place of that one."""


class _OutOfPatience(BaseException):
    """Reading has not ended after a second."""


@contextmanager
def time_limit(environ: Mapping[str, str]) -> Iterator[None]:
    """Ends what takes more CPU time than reading job files may. Does nothing where another limit holds already, as in
    the process that reads files for a supervisor. Raises RepeaterError.
    """
    import signal
    import threading

    limit = reading_time(environ)
    words = f"reading the job files needs more than {limit}s of CPU time"
    is_limited = threading.current_thread() is not threading.main_thread() or any(signal.getitimer(signal.ITIMER_PROF))
    if is_limited:
        yield
        return

    over = False

    def end(_number: int, _frame: object) -> None:
        nonlocal over
        over, is_second = True, over
        raise (_OutOfPatience if is_second else _OutOfTime)(words)

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, limit, 1.0)
    try:
        yield
    except (_OutOfTime, _OutOfPatience):
        hint = "a template may be the cause; `RPR_MAX_RELOAD_TIME` changes the limit"
        raise RepeaterError(f"cannot read the job files: {words}", hint=hint) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def found_job_file(environ: Mapping[str, str]) -> tuple[str]:
    if environ.get("RPR_FILE"):
        return (environ["RPR_FILE"],)
    folder = Path.cwd()
    for level in (folder, *folder.parents):
        for name in JOB_FILES:
            if (level / name).is_file():
                _check_owner(level / name)
                return (os.path.relpath(level / name),)
    raise UsageError(
        f"cannot find a job file: no `{JOB_FILES[0]}` or `jobs.toml` here or above",
        hint="name a file, or create one with `rpr init`",
    )


def _check_owner(path: Path) -> None:
    """Refuse a file that was looked for and that another user could have put there: its commands would run as this
    user. Who uses `sudo` in a folder of their own means it. Raises ForeignFile.
    """
    from repeater.wire.trust import Untrusted, check_path, trusted_users

    users = set(trusted_users())
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        users.add(int(os.environ["SUDO_UID"]))
    try:
        check_path(path, users=users)
    except Untrusted as error:
        raise ForeignFile(
            f"cannot use the job file `{path}`, found in a parent directory: {error}",
            hint=f"if you trust the file, name it: `rpr apply {shlex.quote(str(path))}`, or set `RPR_FILE`",
        ) from None


def input_limits(environ: Mapping[str, str]) -> InputLimits:
    """The caps of job files; `RPR_MAX_FILE_SIZE` and similar variables change them."""
    from repeater.jobfile.document import InputLimits

    given = {}
    for name in ("file_size", "total_size", "depth", "jobs"):
        key = f"RPR_MAX_{name.upper()}"
        text = environ.get(key)
        if text:
            try:
                given[name] = parse_size(text) if name.endswith("size") and not text.isdigit() else int(text)
            except ValueError:
                raise UsageError(f"cannot use `{key}={text}`: expected a number") from None
    return InputLimits(**given)
