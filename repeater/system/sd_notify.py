"""Reports the state of this supervisor to systemd, see sd_notify(3). Does nothing if `NOTIFY_SOCKET` is not set.

For `Type=notify-reload`: READY, RELOADING with the monotonic time and then READY, STOPPING, STATUS, and the keep-alive
of `WatchdogSec=`. Sending never blocks and never fails.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID")
"""Variables that a service manager sets for this process only, not for its children."""


class SystemdNotifier:
    """`watchdog` is the interval in microseconds within which `alive` must be called. None: no watchdog."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self.watchdog: int | None = None
        if self._address[:1] not in ("\0", "/"):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        period, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        if period.isdigit() and int(period) > 0 and pid in ("", str(os.getpid())):
            self.watchdog = int(period) // 2

    def ready(self, status: str) -> None:
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """`ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        self._send(_status(text))

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", _status(status))

    def kick_watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    return f"STATUS={text}".replace("\n", " ")


def stdout_is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether a descriptor leads to journald, by `JOURNAL_STREAM`, see systemd.exec(5)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
