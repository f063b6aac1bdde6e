"""A parsed file: plain nested data, its path, and the position of every key.

Documents are the only untyped data of the load pipeline and are dropped when specs are built. Positions are computed
only for messages, so a file without problems does not need them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.errors import Problem, Severity, one_line

Path: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]
"""Line and column, both from 1, the column in characters. (0, 0) when it is not known."""
Places: TypeAlias = Mapping[Path, Place]


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of a job file: sizes in bytes, depth in levels, the number of jobs after expansion of the matrix."""

    file_size: int = 8 << 20
    total_size: int = 8 << 20
    depth: int = 50
    jobs: int = 20_000


class Files(Protocol):
    """Access to files, provided by the caller. Paths are absolute, with `/`."""

    def read(self, path: str, most: int) -> bytes:
        """The content of a regular file. Raises `Unreadable` with a cause, also for more than `most` bytes."""
        ...

    def resolve(self, path: str) -> str:
        """The path without symbolic links. Of a missing file, the existing part is resolved."""
        ...

    def glob(self, folder: str, pattern: str) -> list[str]:
        """The files below `folder` that match, sorted."""
        ...


class Report(Protocol):
    """Reports a problem with the value at `path` of a job's table; the receiver adds file, line and column."""

    def __call__(self, path: Path, message: str, hint: str | None, severity: Severity = "error", /) -> None: ...


class Unreadable(Exception):
    """A file cannot be read; the text is only the cause."""


class Missing(Unreadable):
    """The file does not exist."""


class Findings(dict[Problem, None]):
    """Collects errors, each once, and warnings. After `MOST` errors, loading ends with `TooManyProblems`."""

    MOST = 1000

    def __init__(self, problems: Mapping[Problem, None]) -> None:
        super().__init__(problems)
        self.warnings: dict[Problem, None] = {}

    def add(self, problem: Problem) -> None:
        """Add an error or a warning. After `MOST` warnings, further ones are dropped."""
        if problem.severity == "warning":
            if len(self.warnings) < self.MOST:
                self.warnings[problem] = None
            return
        self[problem] = None
        if len(self) >= self.MOST:
            raise TooManyProblems


class TooManyProblems(Exception):
    """The maximum number of problems was found."""


@dataclass(slots=True)
class Document:
    """`name` is what messages call the file; `included_by` the file and the key that asked for it."""

    name: str
    data: dict[str, Any]
    find_places: Callable[[], Places] = field(repr=False)
    included_by: tuple[Document, Path] | None = field(default=None, repr=False)
    _places: Places | None = field(default=None, repr=False)

    def position(self, path: Path) -> Place:
        """The position of `path`, or of its nearest parent."""
        if self._places is None:
            self._places = self.find_places()
        if not self._places:
            return (0, 0)
        for end in range(len(path), 0, -1):
            if path[:end] in self._places:
                return self._places[path[:end]]
        return (1, 1)

    def problem(self, path: Path, message: str, hint: str | None = None, severity: Severity = "error") -> Problem:
        """A problem with the value at `path`."""
        line, column = self.position(path)
        return Problem(self.name, line, column, dotted(path), message, hint, severity)


class RunTemplate(str):
    """A text that is a template whose only name is `run`."""

    __slots__ = ()


class JsonText(str):
    """A value of `--set-json`: JSON, where `--set` gives text."""

    __slots__ = ()


def has_template(value: Any) -> bool:
    """Whether any text in `value` is a template."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value or "{#" in value
    if isinstance(value, dict):
        return any(map(has_template, value.values()))
    return isinstance(value, list) and any(map(has_template, value))


def join_key(tree: Any, part: str | int) -> Any:
    """The child of `tree` at one part of a path; None if there is none."""
    if isinstance(tree, dict):
        return tree.get(part)
    return tree[part] if isinstance(tree, list) and isinstance(part, int) and part < len(tree) else None


def omit(tree: Any, path: Path) -> Any:
    """A copy of the tree without the value at `path`; only tables on the path are copied, the tree is not changed."""
    if not isinstance(tree, dict) or not path:
        return tree
    if len(path) == 1 or not isinstance(tree.get(path[0]), dict):
        return {key: one for key, one in tree.items() if key != path[0]}
    return {key: omit(one, path[1:]) if key == path[0] else one for key, one in tree.items()}


def dotted(path: Path) -> str:
    """The path as text: `jobs.web.watch[0]`; a part that is not a plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part and part.replace("_", "").replace("-", "").isalnum() else f'"{quote_value(part)}"'
            text += f".{word}" if text else word
    return text


_PART = re.compile(r'"([^"]*)"|\[(\d+)\]|([^.\[\]]+)')


def path_of(text: str) -> Path:
    """The inverse of `dotted`."""
    return tuple(
        int(part[2]) if part[2] else part[1] if part[1] is not None else part[3] for part in _PART.finditer(text)
    )


def quote_value(value: object) -> str:
    """A value for a message: one short line with control characters escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = one_line(str(value)[:200])
    return text if len(text) <= 60 else text[:57] + "..."


def describe(value: object) -> str:
    """A found value for a message: a scalar in backticks, or the name of its type."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return "an empty text" if value == "" else f"`{quote_value(value)}`"
