"""What every `Quota` keeps to: the client of the daemon, on both loops, and the fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.adapters.clock import LoopClock
from repeater.adapters.quota import DaemonQuota
from repeater.daemon.book import Book
from repeater.daemon.kept import Forgetful
from repeater.daemon.place import Gate
from repeater.daemon.server import Server
from repeater.engine.actions import AskQuota
from repeater.engine.facts import Fact, QuotaFound, QuotaGranted, QuotaLost, QuotaWaits
from repeater.model.reasons import reason as because
from repeater.model.units import Rate
from repeater.ports import Quota
from tests.fakes.clock import FakeClock
from tests.fakes.quota import FakeDaemon, FakeQuota
from tests.fakes.text import text_of

SLOW = Rate(1, timedelta(hours=1))
QUICK = Rate(1, timedelta(milliseconds=300))
PATIENCE = 30.0


class FakeWorld:
    def __init__(self) -> None:
        self._clock = FakeClock()
        self._daemon = FakeDaemon(self._clock)
        self._quotas: list[FakeQuota] = []

    def quota(self, facts: list[Fact]) -> Quota:
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
        self._quotas: list[DaemonQuota] = []
        self._gate: Gate | None = None
        self._server: Server | None = None
        self.start()

    def quota(self, facts: list[Fact]) -> Quota:
        quota = DaemonQuota(facts.append, self._loop, LoopClock(self._loop), lambda: self._path)
        self._quotas.append(quota)
        return quota

    def now(self) -> float:
        return time.monotonic()

    def start(self) -> None:
        async def start() -> None:
            self._gate = Gate(self._path)
            self._server = Server(Book("r"), Forgetful(), LoopClock(self._loop).now, print)
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


def take(world: World, quota: Quota, facts: list[Fact], rate: Rate = SLOW, ask: str = "1") -> str:
    """Ask, and wait for the grant."""
    quota.ask(AskQuota(ask, "api", rate))
    world.until(lambda: any(fact.id == ask for fact in of(facts, QuotaGranted)))
    return next(str(fact.reservation) for fact in of(facts, QuotaGranted) if fact.id == ask)


def test_what_the_limit_allows_is_granted(world: World) -> None:
    facts: list[Fact] = []
    assert take(world, world.quota(facts), facts)
    assert of(facts, QuotaLost) == []


def test_who_waits_is_told_for_how_long_and_granted_no_earlier(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    first = take(world, quota, facts, QUICK)
    began = world.now()
    quota.spend("api", QUICK, first, started=True)
    quota.ask(AskQuota("2", "api", QUICK))
    world.until(lambda: len(of(facts, QuotaGranted)) == 2)
    assert world.now() - began >= 0.2999
    assert timedelta(0) < of(facts, QuotaWaits)[0].wait <= timedelta(milliseconds=300)


def test_what_is_withdrawn_is_never_granted_and_takes_no_place(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    held = take(world, first, mine)
    second.ask(AskQuota("1", "api", SLOW))
    world.until(lambda: bool(of(other, QuotaWaits)))
    second.withdraw("1")
    first.spend("api", SLOW, held, started=False)
    assert take(world, first, mine, ask="2")
    assert of(other, QuotaGranted) == []


def test_what_did_not_start_is_granted_to_the_next(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    held = take(world, first, mine)
    second.ask(AskQuota("1", "api", SLOW))
    world.until(lambda: bool(of(other, QuotaWaits)))
    first.spend("api", SLOW, held, started=False)
    world.until(lambda: bool(of(other, QuotaGranted)))


def test_whoever_closes_gives_back(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    take(world, first, mine)
    second.ask(AskQuota("1", "api", SLOW))
    world.until(lambda: bool(of(other, QuotaWaits)))
    first.close()
    world.until(lambda: bool(of(other, QuotaGranted)))


def test_places_that_were_reserved_ahead_are_used_and_released(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first, second = world.quota(mine), world.quota(other)
    two = Rate(2, timedelta(hours=1))
    first.ask(AskQuota("1", "api", two, (0, 1000)))
    world.until(lambda: bool(of(mine, QuotaGranted)))
    held = of(mine, QuotaGranted)[0].reservation
    first.spend("api", two, held, started=True)
    second.ask(AskQuota("1", "api", two))
    world.until(lambda: bool(of(other, QuotaWaits)))
    first.ask(AskQuota("2", "api", two, (0, 1000), held))
    world.until(lambda: len(of(mine, QuotaGranted)) == 2)
    first.spend("api", two, held, started=False)
    first.release(held)
    world.until(lambda: bool(of(other, QuotaGranted)))


def test_a_push_back_holds_others_with_its_reason(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.push_back("api", SLOW, timedelta(seconds=3000), because("text", text="Retry-After: 3000"))
    quota.ask(AskQuota("1", "api", SLOW))
    world.until(lambda: bool(of(facts, QuotaWaits)))
    assert text_of(of(facts, QuotaWaits)[0].reason) == "Retry-After: 3000"


def test_a_daemon_that_is_not_there_is_told_once_and_found_again(world: World) -> None:
    world.kill()
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.ask(AskQuota("1", "api", SLOW))
    quota.ask(AskQuota("2", "api", SLOW))
    world.settle()
    assert len(facts) == 1
    assert text_of(facts[0].reason).startswith("cannot reach the rate-limit daemon at `")
    assert text_of(facts[0].reason).endswith(": none is running")
    world.start()
    world.until(lambda: bool(of(facts, QuotaFound)))
    assert take(world, quota, facts, ask="3")


def test_a_daemon_that_dies_while_one_waits_is_told_once(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.spend("api", SLOW, take(world, quota, facts), started=True)
    quota.ask(AskQuota("2", "api", SLOW))
    world.until(lambda: bool(of(facts, QuotaWaits)))
    world.kill()
    world.until(lambda: bool(of(facts, QuotaLost)))
    world.settle()
    assert len(of(facts, QuotaLost)) == 1
    assert text_of(of(facts, QuotaLost)[0].reason).endswith(": it has ended")


def test_the_end_of_a_daemon_that_nobody_waits_for_is_no_news(world: World) -> None:
    facts: list[Fact] = []
    quota = world.quota(facts)
    quota.spend("api", SLOW, take(world, quota, facts), started=True)
    world.settle()
    world.kill()
    world.start()
    world.settle()
    assert of(facts, QuotaLost) == []
    assert take(world, quota, facts, ask="2", rate=Rate(2, SLOW.window))


def test_starts_that_nobody_could_be_told_of_are_told_later(world: World) -> None:
    mine: list[Fact] = []
    other: list[Fact] = []
    first = world.quota(mine)
    world.kill()
    first.ask(AskQuota("1", "api", SLOW))
    first.spend("api", SLOW, None, started=True)
    world.start()
    world.until(lambda: bool(of(mine, QuotaFound)))
    second = world.quota(other)
    second.ask(AskQuota("1", "api", SLOW))
    world.until(lambda: bool(of(other, QuotaWaits)))
