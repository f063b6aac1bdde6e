"""The queue of writes between the loop and the thread of the writer."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

GROUP = 64
_GATHER = 0.005  # seconds that a write without a waiting caller waits for others

Then: TypeAlias = Callable[[Exception | None], None]


class WriteRequest:
    """One write. `then` gets its result, `done` is set after it. `begins` and `ends` name the run whose start or end is
    written: a start whose end is in the same group need not be written.
    """

    __slots__ = ("apply", "begins", "done", "ends", "is_claim", "is_urgent", "then")

    def __init__(
        self,
        apply: Callable[[sqlite3.Connection], object],
        then: Then | None = None,
        *,
        is_claim: bool = False,
        done: threading.Event | None = None,
        begins: str | None = None,
        ends: str | None = None,
    ) -> None:
        self.apply = apply
        self.then = then
        self.is_claim = is_claim
        self.is_urgent = is_claim or done is not None
        self.done = done
        self.begins = begins
        self.ends = ends


class WriteQueue:
    """The queue of writes.

    A write with a waiting caller is written immediately, with all earlier ones. Other writes wait a moment for more,
    because one commit for many costs little more than a commit for one. Only the first of them wakes the writer.
    """

    def __init__(self) -> None:
        self._waiting: deque[WriteRequest | None] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps = True
        self._urgent = self._urgent_taken = 0  # each is counted by one thread only

    def put(self, write: WriteRequest | None) -> None:
        """Add a write. None closes the queue."""
        is_urgent = write is None or write.is_urgent
        self._urgent += is_urgent
        self._waiting.append(write)
        if is_urgent or self._sleeps:
            self._sleeps = False
            self._bell.put(None)

    def next_batch(self, patience: float | None) -> tuple[list[WriteRequest], bool]:
        """The next writes, at most a group, and whether the queue is open. Waits for a write, for `patience`
        seconds at most.
        """
        with contextlib.suppress(queue.Empty):
            while not self._waiting:
                self._sleeps = True  # before a last look, so that no write is missed
                if not self._waiting:
                    self._bell.get(timeout=patience)
            self._sleeps = False
            gathered_at = time.monotonic() + _GATHER
            while self._urgent == self._urgent_taken and len(self._waiting) < GROUP:
                if (left := gathered_at - time.monotonic()) <= 0:
                    break
                self._bell.get(timeout=left)
        group: list[WriteRequest] = []
        while self._waiting and len(group) < GROUP:
            write = self._waiting.popleft()
            self._urgent_taken += write is None or write.is_urgent
            if write is None:
                return group, False
            group.append(write)
        return group, True

    @property
    def is_empty(self) -> bool:
        return not self._waiting
