"""A file as it was read: plain nested data, where it came from, and the place of every key.

The only untyped thing on the road; it dies when specs are built. Places are looked for only when something has to be
said about one, so a file without problems pays nothing for them.
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
    """What a job file may not exceed. Sizes in bytes, depth in levels, jobs after the matrix was unfolded."""

    file_size: int = 8 << 20
    total_size: int = 8 << 20
    depth: int = 50
    jobs: int = 20_000


class Files(Protocol):
    """The way to the disk that `app` hands in. Paths are absolute, with `/`."""

    def read(self, path: str, most: int) -> bytes:
        """The content of a regular file. Raises `Unreadable` with a cause, also above `most` bytes."""
        ...

    def resolve(self, path: str) -> str:
        """The path without symbolic links; of a missing file, what is there of it resolved."""
        ...

    def glob(self, folder: str, pattern: str) -> list[str]:
        """The files below `folder` that match, sorted."""
        ...


class Report(Protocol):
    """Takes a problem with the value at `path` of a job's table; the receiver adds file, line and column."""

    def __call__(self, path: Path, message: str, hint: str | None, severity: Severity = "error", /) -> None: ...


class Unreadable(Exception):
    """A file that cannot be read; the text is the cause alone."""


class Missing(Unreadable):
    """There is no such file."""


class Findings(dict[Problem, None]):
    """Errors, each once; at `MOST` of them reading ends with `TooManyProblems`. Warnings are kept apart."""

    MOST = 1000

    def __init__(self, problems: Mapping[Problem, None]) -> None:
        super().__init__(problems)
        self.warnings: dict[Problem, None] = {}

    def add(self, problem: Problem) -> None:
        """Adds an error or a warning. Of more than `MOST` warnings the rest is dropped."""
        if problem.severity == "warning":
            if len(self.warnings) < self.MOST:
                self.warnings[problem] = None
            return
        self[problem] = None
        if len(self) >= self.MOST:
            raise TooManyProblems


class TooManyProblems(Exception):
    """Enough was found."""


@dataclass(slots=True)
class Document:
    """`name` is what messages call the file; `included_by` the file and the key that asked for it."""

    name: str
    data: dict[str, Any]
    find_places: Callable[[], Places] = field(repr=False)
    included_by: tuple[Document, Path] | None = field(default=None, repr=False)
    _places: Places | None = field(default=None, repr=False)

    def position(self, path: Path) -> Place:
        """Where `path` stands, or the nearest thing around it."""
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
    """A text that is a template over `run` and over nothing else."""

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
    """What stands at one part of a path below `tree`; None if there is nothing."""
    if isinstance(tree, dict):
        return tree.get(part)
    return tree[part] if isinstance(tree, list) and isinstance(part, int) and part < len(tree) else None


def omit(tree: Any, path: Path) -> Any:
    """A copy of the tree without what stands at `path`, as far as it is tables; the tree itself is not changed."""
    if not isinstance(tree, dict) or not path:
        return tree
    if len(path) == 1 or not isinstance(tree.get(path[0]), dict):
        return {key: one for key, one in tree.items() if key != path[0]}
    return {key: omit(one, path[1:]) if key == path[0] else one for key, one in tree.items()}


def dotted(path: Path) -> str:
    """The path as people write it: `jobs.web.watch[0]`; a part that is not a plain word is quoted."""
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
    """The path that `dotted` writes so."""
    return tuple(
        int(part[2]) if part[2] else part[1] if part[1] is not None else part[3] for part in _PART.finditer(text)
    )


def quote_value(value: object) -> str:
    """A value for a message: one line, short, control characters made visible."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = one_line(str(value)[:200])
    return text if len(text) <= 60 else text[:57] + "..."


def describe(value: object) -> str:
    """What was found, for a message: a scalar itself, in backticks, or the kind of thing it is."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return "an empty text" if value == "" else f"`{quote_value(value)}`"
