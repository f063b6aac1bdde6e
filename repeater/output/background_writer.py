"""A thread that writes, so that nobody else has to wait: for a terminal that was stopped, a full pipe, a slow disk.

What is put in is written in that order. The buffer is bounded by asking: `put` says False when it holds too much, and
`room` is called once it does not any more. Used by `output.router`, once for the console and once for files.
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
"""Bytes that wait to be written from which on `put` asks for a pause."""
_ROOM = FULL // 4
_PACE = 0.01  # seconds between two looks at what waits, as long as that is little: each costs the thread a wake
_LITTLE = 1 << 16  # bytes


class Writer:
    """Carries out calls, one after the other, in a thread that begins with the first. `room` is called there.

    A call that raises is dropped, and `fault` gets its job and the exception, in that thread. The next calls follow.
    What comes after a pause is carried out at once, what comes soon after it together with what comes next, unless it
    writes nothing: then somebody waits for it.
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
        """Take a call that writes `size` bytes of a job. False: it was taken, but no more should come until there is
        room.
        """
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
        """None when the system has no more threads to give: what waits is written once it has."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    @property
    def waiting(self) -> int:
        """Bytes that were taken and are not written yet."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether no more should come until there is room."""
        return self._was_full

    def flush(self, within: float) -> bool:
        """Wait until all is written, `within` seconds at most; whether it was."""
        end = time.monotonic() + within
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            while self._todo or self._busy:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self, within: float) -> bool:
        """Write what is left, `within` seconds at most, and end; whether all was written."""
        written = self.flush(within)
        with self._changed:
            self._closed = True
            self._todo.clear()
            self._changed.notify_all()
        if self._thread is not None and written:
            self._thread.join()
        return written

    def _work(self) -> None:
        while todo := self._is_ours():
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
        """Contains every exception: without this thread nothing of any job would be written."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            with contextlib.suppress(Exception):
                self._fault(job, error)

    def _is_ours(self) -> Sequence[tuple[Callable[[], None], int, str]]:
        """What waits, once there is something; nothing when it is over."""
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
            self._next = time.monotonic() + _PACE
            self._busy = bool(todo)
            return todo


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """Something to show. `head` (the name of the job) is left out when the same owner's line is still unfinished.

    `body` may hold many lines with their heads in it. `continues`: it begins in the middle of a line. `is_open`: its
    last line has no end yet. Owner None is nobody in particular, who never leaves a line open.
    """

    owner: object
    head: bytes
    body: bytes
    continues: bool = False
    is_open: bool = False


class Console:
    """Standard output or error. Called in a writer's thread only, so that it may block.

    A line that is not finished yet when somebody else has something to say is ended first. `gone` is called once, in
    that thread, when nothing can be written any more, with the reason; after that everything is dropped. `log` takes
    the place of `fd`.
    """

    def __init__(self, fd: int, gone: Callable[[OSError], None], log: LogFile | None = None) -> None:
        self.fd = fd
        self._log = log
        self._gone = gone
        self._is_gone = False
        self._owner: object = None
        self._partner: Console | None = None

    def share_with(self, other: Console) -> None:
        """Both are the same terminal, so an unfinished line of one is in the way of the other."""
        if _identity(self.fd) == _identity(other.fd):
            self._partner, other._partner = other, self

    def show(self, pieces: Iterable[ConsoleChunk]) -> None:
        for piece in pieces:
            if self._is_gone:
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
        rest = memoryview(data)
        while rest and not self._is_gone:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:  # somebody else made the terminal non-blocking
                with contextlib.suppress(OSError):
                    select.select([], [self.fd], [], 1)
            except OSError as error:
                self._is_gone = True
                self._gone(error)


def _identity(fd: int) -> tuple[int, int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return (-1, -1, fd)
    return found.st_dev, found.st_ino, found.st_rdev
