"""The shim while it has no client: runs continue, and their output and their exits are stored.

Output is moved into files, so that no job waits because of a full pipe. Beyond `spool.MOST` of a stream, or on a full
disk, the job waits. The shim enforces timeouts. It stores exits in a file, in case it ends before a client connects.
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
"""Seconds that a shim without live runs waits for a client before it exits."""
_AGAIN = 1.0  # seconds between tries to write to a full disk


class DetachedMode:
    """`later` calls after some seconds, `stop` sends a signal by name, `kill_tree` kills what is left of a run."""

    def __init__(
        self,
        spool: Spool,
        poll: select.epoll,
        later: Callable[[float, Callable[[], None]], None],
        stop: Callable[[ManagedRun, str], None],
        kill_tree: Callable[[ManagedRun], None],
    ) -> None:
        self._spool = spool
        self._poll = poll
        self._later = later
        self._stop = stop
        self._kill_tree = kill_tree
        self._idle_since = time.monotonic()
        self._read: dict[int, tuple[ManagedRun, str]] = {}
        self._is_over = False

    def begin(self, runs: Iterable[ManagedRun]) -> None:
        """Store the output and the exits of these runs."""
        for run in runs:
            for stream, fd in zip(STREAMS, run.fds, strict=True):
                self._watch(run, stream, fd)
            if run.status is not None:
                self.record_exit(run)
            elif run.timeout is not None:
                self._later(max(0.0, run.began + run.timeout - time.time()), self._timed(run))

    def end(self) -> None:
        """A client has connected. It reads the output from now on."""
        self._is_over = True
        for fd in list(self._read):
            self._unwatch(fd)

    def add_run(self, fd: int) -> None:
        """A pipe is readable, or at end of file."""
        if fd in self._read and not self._take(fd) and fd in self._read and _pending_bytes(fd) == 0:
            self._unwatch(fd)  # it is readable and empty: this is end of file

    def forget(self, run: ManagedRun) -> None:
        """The run has ended, and its descriptors will be closed."""
        for fd in run.fds:
            self._unwatch(fd)

    def record_exit(self, run: ManagedRun) -> None:
        """The first process of a run has exited: store that and the output."""
        self._idle_since = time.monotonic()
        for fd in run.fds:
            while self._take(fd):
                pass
        self._spool.append_exit(run.as_exit_record())

    def has_no_live_run(self) -> bool:
        """Whether the shim has had no work for `LINGER` seconds."""
        return time.monotonic() - self._idle_since >= LINGER

    def _take(self, fd: int) -> bool:
        """Move the content of a pipe. Returns whether there may be more."""
        if fd not in self._read:
            return False
        run, stream = self._read[fd]
        try:
            if stream not in run.files:
                if _pending_bytes(fd) == 0:
                    return False  # no file for no output
                run.files[stream] = (*self._spool.open(), 0)
            name, file, size = run.files[stream]
            moved = move(fd, file, size)
        except OSError:
            self._unwatch(fd)
            self._later(_AGAIN, lambda: self._watch_again(run, stream, fd))
            return False
        if moved is None:
            return False
        run.files[stream] = (name, file, size + moved)
        if moved == 0 or size + moved >= MOST:
            self._unwatch(fd)
        return moved > 0

    def _watch(self, run: ManagedRun, stream: str, fd: int) -> None:
        if fd not in self._read:
            self._read[fd] = (run, stream)
            self._poll.register(fd, select.EPOLLIN)

    def _watch_again(self, run: ManagedRun, stream: str, fd: int) -> None:
        if not self._is_over and fd in run.fds and not run.settled:
            self._watch(run, stream, fd)

    def _unwatch(self, fd: int) -> None:
        if self._read.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _timed(self, run: ManagedRun) -> Callable[[], None]:
        """Stops a run at its timeout, as its client would."""

        def kill() -> None:
            if not self._is_over and not (run.status is not None and run.empty):
                self._kill_tree(run)

        def stop() -> None:
            if not self._is_over and run.status is None:
                run.timed_out = True
                self._stop(run, run.stop_signal)
                self._later(run.stop_timeout, kill)

        return stop


def _pending_bytes(pipe: int) -> int:
    """The number of bytes in the pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
