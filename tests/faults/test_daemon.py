"""The rate-limit daemon among hostile, hung and killed neighbours; what holds is read from what processes really did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import (
    Fact,
    QuotaWarned,
    RateLimiterDown,
    RateLimiterUp,
    SharedLimitGranted,
    SharedLimitQueued,
)
from repeater.errors import Unreachable
from repeater.model.units import parse_rate
from repeater.ratelimitd.client import ask_stats
from repeater.system import ratelimit_client as adapter
from repeater.system.clock import LoopClock
from repeater.system.loops.minimal import MinimalLoop
from repeater.system.ratelimit_client import RateLimitClient
from tests.cli.conftest import Rpr
from tests.cli.ratelimitd import PATIENCE, running, until
from tests.fakes.text import text_of


@pytest.fixture
def rpr(tmp_path: Path) -> Rpr:
    return Rpr(tmp_path)


# --- what hostile clients say ----------------------------------------------------------------------------------------

HOSTILE = {
    "garbage": (bytes(range(256)) * 40 + b"\n", "cannot read the message"),
    "no object": (b"[1, 2]\n", "not a JSON object"),
    "no UTF-8": (b'{"type":"\xff"}\n', "it is not valid UTF-8"),
    "deep": (b'{"type":' + b"[" * 60_000 + b"\n", "cannot read the message"),
    "deep and whole": (b'{"type":' + b"[" * 900 + b"]" * 900 + b"}\n", "unknown message type"),
    "twice": (b'{"type":"stats_request","type":"handshake"}\n', "duplicate key"),
    "no number": (b'{"type":"reserve_request","id":"a","resource_id":"x","rate_limit":NaN}\n', "is not a number"),
    "endless number": (b'{"type":"start_notice","resource_id":"x","ago_ms":' + b"9" * 10_000 + b"}\n", "cannot"),
    "huge": (b'{"type":"start_notice","resource_id":"x","ago_ms":1e308}\n', "cannot use `ago_ms`"),
    "unknown": (b'{"type":"shutdown"}\n', "unknown message type"),
    "wrong id": (b'{"type":"release_request","reservation":"../../x"}\n', "unknown reservation"),
    "escapes": (b'{"type":"\\u001b[2J"}\n', "unknown message type"),
    "half a character 1.1": (
        b'{"type":"reserve_request","id":"a","resource_id":"\\ud800","rate_limit":1,"window_ms":1000}\n',
        "cannot use `resource_id`",
    ),
    "half a character 1.0": (
        b'{"type":"schedule_request","resource_id":"\\udfff","rate_limit":1,"window_ms":1000,"request_time":1}\n',
        "cannot use `resource_id`",
    ),
    "half a character at the end": (
        b'{"type":"register_request","requests":[{"resource_id":"a\\ud800","scheduled_at":1}]}\n',
        "cannot use `resource_id`",
    ),
    "too long": (b"x" * 70_000, "more than 65536 bytes"),
}


def test_each_hostile_line_gets_one_clear_error_and_the_daemon_runs_on(rpr: Rpr) -> None:
    with running(rpr) as daemon:
        for name, (line, words) in HOSTILE.items():
            with daemon.client() as client:
                client.send(line)
                answer = client.hear()
                assert answer["type"] == "error", name
                assert words in answer["error"], (name, answer)
                assert answer["error"].isprintable(), name
                assert len(answer["error"]) < 500, name
        for half in (b'{"type":', b"{", b"\x00"):  # and then it is gone
            with daemon.client() as client:
                client.send(half)
        assert daemon.stats()["clients"] >= 1


def test_a_line_of_64_megabytes_costs_no_memory(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon:
        before = daemon.memory()
        with daemon.client() as client:
            sent = 0
            try:
                for _ in range(1024):
                    client.sock.sendall(b"x" * 65536)
                    sent += 1
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 1024
        assert daemon.stats()["status"] == "ok"
        assert daemon.memory() - before < 16 << 20


def test_many_errors_on_one_connection_end_it(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon, daemon.client() as client:
        client.send(b'{"type":"nonsense"}\n' * 100)
        assert client.rest().count(b"unknown message type") == 32


def test_nine_hundred_clients_are_served_at_once(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon:
        name, socks = str(daemon.path), []
        try:
            for _ in range(900):  # this process has a limit of its own
                sock = socket.socket(socket.AF_UNIX)
                socks.append(sock)
                sock.connect(name)  # waits for its turn
                sock.settimeout(PATIENCE)
                sock.sendall(b'{"type":"handshake","version":"1.1"}\n')
            assert all(b'"ok"' in sock.recv(4096) for sock in socks)
        finally:
            for sock in socks:
                sock.close()


def test_random_bytes_never_end_the_daemon(rpr: Rpr) -> None:
    rng = random.Random(3)
    words = [
        b'{"type":"reserve_request"',
        b',"id":"a"',
        b',"resource_id":"x"',
        b"}\n",
        b'"',
        b"1e9",
        b"\n",
        b"[",
        b"null",
    ]
    with running(rpr, "--ephemeral") as daemon:
        for _ in range(60):
            with daemon.client() as client:
                try:
                    client.send(b"".join(rng.choice(words) for _ in range(rng.randrange(1, 30))))
                    client.send(rng.randbytes(rng.randrange(1, 200)))
                except (BrokenPipeError, ConnectionResetError):
                    pass
        assert daemon.stats()["status"] == "ok"
        daemon.stop()


# --- what daemons do to their clients --------------------------------------------------------------------------------


class Silent:
    """A daemon that takes what it gets, and says what it is told to, if anything."""

    def __init__(self, folder: Path, says: bytes = b"") -> None:
        self.path = folder / "d.sock"
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(self.path))
        self._sock.listen(8)
        self._kept: list[socket.socket] = []
        self._says = says
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            self._kept.append(client)
            if self._says:
                client.sendall(self._says)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()
        for client in self._kept:
            client.close()


def heard_from(path: Path, monkeypatch: pytest.MonkeyPatch, wanted: type[Any] = RateLimiterDown) -> list[Fact]:
    """What a client on the small loop of one-off commands is told until it hears of this."""
    monkeypatch.setattr(adapter, "ANSWER_WITHIN", 0.3)
    loop, facts = MinimalLoop(), list[Fact]()

    def tell(fact: Fact) -> None:
        facts.append(fact)
        if isinstance(fact, wanted):
            loop.stop()

    quota = RateLimitClient(tell, loop, LoopClock(loop), lambda: path)
    quota.request(RequestSharedStart("1", "api", parse_rate("1/1h")))
    loop.call_later(PATIENCE, loop.stop)
    loop.run()
    quota.close()
    loop.close()
    return facts


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "it does not answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol mismatch: cannot read the message: "),
        (b'{"type":"error","error":"unknown message type"}\n', "it answers: unknown message type"),
        (b"x" * 1000, "it does not answer"),
        (b'{"type":"handshake_response","status":"ok"}\n', "it does not answer"),
    ],
)
def test_a_daemon_that_hangs_is_given_up_soon_with_one_clear_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: bytes, words: str
) -> None:
    silent = Silent(tmp_path, says)
    try:
        facts = heard_from(silent.path, monkeypatch)
    finally:
        silent.close()
    facts = [fact for fact in facts if not isinstance(fact, QuotaWarned)]  # one of them speaks version 1.0 only
    assert len(facts) == 1
    assert isinstance(facts[0], RateLimiterDown)
    assert text_of(facts[0].reason).startswith(f"cannot reach the rate-limit daemon at `{silent.path}`: {words}")


def test_messages_of_a_daemon_without_a_request_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = (
        b'{"type":"handshake_response","status":"ok","version":"1.1"}\n{"type":"reserve_response","id":"99","status":"waiting"}\n'
        b'{"type":"weather","id":"1"}\n{"type":"reserve_response","id":"1","status":"waiting","wait_ms":"soon"}\n'
        b'{"type":"reserve_response","id":"1","status":"granted","reservation":"r-1"}\n'
    )
    silent = Silent(tmp_path, says)
    try:
        facts = heard_from(silent.path, monkeypatch, SharedLimitGranted)
    finally:
        silent.close()
    assert facts == [SharedLimitGranted("1", "r-1")]


class Faulty:
    """A daemon that greets, and gives `answer` to each other line, or hangs up where that is empty."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        self.path = folder / "d.sock"
        self.lines = 0
        self._answer = answer
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(self.path))
        self._sock.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
                for line in lines:
                    if b"handshake" in line:
                        client.sendall(b'{"type":"handshake_response","status":"ok","version":"1.1"}\n')
                        continue
                    self.lines += 1
                    if not self._answer:
                        break
                    client.sendall(self._answer)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"type":"reserve_response","id":"other","status":"granted","reservation":"r"}\n', "it grants `other`"),
        (b"", "it exited without an answer"),
    ],
    ids=["wrong ids", "hangs up"],
)
def test_a_daemon_that_breaks_the_protocol_gets_fewer_and_fewer_requests(
    tmp_path: Path, answer: bytes, words: str
) -> None:
    faulty = Faulty(tmp_path, answer)
    loop, facts = MinimalLoop(), list[Fact]()

    def tell(fact: Fact) -> None:
        facts.append(fact)
        if isinstance(fact, RateLimiterUp):  # as the engine does
            quota.request(RequestSharedStart(str(len(facts)), "api", parse_rate("1/1h")))

    quota = RateLimitClient(tell, loop, LoopClock(loop), lambda: faulty.path)
    try:
        quota.request(RequestSharedStart("0", "api", parse_rate("1/1h")))
        loop.call_later(4, loop.stop)
        loop.run()
    finally:
        quota.close()
        loop.close()
        faulty.close()
    assert 1 <= faulty.lines < 40
    lost = [fact for fact in facts if isinstance(fact, RateLimiterDown)]
    assert lost
    assert words in str(lost[0].reason)


