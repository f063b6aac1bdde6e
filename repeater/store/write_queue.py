"""What waits to be written, between the thread that asks and the one that writes."""

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
_GATHER = 0.005  # seconds that a write nobody waits for may wait for others

Then: TypeAlias = Callable[[Exception | None], None]


class WriteRequest:
    """One thing to write. `then` is told what became of it, `done` is set after it. `begins` and `ends` name the run
    whose beginning or end is written: a beginning whose end is in the same group need not be written at all.
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
    """What waits to be written, between the loop's thread and the writer's.

    A write that somebody waits for goes at once, with all that came before it. Results wait a moment for others, as one
    commit for many costs little more than one for one, and only the first of them wakes the writer.
    """

    def __init__(self) -> None:
        self._waiting: deque[WriteRequest | None] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps = True
        self._urgent = self._urgent_taken = 0  # each is counted by one thread only

    def put(self, write: WriteRequest | None) -> None:
        """None: nothing more will come."""
        is_urgent = write is None or write.is_urgent
        self._urgent += is_urgent
        self._waiting.append(write)
        if is_urgent or self._sleeps:
            self._sleeps = False
            self._bell.put(None)

    def next_batch(self, patience: float | None) -> tuple[list[WriteRequest], bool]:
        """What waits, at most a group of it; whether more may come. Blocks until there is something, or `patience`
        seconds.
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
