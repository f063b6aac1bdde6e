"""A rate-limit daemon in memory, and clients of it: the real book, on a virtual clock, without a socket.

Passes the contract of `system.ratelimit_client` in `tests/contract`. A daemon can be killed and started again; its clients find
it again after one second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import Fact, RateLimiterDown, RateLimiterUp, SharedLimitGranted, SharedLimitQueued
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import to_us
from repeater.model.units import Rate
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.persistence import AttemptDeleted, AttemptRecord, AttemptsPruned, ResourceRecord
from repeater.ratelimitd.protocol import read_message
from repeater.sentences import sentence
from repeater.wire.json_lines import BadMessage
from tests.fakes.clock import FakeAlarm, FakeClock

RETRY = 1_000_000


class FakeDaemon:
    """`running` False: nobody is there. `refused` are the messages that the book could not carry out."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.running = True
        self.refused: list[str] = []
        self.book = Broker("0")
        self._lives = 0
        self._clients: dict[int, FakeQuota] = {}
        self._alarm: FakeAlarm | None = None
        self._known: dict[str, ResourceRecord] = {}
        self._kept: dict[int, AttemptRecord] = {}

    def kill(self) -> None:
        """It is gone without a word; what it had kept is there for its next life."""
        self.running = False
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.cut()

    def start(self) -> None:
        self._lives += 1
        self.book = Broker(str(self._lives))
        self.book.restore(self._known.values(), self._kept.values(), self.clock.now())
        self.running = True
        self._settle()

    def connect(self, number: int, client: FakeQuota) -> None:
        self._clients[number] = client
        self.book.connect(number)

    def disconnect(self, number: int) -> None:
        if self._clients.pop(number, None) is not None:
            self.book.disconnect(number, self.clock.now())
            self._settle()

    def take(self, number: int, kind: str, **fields: Any) -> None:
        line = json.dumps({"type": kind, **fields}).encode()
        try:
            self.book.handle(number, read_message(line), self.clock.now())
        except BadMessage as error:
            self.refused.append(f"{kind}: {error.message}")
            self._clients[number].hear({"type": "error", "error": error.message, "id": fields.get("id")})
        self._settle()

    def _settle(self) -> None:
        self.book.advance_to(self.clock.now())
        for change in self.book.changes:
            match change:
                case ResourceRecord(name):
                    self._known[name] = change
                case AttemptRecord(row):
                    self._kept[row] = change
                case AttemptDeleted(row):
                    self._kept.pop(row, None)
                case AttemptsPruned(name, until):
                    self._kept = {row: one for row, one in self._kept.items() if one.resource != name or one.at > until}
        self.book.changes = []
        said, self.book.outbox = self.book.outbox, []
        for number, line in said:
            if number in self._clients:
                self._clients[number].hear(json.loads(line))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self.book.next_due()
        if due is not None and self.running:
            self._alarm = self.clock.call_after(max(0, due - self.clock.now().mono), self._settle)


class FakeQuota:
    """`ports.SharedRateLimiter` of one process."""

    _numbers = 0

    def __init__(self, daemon: FakeDaemon, tell: Callable[[Fact], None]) -> None:
        FakeQuota._numbers += 1
        self._number = FakeQuota._numbers
        self._daemon = daemon
        self._tell = tell
        self._is_there = self._is_lost = False
        self._asked: dict[str, RequestSharedStart] = {}
        self._untold: list[tuple[int, dict[str, Any]]] = []

    def request(self, ask: RequestSharedStart) -> None:
        if self._is_lost:
            return
        self._asked[ask.id] = ask
        if self._reach():
            more: dict[str, Any] = {"retry_offsets": [offset // 1000 for offset in ask.offsets]}
            if ask.reservation is not None:
                more["reservation"] = ask.reservation
            self._daemon.take(
                self._number, "reserve_request", id=ask.id, resource_id=ask.limit, **_rate(ask.rate), **more
            )
        else:
            self._lose("none is running")

    def withdraw(self, ask: str) -> None:
        if self._asked.pop(ask, None) is not None and self._is_there:
            self._daemon.take(self._number, "release_request", id=ask)

    def report_start(self, limit: str, rate: Rate, reservation: str | None, *, started: bool) -> None:
        fields = {"resource_id": limit, **_rate(rate), "started": started}
        if reservation is not None:
            fields["reservation"] = reservation
        if not self._is_lost and self._reach():
            self._daemon.take(self._number, "start_notice", **fields)
        elif started:
            self._untold.append((self._daemon.clock.now().mono, fields))

    def release(self, reservation: str) -> None:
        if self._is_there:
            self._daemon.take(self._number, "release_request", reservation=reservation)

    def push_back(self, limit: str, rate: Rate, delay: timedelta, reason: Reason) -> None:
        if not self._is_lost and self._reach():
            delay_ms = to_us(delay) // 1000
            self._daemon.take(
                self._number,
                "push_back_notice",
                resource_id=limit,
                **_rate(rate),
                delay_ms=delay_ms,
                reason=sentence(reason),
            )

    def close(self) -> None:
        if self._is_there:
            self._is_there = False
            self._daemon.disconnect(self._number)

    def hear(self, told: dict[str, Any]) -> None:
        if told["type"] == "reserve_response" and told["status"] == "granted":
            if self._asked.pop(told["id"], None) is None:
                self.release(told["reservation"])
            else:
                self._tell(SharedLimitGranted(told["id"], told["reservation"]))
        elif told["type"] == "reserve_response":
            self._tell(
                SharedLimitQueued(told["id"], timedelta(milliseconds=told["wait_ms"]), _text(told.get("reason")))
            )
        elif told["type"] == "error" and told["id"] in self._asked:
            self._lose(f"it answers: {told['error']}")

    def cut(self) -> None:
        """The daemon is gone."""
        self._is_there = False
        if self._asked:
            self._lose("it has exited")

    def _reach(self) -> bool:
        if not self._is_there and self._daemon.running:
            self._is_there = True
            self._daemon.connect(self._number, self)
            untold, self._untold = self._untold, []
            for at, fields in untold:
                ago = (self._daemon.clock.now().mono - at) / 1000
                self._daemon.take(self._number, "start_notice", **fields, ago_ms=ago)
        return self._is_there

    def _lose(self, cause: str) -> None:
        self._asked.clear()
        if not self._is_lost:
            self._is_lost = True
            self._tell(RateLimiterDown(because("quota_unreachable", path="fake", error=cause)))
            self._daemon.clock.call_after(RETRY, self._try_again)

    def _try_again(self) -> None:
        if self._reach():
            self._is_lost = False
            self._tell(RateLimiterUp())
        else:
            self._daemon.clock.call_after(RETRY, self._try_again)


def _rate(rate: Rate) -> dict[str, int]:
    return {"rate_limit": rate.count, "window_ms": to_us(rate.window) // 1000}


def _text(text: str | None) -> Reason | None:
    return because("text", text=text) if text else None
