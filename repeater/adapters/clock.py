"""The real clocks, on an event loop: the only place where the time of this machine is read for a decision.

Nothing else may call `datetime.now` or `time.monotonic` to decide when a job runs. Used by `app`; the fake
with the same contract is `tests/fakes/clock.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from repeater.model.time import Instant, Mono
from repeater.ports import Alarm, Loop

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # runs on while the machine sleeps; Linux only


class LoopClock:
    """`ports.Clock` on a loop. Both clocks are read within a few microseconds, the wall first.

    `call_after` never calls early: a loop may wake up to its clock's resolution before the time, so the
    alarm looks again and waits for the rest.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def now(self) -> Instant:
        return Instant(datetime.now(UTC), Mono(time.monotonic_ns() // 1000))

    def asleep(self) -> int:
        if _BOOT is None:
            return 0
        return (time.clock_gettime_ns(_BOOT) - time.monotonic_ns()) // 1000

    def call_after(self, microseconds: int, call: Callable[[], None]) -> Alarm:
        return _Alarm(self._loop, microseconds, call)

    def call_soon(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)


class _Alarm:
    __slots__ = ("_call", "_due", "_handle", "_loop")

    def __init__(self, loop: Loop, microseconds: int, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._due = time.monotonic_ns() + microseconds * 1000
        self._handle: Alarm = loop.call_later(max(0, microseconds) / 1e6, self._ring)

    def cancel(self) -> None:
        self._handle.cancel()

    def _ring(self) -> None:
        left = self._due - time.monotonic_ns()
        if left > 0:
            self._handle = self._loop.call_later(left / 1e9, self._ring)
        else:
            self._call()
