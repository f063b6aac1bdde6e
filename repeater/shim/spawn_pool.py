"""Starts processes at the same time: in the thread of the shim, and in more threads, one for each further core.

A start waits until the kernel has loaded the new program. Meanwhile another core can start the next one, because
`posix_spawn.spawn_in_dir` releases the interpreter lock, which `os.posix_spawn` does not. A single start wakes no
thread.

The function `start` runs in the threads of the pool too. So it uses only its message, unless no other start is running.
"""

from __future__ import annotations

import os
from _queue import SimpleQueue
from _thread import start_new_thread
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from repeater.shim.protocol import Message

_MAX_THREADS = min(4, os.cpu_count() or 1) - 1


class SpawnPool:
    """`start` gets a message and whether other starts may run at the same time. `deferred` has, for each run that is
    being started, the later messages about it. While `wakes_server` is true, a byte goes to the descriptor `waker` when
    a start is done.
    """

    def __init__(self, start: Callable[[Message, bool], Any], waker: int) -> None:
        self._start = start
        self._waker = waker
        self._waiting: deque[Message] = deque()
        self._done: deque[tuple[Message, Any]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._threads = 0
        self._is_closed = False
        self.deferred: dict[str, list[Message]] = {}
        self.wakes_server = False

    def is_spawning(self) -> bool:
        """Whether there are starts that `completed` has not returned yet."""
        return bool(self.deferred)

    @property
    def has_work(self) -> bool:
        """Whether `run_here` or `completed` have something to do."""
        return bool(self._waiting or self._done)

    def submit(self, message: Message) -> None:
        """Start the run of this message."""
        self.deferred[message["run"]] = []
        self._waiting.append(message)
        if len(self._waiting) > 1:
            self._bell.put(None)
            if self._threads < min(_MAX_THREADS, len(self._waiting) - 1):
                self._add_thread()

    def _add_thread(self) -> None:
        """Start one more thread, if the system has one. Without it processes start one after the other."""
        try:
            start_new_thread(self._work, ())
        except RuntimeError:
            return
        self._threads += 1

    def run_here(self) -> None:
        """Start one run in this thread."""
        try:
            message = self._waiting.popleft()
        except IndexError:
            return
        self._done.append((message, self._start(message, len(self.deferred) > 1)))

    def cancel_pending(self) -> None:
        """Drop the starts that no thread has taken yet."""
        while self._waiting:
            del self.deferred[self._waiting.popleft()["run"]]

    def close(self) -> None:
        """End the threads when they have nothing to do. The shim need not call it, because its exit ends them."""
        self._is_closed = True
        for _ in range(self._threads):
            self._bell.put(None)

    def completed(self) -> Iterator[tuple[Message, Any, list[Message]]]:
        """Each finished start: its message, what `start` returned, and the later messages about the run."""
        while self._done:
            message, outcome = self._done.popleft()
            yield message, outcome, self.deferred.pop(message["run"])

    def _work(self) -> None:
        while True:
            try:
                message = self._waiting.popleft()
            except IndexError:
                if self._is_closed:
                    return
                self._bell.get()  # another thread may have taken the message for which this was put
                continue
            self._done.append((message, self._start(message, True)))
            if self.wakes_server:
                self.wakes_server = False
                try:
                    os.write(self._waker, b"\0")
                except OSError:  # the pipe is full, so the server is awake, or the server has ended
                    continue
