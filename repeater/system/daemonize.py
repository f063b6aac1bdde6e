"""Detaches from the terminal: a child in its own session continues, the parent waits until it is ready or has failed.

Must be called before any thread or loop is started.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_LONGEST = 1 << 16


class ReadyPipe:
    """In the child: sends one message to the parent."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def report_ready(self, text: str) -> None:
        """The parent returns this text. A second call does nothing, also if the parent has exited."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, text.encode()[:_LONGEST])
            os.close(self._fd)
            self._fd = None


def daemonize(log: Path | None) -> ReadyPipe | str:
    """In the child a `ReadyPipe`. In the parent the message of the child, empty if it exited without one.

    Standard output and error of the child are appended to `log` (None: discarded). Its standard input is empty.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        with open(reader, "rb") as message:
            return message.read().decode(errors="replace")
    os.close(reader)
    os.setsid()
    if os.fork():  # the leader of a session could get a terminal again by opening one
        os._exit(0)
    _redirect(log)
    return ReadyPipe(writer)


def _redirect(log: Path | None) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    out = nowhere
    if log is not None:
        with contextlib.suppress(OSError):
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(nowhere, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for fd in {nowhere, out} - {0, 1, 2}:
        os.close(fd)
