"""Accepts connections of a listening socket, a few per loop iteration, and ends idle connections to make room.

A connection is *idle* until its server calls `busy`: it has not sent a whole request, or its request was answered. Only
idle connections are ended to make room, starting with the one that has been idle longest. Room is short when
`max_idle` connections are idle, or when the process has few free descriptors: `wire.descriptors.reserve` of them are
kept for the jobs. The listening socket owns a few descriptors, so that it can serve a client when the jobs use all
others. When there is no room at all, accepting pauses.

The client object and its transport are created when the first byte arrives, because a flood of silent connections has
to be cheap. An exception in a callback of a connection ends only that connection, and `fault` reports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from repeater.wire.descriptors import LACKING, Spares, free_descriptors, reserve

_AT_ONCE = 32
_PAUSE = 0.2  # seconds; retrying at once without a free descriptor would use the whole processor
_SPARE = 4  # connections that can be accepted when the jobs use all other descriptors
_COUNT_EVERY = 0.02  # seconds between two counts of the free descriptors while there are many
_MANY = 64
_MAX_NEW = 64  # connections of which nothing was read yet
_TRIED = 32  # idle connections that are checked to find one that may be ended


class Connection(Protocol):
    """The server's object for a client: an `asyncio.Protocol` that can be ended at any time."""

    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def end(self) -> None:
        """Close at once and drop unsent data."""


Fault: TypeAlias = Literal["accept_failed", "connection_ended"]
"""The code of the reason that the owner of the acceptor reports."""
Client = TypeVar("Client", bound=Connection)


class Acceptor(Generic[Client]):
    """`listener` is bound, listening and non-blocking. `check` gets a socket and returns None to accept it, or
    bytes to send before it is closed. `make` creates the client of a connection. The first byte must arrive within
    `first_byte_timeout` seconds. `report` gets the code of a fault and the text of its error. `may_end` returns whether
    an idle client may be ended for another one; `full` is sent when none may. `fault` may be set to get each unexpected
    exception of a connection; without it `report` gets the code `connection_ended`.
    """

    def __init__(
        self,
        listener: socket.socket,
        check: Callable[[socket.socket], bytes | None],
        make: Callable[[], Client],
        report: Callable[[Fault, str], None],
        *,
        max_idle: int,
        first_byte_timeout: float,
        may_end: Callable[[Client], bool] = lambda _: True,
        full: bytes = b"",
    ) -> None:
        self._listener = listener
        self._check = check
        self._make = make
        self._report = report
        self._max_idle = max_idle
        self._first_byte_timeout = first_byte_timeout
        self._may_end = may_end
        self._full = full
        self.fault: Callable[[Exception], None] = self._report_ended
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._connecting: set[asyncio.Task[None]] = set()
        self._silent: dict[_Silent, None] = {}  # in the order of their deadlines
        self._clients: set[Client] = set()
        self._new: set[Client | _Silent] = set()  # nothing was read from them yet
        self._idle: dict[Client | _Silent, None] = {}
        self._spares = Spares(_SPARE)
        self._free, self._counted = 0, -1.0
        self._open()

    def close(self) -> None:
        """Stop accepting, and end the connections that have sent nothing. The others stay."""
        self._is_closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._spares.close()
        for timer in (self._pause, self._alarm):
            if timer is not None:
                timer.cancel()
        for silent in tuple(self._silent):
            silent.end()

    def busy(self, client: Client | _Silent) -> None:
        """Do not end the client for another one, because its request is being answered."""
        self._new.discard(client)
        self._idle.pop(client, None)

    def idle(self, client: Client | _Silent) -> None:
        """The client was answered. It may be ended after the clients that have been idle longer."""
        self.busy(client)
        if client in self._clients or client in self._silent:
            self._idle[client] = None

    # --- accepting -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept_some)

    def _suspend(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._open)

    def _accept_some(self) -> None:
        for number in range(_AT_ONCE):
            if len(self._new) >= _MAX_NEW:
                return
            # Only the first connection certainly exists, so only for it another one may be ended.
            if not self._has_descriptors() and not (number == 0 and self._get_descriptor()):
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._spares.refill()
                return
            except OSError as error:
                if error.errno not in LACKING:
                    self._report("accept_failed", error.strerror or str(error))
                self._suspend()
                return
            self._free -= 1
            is_full = len(self._new) + len(self._idle) >= self._max_idle and not self._end_idlest() and not self._new
            try:
                self._take(sock, is_full=is_full)
            except Exception as error:  # noqa: BLE001 - the fault of one connection must not end the others
                self.fault(error)
                self._drop(sock)

    def _has_descriptors(self) -> bool:
        now = self._loop.time()
        if self._free <= _MANY + reserve() or now - self._counted > _COUNT_EVERY:
            self._free, self._counted = free_descriptors(), now
        return self._free > reserve()

    def _get_descriptor(self) -> bool:
        """Free a descriptor for a waiting connection. If it returns False, accepting continues in the next loop
        iteration, or pauses.
        """
        if (
            self._end_idlest() or self._new
        ):  # a descriptor is free in the next iteration, or a new one can be ended soon
            return False
        if self._spares.give_up():
            return True
        self._suspend()
        return False

    def _end_idlest(self) -> bool:
        """End the connection that has been idle longest. Its descriptor is free in the next loop iteration."""
        for connection in tuple(islice(self._idle, _TRIED)):
            if isinstance(connection, _Silent) or self._may_end(connection):
                self.busy(connection)
                connection.end()
                return True
            self.idle(connection)  # so that the next search begins with others
        return False

    def _take(self, sock: socket.socket, *, is_full: bool) -> None:
        sock.setblocking(False)
        refusal = self._check(sock)
        if refusal is None and is_full:
            refusal = self._full
        if refusal is not None:
            with contextlib.suppress(OSError):
                sock.send(refusal)
            self._drop(sock)
            return
        has_begun = _has_begun(sock)
        if has_begun is None:
            silent = _Silent(self, sock)
            self._silent[silent] = None
            self._wait_for_silent()
            self._begin_new(silent)
        elif has_begun:
            self._begin(sock)
        else:
            self._drop(sock)

    # --- connections that have sent nothing ----------------------------------------------------------------------

    def _wait_for_silent(self) -> None:
        if self._alarm is None and self._silent:
            first = next(iter(self._silent))
            self._alarm = self._loop.call_at(first.began + self._first_byte_timeout, self._end_silent)

    def _end_silent(self) -> None:
        self._alarm = None
        now = self._loop.time()
        while self._silent and (first := next(iter(self._silent))).began + self._first_byte_timeout <= now:
            first.end()
        self._wait_for_silent()

    def forget_silent(self, silent: _Silent, *, has_begun: bool) -> None:
        """The connection is no longer silent: its first byte has arrived, or it has ended."""
        self._silent.pop(silent, None)
        self.busy(silent)
        if not has_begun:
            self._drop(silent.sock)
            return
        try:
            self._begin(silent.sock)
        except Exception as error:  # noqa: BLE001 - the fault of one connection must not end the others
            self.fault(error)
            self._drop(silent.sock)

    # --- connections that have sent something --------------------------------------------------------------------

    def _begin(self, sock: socket.socket) -> None:
        client = self._make()
        self._clients.add(client)
        task = self._loop.create_task(self._connect(client, sock))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._new.add(client)

    async def _connect(self, client: Client, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: _Contained(client, self._lost, self.fault), sock)
        except OSError as error:
            sock.close()
            client.connection_lost(error)
            self._lost(client)
            return
        self._loop.call_soon(self._settle, client)  # after the data that has arrived was read

    def _begin_new(self, silent: _Silent) -> None:
        self._new.add(silent)
        self._loop.call_soon(self._loop.call_soon, self._settle, silent)  # after the next poll of all descriptors

    def _settle(self, connection: Client | _Silent) -> None:
        if connection in self._new:
            self.idle(connection)

    def _lost(self, client: Client) -> None:
        self._clients.discard(client)
        self.busy(client)
        self._refill_soon()

    def _drop(self, sock: socket.socket) -> None:
        sock.close()
        self._refill_soon()

    def _refill_soon(self) -> None:
        if not self._is_closed and self._spares.are_missing:
            self._loop.call_soon(self._spares.refill)  # the descriptor of a connection is closed after its callback

    def _report_ended(self, error: Exception) -> None:
        self._report("connection_ended", f"{type(error).__name__}: {error}")


