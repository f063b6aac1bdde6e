"""Calls a function when a descriptor is readable. Both spawners wait with it."""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from collections.abc import Callable

from repeater.ports import Loop

_WAKES_AT_ONCE = 32
_LONG = 0.003  # seconds after which other callbacks of the loop run first; the rest follows


_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0  # seconds until a descriptor is tried again whose call failed


class NestedPoller:
    """An epoll inside the epoll of asyncio's loop. A run adds and removes two or three descriptors, which is cheaper
    here than in the loop, and one wake-up serves many runs.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._calls: dict[int, Callable[[], object]] = {}
        self._paused: dict[int, Callable[[], object]] = {}  # whose call failed, until it is tried again
        self._pauses: dict[int, float] = {}
        self._ready: deque[int] = deque()  # served first in the next iteration, so that none starves
        nests = sys.platform == "linux" and not getattr(loop, "polls_few", False)
        self._epoll = select.epoll() if nests else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._poll)

    def add(self, fd: int, call: Callable[[], object]) -> None:
        self._paused.pop(fd, None)
        if self._epoll is None:
            self._loop.add_reader(fd, call)
        else:
            self._calls[fd] = call
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Descriptors that were not added, or were removed, are ignored."""
        self._paused.pop(fd, None)
        self._pauses.pop(fd, None)
        if self._epoll is None:
            self._loop.remove_reader(fd)
        elif self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _poll(self) -> None:
        assert self._epoll is not None
        until = time.perf_counter() + _LONG
        if not self._ready:
            self._ready.extend(fd for fd, _ in self._epoll.poll(0, _WAKES_AT_ONCE))
        while self._ready:
            fd = self._ready.popleft()
            call = self._calls.get(fd)
            if call is not None:  # not removed by an earlier call
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - the calls of other runs follow
                    self._failed(fd, call, error)
                if time.perf_counter() > until:
                    return

    def _failed(self, fd: int, call: Callable[[], object], error: Exception) -> None:
        """Let the loop report the error, and try this descriptor again after a pause."""
        self._pauses[fd] = pause = min(2 * self._pauses.get(fd, _SHORTEST_PAUSE / 2), _LONGEST_PAUSE)
        if self._calls.get(fd) is call and self._epoll is not None:
            del self._calls[fd]
            self._epoll.unregister(fd)
            self._paused[fd] = call
            self._loop.call_later(pause, self._again, fd, call)
        self._loop.call_soon(_raise, error)

    def _again(self, fd: int, call: Callable[[], object]) -> None:
        if self._paused.get(fd) is call:
            del self._paused[fd]
            self.add(fd, call)


def _raise(error: Exception) -> None:
    raise error
