"""The files of a shim without a client: exits and output of runs, in a directory of its client.

`ends` has a JSON object in each line, appended as runs end. The output of a stream is a file beside it. A client that
finds no shim reads them (`read_exits`), and removes them when its own records are durable (`clear`). They survive the
exit of the shim, but are not synced to the disk. `splice` moves the output, so what does not fit on the disk stays in
the pipe.
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
"""Bytes of a stream that are spooled. Then its writer waits."""
_MOVE = 1 << 18


class Spool:
    """Writes into the directory `folder`, which only its owner can enter."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._prefix = f"{time.time_ns():x}"
        self._made = 0

    def append_exit(self, end: dict[str, Any]) -> None:
        """Store how a run ended. On a full disk that is lost."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(os.path.join(self.folder, ENDS), flags, 0o600)
            try:
                os.write(fd, json.dumps(end).encode() + b"\n")
            finally:
                os.close(fd)

    def open(self) -> tuple[str, int]:
        """A new file for output: its name in the directory, and its descriptor. Raises OSError."""
        self._made += 1
        name = f"{self._prefix}-{self._made}.out"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return name, os.open(os.path.join(self.folder, name), flags, 0o600)

    def remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, name))


def move(pipe: int, file: int, size: int) -> int | None:
    """Move the content of a pipe to the end of a file of this size. Returns the number of bytes, 0 at end of file.

    None if the pipe is empty. Raises OSError when the file cannot be written; the content is then still in the pipe.
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
    """The last record of each run. A line that is cut off is left out."""
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
    """Remove the files, because the records of the client are durable."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name == ENDS or name.endswith(".out"):
                os.unlink(os.path.join(folder, name))
