"""The name of the project of a job file, without walking the road: also of a file that is broken just now.

The commands that talk to a running supervisor use it to know which one is meant.
"""

from __future__ import annotations

import posixpath
import re

from repeater.errors import JobFileError
from repeater.jobfile.document import CannotRead, Caps, Files
from repeater.jobfile.read import read_document

_SAYS = re.compile(
    rb"^\s*[\"']?project[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9][A-Za-z0-9._-]{0,63})[\"']?\s*(?:[#,].*)?$", re.MULTILINE
)


def default_project(folder: str) -> str:
    """The name of a project that its file does not give: that of the folder, without what a name may not hold."""
    word = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.rpartition("/")[2])
    return word.lstrip("._-")[:64] or "project"


def project_of(path: str, files: Files, caps: Caps) -> str:
    """The project of the job file at an absolute path. Of a file that cannot be read it is the default one."""
    fallback = default_project(posixpath.dirname(path))
    try:
        content = files.read(path, caps.file_size)
    except CannotRead:
        return fallback
    try:
        data = read_document(path, content, caps).data
    except JobFileError:
        said = _SAYS.search(content)
        return said[1].decode() if said else fallback
    return str(data["project"]) if isinstance(data.get("project"), str) else fallback
