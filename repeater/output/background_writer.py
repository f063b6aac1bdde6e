"""A writer thread, so that no other thread waits for a stopped terminal, a full pipe or a slow disk.

Calls are carried out in order. The buffer is bounded by backpressure: `put` returns False when the buffer is full, and
`room` is called when it has room again.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from repeater._lazy_dataclasses import dataclass
from repeater.output.logfile import LogFile

FULL = 1 << 20
"""Pending bytes above which `put` returns False."""
_ROOM = FULL // 4
_BATCH_S = 0.01  # seconds between batches while few bytes are pending, because each batch wakes the thread
_LITTLE = 1 << 16  # bytes


class Writer:
    """Carries out calls one after the other in a thread that starts with the first call. `room` is called there.

    A call that raises is dropped, and `fault` gets its job and the exception, in that thread. The next calls follow.
    The first call after a pause is carried out at once, later ones in batches. A call that writes nothing is not
    delayed, because a caller waits for it.
    """

    def __init__(
        self,
        name: str,
        room: Callable[[], None],
        fault: Callable[[str, BaseException], None] = lambda _job, _error: None,
    ) -> None:
        self._name = name
        self._room = room
        self._fault = fault
        self._changed = threading.Condition()
        self._todo: deque[tuple[Callable[[], None], int, str]] = deque()
        self._waiting = 0
        self._was_full = False
        self._busy = False
        self._hurries = False
        self._next = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, call: Callable[[], None], size: int, job: str = "") -> bool:
        """Add a call that writes `size` bytes of a job. False: it was added, but pause until `room`."""
        with self._changed:
            if self._closed:
                return True
            if self._thread is None:
                self._thread = self._begin()
            self._todo.append((call, size, job))
            self._waiting += size
            if self._waiting > FULL:
                self._was_full = True
            self._hurries = self._hurries or not size
            if len(self._todo) == 1 or self._hurries or self._waiting > _LITTLE:
                self._changed.notify_all()
            return not self._was_full

    def _begin(self) -> threading.Thread | None:
        """The started thread, or None if the system has no more threads. Then a later `put` tries again."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether callers should pause until there is room."""
        return self._was_full

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all is written. Returns whether it was."""
        end = time.monotonic() + timeout
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            while self._todo or self._busy:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, timeout: float) -> bool:
        """Write the pending calls for at most `timeout` seconds, and end. Returns whether all was written."""
        written = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._todo.clear()
            self._changed.notify_all()
        if self._thread is not None and written:
            self._thread.join()
        return written

    def _work(self) -> None:
        while todo := self._next_batch():
            for call, size, job in todo:
                self._try(call, job)
                with self._changed:
                    if self._closed:
                        return
                    self._waiting -= size
                    has_room = self._was_full and self._waiting <= _ROOM
                    if has_room:
                        self._was_full = False
                if has_room:
                    self._try(self._room, "")

    def _try(self, call: Callable[[], None], job: str) -> None:
        """Contain every exception, because without this thread no job's output would be written."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            with contextlib.suppress(Exception):
                self._fault(job, error)

    def _next_batch(self) -> Sequence[tuple[Callable[[], None], int, str]]:
        """Wait for pending calls and take them. Empty when the writer is closed."""
        with self._changed:
            self._busy = False
            if not self._todo:
                self._changed.notify_all()
            while not self._todo and not self._closed:
                self._changed.wait()
            while (left := self._next - time.monotonic()) > 0 and not self._hurries and self._waiting <= _LITTLE:
                self._changed.wait(left)
            todo, self._todo = self._todo, deque()
            self._hurries = False
            self._next = time.monotonic() + _BATCH_S
            self._busy = bool(todo)
            return todo


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """Text for the console. `head` (the name of the job) is omitted when the same owner's line is unfinished.

    `body` may contain many lines with their heads. `continues`: it begins in the middle of a line. `is_open`: its last
    line is unfinished. A chunk without owner never leaves a line unfinished.
    """

    owner: object
    head: bytes
    body: bytes
    continues: bool = False
    is_open: bool = False


class Console:
    """Standard output or error. Called in a writer's thread only, so that it may block.

    An unfinished line is ended before a chunk of another owner. `on_closed` is called once, in that thread, with the
    error after which nothing can be written. From then on everything is dropped. `log` replaces `fd`.
    """

    def __init__(self, fd: int, on_closed: Callable[[OSError], None], log: LogFile | None = None) -> None:
        self.fd = fd
        self._log = log
        self._on_closed = on_closed
        self._is_closed = False
        self._owner: object = None
        self._partner: Console | None = None

    def share_with(self, other: Console) -> None:
        """If both are the same terminal, end an unfinished line of one before the other writes."""
        if _identity(self.fd) == _identity(other.fd):
            self._partner, other._partner = other, self

    def show(self, pieces: Iterable[ConsoleChunk]) -> None:
        for piece in pieces:
            if self._is_closed:
                return
            data = piece.body
            partner = self._partner
            if partner is not None and partner._owner is not None:
                partner._write(b"\n")
                partner._owner = None
            if self._owner is None or self._owner != piece.owner:
                was_ended_for_it = piece.continues and data.startswith(b"\n")
                data = data[1:] if was_ended_for_it else piece.head + data
                if self._owner is not None:
                    data = b"\n" + data
            self._owner = piece.owner if piece.is_open else None
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(data)
            return
        remaining = memoryview(data)
        while remaining and not self._is_closed:
            try:
                remaining = remaining[os.write(self.fd, remaining) :]
            except BlockingIOError:  # another process made the terminal non-blocking
                with contextlib.suppress(OSError):
                    select.select([], [self.fd], [], 1)
            except OSError as error:
                self._is_closed = True
                self._on_closed(error)


def _identity(fd: int) -> tuple[int, int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return (-1, -1, fd)
    return found.st_dev, found.st_ino, found.st_rdev
