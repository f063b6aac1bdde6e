"""Messages to the shim that are not sent yet. Those of one iteration of the loop travel in one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from repeater.ports import Loop
from repeater.shim.protocol import ProtocolError

if TYPE_CHECKING:
    from repeater.processes.shim_client import ShimConnection
    from repeater.shim.protocol import Message

_FRAME = 256
"""Messages in one frame at most."""
_ACK_DELAY_S = 0.1
"""How long acknowledgements wait for other messages."""
_FIRST_WAIT_S, _LAST_WAIT_S = 0.001, 0.05
"""Time between tries to send when the socket is full."""


class ShimOutbox:
    """`on_lost` is called when the connection has failed, `on_unsendable` for a message that fits in no frame.

    `connection` is None while no shim is there; messages then wait for the next one.
    """

    def __init__(
        self, loop: Loop, on_lost: Callable[[], None], on_unsendable: Callable[[Message, Exception], None]
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._on_unsendable = on_unsendable
        self.connection: ShimConnection | None = None
        self.is_closed = False
        self.unsent = b""
        self._messages: list[Message] = []
        self._acks: list[str] = []
        self._is_flush_pending = False
        self._is_ack_pending = False

    def send(self, message: Message) -> None:
        self._messages.append(message)
        self._flush_soon()

    def acknowledge(self, runs: Iterable[str]) -> None:
        """The records of these runs are durable. Sent with the next message, or alone after a short delay."""
        self._acks += runs
        if self._acks and not self._is_ack_pending:
            self._is_ack_pending = True
            self._loop.call_later(_ACK_DELAY_S, self._send_acks)

    def restart(self, messages: Iterable[Message]) -> list[Message]:
        """The shim has exited: send `messages` first to the next one. Returns the spawns that were not sent; they are
        sent again.
        """
        spawns = [message for message in self._messages if message["op"] == "spawn"]
        self._messages = [*messages, *spawns]
        self.unsent, self._acks = b"", []
        self.connection = None
        return spawns

    def flush(self, wait: float = _FIRST_WAIT_S) -> None:
        self._is_flush_pending = False
        if self.is_closed or self.connection is None:
            return
        if self._acks:
            self._messages.append({"op": "ack", "runs": self._acks})
            self._acks = []
        try:
            while self.unsent or self._messages:
                if not self.unsent:
                    messages, self._messages = self._messages[:_FRAME], self._messages[_FRAME:]
                    self.unsent = self._frames(self.connection, messages)
                self.unsent = self.unsent[self.connection.socket.send(self.unsent) :]
        except BlockingIOError:  # the shim is stopped or busy, and the loop cannot wait until a socket is writable
            self._is_flush_pending = True
            self._loop.call_later(wait, self.flush, min(wait * 2, _LAST_WAIT_S))
        except OSError:
            self._on_lost()

    def _send_acks(self) -> None:
        self._is_ack_pending = False
        if self._acks:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_pending and not self.is_closed:
            self._is_flush_pending = True
            self._loop.call_soon(self.flush)

    def _frames(self, connection: ShimConnection, messages: list[Message]) -> bytes:
        """One frame, or several if one would be too big."""
        try:
            return connection.frame(messages)
        except (ProtocolError, TypeError, ValueError) as error:
            if len(messages) > 1:
                half = len(messages) // 2
                return self._frames(connection, messages[:half]) + self._frames(connection, messages[half:])
            self._on_unsendable(messages[0], error)
            return b""
