"""The crash log: the standard error of a shim, for the traceback of a defect.

It is the file `log` in the directory of the shim, or a file in memory if there is no directory. No child inherits it,
because each has its own standard error. The file has the output of several crashes, and is truncated when it is full.
`processes.shim_client` creates and reads it, the shim writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

NAME = "log"
MOST = 64 * 1024
"""Bytes of a file that is full."""


class CrashLog:
    """Reads what is written from now on. Raises OSError."""

    def __init__(self, folder: str | None) -> None:
        self.path = None if folder is None else os.path.join(folder, NAME)
        if self.path is None:
            self.fd = os.memfd_create("rpr-keeper", os.MFD_CLOEXEC)
            fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)
        else:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self.fd = os.open(self.path, flags, 0o600)
        _truncate_if_full(self.fd)
        self._begin = os.fstat(self.fd).st_size

    def last_entry(self) -> str:
        """The cause of the crash, in one line. Empty if nothing was written."""
        with contextlib.suppress(OSError):
            begin = self._begin if self._begin <= os.fstat(self.fd).st_size else 0
            text = os.pread(self.fd, 2 * MOST, begin).decode("utf-8", "replace")
            # other lines of a traceback are indented, or end with a colon
            lines = [line for line in text.splitlines() if line and line[0] != " " and line[-1] != ":"]
            return lines[-1][:300] if lines else ""
        return ""

    def close(self) -> None:
        os.close(self.fd)


class CrashLogWriter:
    """The `sys.stderr` of a shim. It never raises, and never makes the file much longer than `MOST`."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            _truncate_if_full(2)
            os.write(2, text[:MOST].encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Everything is written at once."""

    def fileno(self) -> int:
        return 2


def _truncate_if_full(fd: int) -> None:
    """Empty a file that is full. Anything else has no size and is not changed."""
    if os.fstat(fd).st_size > MOST:
        os.ftruncate(fd, 0)
