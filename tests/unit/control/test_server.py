"""The server alone, with one job behind it: limits, deadlines and hostile clients, on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from repeater.control import server as module
from repeater.control.commands import VERBS
from repeater.control.context import ControlContext, SupervisorInfo
from repeater.control.request_limits import MOST
from repeater.control.server import MOST_IDLE, Server
from repeater.control.unix_socket import ControlSocket, SocketPath
from repeater.errors import ApplyRefused
from repeater.model.events import Warned
from repeater.model.history_meta import HistoryMeta
from repeater.model.reasons import reason as because
from repeater.model.spec import Every
from repeater.model.time import Instant, Mono
from repeater.output.buffer import OutputBuffer
from repeater.output.event_log import EventLog
from repeater.wire.unix import connect
from repeater.wire.unix_listener import CannotListen
from tests.engine.stage import Stage, job
from tests.fakes.spawn import seconds
from tests.fakes.text import text_of


class Bench:
    """A control server with its context. Its jobs are on a stage whose clock does not advance."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage()
        self.stage.apply(job("tick", Every(seconds(10))), job("tock", Every(seconds(10))))
        self.kept = OutputBuffer(self.stage.clock)
        self.journal = EventLog(self.stage.clock)
        self.warned: list[str] = []
        self.left: list[str] = []
        self.door = ControlSocket(SocketPath(folder / "x.sock"))

        async def refuse(*_: Any, **__: Any) -> Any:
            raise ApplyRefused("cannot apply: this is a test")

        def tell(fact: Any) -> None:
            self.stage.tell(fact)
            self.stage.clock.settle()

        self.desk = ControlContext(
            SupervisorInfo("shop", 7, Instant(datetime(2026, 11, 23, tzinfo=UTC), Mono(0))),
            self.stage.engine,
            self.stage.clock,
            tell=tell,
            leave=self.left.append,
            apply=refuse,
            rows=lambda jobs=None, most=100, **filters: list(self.stage.store.find_records(jobs, most, **filters)),
            meta=lambda: HistoryMeta(progress={"tick": self.stage.engine.jobs["tick"].progress}),
            kept=self.kept,
            journal=self.journal,
            troubles=list,
            rejected=lambda: None,
            files=lambda: ("jobs.toml",),
        )
        self.server = Server(self.desk, lambda reason: self.warned.append(str(text_of(reason))))
        self.server.listen(self.door.socket)

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_unix_connection(str(self.door.path))
        return Peer(reader, writer)


class Peer:
    """A client that may do anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, verb: str, **args: Any) -> None:
        self.send(json.dumps({"v": 2, "verb": verb, "args": args}).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None at the end of the connection."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), 10)
        except ConnectionError:
            return None
        return json.loads(line) if line else None

    async def answer(self, verb: str, **args: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        self.ask(verb, **args)
        items = []
        while True:
            message = await self.hear()
            assert message is not None
            if "item" not in message:
                return items, message
            items.append(message["item"])

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - whatever it waits for has no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    built = Bench(folder)
    try:
        yield built
    finally:
        built.server.hang_up()
        built.door.close()
        await asyncio.sleep(0.01)


def live(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run a test with a bench in its own event loop."""

    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            async with bench(tmp_path) as built:
                await asyncio.wait_for(test(built), 30)

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


@live
async def test_status_has_an_item_for_each_job_and_the_supervisor_as_result(bench: Bench) -> None:
    peer = await bench.connect()
    items, end = await peer.answer("status")
    assert [item["job"] for item in items] == ["tick", "tock"]
    assert end["done"]["project"] == "shop"
    await peer.close()


@live
async def test_one_connection_carries_many_requests_also_if_sent_at_once(bench: Bench) -> None:
    peer = await bench.connect()
    for _ in range(20):
        peer.ask("health")
    assert [(await peer.hear())["done"]["ok"] for _ in range(20)] == [True] * 20  # type: ignore[index]
    await peer.close()


@live
async def test_a_client_that_closes_its_sending_side_still_gets_the_answer(bench: Bench) -> None:
    peer = await bench.connect()
    peer.ask("status")
    peer.writer.write_eof()
    heard = []
    while (message := await peer.hear()) is not None:
        heard.append(message)
    assert "done" in heard[-1]
    await peer.close()


