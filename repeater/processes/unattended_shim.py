"""The runs that a shim keeps while no supervisor runs: which they are, and how to end them.

A supervisor that was killed leaves its shim behind if it was started with `--on-death keep`. The shim accepts one
client at a time. This client says that it keeps the runs, so the shim keeps them when the client disconnects.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from repeater._lazy_dataclasses import dataclass
from repeater.errors import Unreachable
from repeater.processes import shim_protocol_v2
from repeater.shim.protocol import VERSION, Frames, ProtocolError, frame
from repeater.shim.spool import SOCKET
from repeater.wire.trust import Untrusted, check_path
from repeater.wire.unix import connect, pid_of, user_of

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

_PATIENCE = 3.0  # seconds within which a shim answers
_READ = 1 << 16
_SWEEP = 5.0  # seconds within which killed processes are gone


@dataclass(frozen=True, slots=True)
class UnattendedRun:
    """A live run. `began` is its start, in seconds since 1970."""

    run: str
    pid: int
    began: float


class UnattendedRuns:
    """The connection to a shim without a supervisor. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where shims are found. Raises FileNotFoundError without one, Unreachable for one that does not
        answer.
        """
        self._frames = Frames()
        self._inbox: deque[Message] = deque()
        self._over: set[str] = set()
        self._is_v2 = False
        try:
            check_path(folder / SOCKET, links=False)
            self._socket = connect(folder / SOCKET, _PATIENCE)
        except (OSError, Untrusted):
            raise FileNotFoundError from None
        self.pid = pid_of(self._socket)
        try:
            if user_of(self._socket) != os.geteuid():
                raise FileNotFoundError
            self._send({"op": "hello", "version": VERSION, "on_death": "keep"})
            hello = self._next(_PATIENCE)
            self._is_v2 = hello["version"] == shim_protocol_v2.VERSION
            self.pid = hello["pid"]
            self.runs = tuple(
                UnattendedRun(one["run"], one["pid"], one["began"]) for one in hello["runs"] if one["ended"] is None
            )
        except FileNotFoundError:
            self._socket.close()
            raise
        except (OSError, ProtocolError, KeyError):
            self._socket.close()
            raise Unreachable(
                f"cannot reach the shim (pid {self.pid}) that looks after the runs: it does not answer"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def end(self, stops: Mapping[str, tuple[str, float]], *, kill: bool) -> bool:
        """End all runs, and return whether nothing of them is left. `stops` has the stop signal and the seconds until
        the kill by run id. The shim notes how the runs ended, for the next supervisor.
        """
        left = {one.run for one in self.runs}
        for run in left:
            signal, _ = stops.get(run, ("TERM", 10.0))
            self._send({"op": "signal", "run": run, "signal": signal} if not kill else {"op": "kill_tree", "run": run})
        if not kill:
            grace = max((stops.get(run, ("TERM", 10.0))[1] for run in left), default=0.0)
            left = self._wait(left, grace)
            for run in left:
                self._send({"op": "kill_tree", "run": run})
        return not self._wait(left, _SWEEP)

    def _wait(self, left: set[str], seconds: float) -> set[str]:
        """The runs of which something is alive after the time."""
        left = left - self._over
        until = time.monotonic() + seconds
        while left and (rest := until - time.monotonic()) > 0:
            try:
                message = self._next(rest)
            except (OSError, ProtocolError):
                break
            if message["op"] in ("group_empty", "tree_killed") or (message["op"] == "exited" and message["empty"]):
                self._over.add(message["run"])
                left = left - self._over
        return left

    def _send(self, message: Mapping[str, object]) -> None:
        translated = shim_protocol_v2.to_v2(dict(message)) if self._is_v2 else dict(message)
        self._socket.sendall(frame([translated]))

    def _next(self, seconds: float) -> Message:
        """The next message. Raises OSError if there is none in time, ProtocolError if the shim is not understood."""
        until = time.monotonic() + seconds
        while not self._inbox:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionResetError
            for messages, _ in self._frames.feed(data):
                self._inbox.extend(messages)
        message = self._inbox.popleft()
        return shim_protocol_v2.from_v2(message) if self._is_v2 else message
