"""The listening end of HTTP: the HTTP protocol of uvicorn on a socket of our own, in the supervisor's loop.

Of uvicorn only the protocol is used: its server takes over signals, polls ten times a second, and reports a lack of
descriptors as an exception. Connections are accepted by `wire.acceptor`, which bounds those that have no request under
way; `control.request_limits` bounds those that have. A connection ends when the head of a request does not come in
time, and when its client takes nothing of an answer. The home of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from repeater.control.http.auth import ADMITTED, HEADERS, App
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.wire.acceptor import Acceptor

MOST_IDLE = 256
"""Connections without a request that was let in."""
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
    """Serves `app` on a socket that is bound and listens already. `warn` reports internal errors; `fault`, if given,
    gets each unexpected exception of a connection or a request instead.
    """

    def __init__(
        self,
        app: App,
        door: socket.socket,
        warn: Callable[[Reason], None],
        fault: Callable[[Exception], None] | None = None,
    ) -> None:
        quiet = logging.getLogger("uvicorn")  # errors of clients are answered, and not logged
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        self._config = uvicorn.Config(
            app,
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
        self._config.load()
        self._door = door
        self._state = ServerState()
        self._state.tasks = _Tasks(
            fault or (lambda error: warn(because("request_ended", error=f"{type(error).__name__}: {error}")))
        )
        self._entrance: Acceptor[_Connection] = Acceptor(
            door,
            lambda _: None,
            self._make,
            lambda code, error: warn(because(code, error=error)),
            max_idle=MOST_IDLE,
            first_byte_timeout=HEAD_WITHIN,
        )
        if fault is not None:
            self._entrance.fault = fault

    def _make(self) -> _Connection:
        return _Connection(self._config, self._state, self._entrance)

    async def sent(self) -> None:
        """Return when all clients have received their replies."""
        for connection in tuple(self._state.connections):
            assert isinstance(connection, _Connection)
            await connection.sent()

    def close(self) -> None:
        """Ends everything at once: what was answered is out, what streams is cut."""
        self._entrance.close()
        self._door.close()
        for task in tuple(self._state.tasks):
            task.cancel()
        for connection in tuple(self._state.connections):
            transport: asyncio.Transport = connection.transport
            if transport.get_write_buffer_size():
                transport.abort()
            else:
                transport.close()


class _Tasks(set["asyncio.Task[None]"]):
    """The tasks that answer requests. An exception of one is reported, and not left to the handler of the loop."""

    def __init__(self, fault: Callable[[Exception], None]) -> None:
        super().__init__()
        self._fault = fault

    def add(self, task: asyncio.Task[None]) -> None:
        super().add(task)
        task.add_done_callback(self._look)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fault(error)


class _Connection(H11Protocol):
    """One connection, with limits of time."""

    def __init__(self, config: uvicorn.Config, state: ServerState, entrance: Acceptor[_Connection]) -> None:
        super().__init__(config, state, {ADMITTED: self._admitted})
        self._entrance = entrance
        self._alarm: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._is_refused = False

    def _admitted(self, is_admitted: bool) -> None:
        """A request with the right token is being answered, or was."""
        if is_admitted:
            self._entrance.busy(self)
        else:
            self._entrance.idle(self)

    def end(self) -> None:
        self.transport.abort()

    async def sent(self) -> None:
        """Returns when the last answer was taken; at once while there is none yet."""
        if self._is_idle():
            self.transport.set_write_buffer_limits(high=0)
            await self.flow.drain()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_ROOM)
        self._close_after(HEAD_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:
        self._close_after(None)
        if self._stuck is not None:
            self._stuck.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        waited = self._is_idle()
        super().data_received(data)
        if not self._is_idle():
            self._close_after(None)
        elif waited and self._alarm is None:
            self._close_after(HEAD_WITHIN)

    def send_400_response(self, msg: str) -> None:
        """The client sent something that is not HTTP, or a head that is too long."""
        is_answering = not self._is_idle()
        self._is_refused = True
        if is_answering:  # what its task still sends is dropped
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        body = json.dumps({"error": {"code": "malformed", "message": f"cannot read the request: {msg}", "hint": None}})
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        rest = "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in HEADERS)
        self.transport.write(f"{head}{rest}connection: close\r\n\r\n{body}".encode())
        # To close at once would reset the connection before the client has read the answer.
        with contextlib.suppress(OSError):  # the client has reset it
            self.transport.write_eof()
        self._close_after(_LINGER)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_idle():
            is_sending = self.conn.their_state is h11.SEND_BODY  # it was answered before all of it had come
            self._close_after(HEAD_WITHIN if is_sending else IDLE + HEAD_WITHIN)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(STUCK, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_after(self, length: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if length is None else self.loop.call_later(length, self.transport.abort)