@live
async def test_a_line_that_is_not_a_request_is_answered_and_ends_the_connection(bench: Bench) -> None:
    for line in (b"hello\n", b"{}\n", b'{"v":2,"verb":"explode"}\n', b"\xff\n", b"[" * 5000 + b"\n", b"\n"):
        peer = await bench.connect()
        peer.send(line)
        refused = await peer.hear()
        assert refused is not None
        assert refused["error"]["message"].startswith("cannot ")
        assert await peer.hear() is None
        await peer.close()
    await answers(bench)


async def answers(bench: Bench) -> None:
    peer = await bench.connect()
    assert (await peer.answer("health"))[1]["done"]["ok"]
    await peer.close()
    assert bench.warned == []


@live
async def test_a_line_without_end_is_refused_at_its_limit(bench: Bench) -> None:
    peer = await bench.connect()
    peer.send(b'{"v":2,"verb":"status","args":{"jobs":["' + b"x" * (2 << 20))
    refused = await peer.hear()
    assert refused is None or refused["error"]["code"] == "too_long"
    await peer.close()
    await answers(bench)


def hostile() -> list[tuple[str, dict[str, Any]]]:
    """For each argument of each verb some values that fit its kind and mean harm."""
    texts = ["", "nobody", "*" * 4000, "\x1b[2J", "\ud800", "a" * 4096, "../../etc/passwd", "tick@", "?" * 100, "="]
    values: dict[str, list[Any]] = {
        "text": texts,
        "texts": [[text] for text in texts] + [["tick"] * 20_000],
        "pairs": [[["a", text]] for text in texts],
        "flag": [True],
        "count": [0, 1_000_000],
        "seconds": [1e-9, 3e9],
        "time": ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"],
    }
    return [
        (verb, {name: value})
        for verb, entry in VERBS.items()
        for name, kind in entry.params.items()
        for value in values[kind]
        if not (name == "follow" and value)
    ]


@live
async def test_hostile_values_for_every_argument_of_every_verb_get_an_answer(bench: Bench) -> None:
    peer = await bench.connect()
    for verb, args in hostile():
        _, end = await peer.answer(verb, **args)
        assert "done" in end or end["error"]["message"].startswith("cannot "), (verb, args, end)
        assert "internal" not in str(end), (verb, args, end)
    await peer.close()
    assert bench.warned == []


@live
async def test_every_verb_answers_with_nothing_given(bench: Bench) -> None:
    peer = await bench.connect()
    for verb in VERBS:
        _, end = await peer.answer(verb)
        assert "done" in end or end["error"]["code"] == "refused", (verb, end)
    await peer.close()


@live
async def test_verbs_that_change_jobs_need_a_job(bench: Bench) -> None:
    peer = await bench.connect()
    for verb in ("trigger", "pause", "resume", "start", "stop", "restart", "reset"):
        _, end = await peer.answer(verb)
        assert end["error"]["message"] == "cannot choose a job: no job given"
    await peer.close()


@live
async def test_the_client_that_is_idle_for_longest_makes_room_for_another_one(bench: Bench) -> None:
    peers = [await bench.connect() for _ in range(MOST_IDLE)]
    for peer in peers:
        assert (await peer.answer("health"))[1]["done"]["ok"]
    assert (await peers[0].answer("health"))[1]["done"]["ok"]
    late = await bench.connect()
    assert (await late.answer("health"))[1]["done"]["ok"]
    assert await peers[1].hear() is None
    for peer in (peers[0], *peers[2:]):
        assert (await peer.answer("health"))[1]["done"]["ok"]
    for peer in (*peers, late):
        await peer.close()


@live
async def test_streams_have_their_own_limit_and_take_no_place_of_a_request(bench: Bench) -> None:
    bench.journal(Warned("tick", "so that a stream has something to send at once"))
    streams = [await bench.connect() for _ in range(MOST["stream"])]
    for stream in streams:
        stream.ask("events", follow=True, tail=1)
    late = await bench.connect()
    for stream in streams:
        assert await stream.hear() is not None
    late.ask("events", follow=True)
    refused = await late.hear()
    assert refused is not None
    assert refused["error"]["code"] == "busy"
    await answers(bench)
    await streams.pop().close()
    await asyncio.sleep(0.05)
    again = await bench.connect()
    again.ask("events", follow=True)
    await asyncio.sleep(0.05)
    assert bench.server._load._open == {"request": 0, "stream": MOST["stream"]}
    for peer in (*streams, late, again):
        await peer.close()


