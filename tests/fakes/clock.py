"""Virtual time: nothing passes until a test says so, and then everything that is due happens in order.

Passes the contract of `system.clock` in `tests/contract`. Calls made by `call_soon` run before time moves
on; alarms of the same instant ring in the order in which they were set.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from repeater.model.time import Instant, Mono, to_us

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeAlarm:
    """What `call_after` gives. `cancel` may be called at any time, also twice."""

    def __init__(self, due: Mono, call: Callable[[], None]) -> None:
        self.due = due
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """`ports.Clock` that stands still. It starts at `wall` (2026-01-01 00:00 UTC) and a monotonic 1000 s."""

    def __init__(self, wall: datetime = EPOCH, mono: int = 1_000_000_000, boot_id: str = "boot") -> None:
        self.boot_id = boot_id
        self._wall = wall
        self._mono = Mono(mono)
        self._alarms: list[tuple[int, int, FakeAlarm]] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._order = count()
        self._asleep = 0

    def now(self) -> Instant:
        return Instant(self._wall, self._mono)

    def boot(self) -> str:
        return self.boot_id

    def suspended_us(self) -> int:
        return self._asleep

    def suspend(self, length: timedelta) -> None:
        """The machine sleeps: the wall clock goes on, the monotonic one does not."""
        self._wall += length
        self._asleep += to_us(length)

    def call_after(self, microseconds: int, call: Callable[[], None]) -> FakeAlarm:
        alarm = FakeAlarm(Mono(self._mono + max(0, microseconds)), call)
        heapq.heappush(self._alarms, (alarm.due, next(self._order), alarm))
        return alarm

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def settle(self) -> None:
        """Runs everything that is due now; no time passes."""
        self.advance(timedelta(0))

    def advance(self, length: timedelta) -> None:
        """Lets `length` pass. Each call sees the clock at its own due time."""
        end = self._mono + to_us(length)
        while True:
            self._run_soon()
            due = self.next_alarm()
            if due is None or due > end:
                break
            self._pass(max(0, due - self._mono))
            alarm = heapq.heappop(self._alarms)[2]
            alarm.call()
        self._pass(end - self._mono)

    def run_until(self, condition: Callable[[], bool], *, within: timedelta = timedelta(days=1)) -> None:
        """Lets time pass from alarm to alarm until `condition` holds.

        Raises AssertionError when `within` is over, or when nothing is left that could happen.
        """
        end = self._mono + to_us(within)
        self.settle()
        while not condition():
            due = self.next_alarm()
            if due is None or due > end:
                raise AssertionError(f"nothing made it true within {within}")
            self.advance(timedelta(microseconds=max(0, due - self._mono)))

    def run_until_wall(self, wall: datetime) -> None:
        """Lets time pass until the wall clock shows `wall`; nothing happens if it does already."""
        self.advance(max(timedelta(0), wall - self._wall))

    def stall(self, length: timedelta) -> None:
        """Time passes, but nobody is called: a loop that is stuck. What was due rings late."""
        self._pass(to_us(length))

    def set_wall(self, wall: datetime) -> None:
        """Somebody sets the wall clock, or the machine slept: the monotonic clock does not notice."""
        self._wall = wall

    def next_alarm(self) -> Mono | None:
        """When the next alarm rings; None when none is set."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return Mono(self._alarms[0][0]) if self._alarms else None

    def _pass(self, microseconds: int) -> None:
        self._mono = Mono(self._mono + microseconds)
        self._wall += timedelta(microseconds=microseconds)

    def _run_soon(self) -> None:
        for _ in range(1_000_000):
            if not self._soon:
                return
            self._soon.popleft()()
        raise AssertionError("call_soon is called for ever")
