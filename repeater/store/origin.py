"""The job file that a state directory belongs to: one small JSON file, `origin`, beside the database.

Only the owner of the lock writes it. Commands read it without the lock, to find the project.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.store.state_dir import state_unavailable

ORIGIN = "origin"
_MOST = 64 * 1024  # bytes; paths have at most 4096


@dataclass(frozen=True, slots=True)
class Origin:
    """The project of a state directory, and the absolute path of its first job file; `-` is standard input."""

    project: str
    file: str


def read_origin(folder: Path) -> Origin | None:
    """None if the directory has none (0.1.0), or if the file is not a valid origin."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with (folder / ORIGIN).open("rb") as file:
            kept = json.loads(file.read(_MOST).decode("utf-8", "surrogateescape"))
        return Origin(str(kept["project"]), str(kept["file"]))
    return None


def write_origin(folder: Path, origin: Origin) -> None:
    """Replace it as a whole. Raises StateUnavailable."""
    path, new = folder / ORIGIN, folder / f"{ORIGIN}.new"
    text = json.dumps({"project": origin.project, "file": origin.file}, ensure_ascii=False) + "\n"
    try:
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
        new.replace(path)
    except OSError as error:
        raise state_unavailable(path, error) from error
