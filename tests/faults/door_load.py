"""Hostile clients for listening sockets, and a good client that measures how long its answers take."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator

from tests.faults.ground import Ground, Supervisor, wait_for

TOKEN = "a-token-that-only-the-good-client-knows"
HEAD = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
JOBS = """
[jobs.beat]
command = "echo x >> beats"
schedule = "every 100ms"
output = { mode = "suppress" }
[jobs.web]
command = "exec sleep 600"
schedule = "always"
"""


class Site:
    """A supervisor with HTTP. `address` is where it listens; `control` is its Unix socket."""

    def __init__(self, ground: Ground, jobs: str = JOBS, **more: object) -> None:
        self.ground = ground
        ground.rpr.env["RPR_HTTP_TOKEN"] = TOKEN
        self.run: Supervisor = ground.apply(jobs, "--http", "127.0.0.1:0", **more)  # type: ignore[arg-type]
        self.run.until_err("token in")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.run.err)
        assert found is not None
        self.address = ("127.0.0.1", int(found[1]))
        self.control = str(ground.socket)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def get(self, path: str, *, timeout: float = 20) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def beats(self) -> int:
        file = self.ground.folder / "beats"
        return len(file.read_text()) if file.exists() else 0

    def goes_on(self) -> None:
        """The supervisor lives, its jobs are started, and it had no internal error."""
        begun = self.beats()
        wait_for(lambda: self.beats() > begun + 3 or not self.run.is_there, lambda: f"starts of jobs: {self.run.err}")
        assert self.run.is_there, self.run.err
        assert "internal error" not in self.run.err
        assert "Traceback" not in self.run.err


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_answered(ask: Callable[[], bool], within: float) -> float:
    """Seconds until `ask` gets an answer. A connection that was ended without one may be tried again."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask():
                return time.monotonic() - begun
        assert time.monotonic() - begun < within, f"no answer within {within} s"


@contextlib.contextmanager
def held(connect: Callable[[], socket.socket], number: int, begin: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that are open, have sent `begin`, and read nothing."""
    socks: list[socket.socket] = []
    try:
        for _ in range(number):
            socks.append(connect())
            if begin:
                with contextlib.suppress(OSError):
                    socks[-1].send(begin)
        yield socks
    finally:
        for sock in socks:
            sock.close()
