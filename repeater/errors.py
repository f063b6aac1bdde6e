"""Every error that repeater raises on purpose, and the exit code of `rpr` for it.

    RepeaterError            1   something went wrong while running
    ├── UsageError           2   the command line is wrong
    │   ├── NotFound         2   it names a job or a run that does not exist
    │   └── ForeignFile      2   the job file that was found belongs to another user
    ├── JobFileError         2   a job file is wrong; carries every `Problem` found
    ├── ApplyRefused         5   nothing was changed
    │   ├── LockHeld         5   another supervisor owns this state
    │   └── StateUnavailable 5   the state on disk is damaged, newer, or cannot be written
    ├── PluginFailed         1   a plugin did not answer as its contract requires
    │   └── PluginBusy       1   it has not answered yet
    └── Unreachable          6   no supervisor or daemon answers

A message has the form `cannot <verb> <object>: <cause>`, with literals in backticks. An error carries facts. Only
`cli.main` prints errors. This module may not import another module of repeater.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass


def one_line(text: str) -> str:
    r"""Replace each non-printable character by an escape: `\x1b`, `\n`, `\u202e`."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in a job file, or a warning about a probable mistake.

    A file with an error is rejected. A file with a warning is used as written.
    `line` and `column` count from 1; 0 means that the position is not known. `column` counts characters, not bytes.
    `key` is the dotted key path as the user wrote it (`jobs.health.schedule`), empty for the whole file.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str | None = None
    severity: Severity = "error"

    def __post_init__(self) -> None:
        """Escape control characters of the file: a problem is one line and cannot control a terminal."""
        for name in ("file", "key", "message", "hint"):
            text = getattr(self, name)
            if text is not None and not text.isprintable():
                object.__setattr__(self, name, one_line(text))

    def place(self) -> str:
        """`file:line:col`, shorter if a part is not known. Editors and terminals make it a link."""
        if not self.line:
            return self.file
        if not self.column:
            return f"{self.file}:{self.line}"
        return f"{self.file}:{self.line}:{self.column}"

    def __str__(self) -> str:
        severity = " warning:" if self.severity == "warning" else ""
        return f"{self.place()}:{severity} {self.text()}"

    def text(self) -> str:
        """The key, the message and the hint, without the position."""
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{key}{self.message}{hint}"


def by_place(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by file, line and column."""
    return tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column, p.key)))


class RepeaterError(Exception):
    """The base class. `exit_code` is the exit code of `rpr`; `hint` is one line that names a remedy."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all attributes, so that an error crosses processes although `__init__` has other parameters."""
        return _rebuild_from_pickle, (type(self), self.args, self.__dict__)


def _rebuild_from_pickle(kind: type[RepeaterError], args: tuple[Any, ...], facts: dict[str, Any]) -> RepeaterError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class UsageError(RepeaterError):
    """The command line is not valid."""

    exit_code = 2


class NotFound(UsageError):
    """No job or run has this name."""


class ForeignFile(UsageError):
    """The job file was found, not named on the command line, and another user could have written it."""


class JobFileError(RepeaterError):
    """One or more problems in a job file, sorted by position. Nothing of the file is used.

    `files` are the absolute paths of all files that were read, so that they can be watched until they are corrected.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None, files: tuple[str, ...] = ()) -> None:
        self.problems: tuple[Problem, ...] = by_place(problems)
        self.files = files
        super().__init__("\n".join(map(str, self.problems)), hint=hint)


class ApplyRefused(RepeaterError):
    """An apply was refused; nothing was changed."""

    exit_code = 5


class LockHeld(ApplyRefused):
    """Another supervisor owns the state directory. `pid` is None if it could not be read."""

    def __init__(self, folder: str, pid: int | None) -> None:
        owner = f"process {pid}" if pid else "another process"
        super().__init__(
            f"cannot use state directory `{folder}`: {owner} is using it",
            hint="stop the other supervisor, or give this one its own `--state-dir`",
        )
        self.folder = folder
        self.pid = pid


class StateUnavailable(ApplyRefused):
    """The state on disk cannot be used. It was not changed."""


class PluginFailed(RepeaterError):
    """A plugin cannot be used, or its answer is not valid. The message names the plugin."""


class PluginBusy(PluginFailed):
    """A plugin has not answered yet. Repeat the same call after a moment."""


class Unreachable(RepeaterError):
    """No supervisor or no rate-limit daemon answers."""

    exit_code = 6