def _has_begun(sock: socket.socket) -> bool | None:
    """True if a byte has arrived, None if it may still arrive, False if the connection has ended."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return False


class _Silent:
    """An accepted socket from which no byte has arrived."""

    def __init__(self, acceptor: Acceptor[Any], sock: socket.socket) -> None:
        self._acceptor = acceptor
        self._loop = asyncio.get_running_loop()
        self.sock = sock
        self.began = self._loop.time()
        self._loop.add_reader(sock.fileno(), self._look)

    def end(self) -> None:
        self._loop.remove_reader(self.sock.fileno())
        self._acceptor.forget_silent(self, has_begun=False)

    def _look(self) -> None:
        has_begun = _has_begun(self.sock)
        if has_begun is not None:
            self._loop.remove_reader(self.sock.fileno())
            self._acceptor.forget_silent(self, has_begun=has_begun)


class _Contained(asyncio.Protocol, Generic[Client]):
    """Forwards all calls to a client. An exception ends its connection and is reported."""

    def __init__(self, client: Client, lost: Callable[[Client], None], fault: Callable[[Exception], None]) -> None:
        self._client = client
        self._lost = lost
        self._fault = fault
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._call(self._client.connection_made, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._call(self._client.connection_lost, exc)
        self._lost(self._client)

    def data_received(self, data: bytes) -> None:
        self._call(self._client.data_received, data)

    def eof_received(self) -> bool | None:
        return bool(self._call(self._client.eof_received))

    def pause_writing(self) -> None:
        self._call(self._client.pause_writing)

    def resume_writing(self) -> None:
        self._call(self._client.resume_writing)

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        try:
            return method(*args)
        except Exception as error:  # noqa: BLE001 - the fault of one connection must not end the supervisor
            if not isinstance(error, OSError):  # the peer has closed the connection
                self._fault(error)
            if self._transport is not None:
                self._transport.abort()
            return None
