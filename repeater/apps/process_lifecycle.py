"""Start and end of a process that runs until its work is done or a signal stops it.

`Lifecycle` handles signals and the exit status. `ServiceLifecycle` adds what a service needs: the messages of
sd_notify(3), the watchdog of systemd, and a handler of exceptions that reach the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from repeater.supervisor.faults import SupervisorFault
from repeater.system.signals import Level, Signals

if TYPE_CHECKING:
    import asyncio

    from repeater.ports import Loop


class Lifecycle:
    """Signals and exit status of one process. A context manager; at its exit signals lose their effect.

    `end` ends the event loop. `result` is the exit status of the finished work, `requested` the exit status that
    follows from a signal or a closed output. Both are None until then.
    """

    result: int | None = None
    requested: int | None = None

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._closing = ExitStack()
        self._stop: Callable[[Level], None] = lambda _: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def status(self) -> int:
        """The exit status of the process."""
        return (self.result or 0) if self.requested is None else self.requested

    @property
    def is_ending(self) -> bool:
        """Whether the work is done or a stop was requested."""
        return self.requested is not None or self.result is not None

    def handle_signals(
        self,
        loop: Loop,
        stop: Callable[[Level], None],
        *,
        signalled: Callable[[Level, str], None] | None = None,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        """Handle INT, TERM and HUP from now on. `stop` gets each level that `leave` was called with.

        `signalled` replaces the default, an exit status of 130 for INT and of 0 for TERM. `reload` is called for HUP.
        """
        self._stop = stop
        signals = Signals(loop, signalled or self._signalled, reload, at_end=True)
        self._closing.callback(signals.close)

    def leave(self, level: Level, code: int) -> None:
        """Stop the work. The first `code` becomes the exit status."""
        if self.requested is None:
            self.requested = code
        if self.result is not None:  # the work is done; only a slow reader of the output keeps the process
            self._end()
        else:
            self._stop(level)

    def finish(self, code: int, flush: Callable[[Callable[[], None]], None] | None = None) -> None:
        """End the process: the work is done. `flush` calls back when the output is written; a stop does not wait."""
        self.result = code
        if flush is None or self.requested is not None:
            self._end()
        else:
            flush(self._end)

    def _signalled(self, level: Level, name: str) -> None:
        self.leave(level, 130 if name == "INT" else 0)


class ServiceLifecycle(Lifecycle):
    """The lifecycle of a service on an asyncio loop.

    `contain` gets each exception that reaches the loop. It returns False for an exception that must end the process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, environ: Mapping[str, str]) -> None:
        from repeater.system.sd_notify import SystemdNotifier

        super().__init__(self._set_ended)
        self._loop = loop
        self._ended: asyncio.Future[None] = loop.create_future()
        self._has_watchdog = False
        self.contain: Callable[[BaseException], bool] = lambda _: False
        self.notify = SystemdNotifier(environ)
        self._closing.callback(self.notify.close)
        loop.set_exception_handler(self._handle)

    async def ended(self) -> None:
        """Wait until the process has to end. Raises an exception that was not contained."""
        await self._ended

    def ready(self, status: str) -> None:
        """Report to systemd that the service is ready, and start the watchdog messages."""
        self.notify.ready(status)
        if self.notify.watchdog is not None and not self._has_watchdog:
            self._has_watchdog = True
            self._kick_watchdog(self.notify.watchdog / 1e6)

    def _kick_watchdog(self, period: float) -> None:
        try:
            self.notify.kick_watchdog()
        finally:
            self._loop.call_later(period, self._kick_watchdog, period)

    def _set_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _handle(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the process with an exception that is not contained. A process with a broken part must not continue."""
        error = context.get("exception")
        if not isinstance(error, BaseException):
            error = RuntimeError(str(context.get("message")))
        if self.contain(error) or self._ended.done():
            return
        cause = error.__cause__ if isinstance(error, SupervisorFault) and error.__cause__ is not None else error
        self._ended.set_exception(cause if isinstance(cause, Exception) else RuntimeError(str(cause)))