def test_slow_lines_and_clients_without_a_request_are_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_WITHIN", 0.2)
    monkeypatch.setattr(module, "IDLE", 0.4)

    async def test() -> None:
        async with bench(tmp_path) as built:
            idle, dripping = await built.connect(), await built.connect()
            began = asyncio.get_running_loop().time()
            for letter in b'{"v":2,"verb"':
                dripping.send(bytes([letter]))
                await asyncio.sleep(0.03)
            assert await dripping.hear() is None
            assert await idle.hear() is None
            assert 0.3 < asyncio.get_running_loop().time() - began < 5
            for peer in (idle, dripping):
                await peer.close()
            await answers(built)

    asyncio.run(test())


def test_a_listing_for_a_client_that_takes_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK", 0.2)

    async def test() -> None:
        async with bench(tmp_path) as built:
            built.kept.begin("1", "tick", 4 << 20)
            for _ in range(100):
                built.kept.add("1", "stdout", b"x" * 30_000 + b"\n")
            sock = connect(built.door.path, 5)
            sock.sendall(b'{"v":2,"verb":"logs"}\n')
            while built.server._clients:  # noqa: ASYNC110 - what is looked at tells nobody
                await asyncio.sleep(0.01)
            sock.close()
            await answers(built)

    asyncio.run(test())


@live
async def test_shutdown_waits_for_a_long_answer_and_not_for_a_follower(
    bench: Bench,
) -> None:
    bench.kept.begin("1", "tick", 4 << 20)
    for _ in range(30):
        bench.kept.add("1", "stdout", b"x" * 30_000 + b"\n")
    follower, reader, writer = (
        await bench.connect(),
        *await asyncio.open_unix_connection(str(bench.door.path), limit=1 << 22),
    )
    follower.ask("events", follow=True)
    peer = Peer(reader, writer)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    peer.ask("logs")
    await asyncio.sleep(0.05)
    assert bench.desk.at_hand, "the answer has to be too long to wait in the socket"
    asyncio.get_running_loop().call_later(0.1, writer.transport.resume_reading)  # type: ignore[attr-defined]
    await asyncio.wait_for(bench.desk.in_flight_done(), 10)
    await asyncio.wait_for(bench.server.sent(), 10)
    bench.server.hang_up()
    messages = [json.loads(line) for line in (await reader.read()).splitlines()]
    assert sum(len(message["item"]["text"]) for message in messages[:-1]) == 30 * 30_001
    assert "done" in messages[-1]
    await peer.close()
    await follower.close()


@live
async def test_a_slow_listener_loses_output_and_the_amount_is_reported(bench: Bench) -> None:
    sock = connect(bench.door.path, 5)
    sock.sendall(b'{"v":2,"verb":"logs","args":{"follow":true}}\n')
    await asyncio.sleep(0.05)
    bench.kept.begin("1", "tick", 0)
    for _ in range(200):
        bench.kept.add("1", "stdout", b"y" * 60_000 + b"\n")  # as quickly as a job can; nobody waits
    sock.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=1 << 22)
    peer, got, lost = Peer(reader, writer), 0, 0
    while got + lost < 200 * 60_001:
        message = await peer.hear()
        assert message is not None
        lost += message["item"].get("lost", 0)
        got += len(message["item"].get("text", ""))
    assert lost > 0
    assert got >= 60_001
    await peer.close()


@live
async def test_output_reaches_a_listener_at_once_and_only_that_of_its_job(bench: Bench) -> None:
    peer = await bench.connect()
    bench.kept.begin("1", "tick", 100)
    bench.kept.begin("2", "tock", 100)
    bench.kept.add("1", "stdout", b"before\n")
    peer.ask("logs", jobs=["tick"], follow=True)
    assert (await peer.hear())["item"]["text"] == "before\n"  # type: ignore[index]
    bench.kept.add("2", "stdout", b"other\n")
    bench.kept.add("1", "stderr", b"\xff\n")
    item = (await peer.hear())["item"]  # type: ignore[index]
    assert (item["job"], item["stream"], item["base64"]) == ("tick", "stderr", "/wo=")
    await peer.close()
    await until(lambda: bench.kept._listeners == [])


