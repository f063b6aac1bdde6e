"""A real `rpr daemon` for tests, and bare clients that say to it what no decent client would."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.cli.conftest import Rpr

PATIENCE = 30.0
"""Seconds for what takes milliseconds on an idle machine."""


class RunningDaemon:
    """`rpr daemon` in the folder of an `Rpr`; its state stays there from one life to the next."""

    def __init__(self, rpr: Rpr, *args: str) -> None:
        self._rpr = rpr
        self._args = args
        self.path = rpr.folder / "d.sock"
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it listens."""
        self.process = self._rpr.start("daemon", "--socket", str(self.path), *self._args)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if not line.startswith("rpr: daemon: listening"):
            self.process.kill()
            self.process.communicate()
        assert line.startswith(f"rpr: daemon: listening at `{self.path}`"), line

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit status and what it said after it was ready."""
        assert self.process is not None
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        code, self.process = self.process.returncode, None
        return code, said

    def client(self) -> Bare:
        return Bare(self.path)

    def stats(self) -> dict[str, Any]:
        with self.client() as client:
            return client.ask({"type": "stats_request"})

    def memory(self) -> int:
        """Bytes that it takes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


class Bare:
    """A connection that sends whatever it is told to."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        name = os.path.relpath(path)
        self.sock.connect(name if len(name) < len(str(path)) else str(path))
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes | dict[str, Any]) -> None:
        self.sock.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """The next line; fails when the connection ends."""
        while b"\n" not in self._held:
            data = self.sock.recv(1 << 16)
            assert data, "the daemon hung up"
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return dict(json.loads(line))

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send(message)
        return self.hear()

    def reserve(self, request: str, resource: str = "api", rate: str = "1/60000") -> dict[str, Any]:
        count, window = rate.split("/")
        return self.ask(
            {"type": "reserve_request", "id": request, "resource_id": resource, "rate_limit": int(count),
             "window_ms": int(window)}
        )  # fmt: skip

    def rest(self) -> bytes:
        """Everything until the daemon hangs up."""
        data = self._held
        with contextlib.suppress(ConnectionError):
            while more := self.sock.recv(1 << 16):
                data += more
        return data

    def is_silent(self) -> bool:
        return not self._held and not select.select([self.sock], [], [], 0)[0]


@contextlib.contextmanager
def running(rpr: Rpr, *args: str) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(rpr, *args)
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.process.kill()
            daemon.process.communicate()


def until(holds: Any, what: str = "it") -> Any:
    """Wait for a condition; the value that it had."""
    end = time.monotonic() + PATIENCE
    while not (value := holds()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.01)
    return value
