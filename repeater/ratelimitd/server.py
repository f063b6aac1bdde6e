"""The server of the rate-limit daemon: reads lines of many clients, calls the broker, stores changes, responds.

Each loop iteration decides all received messages, commits once, then responds, so that no grant is visible before it is
durable. Everything is bounded: clients, lines, the time for a line to arrive, the idle time of a client without
reservations, its unread responses. A client without reservations is disconnected to make room for another one. A
process of a user that is not allowed is refused before a byte is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import Instant
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.persistence import LimitStore
from repeater.ratelimitd.protocol import LONGEST, StatsRequest, encode, encode_error, id_of, read_message
from repeater.sentences import as_item
from repeater.wire.acceptor import Acceptor
from repeater.wire.json_lines import BadMessage, LineBuffer
from repeater.wire.unix import user_of

MOST_CLIENTS = 1024
LINE_WITHIN = 10.0
"""Seconds in which a line must arrive after its first byte, and the first line after the connection."""
IDLE = 600.0
"""Seconds after which a silent client without reservations is disconnected."""
MOST_ERRORS = 32
"""Lines with errors that a client may send."""
_MAX_UNREAD = 1 << 20  # bytes of responses that a client may leave unread
_MAX_UNSTORED = 100_000  # changes that wait for a disk
_REMEMBERED = 1000  # log messages that are not repeated
_FATAL = ("malformed", "too_long", "version")


class Server:
    """`now` reads the clocks. `users` may connect; None: every user who can open the socket. `about` is added to the
    statistics. `warn` logs problems.
    """

    def __init__(
        self,
        book: Broker,
        keeping: LimitStore,
        now: Callable[[], Instant],
        warn: Callable[[Reason], None],
        *,
        users: frozenset[int] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._book = book
        self._keeping = keeping
        self._now = now
        self._warn = warn
        self._users = users
        self._about = about or {}
        self._loop = asyncio.get_running_loop()
        self._acceptors: list[Acceptor[_Client]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._clients: dict[int, _Client] = {}
        self._last = 0
        self._turn_is_coming = False
        self._trouble: Reason | None = None
        self._logged: OrderedDict[tuple[str, str], None] = OrderedDict()

    def listen(self, *listeners: socket.socket) -> None:
        """Accept clients of these sockets, which are bound and non-blocking."""
        for listener in listeners:
            self._acceptors.append(
                Acceptor(
                    listener,
                    self._check,
                    self._make,
                    lambda code, error: self._warn(because(code, error=error)),
                    max_idle=MOST_CLIENTS,
                    first_byte_timeout=LINE_WITHIN,
                    may_end=lambda client: not self.holds(client.number),
                    full=encode_error(f"cannot serve more than {MOST_CLIENTS} clients at once"),
                )
            )
        self.flush()

    def close(self) -> None:
        """Stop accepting, close every connection, and store the decided changes."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        for client in tuple(self._clients.values()):
            client.end()
        self._keep()

    # --- connecting ----------------------------------------------------------------------------------------------

    def _check(self, sock: socket.socket) -> bytes | None:
        user = user_of(sock)
        if self._users is not None and user is not None and user not in self._users:
            return encode_error(f"cannot serve user {user}: this daemon belongs to another user")
        return None

    def _make(self) -> _Client:
        self._last += 1
        client = self._clients[self._last] = _Client(self, self._last)
        self._book.connect(self._last)
        return client

    # --- messages of clients -------------------------------------------------------------------------------------

    def take(self, client: int, line: bytes) -> bool:
        """Carry out one line of a client. Returns False if the following lines cannot be trusted."""
        try:
            message = read_message(line)
            if isinstance(message, StatsRequest):
                self._book.outbox.append((client, self._stats()))
            else:
                self._book.handle(client, message, self._now())
        except BadMessage as refusal:
            is_readable = refusal.code not in _FATAL
            self.refuse(client, refusal.message, id_of(line) if is_readable else None)
            return is_readable and self._clients[client].error_allowed()
        except Exception as error:  # noqa: BLE001 - a fault of one request must not end the others
            self._warn(because("client_request_failed", client=client, error=repr(error)))
            self.refuse(client, "internal error")
            return False
        finally:
            self._retry_persist()
        return True

    def refuse(self, client: int, message: str, request: str | None = None) -> None:
        """Respond with an error, in the order of the responses."""
        self._book.outbox.append((client, encode_error(message, request)))
        self._retry_persist()

    def holds(self, client: int) -> bool:
        return client in self._clients and self._book.holds(client)

    def spoke(self, client: _Client) -> None:
        """The client sent a whole line, so other idle clients are disconnected first when there is no room."""
        for acceptor in self._acceptors:
            acceptor.idle(client)

    def left(self, client: int) -> None:
        """A client disconnected."""
        if self._clients.pop(client, None) is not None:
            self._book.disconnect(client, self._now())
            self._retry_persist()

    def _stats(self) -> bytes:
        problems = [] if self._trouble is None else [as_item(self._trouble)]
        return encode(
            "stats_response", status="ok", version="1.1", **self._about,
            problems=[problem["reason"] for problem in problems], problem_reasons=problems,
            **self._book.stats(self._now()),
        )  # fmt: skip

    # --- turns ---------------------------------------------------------------------------------------------------

    def _retry_persist(self) -> None:
        if not self._turn_is_coming:
            self._turn_is_coming = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Store the decisions, send the responses, and schedule the next call."""
        self._turn_is_coming = False
        book = self._book
        book.advance_to(self._now())
        self._keep()
        self._log()
        outbox, book.outbox = book.outbox, []
        for number, line in outbox:
            client = self._clients.get(number)
            if client is not None:
                client.send(line)
        self._arm()

    def _log(self) -> None:
        """Log each warning once while it is among the last `_REMEMBERED`."""
        for reason in self._book.warnings:
            key = (reason.code, repr(reason.detail))
            if key not in self._logged:
                self._warn(reason)
            self._logged[key] = None
            self._logged.move_to_end(key)
            if len(self._logged) > _REMEMBERED:
                self._logged.popitem(last=False)
        self._book.warnings.clear()

    def _keep(self) -> None:
        changes, self._book.changes = self._book.changes, []
        if not changes:
            return
        try:
            self._keeping.apply(changes)
        except OSError as error:
            # The ledgers in memory stay valid. The changes are stored when the disk works again.
            self._book.changes = changes[-_MAX_UNSTORED:]
            if self._trouble is None:
                self._warn(because("ledgers_unwritable", error=str(error)))
            self._trouble = because("ledgers_failing", error=str(error))
            return
        if self._trouble is not None:
            self._trouble = None
            self._warn(Reason("ledgers_recovered"))

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self._book.next_due()
        if due is not None and self._acceptors:
            # slightly late is correct, slightly early costs another call
            wait = max(0, due - self._now().mono) / 1e6
            self._alarm = self._loop.call_later(min(wait, 3600.0), self.flush)


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Server, number: int) -> None:
        self.number = number
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._lines = LineBuffer(LONGEST)
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._errors = 0
        self._is_over = False

    def error_allowed(self) -> bool:
        """Count an error of the client. Returns whether it may send more lines."""
        self._errors += 1
        return self._errors < MOST_ERRORS

    def send(self, line: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(line)
        if transport.get_write_buffer_size() > _MAX_UNREAD:
            transport.abort()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- callbacks of the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._end_in(LINE_WITHIN)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._alarm is not None:
            self._alarm.cancel()
        self._server.left(self.number)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        began = self._lines.waiting == 0
        self._lines.feed(data)
        has_line = False
        try:
            while (line := self._lines.take()) is not None:
                if not has_line:
                    self._server.spoke(self)
                has_line = True
                if line.strip() and not self._server.take(self.number, line):
                    self._close_soon()
                    return
        except BadMessage as refusal:
            self._server.refuse(self.number, refusal.message)
            self._close_soon()
            return
        if not self._lines.waiting:
            self._wait()
        elif began or has_line:
            self._end_in(LINE_WITHIN)

    def eof_received(self) -> bool:
        """Handle the metrics of a run, which arrive without a newline."""
        if self._lines.waiting and not self._is_over:
            self._lines.feed(b"\n")
            with contextlib.suppress(BadMessage):
                line = self._lines.take()
                if line:
                    self._server.take(self.number, line)
        self._close_soon()
        return True

    def _close_soon(self) -> None:
        """Close after the responses are written. A client that does not read them has `LINE_WITHIN` seconds."""
        self._is_over = True
        if self._transport is None:
            return
        self._transport.pause_reading()
        self._end_in(LINE_WITHIN)
        # the flush that writes the responses was scheduled before
        self._loop.call_soon(self._transport.close)

    # --- deadlines ---

    def _wait(self) -> None:
        """There is no partial line: disconnect the client after `IDLE` seconds unless it has reservations."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(IDLE, self._check_idle)

    def _check_idle(self) -> None:
        if self._server.holds(self.number):
            self._wait()
        else:
            self.end()

    def _end_in(self, length: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(length, self.end)