def test_statistics_of_a_daemon_that_hangs_are_not_waited_for(tmp_path: Path) -> None:
    silent = Silent(tmp_path)
    try:
        with pytest.raises(Unreachable, match="it does not answer"):
            ask_stats(silent.path, patience=0.2)
    finally:
        silent.close()


def test_without_a_daemon_a_command_runs_or_waits_as_its_option_asks(rpr: Rpr) -> None:
    path = rpr.folder / "d.sock"
    shared = ("--daemon", "--resource-id", "api", "--rate", "2/1s", "--daemon-socket", str(path))
    done = rpr("count", "-t", "3", *shared, "--", "echo", "x")
    assert (done.out, done.code) == ("x\n" * 3, 0)
    assert done.err == (
        f"rpr: warning: cannot reach the rate-limit daemon at `{path}`: none is running; "
        "enforcing limit `api` locally until it is back\n"
    )
    closed = rpr.start("count", "-t", "1", *shared, "--fail-closed", "--", "echo", "x")
    assert closed.stderr is not None
    assert "no starts under limit `api` until it is back" in closed.stderr.readline()
    with running(rpr, "--ephemeral"):
        out, err = closed.communicate(timeout=PATIENCE)
    assert (out, closed.returncode) == ("x\n", 0)
    assert err == "rpr: warning: rate-limit daemon reconnected\n"


