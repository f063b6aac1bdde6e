"""A keeper without a client: the runs go on, and nothing of what they say or how they end is lost.

Output is moved into files, so that no job waits in a full pipe; beyond `spool.MOST` of a stream, or on a full disk, it
does wait. Timeouts are kept, for there is nobody else to do it. How runs end is written down, in case the keeper ends
before there is another client. Made and ended by `shim.server`.
"""

from __future__ import annotations

import array
import fcntl
import select
import termios
import time

from repeater.shim.run import STREAMS
from repeater.shim.spool import MOST, move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from repeater.shim.run import ManagedRun
    from repeater.shim.spool import Spool

LINGER = 3.0
"""Seconds that a keeper with nothing left to look after waits for a client before it leaves."""
_AGAIN = 1.0  # seconds until what did not fit on the disk is tried again


class DetachedMode:
    """`later` calls after some seconds, `stop` sends a signal by its name, `sweep` kills what is left of a run."""

    def __init__(
        self,
        spool: Spool,
        poll: select.epoll,
        later: Callable[[float, Callable[[], None]], None],
        stop: Callable[[ManagedRun, str], None],
        sweep: Callable[[ManagedRun], None],
    ) -> None:
        self._spool = spool
        self._poll = poll
        self._later = later
        self._stop = stop
        self._sweep = sweep
        self._idle_since = time.monotonic()
        self._read: dict[int, tuple[ManagedRun, str]] = {}
        self._is_over = False

    def begin(self, runs: Iterable[ManagedRun]) -> None:
        """Look after these."""
        for kept in runs:
            for stream, fd in zip(STREAMS, kept.fds, strict=True):
                self._watch(kept, stream, fd)
            if kept.status is not None:
                self.record_exit(kept)
            elif kept.timeout is not None:
                self._later(max(0.0, kept.began + kept.timeout - time.time()), self._timed(kept))

    def end(self) -> None:
        """There is a client: it reads what comes from now on."""
        self._is_over = True
        for fd in list(self._read):
            self._unwatch(fd)

    def add_run(self, fd: int) -> None:
        """A pipe can be read, or is at its end."""
        if fd in self._read and not self._take(fd) and fd in self._read and _pending_bytes(fd) == 0:
            self._unwatch(fd)  # it can be read and there is nothing: this is the end

    def forget(self, kept: ManagedRun) -> None:
        """It is over, and its descriptors are about to be closed."""
        for fd in kept.fds:
            self._unwatch(fd)

    def record_exit(self, kept: ManagedRun) -> None:
        """A run's first process has ended: write it down, and what it said."""
        self._idle_since = time.monotonic()
        for fd in kept.fds:
            while self._take(fd):
                pass
        self._spool.append_exit(kept.as_exit_record())

    def has_no_live_run(self) -> bool:
        """Whether it has lasted long enough for a keeper that has nothing to do."""
        return time.monotonic() - self._idle_since >= LINGER

    def _take(self, fd: int) -> bool:
        """Move what a pipe holds; whether there may be more."""
        if fd not in self._read:
            return False
        kept, stream = self._read[fd]
        try:
            if stream not in kept.files:
                if _pending_bytes(fd) == 0:
                    return False  # no file for nothing
                kept.files[stream] = (*self._spool.open(), 0)
            name, file, size = kept.files[stream]
            moved = move(fd, file, size)
        except OSError:
            self._unwatch(fd)
            self._later(_AGAIN, lambda: self._watch_again(kept, stream, fd))
            return False
        if moved is None:
            return False
        kept.files[stream] = (name, file, size + moved)
        if moved == 0 or size + moved >= MOST:
            self._unwatch(fd)
        return moved > 0

    def _watch(self, kept: ManagedRun, stream: str, fd: int) -> None:
        if fd not in self._read:
            self._read[fd] = (kept, stream)
            self._poll.register(fd, select.EPOLLIN)

    def _watch_again(self, kept: ManagedRun, stream: str, fd: int) -> None:
        if not self._is_over and fd in kept.fds and not kept.settled:
            self._watch(kept, stream, fd)

    def _unwatch(self, fd: int) -> None:
        if self._read.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _timed(self, kept: ManagedRun) -> Callable[[], None]:
        """Ends a run whose time is over, as its client would have."""

        def kill() -> None:
            if not self._is_over and not (kept.status is not None and kept.empty):
                self._sweep(kept)

        def stop() -> None:
            if not self._is_over and kept.status is None:
                kept.timed_out = True
                self._stop(kept, kept.stop_signal)
                self._later(kept.stop_timeout, kill)

        return stop


def _pending_bytes(pipe: int) -> int:
    """Bytes that wait in it."""
    held = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, held)
    return held[0]
