"""The server of the control socket: carries out requests of a few clients at once, without delaying a job.

One task for each request, one request at a time for each client. Everything is bounded: clients, requests, streams,
lines, the time for a line to come, the time in which a client takes nothing. A client that asks nothing is ended when
there is no room for another one. A process of another user than this one or root is refused before a byte is read.
What the verbs do is in `control.commands`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from repeater.control.commands import VERBS, unknown
from repeater.control.context import ControlContext
from repeater.control.protocol import check_args, decode_request, encode_error
from repeater.control.request_limits import Load, Place
from repeater.errors import RepeaterError, Unreachable
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.wire.acceptor import Acceptor
from repeater.wire.json_lines import BadMessage, LineBuffer, encode
from repeater.wire.unix import user_of

MOST_IDLE = 64
"""Clients that ask nothing."""
LINE_WITHIN = 10.0
"""Seconds for a line to come, from its first byte."""
IDLE = 60.0
"""Seconds that a client may ask nothing."""
STUCK = 30.0
"""Seconds that a client may take nothing of an answer."""
_ROOM = 256 * 1024  # bytes that may wait to be sent before a verb has to
_BATCH = 64 * 1024


class Server:
    """Listens on a socket that is bound already. `warn` reports unusual conditions; `fault` gets each unexpected
    exception of a connection or a verb.
    """

    def __init__(
        self,
        desk: ControlContext,
        warn: Callable[[Reason], None],
        *,
        users: frozenset[int] | None = None,
        fault: Callable[[Exception], None] | None = None,
    ) -> None:
        self._desk = desk
        self._warn = warn
        self._fault = self._warn_of_fault if fault is None else fault
        self._users = frozenset({os.geteuid(), 0}) if users is None else users
        self._entrance: Acceptor[_Client] | None = None
        self._clients: set[_Client] = set()
        self._load = Load()

    def listen(self, door: socket.socket) -> None:
        self._entrance = Acceptor(
            door,
            self._check,
            self._make,
            lambda code, error: self._warn(because(code, error=error)),
            max_idle=MOST_IDLE,
            first_byte_timeout=IDLE,
        )
        self._entrance.fault = self._fault

    def _warn_of_fault(self, error: Exception) -> None:
        self._warn(because("request_failed", error=f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """Accept no more clients. Connections stay open until the supervisor has ended."""
        if self._entrance is not None:
            self._entrance.close()
            self._entrance = None

    async def sent(self) -> None:
        """Return when all clients have received their replies."""
        await asyncio.gather(*(client.sent() for client in self._clients))

    def hang_up(self) -> None:
        """Close all connections."""
        self.close()
        for client in tuple(self._clients):
            client.end()

    def _check(self, sock: socket.socket) -> bytes | None:
        user = user_of(sock)
        if user is not None and user not in self._users:
            refusal = BadMessage("forbidden", "cannot use this supervisor: it belongs to another user")
            refusal.exit_code = Unreachable.exit_code
            return encode_error(refusal)
        return None

    def _make(self) -> _Client:
        assert self._entrance is not None
        client = _Client(self._desk, self._fault, self._clients.discard, self._load, self._entrance)
        self._clients.add(client)
        return client


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(
        self,
        desk: ControlContext,
        fault: Callable[[Exception], None],
        gone: Callable[[_Client], None],
        load: Load,
        entrance: Acceptor[_Client],
    ) -> None:
        self._desk = desk
        self._fault = fault
        self._gone = gone
        self._load = load
        self._entrance = entrance
        self._place: Place | None = None
        self._loop = asyncio.get_running_loop()
        self._lines = LineBuffer()
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_full = False
        self._asks_no_more = self._follows = False

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def sent(self) -> None:
        """Returns when the last answer was taken; at once while there is none yet."""
        if self._task is None and self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)
            if self._is_full:
                self._room = self._loop.create_future()
                await asyncio.wait({self._room})

    # --- callbacks of the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_ROOM)
        self._close_after(IDLE)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._alarm is not None:
            self._alarm.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._room is not None and not self._room.done():
            self._room.cancel()
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        if not self._lines.waiting and self._task is None:
            self._close_after(LINE_WITHIN)
        self._lines.feed(data)
        if self._task is None:
            self._next()
        elif self._lines.waiting > _ROOM:
            self._refuse(BadMessage("too_long", "one request at a time: the previous one has not finished"))

    def eof_received(self) -> bool:
        self._asks_no_more = True
        # A client that closed only this direction still gets its reply. A stream ends: its end would stay unnoticed.
        return self._task is not None and not self._follows

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # --- requests ---

    def _next(self) -> None:
        try:
            line = self._lines.take()
            if line is None:
                return
            request = decode_request(line)
            verb = VERBS.get(request.verb)
            if verb is None:
                raise unknown(request.verb)
            args = check_args(request.verb, verb.params, request.args)
            self._follows = bool(args.get("follow"))
            self._place = self._load.admit("stream" if self._follows else "request")
        except BadMessage as refusal:
            if refusal.code == "busy":
                refusal.exit_code = Unreachable.exit_code
            self._refuse(refusal)
            return
        self._entrance.busy(self)
        if self._alarm is not None:
            self._alarm.cancel()
        self._task = self._loop.create_task(self._carry_out(verb.carry_out(self._desk, args, self._send)))
        if not self._follows:
            self._desk.at_hand.add(self._task)
        self._task.add_done_callback(self._carried_out)

    async def _carry_out(self, work: Any) -> None:
        try:
            result: Mapping[str, Any] | None = await work
            reply = encode({"done": result or {}})
        except RepeaterError as error:
            reply = encode_error(error)
        except TimeoutError:
            self.end()
            return
        except Exception as error:  # noqa: BLE001 - a fault in a verb must not end the jobs
            self._fault(error)
            reply = encode_error(RepeaterError(f"internal error: {type(error).__name__}: {error}"))
        self._write(reply)

    def _carried_out(self, task: asyncio.Task[None]) -> None:
        """An exception here ends the connection: its client waits for an answer that nothing would send."""
        try:
            self._go_on(task)
        except Exception as error:  # noqa: BLE001
            self._fault(error)
            self.end()

    def _go_on(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._desk.at_hand.discard(task)
        if self._place is not None:
            self._place.leave()
        self._entrance.idle(self)
        if self._transport is None or self._transport.is_closing() or task.cancelled():
            return
        if self._asks_no_more and not self._lines.waiting:
            self._transport.close()
            return
        self._close_after(LINE_WITHIN if self._lines.waiting else IDLE)
        self._next()

    async def _send(self, *items: Mapping[str, Any]) -> None:
        """Waits while the client is slow; TimeoutError ends it when it takes nothing at all."""
        batch = bytearray()
        for item in items:
            batch += encode({"item": item})
            if len(batch) > _BATCH:
                await self._push(batch)
                batch = bytearray()
        if batch:
            await self._push(batch)

    async def _push(self, data: bytearray) -> None:
        self._write(data)
        if self._is_full:
            self._room = self._loop.create_future()
            await asyncio.wait_for(self._room, STUCK)
        else:
            await asyncio.sleep(0)  # a long listing must not delay a job

    def _write(self, data: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _refuse(self, refusal: BadMessage) -> None:
        """Close the connection: after an invalid line, the following bytes cannot be trusted."""
        self._write(encode_error(refusal))
        if self._transport is not None:
            self._transport.close()
            self._close_after(STUCK)

    def _close_after(self, length: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(length, self.end)
