"""The last words of a keeper: what it prints when it dies of a defect, for which nobody listens.

Its standard error is a paper: the file `log` in its folder, or one in memory where it has none. No child inherits it,
as each gets a standard error of its own. The file holds the words of several deaths, one after the other, and begins
anew when it is full. Used by `shim.__main__`, which writes it, and by `processes.shim_client`, which lays it and reads
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

NAME = "log"
MOST = 64 * 1024
"""Bytes of a paper that is full."""


class CrashLog:
    """The way to the words that come from now on. Raises OSError."""

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
        """What it died of, in one line; empty if it said nothing."""
        with contextlib.suppress(OSError):
            begin = self._begin if self._begin <= os.fstat(self.fd).st_size else 0
            text = os.pread(self.fd, 2 * MOST, begin).decode("utf-8", "replace")
            # the rest of a traceback is indented, or says what follows
            said = [line for line in text.splitlines() if line and line[0] != " " and line[-1] != ":"]
            return said[-1][:300] if said else ""
        return ""

    def close(self) -> None:
        os.close(self.fd)


class CrashLogWriter:
    """Standard error of a keeper, for tracebacks: it never raises and never makes a paper much longer than `MOST`."""

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
    """Begin anew on a paper that is full. Only a file has a size: whatever else is left as it is."""
    if os.fstat(fd).st_size > MOST:
        os.ftruncate(fd, 0)
