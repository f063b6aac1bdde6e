"""Finds the name of the project of a job file without loading the file, so it works for a file with errors.

Commands that connect to a running supervisor use it to select the supervisor.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from repeater.errors import JobFileError
from repeater.jobfile.document import Files, InputLimits, Unreadable
from repeater.jobfile.parse import read_document

_PROJECT_LINE = re.compile(
    rb"^\s*[\"']?project[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9][A-Za-z0-9._-]{0,63})[\"']?\s*(?:[#,].*)?$", re.MULTILINE
)


def default_project(folder: str) -> str:
    """The name of a project without a key `project`: the name of the directory, without invalid characters."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.rpartition("/")[2])
    return word.lstrip("._-")[:64] or "project"


_FIRST_TABLE = re.compile(rb"^[ \t]*\[", re.MULTILINE)
NameProject: TypeAlias = Callable[[str | None, str], str]
"""Returns the project of job files, from their key `project` (None if absent) and the directory of the first file."""


def name_project(key: str | None, folder: str) -> str:
    """The rule without stored state: the key, or the name of the directory."""
    return default_project(folder) if key is None else key


def project_of(path: str, files: Files, caps: InputLimits, name: NameProject = name_project) -> str:
    """The project of the job file at an absolute path. A file that cannot be read counts as without the key."""
    folder = posixpath.dirname(path)
    try:
        content = files.read(path, caps.file_size)
    except Unreadable:
        return name(None, folder)
    try:
        data = _top_of(path, content, caps)
    except JobFileError:
        declared = _PROJECT_LINE.search(content)
        return name(declared[1].decode() if declared else None, folder)
    return name(str(data["project"]) if isinstance(data.get("project"), str) else None, folder)


def _top_of(path: str, content: bytes, caps: InputLimits) -> Mapping[str, Any]:
    """The top-level keys. Of TOML only the part before the first table is parsed, because 10 000 jobs take long.

    If a line inside of a string or list looks like a table header, parsing the part fails and the whole file is
    parsed. Raises JobFileError.
    """
    found = _FIRST_TABLE.search(content) if path.endswith(".toml") else None
    if found is not None:
        with contextlib.suppress(JobFileError):
            return read_document(path, content[: found.start()] + b"#\n", caps).data
    return read_document(path, content, caps).data
