"""Problems that depend on this machine and on the time: what a job names, and what is not here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from repeater.errors import Problem, Severity
from repeater.model.spec import At, JobSpec, LoadAware

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded

_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+(?=\s|$)")
_OF_SHELLS = frozenset({
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "declare", "echo", "eval", "exec",
    "exit", "export", "false", "fg", "for", "function", "getopts", "hash", "if", "jobs", "kill", "let", "local",
    "printf", "pwd", "read", "readonly", "return", "select", "set", "shift", "source", "test", "time", "times",
    "trap", "true", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
})  # fmt: skip
"""Words that a shell knows without a program."""
_LOAD = ("schedule", "load")
_Found = tuple[tuple[str | int, ...], str, str | None]


def machine_problems(loaded: Loaded, environ: Mapping[str, str], now: datetime) -> Iterator[Problem]:
    """A warning for each thing that a job names and this machine lacks, and for a time that has passed. An error for a
    package without which the job cannot be applied.
    """
    seen: set[tuple[str, str]] = set()
    for job in loaded.jobfile.jobs:
        for path, message, hint in _doubts(job, environ, now):
            if loaded.expansion is not None and (job.group, message) not in seen:
                seen.add((job.group, message))
                severity: Severity = "error" if path == _LOAD else "warning"
                yield loaded.expansion.problem_of(job, path, message, hint, severity)


def _doubts(job: JobSpec, environ: Mapping[str, str], now: datetime) -> Iterator[_Found]:
    schedule, process = job.schedule, job.process
    if isinstance(schedule, At) and schedule.at <= now:
        yield ("schedule", "at"), "found a time in the past: the job starts once, at the next `rpr apply`", None
    if isinstance(schedule, LoadAware) and not _is_installed("psutil"):
        from repeater.wire.installed import extra_hint

        yield _LOAD, "found `load`, which needs a package that is not installed", extra_hint("load")
    if job.executor is not None:
        return
    yield from _people(job)
    cwd = process.cwd
    if cwd and "cwd" not in process.late and not Path(cwd).is_dir():
        yield ("cwd",), f"the directory `{cwd}` does not exist", None
    programs = _path(job, environ)
    if "$" in programs:
        return  # a warning of its own
    for path, command in _commands(job):
        program = _program(command)
        if program and not _is_in(program, programs):
            yield path, f"there is no program `{program}` in PATH", None


def _people(job: JobSpec) -> Iterator[_Found]:
    import grp
    import pwd

    user, group = job.process.user, job.process.group
    if user is not None and not user.isdigit() and not _exists(pwd.getpwnam, user):
        yield ("user",), f"the user `{user}` does not exist on this machine", None
    if group is not None and not group.isdigit() and not _exists(grp.getgrnam, group):
        yield ("group",), f"the group `{group}` does not exist on this machine", None


def _exists(look_up: object, name: str) -> bool:
    try:
        look_up(name)  # type: ignore[operator]
    except (KeyError, ValueError):
        return False
    return True


def _commands(job: JobSpec) -> Iterator[tuple[tuple[str | int, ...], str | tuple[str, ...]]]:
    late = set(job.process.late)
    if "command" not in late and "command[0]" not in late:
        yield ("command",), job.process.command
    if isinstance(job.process.command, str):
        yield ("shell",), job.process.shell
    for name in ("ready", "live"):
        probe = getattr(job, name)
        if probe is not None and probe.exec is not None:
            yield (name, "exec"), probe.exec
    for name in ("on_success", "on_failure", "on_recovery", "on_skip"):
        hook = getattr(job.hooks, name)
        if hook is not None:
            yield ("hooks", name), hook


def _program(command: str | tuple[str, ...]) -> str | None:
    """The program that is looked for in PATH; None for a path, and for a text that only a shell understands."""
    if not isinstance(command, str):
        return command[0] if command and "/" not in command[0] and "{{" not in command[0] else None
    word = _PLAIN.match(command.strip())
    return word[0] if word and word[0] not in _OF_SHELLS and "{{" not in command else None


@lru_cache(maxsize=1024)
def _is_in(program: str, path: str) -> bool:
    return shutil.which(program, path=path) is not None


def _path(job: JobSpec, environ: Mapping[str, str]) -> str:
    own = {**dict(job.process.env_from_files), **dict(job.process.env)}
    return own.get("PATH") or environ.get("PATH") or os.defpath


def _is_installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
