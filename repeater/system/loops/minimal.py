"""A small event loop for one-off commands: callbacks, timers and readable descriptors only.

The import of asyncio takes longer than a whole one-off command, which needs only these five methods. The loop runs no
coroutines. Adapters use it, like asyncio's loop, through `ports.Loop`.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from math import ceil
from typing import Any

_CALLS_AT_ONCE = 64
_LONGEST_WAIT = 3600.0  # seconds; poll takes no more than 2**31 ms


class _Timer:
    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class MinimalLoop:
    """All methods but `call_soon_threadsafe` are called in the thread that runs it. What a callback raises, `run`
    raises.
    """

    polls_few = True  # descriptors are cheap to add and to remove here: no poller has to stand between

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = count()
        self._poll = select.poll()  # a handful of descriptors, most of them for a moment
        self._readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._awake, self._waker = os.pipe()
        for fd in (self._awake, self._waker):
            os.set_blocking(fd, False)
        self.add_reader(self._awake, self._drain)
        self._sleeps = self._is_over = False

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls after the current callback has returned, in the order of asking."""
        self._ready.append((callback, args))

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """The same, from another thread or a signal handler."""
        self._ready.append((callback, args))
        if self._sleeps:
            self._sleeps = False
            with contextlib.suppress(OSError):  # the loop is closed
                os.write(self._waker, b"\0")

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _Timer:
        """Call once, `delay` seconds later, never earlier. The result can be cancelled."""
        timer = _Timer((lambda: callback(*args)) if args else callback)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), timer))
        return timer

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Calls whenever `fd` can be read, until it is removed."""
        self._readers[fd] = callback, args
        self._poll.register(fd, select.POLLIN)

    def remove_reader(self, fd: int) -> bool:
        """Whether it was there."""
        if self._readers.pop(fd, None) is None:
            return False
        self._poll.unregister(fd)
        return True

    def run(self) -> None:
        """Calls what is to be called until `stop`; may be called again."""
        self._is_over = False
        while not self._is_over:
            self._wait()
            now = time.monotonic()
            while self._timers and (self._timers[0][0] <= now or self._timers[0][2].call is None):
                timer = heapq.heappop(self._timers)[2]
                if timer.call is not None:
                    self._ready.append((timer.call, ()))
            for _ in range(_CALLS_AT_ONCE):  # then there is another look outside
                if not self._ready:
                    break
                callback, args = self._ready.popleft()
                callback(*args)

    def stop(self) -> None:
        """`run` returns after this round."""
        self._is_over = True

    def close(self) -> None:
        os.close(self._awake)
        os.close(self._waker)

    def _wait(self) -> None:
        wait = 0.0
        self._sleeps = True  # before a last look, so that no call is missed
        if not self._ready:
            wait = _LONGEST_WAIT
            if self._timers:
                wait = min(wait, max(0.0, self._timers[0][0] - time.monotonic()))
        for fd, _ in self._poll.poll(ceil(wait * 1000)):
            self._ready.append((self._call, (fd,)))
        self._sleeps = False

    def _call(self, fd: int) -> None:
        """What waits for a descriptor, if it still does."""
        reader = self._readers.get(fd)
        if reader is not None:
            reader[0](*reader[1])

    def _drain(self) -> None:
        os.read(self._awake, 4096)  # what is left of them wakes us again
