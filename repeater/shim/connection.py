"""The connection of the shim to one client: receives frames, sends frames and descriptors, and never blocks.

Messages that cannot be sent yet wait in memory. A client that is stopped costs no more than the exits of its runs. A
message that is not urgent is delayed for some milliseconds, because most short runs end meanwhile, and each frame wakes
the client.
"""

from __future__ import annotations

import array
import select
import socket
import time
from collections import deque

from repeater.shim.protocol import MOST_FDS, Frames, ProtocolError, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repeater.shim.protocol import Message

_READ = 1 << 18
_HOLD_BACK = 0.005  # seconds that a message that is not urgent waits for others
_TOO_MANY_IN_FLIGHT = 109  # ETOOMANYREFS: too many descriptors that are not received yet


class ClientConnection:
    """Registered with `poll` until `close`."""

    def __init__(self, client: socket.socket, poll: select.epoll) -> None:
        client.setblocking(False)
        self.fd = client.fileno()
        self._socket = client
        self._poll = poll
        self._frames = Frames()
        self._room = memoryview(bytearray(_READ))  # one for all messages: a new buffer of this size is a new mapping
        self._outbox: list[Message] = []
        self._fds: list[int] = []
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._waits_for_room = False
        self._due = 0.0
        poll.register(client, select.EPOLLIN)

    def receive(self) -> list[Message] | None:
        """The messages that have arrived. None when the client has disconnected, or does not follow the protocol."""
        try:
            size = self._socket.recv_into(self._room)
            if not size:
                return None
            return [message for messages, _ in self._frames.feed(self._room[:size]) for message in messages]
        except BlockingIOError:
            return []
        except (OSError, ProtocolError):
            return None

    @property
    def next_flush(self) -> float | None:
        """When `flush` has something to send, on the monotonic clock. None if there is nothing."""
        return self._due if self._outbox else None

    def send(self, message: Message, fds: Iterable[int] = (), *, hurries: bool = True) -> None:
        """Send it with the next `flush`, or later if it need not hurry. The caller keeps the descriptors."""
        if hurries:
            self._due = 0.0
        elif not self._outbox:
            self._due = time.monotonic() + _HOLD_BACK
        fds = list(fds)
        if len(self._fds) + len(fds) > MOST_FDS:
            self._pack()
        self._outbox.append(message)
        self._fds += fds

    def flush(self) -> bool:
        """Send what is due. False when the client has disconnected."""
        if self._outbox and self._due <= time.monotonic():
            self._pack()
        while self._unsent:
            data, fds = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], rights)
            except BlockingIOError:
                self._watch_writable(True)
                return True
            except OSError as error:
                return error.errno == _TOO_MANY_IN_FLIGHT  # the next iteration tries again
            self._unsent.popleft()
            if sent < len(data):
                self._unsent.appendleft((data[sent:], []))
        self._watch_writable(False)
        return True

    def close(self) -> None:
        self._poll.unregister(self._socket)
        self._socket.close()

    def _pack(self) -> None:
        self._unsent.append((frame(self._outbox, len(self._fds)), self._fds))
        self._outbox, self._fds = [], []

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._waits_for_room:
            self._waits_for_room = wanted
            self._poll.modify(self._socket, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))