def test_a_job_shows_which_client_holds_the_slot_it_waits_for(rpr: Rpr) -> None:
    rpr.write(
        "jobs.toml",
        '[limits.api]\nrate = "1/1h"\nshared = true\nfail = "closed"\n'
        '[defaults]\nlimit = "api"\n[jobs.a]\ncommand = "true"\n'
        '[jobs.b]\ncommand = "true"\nneeds = { a = { condition = "completed" } }\n',
    )
    with running(rpr) as daemon:
        env = {"RPR_DAEMON_SOCKET": str(daemon.path)}
        supervisor = rpr.start("apply", "--keep-alive", "jobs.toml", env=env)
        try:

            def why() -> str | None:
                done = rpr("status", "--json", "b")
                return json.loads(done.out)["why"] if done.code == 0 and done.out else None

            found = until(lambda: (why() or "").startswith("limit `api` (1/1h, shared) until") and why())
            assert found
            daemon.stop(signal.SIGKILL)
            until(lambda: "cannot reach the rate-limit daemon" in (why() or ""))
            assert "limit `api` (1/1h, shared): cannot reach the rate-limit daemon" in rpr("why", "b").out
            daemon.start()
            until(lambda: "until" in (why() or ""))
        finally:
            supervisor.terminate()
            supervisor.communicate(timeout=PATIENCE)


def test_fifty_waiting_clients_return_one_by_one_after_a_killed_daemon(rpr: Rpr) -> None:
    """Its ledgers are there again, everybody is told once, and nobody tries more often than a few times."""
    rate, tries = parse_rate("1/1h"), [0] * 50

    async def work() -> None:
        loop = asyncio.get_running_loop()
        facts: list[list[Fact]] = [[] for _ in range(50)]

        def place(number: int) -> Path:
            tries[number] += 1
            return Path(short)

        quotas = [
            RateLimitClient(facts[number].append, loop, LoopClock(loop), lambda number=number: place(number))
            for number in range(50)
        ]

        async def all_hear(kind: type[Any], times: int = 1) -> None:
            end = time.monotonic() + PATIENCE
            while not all(sum(isinstance(one, kind) for one in heard) >= times for heard in facts):
                assert time.monotonic() < end
                await asyncio.sleep(0.01)

        try:
            for quota in quotas:
                quota.request(RequestSharedStart("1", "api", rate))
            await all_hear(SharedLimitQueued)
            await asyncio.to_thread(daemon.stop, signal.SIGKILL)
            await all_hear(RateLimiterDown)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(daemon.start)
            await all_hear(RateLimiterUp)
            for quota in quotas:
                quota.request(RequestSharedStart("2", "api", rate))
            await all_hear(SharedLimitQueued, 2)
        finally:
            for quota in quotas:
                quota.close()
        assert all(sum(isinstance(one, RateLimiterDown) for one in heard) == 1 for heard in facts)
        assert not any(isinstance(one, SharedLimitGranted) for heard in facts for one in heard)

    with running(rpr) as daemon:
        short = str(daemon.path)
        with daemon.client() as client:  # the one start of this hour
            client.send({"type": "start_notice", "reservation": client.reserve("a", rate="1/3600000")["reservation"]})
            until(lambda: daemon.stats()["resources"][0]["starts"] == 1)
        asyncio.run(work())
    assert sum(tries) < 50 * 12


