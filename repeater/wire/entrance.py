"""Lets clients in through a listening Unix socket, a few in each turn of the loop, so that nobody else has to wait.

It decides nothing: whoever listens is asked about each client, before a byte of it is read. Used by the servers of
`control` and `daemon`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from repeater.wire.unix import user_of

Client = TypeVar("Client", bound=asyncio.Protocol)

_AT_ONCE = 16
_REST = 1.0  # seconds; asking again at once when no descriptor is left would burn the processor
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Entrance(Generic[Client]):
    """`door` is bound, listens and does not block. `greet` is given the number of the user, None where that cannot be
    told, and gives a client to connect, or what it is to be told before it is sent away. `missed` is called for
    a client that was gone before it was connected.
    """

    def __init__(
        self,
        door: socket.socket,
        greet: Callable[[int | None], Client | bytes],
        missed: Callable[[Client], None],
    ) -> None:
        self._door = door
        self._greet = greet
        self._missed = missed
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._coming: set[asyncio.Task[None]] = set()
        self._open()

    def close(self) -> None:
        """Nobody new is let in. Those who are in stay."""
        self._loop.remove_reader(self._door.fileno())
        if self._rest is not None:
            self._rest.cancel()

    def _open(self) -> None:
        self._loop.add_reader(self._door.fileno(), self._let_in)

    def _let_in(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = self._door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                self._loop.remove_reader(self._door.fileno())
                self._rest = self._loop.call_later(_REST, self._open)
                return
            sock.setblocking(False)
            client = self._greet(user_of(sock))
            if isinstance(client, bytes):
                with contextlib.suppress(OSError):
                    sock.send(client)
                sock.close()
            else:
                task = self._loop.create_task(self._connect(client, sock))
                self._coming.add(task)
                task.add_done_callback(self._coming.discard)

    async def _connect(self, client: Client, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: client, sock)
        except OSError:
            sock.close()
            self._missed(client)
