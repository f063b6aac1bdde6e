"""The listening end of HTTP: uvicorn on a socket of our own, in the supervisor's loop. The home of uvicorn.

`Server.startup` is all that is used of its server: `serve` would take over the signals and look ten times a second
whether it should end. What it lacks are the bounds, added here to its protocol: connections, how long the head of a
request may take to come, how long a client may take nothing. Built and closed by `app`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from repeater.control.guard import HEADERS, App

MOST_CLIENTS = 64
HEAD_WITHIN = 10.0
"""Seconds for the head of a request to come."""
IDLE = 60
"""Seconds that a connection may ask nothing after an answer."""
STUCK = 30.0
"""Seconds that a client may take nothing of an answer."""
_ROOM = 256 * 1024  # bytes that may wait to be sent before an answer has to
_LONGEST_HEAD = 32 * 1024
_LINGER = 2.0  # seconds for a client that was refused to read why, before it is cut off


class HttpServer:
    """Serves `app` on a socket that is bound and listens already."""

    def __init__(self, app: App, door: socket.socket) -> None:
        quiet = logging.getLogger("uvicorn")  # what clients do wrong is told to them, not to the console
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )
        config.load()
        self._door = door
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._coming = asyncio.get_running_loop().create_task(self._server.startup(sockets=[door]))

    async def sent(self) -> None:
        """Returns when everybody has taken what was answered."""
        for connection in tuple(self._server.server_state.connections):
            assert isinstance(connection, _Connection)
            await connection.sent()

    def close(self) -> None:
        """Ends everything at once: what was answered is out, what streams is cut."""
        self._coming.cancel()
        for server in getattr(self._server, "servers", ()):
            server.close()
        self._door.close()
        for task in tuple(self._server.server_state.tasks):
            task.cancel()
        for connection in tuple(self._server.server_state.connections):
            transport: asyncio.Transport = connection.transport
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()


class _Connection(H11Protocol):
    """One connection, with an end to its patience."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._alarm: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._is_refused = False

    async def sent(self) -> None:
        """Returns when the last answer was taken; at once while there is none yet."""
        if self._asks_nothing():
            self.transport.set_write_buffer_limits(high=0)
            await self.flow.drain()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_ROOM)
        self._end_in(HEAD_WITHIN)
        if len(self.connections) > MOST_CLIENTS:
            self._refuse(503, "Service Unavailable", "busy", f"cannot take more than {MOST_CLIENTS} clients at once")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_in(None)
        if self._stuck is not None:
            self._stuck.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        waited = self._asks_nothing()
        super().data_received(data)
        if not self._asks_nothing():
            self._end_in(None)
        elif waited and self._alarm is None:
            self._end_in(HEAD_WITHIN)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or a head that is too long."""
        self._refuse(400, "Bad Request", "malformed", f"cannot read the request: {msg}")

    def _refuse(self, status: int, phrase: str, code: str, message: str) -> None:
        """Say why and take nothing more. Closing at once would reset the connection before the client has read it."""
        self._is_refused = True
        body = json.dumps({"error": {"code": code, "message": message, "hint": None}})
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        rest = "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in HEADERS)
        self.transport.write(f"{head}{rest}connection: close\r\n\r\n{body}".encode())
        self.transport.write_eof()
        self._end_in(_LINGER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._asks_nothing():
            is_sending = self.conn.their_state is h11.SEND_BODY  # it was answered before all of it had come
            self._end_in(HEAD_WITHIN if is_sending else IDLE + HEAD_WITHIN)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(STUCK, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _asks_nothing(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_in(self, length: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if length is None else self.loop.call_later(length, self.transport.abort)
