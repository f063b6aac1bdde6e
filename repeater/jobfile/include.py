"""Reads the named files and all included files: includes, globs, escapes, cycles, limits.

The first file is the root; all relative paths of the job file are relative to its directory. An included file must be
inside that directory after links are resolved. A digest of each file is stored for hot reload.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence

from repeater._lazy_dataclasses import dataclass, field
from repeater.errors import JobFileError, Problem
from repeater.jobfile.document import Document, Files, Findings, InputLimits, Path, Unreadable
from repeater.jobfile.parse import read_document

STDIN = "-"


@dataclass(slots=True)
class IncludedDocuments:
    """All documents, each once. An included document precedes the including one, because later ones override.

    `seen` maps the absolute path of every file that was read to the SHA-256 of its content; `globs` are the absolute
    patterns of the includes, because a new file that matches changes the result too.
    """

    folder: str
    documents: list[Document] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    globs: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def gather(
    names: Sequence[str], files: Files, caps: InputLimits, *, folder: str, stdin: bytes = b""
) -> IncludedDocuments:
    """Read the named files and all included files. Problems are collected, not raised.

    `folder` is the current directory: `names` are relative to it, and it is the root directory of stdin (`-`).
    """
    first = names[0]
    root = folder if first == STDIN else posixpath.dirname(posixpath.join(folder, first))
    gathering = _IncludeCollector(IncludedDocuments(posixpath.normpath(root)), files, caps)
    for name in names:
        path = "" if name == STDIN else posixpath.join(folder, name)
        gathering.take("standard input" if name == STDIN else name, path, (), stdin)
    return gathering.result


def read_beside(result: IncludedDocuments, path: str, files: Files, caps: InputLimits) -> bytes:
    """The content of another file, such as an env file, which is recorded like a job file. Raises Unreadable."""
    content = files.read(path, caps.file_size)
    result.seen[path] = hashlib.sha256(content).hexdigest()
    return content


class _IncludeCollector:
    def __init__(self, result: IncludedDocuments, files: Files, caps: InputLimits) -> None:
        self.result, self.files, self.caps = result, files, caps
        self.read: set[str] = set()
        self.size = 0

    def take(
        self,
        name: str,
        path: str,
        chain: tuple[tuple[str, str], ...],
        stdin: bytes = b"",
        asked_by: tuple[Document, Path] | None = None,
    ) -> None:
        """Read one file and its includes. `chain` has (real path, name) of the including files, `asked_by` the position
        of the include, at which a file that cannot be read is reported.
        """
        problems = self.result.problems
        real = self.files.resolve(path) if path else ""
        if real in self.read and path:
            return
        self.read.add(real)
        try:
            content = self.content(path, stdin)
            document = read_document(name, content, self.caps, syntax=None if path else self.guess(content))
        except Unreadable as error:
            if asked_by is None:
                problems.append(Problem(name, 0, 0, "", f"cannot read it: {error}"))
            else:
                document, at = asked_by
                problems.append(document.problem(at, f"cannot include `{name}`: {error}"))
            return
        except JobFileError as error:
            problems.extend(error.problems)
            return
        chain = (*chain, (real, name))
        for at, pattern in _patterns(document):
            if len(problems) > Findings.MOST:
                break
            self.follow(document, at, pattern, chain)
        self.result.documents.append(document)

    def content(self, path: str, stdin: bytes) -> bytes:
        content = self.files.read(path, self.caps.file_size) if path else stdin
        if path:
            self.result.seen[path] = hashlib.sha256(content).hexdigest()
        self.size += len(content)
        if len(content) > self.caps.file_size:
            raise Unreadable(f"it has more than {self.caps.file_size} bytes, the limit")
        if self.size > self.caps.total_size:
            raise Unreadable(f"all files together have more than {self.caps.total_size} bytes, the limit")
        return content

    @staticmethod
    def guess(content: bytes) -> str | None:
        return "json" if content.lstrip()[:1] == b"{" else None

    def follow(self, document: Document, at: Path, pattern: str, chain: tuple[tuple[str, str], ...]) -> None:
        folder = self.result.folder
        own = posixpath.dirname(document.name)
        if posixpath.isabs(pattern) or ".." in pattern.split("/"):
            self.result.problems.append(
                document.problem(at, f"found `{pattern}`, expected a path inside the directory of the first file")
            )
            return
        from repeater.policy.paths import check_glob

        try:
            check_glob(pattern)
        except ValueError as error:
            self.result.problems.append(document.problem(at, str(error)))
            return
        base = posixpath.dirname(chain[-1][0]) if len(chain) > 1 else folder
        names = [pattern]
        is_glob = any(mark in pattern for mark in "*?[")
        if is_glob:
            self.result.globs.append(posixpath.join(base, pattern))
            names = [posixpath.relpath(path, base) for path in self.files.glob(base, pattern)]
        for name in names:
            path = posixpath.normpath(posixpath.join(base, name))
            shown = posixpath.join(own, name) if own else name
            real = self.files.resolve(path)
            if real in self.read and (is_glob or all(one != real for one, _ in chain)):
                continue  # every file is read once; a glob can match the including files
            if not f"{real}/".startswith(self.files.resolve(folder).rstrip("/") + "/"):
                cause = f"`{shown}` leads to `{real}`, outside the directory of the first file"
                self.result.problems.append(document.problem(at, cause))
            elif any(real == one for one, _ in chain):
                names_in_chain = [one for _, one in chain]
                start = next(number for number, (one, _) in enumerate(chain) if one == real)
                circle = " -> ".join([*names_in_chain[start:], shown])
                self.result.problems.append(document.problem(at, f"include cycle: {circle}"))
            elif len(chain) > self.caps.depth:
                self.result.problems.append(document.problem(at, f"more than {self.caps.depth} nested includes"))
            else:
                self.one(document, at, shown, path, chain)

    def one(self, document: Document, at: Path, name: str, path: str, chain: tuple[tuple[str, str], ...]) -> None:
        documents = len(self.result.documents)
        self.take(name, path, chain, asked_by=(document, at))
        for included in self.result.documents[documents:]:
            if included.name == name:
                included.included_by = (document, at)


def _patterns(document: Document) -> list[tuple[Path, str]]:
    value = document.data.get("include", [])
    if isinstance(value, str):
        return [(("include",), value)]
    if not isinstance(value, list):
        return []  # the schema says what is wrong
    found: list[tuple[Path, str]] = []
    for number, pattern in enumerate(value):
        if isinstance(pattern, str) and pattern:  # other types are reported by the schema
            found.append((("include", number), pattern))
    return found