def test_new_tries_are_spread_at_random_and_grow_rarer() -> None:
    delays: list[float] = []

    class Noting(MinimalLoop):
        def call_later(self, delay: float, callback: Any, *args: Any) -> Any:
            delays.append(delay)
            return super().call_later(delay, callback, *args)

    first: list[float] = []
    for _ in range(200):
        loop = Noting()
        quota = RateLimitClient(lambda _: None, loop, LoopClock(loop), lambda: Path("/nonexistent/d.sock"))
        delays.clear()
        quota.request(RequestSharedStart("1", "api", parse_rate("1/1h")))
        first.append(delays[-1])
        for _ in range(8):
            quota._retry = None
            quota._reconnect()
        assert delays[-1] <= adapter.LONGEST_RETRY
        quota.close()
        loop.close()
    tenths = [sum(tenth <= delay * 10 < tenth + 1 for delay in first) for tenth in range(10)]
    assert max(first) <= adapter.FIRST_RETRY
    assert max(tenths) < 45


# --- many processes, by what they did --------------------------------------------------------------------------------


class Lateness(threading.Thread):
    """How late this machine is at the time: what a sleep of 20 ms takes too long, with a process started after it."""

    def __init__(self) -> None:
        super().__init__()
        self._over = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self._over.wait(0.2):
            began = time.monotonic()
            time.sleep(0.02)
            subprocess.run(["true"], check=True)
            self.seconds.append(time.monotonic() - began - 0.02)

    def end(self) -> float:
        """The median."""
        self._over.set()
        self.join()
        return statistics.median(self.seconds)


@pytest.mark.slow
def test_forty_processes_share_a_limit_exactly_and_use_what_it_allows(rpr: Rpr) -> None:
    shared = ("--rate", "10/1s", "--daemon", "--resource-id", "api", "--daemon-socket")
    command = 'echo "$RPR_START_TIME" >> starts'
    with running(rpr) as daemon:
        clients = [
            rpr.start("rate-limit", *shared, str(daemon.path), "--for", "1h", "-q", "--", "/bin/sh", "-c", command)
            for _ in range(40)
        ]
        try:
            until(lambda: daemon.stats()["clients"] >= 40 and daemon.stats()["waiting"] >= 20, "a full row")
            lateness = Lateness()
            lateness.start()
            began = time.time()
            time.sleep(20)
            ended, late = time.time(), lateness.end()
        finally:
            for client in clients:
                client.terminate()
            for client in clients:
                client.communicate(timeout=PATIENCE)
        assert {client.returncode for client in clients} == {143}
    lines = (rpr.folder / "starts").read_text().split()
    starts = sorted(datetime.fromisoformat(line).timestamp() for line in lines)
    closest = min(later - early for early, later in zip(starts, starts[10:], strict=False))
    assert closest >= 1.0, f"{closest:.6f} s"
    used = sum(began <= start < ended for start in starts)
    # from a place that is free to the start in it: the daemon and the client wake up, and a process is started
    allowed = (ended - began) * 10 / (1 + 3 * late)
    assert used >= 0.95 * allowed, f"{used} starts in {ended - began:.1f} s, with {late * 1000:.1f} ms of lateness"


@pytest.mark.skipif(shutil.which("patience") is None, reason="needs the Go tool `patience`")
def test_the_go_tool_patience_is_served(rpr: Rpr) -> None:
    with running(rpr, "--ephemeral") as daemon:
        words = ["patience", "diophantine", "--rate-limit", "2", "--window", "2s", "--retry-offsets", "0"]
        words += ["--daemon", "--daemon-socket", str(daemon.path), "--daemon-auto-start=false", "--resource-id", "api"]
        began = time.monotonic()
        for _ in range(3):
            done = subprocess.run([*words, "--", "true"], env=rpr.env, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr
        assert time.monotonic() - began >= 1.9
        assert daemon.stats()["resources"][0]["starts"] == 3
