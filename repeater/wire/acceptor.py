"""Accepts connections of a listening socket, a few in each turn of the loop, and decides which one to end for another.

A connection is *idle* until its server says that it is *busy*: it has not sent a whole request, or was answered. Only
idle connections are ended to make room, the one first that is idle for longest. Room is short when `most` connections
are idle, or when the process has few free descriptors: `wire.descriptors.reserve` of them are left to the jobs. A few
descriptors belong to the listening socket itself, so that it can serve a client when the jobs have taken all others.
When there is no room at all, accepting pauses.

A client object and a transport are made when the first byte has come, because a flood of silent connections has to be
cheap. An exception in a callback of a connection ends that connection, is reported by `fault`, and goes no further.
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
_PAUSE = 0.2  # seconds; to ask again at once when no descriptor is left would take the whole processor
_SPARE = 4  # connections that can be accepted whatever the jobs have taken
_COUNT_EVERY = 0.02  # seconds between two counts of the free descriptors while there are many
_MANY = 64
_MOST_NEW = 64  # connections of which nothing was read yet
_TRIED = 32  # idle connections that are looked at to find one that may be ended


class Connection(Protocol):
    """What a server makes for a client: an `asyncio.Protocol` that can be ended at any time."""

    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def end(self) -> None:
        """Close at once; what was not sent is dropped."""


Fault: TypeAlias = Literal["accept_failed", "connection_ended"]
"""The code of the reason that the owner of the entrance makes of it."""
Client = TypeVar("Client", bound=Connection)


class Acceptor(Generic[Client]):
    """`door` is bound, listens and does not block. `check` gets an accepted socket and returns bytes to send before it
    is closed; None lets it in. `make` makes the client of a connection. `within` is the number of seconds for the first
    byte to come. `report` gets the code of a fault and the text of its error. `may_end` says whether an idle client may
    be ended for another one; `full` is sent when none may. `fault` may be set to get each unexpected exception of a
    connection; without it `report` gets the code `connection_ended`.
    """

    def __init__(
        self,
        door: socket.socket,
        check: Callable[[socket.socket], bytes | None],
        make: Callable[[], Client],
        report: Callable[[Fault, str], None],
        *,
        most: int,
        within: float,
        may_end: Callable[[Client], bool] = lambda _: True,
        full: bytes = b"",
    ) -> None:
        self._door = door
        self._check = check
        self._make = make
        self._report = report
        self._most = most
        self._within = within
        self._may_end = may_end
        self._full = full
        self.fault: Callable[[Exception], None] = self._report_ended
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._coming: set[asyncio.Task[None]] = set()
        self._silent: dict[_Silent, None] = {}  # in the order of their deadlines
        self._clients: set[Client] = set()
        self._new: set[Client | _Silent] = set()  # what they have sent already was not read yet
        self._idle: dict[Client | _Silent, None] = {}
        self._spares = Spares(_SPARE)
        self._free, self._counted = 0, -1.0
        self._open()

    def close(self) -> None:
        """Accept no other connection, and end those that have sent nothing. The others stay."""
        self._is_closed = True
        self._loop.remove_reader(self._door.fileno())
        self._spares.close()
        for timer in (self._pause, self._alarm):
            if timer is not None:
                timer.cancel()
        for silent in tuple(self._silent):
            silent.end()

    def busy(self, client: Client | _Silent) -> None:
        """The client must not be ended for another one: a request of it is being answered."""
        self._new.discard(client)
        self._idle.pop(client, None)

    def idle(self, client: Client | _Silent) -> None:
        """The client was answered: from now on it waits, and may be ended after those that wait for longer."""
        self.busy(client)
        if client in self._clients or client in self._silent:
            self._idle[client] = None

    # --- accepting -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._door.fileno(), self._accept_some)

    def _rest(self) -> None:
        self._loop.remove_reader(self._door.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._open)

    def _accept_some(self) -> None:
        for number in range(_AT_ONCE):
            if len(self._new) >= _MOST_NEW:
                return
            # Only of the first one it is known that it is there: for it others may have to be ended.
            if not self._has_descriptors() and not (number == 0 and self._get_descriptor()):
                return
            try:
                sock, _ = self._door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._spares.refill()
                return
            except OSError as error:
                if error.errno not in LACKING:
                    self._report("accept_failed", error.strerror or str(error))
                self._rest()
                return
            self._free -= 1
            is_full = len(self._new) + len(self._idle) >= self._most and not self._end_idlest() and not self._new
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
        """Make sure that there is a descriptor for a connection that waits. If not True, accepting goes on in the next
        turn of the loop, or pauses.
        """
        if self._end_idlest() or self._new:  # there is a descriptor in the next turn, or a new one can be ended soon
            return False
        if self._spares.give_up():
            return True
        self._rest()
        return False

    def _end_idlest(self) -> bool:
        """End the connection that is idle for longest. Its descriptor is free in the next turn of the loop."""
        for one in tuple(islice(self._idle, _TRIED)):
            if isinstance(one, _Silent) or self._may_end(one):
                self.busy(one)
                one.end()
                return True
            self.idle(one)  # so that the next search begins with others
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
            self._alarm = self._loop.call_at(first.began + self._within, self._end_silent)

    def _end_silent(self) -> None:
        self._alarm = None
        now = self._loop.time()
        while self._silent and (first := next(iter(self._silent))).began + self._within <= now:
            first.end()
        self._wait_for_silent()

    def forget_silent(self, silent: _Silent, *, has_begun: bool) -> None:
        """It is no longer silent: its first byte has come, or it is over."""
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
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        self._new.add(client)

    async def _connect(self, client: Client, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: _Contained(client, self._lost, self.fault), sock)
        except OSError as error:
            sock.close()
            client.connection_lost(error)
            self._lost(client)
            return
        self._loop.call_soon(self._settle, client)  # after what it has sent already was read

    def _begin_new(self, silent: _Silent) -> None:
        self._new.add(silent)
        self._loop.call_soon(self._loop.call_soon, self._settle, silent)  # after the next look at all descriptors

    def _settle(self, one: Client | _Silent) -> None:
        if one in self._new:
            self.idle(one)

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
    """Whether a byte has come; None if not yet, False if none will."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return False


class _Silent:
    """An accepted socket of which no byte has come."""

    def __init__(self, entrance: Acceptor[Any], sock: socket.socket) -> None:
        self._entrance = entrance
        self._loop = asyncio.get_running_loop()
        self.sock = sock
        self.began = self._loop.time()
        self._loop.add_reader(sock.fileno(), self._look)

    def end(self) -> None:
        self._loop.remove_reader(self.sock.fileno())
        self._entrance.forget_silent(self, has_begun=False)

    def _look(self) -> None:
        has_begun = _has_begun(self.sock)
        if has_begun is not None:
            self._loop.remove_reader(self.sock.fileno())
            self._entrance.forget_silent(self, has_begun=has_begun)


class _Contained(asyncio.Protocol, Generic[Client]):
    """Hands all calls on to a client. An exception ends its connection and is reported."""

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
            if not isinstance(error, OSError):  # the other end is gone
                self._fault(error)
            if self._transport is not None:
                self._transport.abort()
            return None
