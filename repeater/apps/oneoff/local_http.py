"""A small HTTP server of one-off commands: metrics and health, for clients on this machine.

It is read-only, so it needs no token. `Host` is checked, so that a web page of another site cannot read it. The loop
accepts connections; each is answered in a thread, a few at once, so that a slow reader does not delay others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from repeater.errors import RepeaterError
from repeater.ports import Loop, TimerHandle
from repeater.wire.descriptors import LACKING

Page = Callable[[], tuple[int, str, bytes]]
"""Status, content type and body; called in a thread of its own."""
MOST_CLIENTS = 16
_PATIENCE = 5.0  # seconds for each read and write
_WITHIN = 15.0  # seconds for a request and its answer: a client that sends a byte now and then keeps no place
_PAUSE = 0.2  # seconds; to ask again at once when no descriptor is left would take the whole processor
_NAMES = ("localhost", "127.0.0.1", "[::1]")


class LocalHttpServer:
    """Shows `pages` by path at a port of 127.0.0.1."""

    def __init__(self, loop: Loop, port: int, pages: Mapping[str, Page], what: str) -> None:
        """`what` is what is served, for messages. Raises RepeaterError if the port is taken."""
        self._loop = loop
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        try:
            self._server = _Server(("127.0.0.1", port), _peer_is_local(pages))
        except OSError as error:
            cause = os.strerror(error.errno or 0)
            raise RepeaterError(
                f"cannot serve {what} at port {port}: {cause}", hint=f"choose another port with `--{what}-port`"
            ) from None
        self._server.socket.setblocking(False)
        self._pause: TimerHandle | None = None
        self._late: dict[socket.socket, TimerHandle] = {}
        self._open()

    def close(self) -> None:
        self._loop.remove_reader(self._server.fileno())
        for timer in (self._pause, *self._late.values()):
            if timer is not None:
                timer.cancel()
        self._server.server_close()

    def _accept(self) -> None:
        try:
            connection, address = self._server.get_request()
        except OSError as error:  # the client is gone already, or there is no descriptor
            if error.errno in LACKING:
                self._loop.remove_reader(self._server.fileno())
                self._pause = self._loop.call_later(_PAUSE, self._open)
            return
        if not self._places.acquire(blocking=False):
            connection.close()
            return
        connection.settimeout(_PATIENCE)
        late = self._loop.call_later(_WITHIN, self._end, connection)
        self._late = {one: timer for one, timer in self._late.items() if one.fileno() >= 0}
        self._late[connection] = late
        try:
            threading.Thread(target=self._answer, args=(connection, address), daemon=True).start()
        except RuntimeError:  # the system has no more threads to give
            connection.close()
            self._places.release()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._server.fileno(), self._accept)

    def _end(self, connection: socket.socket) -> None:
        """End a connection that takes too long; the thread that serves it closes it."""
        self._late.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, connection: socket.socket, address: Any) -> None:
        try:
            self._server.finish_request(connection, address)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # the client has gone, or is too slow
            pass
        finally:
            connection.close()
            self._places.release()


class _Server(HTTPServer):
    request_queue_size = 64


def _peer_is_local(pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Asked(BaseHTTPRequestHandler):
        server_version, sys_version = "rpr", ""
        timeout = _PATIENCE

        def do_GET(self) -> None:
            host = self.headers.get("Host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            page = pages.get(self.path.partition("?")[0])
            if name.lower() not in _NAMES:
                self._say(421, "text/plain; charset=utf-8", b"cannot answer for this host\n")
            elif page is None:
                known = ", ".join(sorted(pages))
                self._say(404, "text/plain; charset=utf-8", f"cannot find this path: available are {known}\n".encode())
            else:
                self._say(*page())

        def do_HEAD(self) -> None:
            self.do_GET()

        def _say(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Standard error belongs to the command."""

    return Asked