@live
async def test_events_follow_and_tail(bench: Bench) -> None:
    peer = await bench.connect()
    for number in range(5):
        bench.journal(Warned("tick", because("text", text=str(number))))
    items, _ = await peer.answer("events", tail=2)
    assert [item["reason"] for item in items] == ["3", "4"]
    peer.ask("events", follow=True, tail=0, jobs=["tick"])
    await until(lambda: len(bench.journal._listeners) == 1)
    bench.journal(Warned("tock", because("text", text="no")))
    bench.journal(Warned("tick", because("text", text="yes")))
    assert (await peer.hear())["item"]["reason"] == "yes"  # type: ignore[index]
    await peer.close()
    await until(lambda: bench.journal._listeners == [])


@live
async def test_a_fault_after_an_answer_ends_its_connection_only(bench: Bench) -> None:
    first, second = await bench.connect(), await bench.connect()
    assert (await second.answer("health"))[1]["done"]["ok"]
    entrance = bench.server._entrance
    assert entrance is not None
    idle = entrance.idle
    faults = iter([True])

    def fail_once(client: Any) -> None:
        if next(faults, False):
            raise ZeroDivisionError
        idle(client)

    entrance.idle = fail_once  # type: ignore[method-assign]
    assert (await first.answer("health"))[1]["done"]["ok"]
    assert await first.hear() is None
    assert (await second.answer("health"))[1]["done"]["ok"]
    assert len(bench.warned) == 1
    await first.close()
    await second.close()


@live
async def test_a_fault_in_a_verb_is_reported_and_contained(bench: Bench) -> None:
    peer = await bench.connect()
    bench.desk.troubles = lambda: 1 / 0  # type: ignore[assignment, return-value]
    _, end = await peer.answer("health")
    assert "internal error: ZeroDivisionError" in end["error"]["message"]
    assert "ZeroDivisionError" in bench.warned[0]
    bench.desk.troubles = list
    assert (await peer.answer("health"))[1]["done"]["ok"]
    await peer.close()


def test_another_user_is_sent_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as built:
            built.server._users = frozenset({os.geteuid() + 1})
            peer = await built.connect()
            refused = await peer.hear()
            assert refused is not None
            assert refused["error"]["code"] == "forbidden"
            assert await peer.hear() is None
            await peer.close()

    asyncio.run(test())


# --- the door -------------------------------------------------------------------------------------------------------


def test_the_socket_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        door = ControlSocket(SocketPath(tmp_path / "new" / "x.sock"))
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "x.sock").stat().st_mode & 0o777 == 0o600
    door.close()
    assert not (tmp_path / "new" / "x.sock").exists()


def test_a_socket_of_a_crashed_supervisor_is_replaced_and_a_live_one_kept(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "x.sock"))
    dead.close()
    door = ControlSocket(SocketPath(tmp_path / "x.sock"))
    with pytest.raises(CannotListen, match="in use by another supervisor"):
        ControlSocket(SocketPath(tmp_path / "x.sock"))
    connect(tmp_path / "x.sock", 1).close()
    door.close()


def test_a_path_that_is_too_long_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(4):
        folder = folder / ("d" * 60)
        folder.mkdir()
    door = ControlSocket(SocketPath(folder / "x.sock", tmp_path / "link.sock"))
    connect(folder / "x.sock", 1).close()
    connect(tmp_path / "link.sock", 1).close()
    door.close()
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "link.sock").is_symlink()


def test_a_folder_that_is_a_link_or_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CannotListen, match="it is a symbolic link"):
        ControlSocket(SocketPath(tmp_path / "link" / "x.sock"))
    assert list((tmp_path / "real").iterdir()) == []
    if os.geteuid() == 0:
        os.chown(tmp_path / "real", 12345, -1)
        with pytest.raises(CannotListen, match="belongs to user 12345"):
            ControlSocket(SocketPath(tmp_path / "real" / "x.sock"))


def test_a_place_that_cannot_be_is_one_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotListen, match="cannot use directory"):
        ControlSocket(SocketPath(tmp_path / "file" / "x.sock"))
    with pytest.raises(CannotListen, match="cannot listen on"):
        ControlSocket(SocketPath(tmp_path / ("n" * 200 + ".sock")))
