"""What every clock must do."""

from __future__ import annotations

import asyncio
import time as real
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from repeater.ports import Clock
from repeater.system.clock import LoopClock
from repeater.system.loops.batching import BatchingLoop
from repeater.system.loops.minimal import MinimalLoop
from tests.fakes.clock import FakeClock


class RealTime:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock: Clock = LoopClock(self.loop)

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(5):
                while not condition():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())

    def close(self) -> None:
        self.loop.close()


class TurnTime(RealTime):
    """The same, with what is to be called soon called in the same round."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = LoopClock(BatchingLoop(self.loop))


class SmallTime:
    """The loop of one-off commands."""

    def __init__(self) -> None:
        self.loop = MinimalLoop()
        self.clock: Clock = LoopClock(self.loop)

    def until(self, condition: Callable[[], bool]) -> None:
        def look() -> None:
            if not condition():
                self.loop.call_later(0.001, look)
            else:
                self.loop.stop()

        look()
        self.loop.run()

    def close(self) -> None:
        self.loop.close()


class FakeTime:
    def __init__(self) -> None:
        self.clock = FakeClock()

    def until(self, condition: Callable[[], bool]) -> None:
        self.clock.run_until(condition, within=timedelta(seconds=5))

    def close(self) -> None:
        pass


@pytest.fixture(params=[RealTime, TurnTime, SmallTime, FakeTime], ids=["real", "turns", "small", "fake"])
def time(request: pytest.FixtureRequest) -> Iterator[RealTime | FakeTime]:
    made = request.param()
    yield made
    made.close()


def test_the_wall_clock_is_aware_and_in_utc(time: RealTime | FakeTime) -> None:
    assert time.clock.now().wall.tzinfo is UTC


def test_an_alarm_never_rings_early(time: RealTime | FakeTime) -> None:
    rung: list[int] = []
    for microseconds in (0, 1, 999, 1000, 1001, 5_500):
        before = time.clock.now().mono

        def ring(due: int = before + microseconds) -> None:
            rung.append(time.clock.now().mono - due)

        time.clock.call_after(microseconds, ring)
    time.until(lambda: len(rung) == 6)
    assert min(rung) >= 0


def test_alarms_ring_in_the_order_of_their_due_times(time: RealTime | FakeTime) -> None:
    rung: list[str] = []
    time.clock.call_after(20_000, lambda: rung.append("late"))
    time.clock.call_after(1_000, lambda: rung.append("early"))
    time.until(lambda: len(rung) == 2)
    assert rung == ["early", "late"]


def test_a_cancelled_alarm_does_not_ring(time: RealTime | FakeTime) -> None:
    rung: list[str] = []
    alarm = time.clock.call_after(1_000, lambda: rung.append("cancelled"))
    alarm.cancel()
    alarm.cancel()
    time.clock.call_after(5_000, lambda: rung.append("kept"))
    time.until(lambda: bool(rung))
    assert rung == ["kept"]


def test_call_soon_calls_after_the_caller_returned_and_in_order(time: RealTime | FakeTime) -> None:
    called: list[int] = []

    def first() -> None:
        time.clock.call_soon(lambda: called.append(2))
        called.append(1)

    time.clock.call_soon(first)
    assert called == []
    time.until(lambda: len(called) == 2)
    assert called == [1, 2]


def test_the_fake_wall_clock_can_be_set_without_ringing_alarms() -> None:
    clock = FakeClock()
    rung: list[int] = []
    clock.call_after(1_000_000, lambda: rung.append(1))
    clock.set_wall(clock.now().wall + timedelta(days=1))
    clock.settle()
    assert rung == []
    clock.advance(timedelta(seconds=1))
    assert rung == [1]


def test_a_stalled_fake_clock_rings_late() -> None:
    clock = FakeClock()
    rung: list[int] = []
    start = clock.now().mono
    clock.call_after(1_000_000, lambda: rung.append(clock.now().mono - start))
    clock.stall(timedelta(seconds=5))
    assert rung == []
    clock.settle()
    assert rung == [5_000_000]


def test_both_clocks_are_read_together_while_others_use_the_processor() -> None:
    """Each sleep gives the processor away, as the scheduler does when the machine is busy."""
    sleeps = iter([0.02, 0.02, 0.02, 0.0])

    class SlowDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            found = datetime.now(tz)
            real.sleep(next(sleeps, 0.0))
            return found

    loop = MinimalLoop()
    with closing(loop), pytest.MonkeyPatch.context() as patch:
        patch.setattr("repeater.system.clock.datetime", SlowDatetime)
        reading = LoopClock(loop).now()
    wall, mono = datetime.now(UTC), real.monotonic_ns() // 1000
    drift = (wall - reading.wall) // timedelta(microseconds=1) - (mono - reading.mono)
    assert abs(drift) < 10_000
    assert next(sleeps, None) is None, "it read again until the readings were close"
