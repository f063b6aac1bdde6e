"""An event loop in front of asyncio's. `call_soon` callbacks run in the current iteration, not in the next one.

An iteration of asyncio costs as much as the work of one start, and one event causes several calls after one another:
output is read, facts are emitted, the engine runs, a message is sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from repeater.ports import Loop, TimerHandle

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0  # seconds until a reader that failed is called again
_CALLS_AT_ONCE = 64  # then other callbacks of asyncio run


class BatchingLoop:
    """`ports.Loop` on top of another loop."""

    def __init__(
        self, loop: Loop, measure: Callable[[Callable[..., object], tuple[Any, ...]], None] | None = None
    ) -> None:
        """`measure`, if given, makes each call, and may look how long it takes."""
        self._loop = loop
        self._call = measure or _call
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_awaited = False
        self._readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._pauses: dict[int, float] = {}

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls after the current callback has returned, in the order of asking."""
        self._soon.append((callback, args))
        if not self._is_awaited:
            self._is_awaited = True
            self._loop.call_soon(self._run_batch)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self._loop.call_soon_threadsafe(self._enqueue, callback, *args)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        return self._loop.call_later(delay, self._enqueue, callback, *args)

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self._readers[fd] = (callback, args)
        self._loop.add_reader(fd, self._read, fd, callback, *args)

    def remove_reader(self, fd: int) -> object:
        self._pauses.pop(fd, None)
        self._readers.pop(fd, None)
        return self._loop.remove_reader(fd)

    def _read(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """A call that fails is made again after a pause, which doubles: its descriptor is as readable as before."""
        try:
            self._enqueue(callback, *args)
        except Exception:
            if self._readers.get(fd) == (callback, args):
                self._loop.remove_reader(fd)
                self._pauses[fd] = pause = min(2 * self._pauses.get(fd, _SHORTEST_PAUSE / 2), _LONGEST_PAUSE)
                self._loop.call_later(pause, self._read_again, fd, callback, args)
            raise
        if self._pauses:
            self._pauses.pop(fd, None)

    def _read_again(self, fd: int, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._readers.get(fd) == (callback, args):
            self._loop.add_reader(fd, self._read, fd, callback, *args)

    def _enqueue(self, callback: Callable[..., object], *args: Any) -> None:
        """In a round of the loop: make a call, and what it asks for."""
        if self._is_awaited:  # calls are on their way already, and what this one asks for comes after them
            self._call(callback, args)
            return
        self._is_awaited = True
        try:
            self._call(callback, args)
        except BaseException:
            self._loop.call_soon(self._run_batch)
            raise
        self._run_batch()

    def _run_batch(self) -> None:
        for _ in range(_CALLS_AT_ONCE):
            if not self._soon:
                self._is_awaited = False
                return
            callback, args = self._soon.popleft()
            try:
                self._call(callback, args)
            except BaseException:
                self._loop.call_soon(self._run_batch)
                raise
        self._loop.call_soon(self._run_batch)


def _call(callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    callback(*args)
