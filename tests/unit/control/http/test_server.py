"""The listening end of HTTP on a real socket: who does not ask, and who does not read, is let go."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from repeater.control.http import server as module
from repeater.control.http.server import HttpServer
from repeater.model.reasons import Reason

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Endless:
    """An answer that never ends; `ended` when nobody takes it any more."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(self._gone(receive))
        try:
            while not gone.done():
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
        finally:
            gone.cancel()
            self.ended.set()

    async def _gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.bind(("127.0.0.1", 0))
    door.listen(128)
    door.setblocking(False)
    warned: list[Reason] = []
    others = asyncio.all_tasks()
    server = HttpServer(app, door, warned.append)
    try:
        yield door.getsockname()[1]
    finally:
        server.close()
        if own := asyncio.all_tasks() - others:
            await asyncio.wait(own)
    assert warned == []


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(bounded())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end of the connection."""
    found = b""
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            found += chunk
    return found


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"], ids=["nothing", "half a head"])
def test_a_client_without_a_timely_request_is_disconnected(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN", 0.05)

    async def test() -> None:
        async with listening(plain) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin)
            assert await rest(reader) == b""
            writer.close()

    run(test)


def test_a_client_that_sends_single_bytes_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN", 0.5)
    monkeypatch.setattr(module, "IDLE", 0)

    async def test() -> None:
        async with listening(plain) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            ended = asyncio.ensure_future(rest(reader))
            with suppress(ConnectionError):
                while not ended.done():
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            assert (await ended).endswith(b"ok")
            writer.close()

    run(test)


def test_a_connection_carries_many_requests_also_if_sent_at_once() -> None:
    async def test() -> None:
        async with listening(plain) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK * 20)
            for _ in range(20):
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(test)


def test_a_client_that_reads_no_answer_is_disconnected_and_its_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK", 0.1)

    async def test() -> None:
        app = Endless()
        async with listening(app) as port:
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(ASK)
            await app.ended.wait()
            sock.close()

    run(test)


def test_a_client_that_disconnects_ends_the_work_for_it() -> None:
    async def test() -> None:
        app = Endless()
        async with listening(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            await reader.read(1000)
            writer.transport.abort()
            await app.ended.wait()

    run(test)


def test_a_slow_reader_gets_all_of_it() -> None:
    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async def test() -> None:
        async with listening(long) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(ASK)
            await asyncio.sleep(0.2)
            body = await rest(reader)
            assert body.count(b"x" * 1000) == 100 * 65
            assert body.endswith(b"3\r\nend\r\n0\r\n\r\n")
            writer.close()

    run(test)


def test_signals_and_the_loop_are_not_changed() -> None:
    async def test() -> None:
        before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        async with listening(plain) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            await reader.readuntil(b"ok")
            assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
            timers = [one for one in asyncio.get_running_loop()._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
            assert all(one.when() - asyncio.get_running_loop().time() > 5 for one in timers), timers  # nothing polls
            writer.close()

    run(test)


def test_closing_ends_what_streams_and_frees_the_port() -> None:
    async def test() -> None:
        app = Endless()
        async with listening(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            await reader.read(1000)
        await rest(reader)
        await app.ended.wait()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(test)
