"""The real clocks, on an event loop. Only this module reads the time of the machine to decide when a job runs.

The fake with the same contract is `tests/fakes/clock.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

from repeater.model.time import Instant, Mono
from repeater.ports import Loop, TimerHandle

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # runs also while the machine is suspended; Linux only
_CLOSE = 50
"""Microseconds within which two readings count as one."""
_MOST_TRIES = 20


class LoopClock:
    """`ports.Clock` on a loop.

    The wall clock is read between two readings of the monotonic clock. If the process lost the processor between them,
    both clocks are read again: the pair with the smallest distance counts.

    `call_after` never calls early. A loop may wake up to the resolution of its clock too early; then the timer waits
    for the rest.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> Instant:
        read, now = time.monotonic_ns, datetime.now
        best, closest = None, 0
        for _ in range(_MOST_TRIES):
            before, wall, after = read(), now(UTC), read()
            apart = after - before
            if best is None or apart < closest:
                # the first reading, so that no instant is ahead of the monotonic clock
                best, closest = Instant(wall, Mono(before // 1000)), apart
            if apart <= _CLOSE * 1000:
                break
        assert best is not None
        return best

    def suspended_us(self) -> int:
        if _BOOT is None:
            return 0
        return (time.clock_gettime_ns(_BOOT) - time.monotonic_ns()) // 1000

    def boot(self) -> str:
        """Linux: the boot id and the time namespace, which has its own monotonic clock."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # one-off commands need no pathlib
                return f"{file.read().strip()}/{os.readlink('/proc/self/ns/time')}"
        except OSError:
            return ""

    def call_after(self, microseconds: int, call: Callable[[], None]) -> TimerHandle:
        return _Alarm(self._loop, microseconds, call)

    def call_soon(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)


class _Alarm:
    __slots__ = ("_call", "_due", "_handle", "_loop")

    def __init__(self, loop: Loop, microseconds: int, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._due = time.monotonic_ns() + microseconds * 1000
        self._handle: TimerHandle = loop.call_later(max(0, microseconds) / 1e6, self._ring)

    def cancel(self) -> None:
        self._handle.cancel()

    def _ring(self) -> None:
        left = self._due - time.monotonic_ns()
        if left > 0:
            self._handle = self._loop.call_later(left / 1e9, self._ring)
        else:
            self._call()
