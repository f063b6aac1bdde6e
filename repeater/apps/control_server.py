"""The control socket and the HTTP server of a supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from repeater.apps.control_socket import RebindingSocket
from repeater.apps.options import SupervisorOptions
from repeater.control.server import Server
from repeater.control.unix_socket import socket_path_for
from repeater.model.reasons import Reason

if TYPE_CHECKING:
    from repeater.apps.http_service import HttpService
    from repeater.control.context import ControlContext
    from repeater.ports import Clock

FLUSH_TIMEOUT = 2.0
"""Seconds that clients have to read their replies at the end."""


class ControlServer:
    """Binds its sockets at construction and answers from `serve` on. `closing` closes both sockets.

    Without a control socket the jobs run too, and `problem` says why it is missing. Without the HTTP socket that was
    asked for, nothing runs: raises RepeaterError. `fault` gets each unexpected exception of a connection or a request.
    """

    def __init__(
        self,
        options: SupervisorOptions,
        project: str,
        folder: Path | None,
        clock: Clock,
        warn: Callable[[Reason], None],
        fault: Callable[[Exception], None],
        closing: ExitStack,
    ) -> None:
        self._warn = warn
        self._fault = fault
        self._context: ControlContext | None = None
        self._server: Server | None = None
        own_state = options.state_dir is not None
        self._socket = RebindingSocket(
            lambda: socket_path_for(project, folder, os.environ, own_state=own_state), clock, warn
        )
        closing.callback(self._socket.close)
        self.http: HttpService | None = None
        if options.http is not None:
            from repeater.apps.http_service import HttpService

            self.http = HttpService(options.http, folder, os.environ, warn, fault)
            closing.callback(self.http.close)

    @property
    def problem(self) -> Reason | None:
        """Why the control socket is missing; None if it exists."""
        return self._socket.trouble

    def serve(self, context: ControlContext) -> None:
        """Answer requests from now on."""
        self._context = context
        self._server = Server(context, self._warn, fault=self._fault)
        self._socket.serve(self._server)
        if self.http is not None:
            self.http.serve(context)

    async def flush_replies(self) -> None:
        """Accept no more clients, and wait a short time until all replies are sent.

        A request can be the reason why the supervisor ends. Its client gets the reply too.
        """
        if self._server is not None:
            self._server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT):
                if self._context is not None:
                    await self._context.in_flight_done()
                if self._server is not None:
                    await self._server.sent()
                if self.http is not None:
                    await self.http.sent()

    def hang_up(self) -> None:
        """Close all connections. For a client, the end of its connection means that the supervisor has ended."""
        if self._server is not None:
            self._server.hang_up()
