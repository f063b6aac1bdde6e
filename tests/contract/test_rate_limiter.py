"""What every `SharedRateLimiter` keeps to: the client of the daemon, on both loops, and the fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import Fact, RateLimiterDown, RateLimiterUp, SharedLimitGranted, SharedLimitQueued
from repeater.model.reasons import reason as because
from repeater.model.units import Rate
from repeater.ports import SharedRateLimiter
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.persistence import NullLimitStore
from repeater.ratelimitd.server import Server
from repeater.ratelimitd.socket_path import ListeningSocket
from repeater.system.clock import LoopClock
from repeater.system.ratelimit_client import RateLimitClient
from tests.fakes.clock import FakeClock
from tests.fakes.rate_limiter import FakeDaemon, FakeQuota
from tests.fakes.text import text_of

SLOW = Rate(1, timedelta(hours=1))
QUICK = Rate(1, timedelta(milliseconds=300))
PATIENCE = 30.0


class FakeWorld:
    def __init__(self) -> None:
        self._clock = FakeClock()
        self._daemon = FakeDaemon(self._clock)
        self._quotas: list[FakeQuota] = []

    def quota(self, facts: list[Fact]) -> SharedRateLimiter:
        self._quotas.append(FakeQuota(self._daemon, facts.append))
        return self._quotas[-1]

    def now(self) -> float:
        return self._clock.now().mono / 1e6

    def kill(self) -> None:
        self._daemon.kill()

    def start(self) -> None:
        self._daemon.start()

    def until(self, holds: Callable[[], bool]) -> None:
        self._clock.run_until(holds)

    def settle(self) -> None:
        self._clock.settle()

    def close(self) -> None:
        for quota in self._quotas:
            quota.close()


class RealWorld:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "d.sock"
        self._loop = asyncio.new_event_loop()
        self._quotas: list[RateLimitClient] = []
        self._gate: ListeningSocket | None = None
        self._server: Server | None = None
        self.start()

    def quota(self, facts: list[Fact]) -> SharedRateLimiter:
        quota = RateLimitClient(facts.append, self._loop, LoopClock(self._loop), lambda: self._path)
        self._quotas.append(quota)
        return quota

    def now(self) -> float:
        return time.monotonic()

    def start(self) -> None:
        async def start() -> None:
            self._gate = ListeningSocket(self._path)
            self._server = Server(Broker("r"), NullLimitStore(), LoopClock(self._loop).now, print)
            self._server.listen(self._gate.socket)

        self._loop.run_until_complete(start())

    def kill(self) -> None:
        if self._server is not None and self._gate is not None:
            self._server.close()
            self._gate.close()
        self._server = self._gate = None
        self.settle()

    def until(self, holds: Callable[[], bool]) -> None:
        async def wait() -> None:
            end = time.monotonic() + PATIENCE
            while not holds():
                assert time.monotonic() < end, "it did not come true"
                await asyncio.sleep(0.002)

        self._loop.run_until_complete(wait())

    def settle(self) -> None:
        """Long enough for messages to go to and fro, on a machine that does nothing else."""
        self._loop.run_until_complete(asyncio.sleep(0.05))

    def close(self) -> None:
        for quota in self._quotas:
            quota.close()
        self.kill()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


World = FakeWorld | RealWorld


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made: World = FakeWorld() if request.param == "fake" else RealWorld(tmp_path)
    yield made
    made.close()


def of(facts: list[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def take(world: World, quota: SharedRateLimiter, facts: list[Fact], rate: Rate = SLOW, ask: str = "1") -> str:
    """Ask, and wait for the grant."""
    quota.request(RequestSharedStart(ask, "api", rate))
    world.until(lambda: any(fact.id == ask for fact in of(facts, SharedLimitGranted)))
    return next(str(fact.reservation) for fact in of(facts, SharedLimitGranted) if fact.id == ask)


def test_a_request_within_the_limit_is_granted(world: World) -> None:
    facts: list[Fact] = []
    assert take(world, world.quota(facts), facts)
    assert of(facts, RateLimiterDown) == []


def test_a_waiting_client_gets_a_delay_and_no_earlier_grant(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    first = take(world, quota, facts, QUICK)
    began = world.now()
    quota.report_start("api", QUICK, first, started=True)
    quota.request(RequestSharedStart("2", "api", QUICK))
    world.until(lambda: len(of(facts, SharedLimitGranted)) == 2)
    assert world.now() - began >= 0.2999
    assert timedelta(0) < of(facts, SharedLimitQueued)[0].wait <= timedelta(milliseconds=300)


def test_a_withdrawn_request_is_never_granted_and_takes_no_place(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    held = take(world, first, mine)
    second.request(RequestSharedStart("1", "api", SLOW))
    world.until(lambda: bool(of(other, SharedLimitQueued)))
    second.withdraw("1")
    first.report_start("api", SLOW, held, started=False)
    assert take(world, first, mine, ask="2")
    assert of(other, SharedLimitGranted) == []


def test_the_place_of_a_failed_start_is_granted_to_the_next_request(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    held = take(world, first, mine)
    second.request(RequestSharedStart("1", "api", SLOW))
    world.until(lambda: bool(of(other, SharedLimitQueued)))
    first.report_start("api", SLOW, held, started=False)
    world.until(lambda: bool(of(other, SharedLimitGranted)))


def test_a_client_that_closes_gives_back(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    take(world, first, mine)
    second.request(RequestSharedStart("1", "api", SLOW))
    world.until(lambda: bool(of(other, SharedLimitQueued)))
    first.close()
    world.until(lambda: bool(of(other, SharedLimitGranted)))


def test_places_that_were_reserved_ahead_are_used_and_released(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    two = Rate(2, timedelta(hours=1))
    first.request(RequestSharedStart("1", "api", two, (0, 1000)))
    world.until(lambda: bool(of(mine, SharedLimitGranted)))
    held = of(mine, SharedLimitGranted)[0].reservation
    first.report_start("api", two, held, started=True)
    second.request(RequestSharedStart("1", "api", two))
    world.until(lambda: bool(of(other, SharedLimitQueued)))
    first.request(RequestSharedStart("2", "api", two, (0, 1000), held))
    world.until(lambda: len(of(mine, SharedLimitGranted)) == 2)
    first.report_start("api", two, held, started=False)
    first.release(held)
    world.until(lambda: bool(of(other, SharedLimitGranted)))


def test_a_push_back_holds_others_with_its_reason(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.push_back("api", SLOW, timedelta(seconds=3000), because("text", text="Retry-After: 3000"))
    quota.request(RequestSharedStart("1", "api", SLOW))
    world.until(lambda: bool(of(facts, SharedLimitQueued)))
    assert text_of(of(facts, SharedLimitQueued)[0].reason) == "Retry-After: 3000"


def test_a_missing_daemon_is_reported_once_and_found_again(world: World) -> None:
    world.kill()
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.request(RequestSharedStart("1", "api", SLOW))
    quota.request(RequestSharedStart("2", "api", SLOW))
    world.settle()
    assert len(facts) == 1
    assert text_of(facts[0].reason).startswith("cannot reach the rate-limit daemon at `")
    assert text_of(facts[0].reason).endswith(": none is running")
    world.start()
    world.until(lambda: bool(of(facts, RateLimiterUp)))
    assert take(world, quota, facts, ask="3")


def test_a_daemon_that_exits_while_one_waits_is_reported_once(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.report_start("api", SLOW, take(world, quota, facts), started=True)
    quota.request(RequestSharedStart("2", "api", SLOW))
    world.until(lambda: bool(of(facts, SharedLimitQueued)))
    world.kill()
    world.until(lambda: bool(of(facts, RateLimiterDown)))
    world.settle()
    assert len(of(facts, RateLimiterDown)) == 1
    assert text_of(of(facts, RateLimiterDown)[0].reason).endswith(": it has exited")


def test_the_end_of_a_daemon_without_waiting_requests_is_not_reported(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.report_start("api", SLOW, take(world, quota, facts), started=True)
    world.settle()
    world.kill()
    world.start()
    world.settle()
    assert of(facts, RateLimiterDown) == []
    assert take(world, quota, facts, ask="2", rate=Rate(2, SLOW.window))


def test_unreported_starts_are_reported_later(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first = world.quota(mine)
    world.kill()
    first.request(RequestSharedStart("1", "api", SLOW))
    first.report_start("api", SLOW, None, started=True)
    world.start()
    world.until(lambda: bool(of(mine, RateLimiterUp)))
    second = world.quota(other)
    second.request(RequestSharedStart("1", "api", SLOW))
    world.until(lambda: bool(of(other, SharedLimitQueued)))
