"""The server and clients that are slow, loud or gone, and with deadlines that a test can wait for."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from repeater.ratelimitd import server as served
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.persistence import AttemptRecord, Change, NullLimitStore
from repeater.ratelimitd.server import Server
from repeater.ratelimitd.socket_path import ListeningSocket
from repeater.sentences import sentence
from repeater.system.clock import LoopClock

PATIENCE = 30.0


class Failing(NullLimitStore):
    """A disk that is full until somebody makes room."""

    def __init__(self) -> None:
        self.full = False
        self.kept: list[Change] = []

    def apply(self, changes: Any) -> None:
        if self.full:
            raise OSError(28, "no space left")
        self.kept += changes


class Bench:
    def __init__(self, server: Server, path: Path, warnings: list[str]) -> None:
        self.server = server
        self.path = path
        self.warnings = warnings

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=1 << 24)


@asynccontextmanager
async def bench(folder: Path, **keys: Any) -> AsyncIterator[Bench]:
    path, warnings = folder / "d.sock", []
    clock = LoopClock(asyncio.get_running_loop())
    gate = ListeningSocket(path)
    server = Server(
        Broker("r"),
        keys.pop("keeping", NullLimitStore()),
        clock.now,
        lambda reason: warnings.append(sentence(reason)),
        **keys,
    )
    server.listen(gate.socket)
    try:
        yield Bench(server, path, warnings)
    finally:
        server.close()
        gate.close()
        await asyncio.sleep(0)


async def rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionError:
        return b""


def run(work: Any) -> None:
    asyncio.run(work)


STATS = b'{"type":"stats_request"}\n'


def test_a_line_that_arrives_too_slowly_ends_only_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(served, "LINE_WITHIN", 0.2)
        async with bench(tmp_path) as there:
            reader, writer = await there.client()
            dripped = 0
            while not reader.at_eof() and dripped < 2000:
                writer.write(b" ")
                dripped += 1
                await asyncio.sleep(0.01)
                if reader.at_eof() or writer.is_closing():
                    break
            assert dripped < 2000
            writer.close()
            reader, writer = await there.client()
            writer.write(STATS)
            assert b"stats_response" in await asyncio.wait_for(reader.readline(), PATIENCE)
            writer.close()

    run(work())


def test_an_idle_client_is_disconnected_and_a_waiting_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(served, "IDLE", 0.1)
        async with bench(tmp_path) as there:
            idle, idle_writer = await there.client()
            idle_writer.write(STATS)
            ask = {"type": "reserve_request", "id": "a", "resource_id": "x", "rate_limit": 1, "window_ms": 3600_000}
            holder, holder_writer = await there.client()
            holder_writer.write(json.dumps(ask).encode() + b"\n")
            waiter, waiter_writer = await there.client()
            waiter_writer.write(json.dumps(ask).encode() + b"\n")
            assert b"stats_response" in await rest(idle)
            await asyncio.sleep(0.3)
            assert b"granted" in await asyncio.wait_for(holder.readline(), PATIENCE)
            assert b"waiting" in await asyncio.wait_for(waiter.readline(), PATIENCE)
            assert not holder.at_eof()
            assert not waiter.at_eof()
            for writer in (idle_writer, holder_writer, waiter_writer):
                writer.close()

    run(work())


def test_a_client_that_reads_no_answers_is_disconnected_in_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with bench(tmp_path) as there:
            deaf = socket.socket(socket.AF_UNIX)
            deaf.connect(str(there.path))
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()

            async def flood() -> None:
                while True:
                    await loop.sock_sendall(deaf, STATS * 200)
                    await asyncio.sleep(0)

            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await asyncio.wait_for(flood(), PATIENCE)
            deaf.close()

    run(work())


def test_a_client_that_holds_nothing_makes_room_for_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(served, "MOST_CLIENTS", 3)
        async with bench(tmp_path) as there:
            kept = [await there.client() for _ in range(3)]
            for reader, writer in kept:
                writer.write(STATS)
                await asyncio.wait_for(reader.readline(), PATIENCE)
            reader, writer = await there.client()
            writer.write(STATS)
            assert b"stats_response" in await asyncio.wait_for(reader.readline(), PATIENCE)
            assert await rest(kept[0][0]) == b""  # it was silent for longest
            kept[1][1].write(STATS)
            assert b"stats_response" in await asyncio.wait_for(kept[1][0].readline(), PATIENCE)
            for _, one in (*kept, (reader, writer)):
                one.close()

    run(work())


def test_clients_with_grants_beyond_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(served, "MOST_CLIENTS", 3)
        monkeypatch.setattr(served.Server, "holds", lambda *_: True)
        async with bench(tmp_path) as there:
            kept = [await there.client() for _ in range(3)]
            for reader, writer in kept:
                writer.write(STATS)
                await asyncio.wait_for(reader.readline(), PATIENCE)
            reader, writer = await there.client()
            assert b"cannot serve more than 3 clients" in await rest(reader)
            for _, one in (*kept, (reader, writer)):
                one.close()

    run(work())


def test_an_internal_error_in_a_request_ends_only_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    async def work() -> None:
        async with bench(tmp_path) as there:
            other, other_writer = await there.client()
            other_writer.write(STATS)
            await asyncio.wait_for(other.readline(), PATIENCE)
            monkeypatch.setattr(Broker, "_release", fail)
            reader, writer = await there.client()
            writer.write(b'{"type":"release_request","id":"x"}\n')
            assert b'"error":"internal error"' in await rest(reader)
            other_writer.write(STATS)
            assert b"stats_response" in await asyncio.wait_for(other.readline(), PATIENCE)
            assert "ZeroDivisionError('on purpose')" in there.warnings[0]
            for one in (writer, other_writer):
                one.close()

    run(work())


def test_another_user_is_sent_away(tmp_path: Path) -> None:
    async def work() -> None:
        async with bench(tmp_path, users=frozenset({12345})) as there:
            reader, writer = await there.client()
            assert b"this daemon belongs to another user" in await rest(reader)
            writer.close()

    run(work())


def test_a_full_disk_stops_no_start_and_all_is_written_later(tmp_path: Path) -> None:
    async def work() -> None:
        keeping = Failing()
        async with bench(tmp_path, keeping=keeping) as there:
            reader, writer = await there.client()

            async def reserve(number: int) -> None:
                ask = {"type": "reserve_request", "id": str(number), "resource_id": "x"}
                writer.write(json.dumps({**ask, "rate_limit": 9, "window_ms": 1000}).encode() + b"\n")
                assert b"granted" in await asyncio.wait_for(reader.readline(), PATIENCE)

            keeping.full = True
            await reserve(1)
            await reserve(2)
            assert there.warnings == ["cannot write the database: [Errno 28] no space left; counts are in memory only"]
            writer.write(STATS)
            assert json.loads(await reader.readline())["problems"] == [
                "cannot write the database: [Errno 28] no space left"
            ]
            keeping.full = False
            await reserve(3)
            assert there.warnings[1:] == ["the database can be written again"]
            assert sum(isinstance(change, AttemptRecord) for change in keeping.kept) == 3
            writer.close()

    run(work())
