"""The control socket of a supervisor: bound at start, and bound again when its name was removed.

A logout removes `$XDG_RUNTIME_DIR`, and cleaners of temporary folders remove sockets. Without a new socket no
command could reach the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from repeater.control.unix_socket import ControlSocket, SocketPath
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.wire.unix_listener import CannotListen

if TYPE_CHECKING:
    from repeater.control.server import Server
    from repeater.ports import Clock, TimerHandle

LOOK_EVERY = 2_000_000
"""Microseconds between looks whether the socket still has its name."""


class RebindingSocket:
    """`place` returns the path of the socket; `warn` reports that it cannot be bound, was removed, or is bound again.

    The caller holds the lock of the state folder.
    """

    def __init__(self, place: Callable[[], SocketPath], clock: Clock, warn: Callable[[Reason], None]) -> None:
        self._place = place
        self._clock = clock
        self._warn = warn
        self._server: Server | None = None
        self._door: ControlSocket | None = None
        self._problem = ""
        self._open()
        self._alarm: TimerHandle = clock.call_after(LOOK_EVERY, self._look)

    @property
    def trouble(self) -> Reason | None:
        """Why commands cannot reach this supervisor; None if they can."""
        return because("control_socket_missing", error=self._problem) if self._door is None else None

    def serve(self, server: Server) -> None:
        """Let `server` answer, also at each later socket."""
        self._server = server
        if self._door is not None:
            server.listen(self._door.socket)

    def close(self) -> None:
        """Close the server too."""
        self._alarm.cancel()
        self._leave()

    def _look(self) -> None:
        self._alarm = self._clock.call_after(LOOK_EVERY, self._look)
        if self._door is not None and self._door.keeps_its_name():
            return
        if self._door is not None:
            self._warn(because("control_socket_removed", path=str(self._door.path)))
            self._leave()
        self._open()
        if self._door is not None:
            self._warn(because("control_socket_bound", path=str(self._door.path)))
            if self._server is not None:
                self._server.listen(self._door.socket)

    def _open(self) -> None:
        try:
            self._door = ControlSocket(self._place())
        except CannotListen as error:
            if error.message != self._problem:
                self._problem = error.message
                self._warn(because("socket_unusable", error=error.message))
        else:
            self._problem = ""

    def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._door is not None:
            self._door.close()
            self._door = None
