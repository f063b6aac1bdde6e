"""Our client and daemons that speak version 1.0 only: one like the Go tool's, and our own with 1.1 taken away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import Fact, QuotaWarned, RateLimiterDown, SharedLimitGranted, SharedLimitQueued
from repeater.model.reasons import reason as because
from repeater.model.time import rfc3339
from repeater.model.units import parse_rate
from repeater.ratelimitd import protocol
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.persistence import NullLimitStore
from repeater.ratelimitd.server import Server
from repeater.ratelimitd.socket_path import ListeningSocket
from repeater.sentences import sentence
from repeater.system.clock import LoopClock
from repeater.system.ratelimit_client import RateLimitClient

PATIENCE = 30.0


class Old:
    """Answers as the daemon of the Go tool does; `answers` are those to schedule requests, the last one for ever."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.answers = answers
        self.got: list[dict[str, Any]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            message = json.loads(line)
            self.got.append(message)
            writer.write(json.dumps(self._answer(message)).encode() + b"\n")

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["type"]:
            case "handshake" if message["version"] == "1.0":
                return {"type": "handshake_response", "status": "ok", "message": "handshake successful"}
            case "handshake":
                return {"type": "error", "error": "unsupported protocol version: 1.1"}
            case "schedule_request":
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                return {"type": "schedule_response", "status": "ok", "reason": "", **answer}
            case "register_request":
                return {"type": "register_response", "status": "ok", "success": True, "message": ""}
        return {"type": "error", "error": "unknown message type"}


def asked(path: Path, serve: Callable[[], Any], work: Callable[[RateLimitClient, list[Fact], Any], Any]) -> list[Fact]:
    async def main() -> list[Fact]:
        facts: list[Fact] = []
        closing = await serve()
        loop = asyncio.get_running_loop()
        quota = RateLimitClient(facts.append, loop, LoopClock(loop), lambda: path)

        async def until(holds: Callable[[], bool]) -> None:
            end = time.monotonic() + PATIENCE
            while not holds():
                assert time.monotonic() < end, facts
                await asyncio.sleep(0.002)

        await work(quota, facts, until)
        quota.close()
        await closing()
        return facts

    return asyncio.run(main())


def of(facts: list[Fact], kind: type[Any]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def test_a_daemon_of_version_1_0_is_asked_in_its_version(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    soon = {"can_schedule": False, "wait_until": rfc3339(datetime.now(UTC) + timedelta(seconds=0.2))}
    old = Old([soon, {"can_schedule": True, "wait_until": "2026-11-23T15:33:57Z"}])

    async def serve() -> Any:
        server = await asyncio.start_unix_server(old.serve, path)

        async def close() -> None:
            server.close()
            await server.wait_closed()
            await old.close()
            await asyncio.sleep(0.05)

        return close

    async def work(quota: RateLimitClient, facts: list[Fact], until: Any) -> None:
        quota.request(RequestSharedStart("1", "api", parse_rate("2/1h"), (0, 5_000_000)))
        await until(lambda: bool(of(facts, SharedLimitGranted)))
        reservation = of(facts, SharedLimitGranted)[0].reservation
        quota.report_start("api", parse_rate("2/1h"), reservation, started=True)
        quota.request(RequestSharedStart("2", "api", parse_rate("2/1h"), reservation=reservation))
        await until(lambda: len(of(facts, SharedLimitGranted)) == 2)
        quota.report_start("api", parse_rate("2/1h"), None, started=True)
        quota.release(reservation)
        quota.push_back("api", parse_rate("2/1h"), timedelta(seconds=1), because("text", text="429"))
        await until(lambda: [one["type"] for one in old.got].count("register_request") == 2)

    facts = asked(path, serve, work)
    assert not of(facts, RateLimiterDown)
    assert len(of(facts, SharedLimitQueued)) == 1
    assert [sentence(fact.reason) for fact in of(facts, QuotaWarned)] == [
        (
            f"the rate-limit daemon at `{path}` only supports version 1.0: starts are counted with an accuracy of one "
            "second, and unused starts are not returned"
        )
    ]
    kinds = [one["type"] for one in old.got if one["type"] != "handshake"]
    while kinds and kinds[0] == "reserve_request":  # sent before the answer to the first handshake
        del kinds[0]
    assert kinds == ["schedule_request", "schedule_request", "register_request", "register_request"]
    registered = next(one for one in old.got if one["type"] == "register_request")["requests"]
    assert registered[1]["scheduled_at"] - registered[0]["scheduled_at"] == 5
    first = next(one for one in old.got if one["type"] == "schedule_request")
    assert (first["rate_limit"], first["window_ms"], first["retry_offsets"]) == (2, 3_600_000, [0, 5000])


def test_our_daemon_without_version_1_1_holds_the_limit_of_our_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "VERSIONS", ("1.0",))
    path = tmp_path / "d.sock"
    granted: list[float] = []
    began = 0.0

    async def serve() -> Any:
        gate = ListeningSocket(path)
        server = Server(Broker("r"), NullLimitStore(), LoopClock(asyncio.get_running_loop()).now, print)
        server.listen(gate.socket)

        async def close() -> None:
            server.close()
            gate.close()
            await asyncio.sleep(0)

        return close

    async def work(quota: RateLimitClient, facts: list[Fact], until: Any) -> None:
        nonlocal began
        began = time.monotonic()
        for number in range(6):
            quota.request(RequestSharedStart(str(number), "api", parse_rate("2/300ms")))
            await until(lambda number=number: len(of(facts, SharedLimitGranted)) == number + 1)
            granted.append(time.monotonic())
            quota.report_start(
                "api", parse_rate("2/300ms"), of(facts, SharedLimitGranted)[-1].reservation, started=True
            )

    facts = asked(path, serve, work)
    assert not of(facts, RateLimiterDown)
    assert granted[-1] - began >= 2 * 0.3  # two windows lie before the last two of six; heard late is no matter
