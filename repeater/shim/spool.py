"""What a keeper writes down while it has no client: how runs ended, and what they said, in a folder of its client's.

`ends` has a JSON object in each line, appended as runs end; the output of a stream is a file beside it. A client that
finds no keeper any more reads them (`read_ends`), and removes them when everything is on its own record (`clear`). All
of it survives the death of the keeper, nothing of it is synced to the disk. Output is moved by `splice`, so what does
not fit on the disk stays in the pipe.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDS = "ends"
SOCKET = "socket"
MOST = 16 << 20
"""Bytes of a stream that are taken; then its writer waits."""
_MOVE = 1 << 18


class Spool:
    """Writes into `folder`, which is the owner's alone."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._prefix = f"{time.time_ns():x}"
        self._made = 0

    def append_exit(self, end: dict[str, Any]) -> None:
        """Keep how a run ended. A full disk loses it; there is nobody to tell."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(os.path.join(self.folder, ENDS), flags, 0o600)
            try:
                os.write(fd, json.dumps(end).encode() + b"\n")
            finally:
                os.close(fd)

    def open(self) -> tuple[str, int]:
        """A new file for output, by its name in the folder. Raises OSError."""
        self._made += 1
        name = f"{self._prefix}-{self._made}.out"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return name, os.open(os.path.join(self.folder, name), flags, 0o600)

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, name))


def move(pipe: int, file: int, size: int) -> int | None:
    """Move what a pipe holds to the end of a file of this size; how much, 0 at the end of the output.

    None if there is nothing now. Raises OSError when it cannot be written; then it is in the pipe still.
    """
    try:
        return os.splice(pipe, file, min(_MOVE, MOST - size), offset_dst=size)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return None
        raise


def read_exits(folder: str) -> dict[str, dict[str, Any]]:
    """The last of what was noted of each run; empty if nothing was. A line that was cut off is left out."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with open(os.path.join(folder, ENDS), encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    end = json.loads(line)
                    found[end["run"]] = end
    except (OSError, UnicodeDecodeError):
        pass
    return found


def clear(folder: str) -> None:
    """Everything in it is on record elsewhere."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name == ENDS or name.endswith(".out"):
                os.unlink(os.path.join(folder, name))
