"""Starts that go on at the same time: in the keeper's own thread, and in as many more as there are cores.

A start waits until the kernel has loaded the new program; meanwhile the next can be made on another core, because
`direct.start_elsewhere` lets other threads run, which `os.posix_spawn` does not. One start alone wakes no thread.

Called by `shim.server`, in its thread; `start` is called in the hands' too, so it may touch nothing but its message,
unless it is told that no other start goes on.
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

_MOST = min(4, os.cpu_count() or 1) - 1


class SpawnPool:
    """`start` is told whether others may go on beside it. `flying` has, by run, what was asked about it while it was
    being started. `house_sleeps`: a byte goes to the descriptor `waker` when a start is over.
    """

    def __init__(self, start: Callable[[Message, bool], Any], waker: int) -> None:
        self._start = start
        self._waker = waker
        self._waiting: deque[Message] = deque()
        self._done: deque[tuple[Message, Any]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._threads = 0
        self._is_over = False
        self.flying: dict[str, list[Message]] = {}
        self.house_sleeps = False

    @property
    def in_flight(self) -> bool:
        """Whether `lend` or `landed` have something to do."""
        return bool(self._waiting or self._done)

    def submit(self, message: Message) -> None:
        """The run of this message is to be started."""
        self.flying[message["run"]] = []
        self._waiting.append(message)
        if len(self._waiting) > 1:
            self._bell.put(None)
            if self._threads < min(_MOST, len(self._waiting) - 1):
                self._add_thread()

    def _add_thread(self) -> None:
        """One more thread, if the system has one to give; without it starts are made one after the other."""
        try:
            start_new_thread(self._work, ())
        except RuntimeError:
            return
        self._threads += 1

    def run_here(self) -> None:
        """Make one start in the house's own thread."""
        try:
            message = self._waiting.popleft()
        except IndexError:
            return
        self._done.append((message, self._start(message, len(self.flying) > 1)))

    def cancel_pending(self) -> None:
        """What was not begun shall not be."""
        while self._waiting:
            del self.flying[self._waiting.popleft()["run"]]

    def close(self) -> None:
        """The threads end when they have nothing left to do. A keeper need not ask: they end with it."""
        self._is_over = True
        for _ in range(self._threads):
            self._bell.put(None)

    def completed(self) -> Iterator[tuple[Message, Any, list[Message]]]:
        """What has been started, with what `start` gave, and what was asked about it meanwhile."""
        while self._done:
            message, outcome = self._done.popleft()
            yield message, outcome, self.flying.pop(message["run"])

    def _work(self) -> None:
        while True:
            try:
                message = self._waiting.popleft()
            except IndexError:
                if self._is_over:
                    return
                self._bell.get()  # may have been rung for what somebody else took
                continue
            self._done.append((message, self._start(message, True)))
            if self.house_sleeps:
                self.house_sleeps = False
                try:
                    os.write(self._waker, b"\0")
                except OSError:  # it is full of wakes, or the keeper has left
                    continue
