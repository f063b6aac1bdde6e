"""Floods, resets and raw bytes against the listening sockets of a real supervisor, while a good client asks.

`python -m tests.fuzz door --seconds N` runs it for as long as one likes, `test_door.py` for a few seconds. The attacks
are a process of their own, so that they do not slow down the good client.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Rpr
from tests.faults.door_load import HEAD, Site, is_answered, reset
from tests.faults.ground import Ground, wait_for
from tests.fuzz.targets import WORDS, seeds

THREADS = 4
MOST_HELD = 150
"""Connections that each attacking thread keeps open."""


class Attacker:
    """One thread of attacks against one supervisor."""

    def __init__(self, seed: int, port: int, control: str) -> None:
        self._chance = random.Random(seed)
        self._port = port
        self._control = control
        self._held: list[socket.socket] = []
        self._seeds = {"http": [one[1:] for one in seeds("http")], "control": [b'{"v":2,"verb":"status","args":{}}\n']}
        self.count = 0

    def work(self, until: float) -> None:
        attacks = (self._raw, self._almost, self._almost, self._reset, self._hold, self._burst, self._deaf)
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._chance.choice(attacks)()
            self.count += 1
        for sock in self._held:
            sock.close()

    def _connect(self) -> socket.socket:
        if self._chance.random() < 0.3:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(1)
            sock.connect(self._control)
            return sock
        return socket.create_connection(("127.0.0.1", self._port), timeout=1)

    def _send(self, data: bytes) -> None:
        sock = self._connect()
        with contextlib.suppress(OSError):
            sock.sendall(data)
        if self._chance.random() < 0.3:
            reset(sock)
        elif self._chance.random() < 0.5:
            self._keep(sock)
        else:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(0.2)
                sock.recv(4096)
            sock.close()

    def _keep(self, sock: socket.socket) -> None:
        self._held.append(sock)
        while len(self._held) > MOST_HELD:
            self._held.pop(self._chance.randrange(len(self._held))).close()

    def _raw(self) -> None:
        self._send(self._chance.randbytes(self._chance.choice((1, 100, 10_000, 200_000))))

    def _almost(self) -> None:
        from tests.fuzz.__main__ import mutated

        self._send(mutated(self._chance, self._seeds[self._chance.choice(("http", "control"))], WORDS))

    def _reset(self) -> None:
        for _ in range(20):
            reset(self._connect())

    def _hold(self) -> None:
        for _ in range(20):
            sock = self._connect()
            sock.send(HEAD[: self._chance.randrange(len(HEAD))] or b"G")
            self._keep(sock)

    def _burst(self) -> None:
        socks = []
        for _ in range(200):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self._port))
            socks.append(sock)
        time.sleep(self._chance.random() * 0.1)
        for sock in socks:
            (reset if self._chance.random() < 0.5 else socket.socket.close)(sock)

    def _deaf(self) -> None:
        sock = self._connect()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.send(HEAD * 5000)
        self._keep(sock)


def attack(seconds: float, seed: int, port: int, control: str) -> int:
    """Attack for a time; the number of attacks."""
    attackers = [Attacker(seed + number, port, control) for number in range(THREADS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=one.work, args=(until,)) for one in attackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(one.count for one in attackers)


def fuzz(folder: Path, seconds: float, seed: int, within: float) -> str:
    """Attack a supervisor of its own in `folder`. Raises AssertionError if a good client waited longer than `within`
    seconds, or if the supervisor or its jobs were harmed. Returns what was measured, in words.
    """
    ground = Ground(Rpr(folder))
    try:
        return _fuzz(ground, seconds, seed, within)
    finally:
        ground.end()


def _fuzz(ground: Ground, seconds: float, seed: int, within: float) -> str:
    site = Site(ground)
    before = site.run.holds()
    words = [sys.executable, "-m", "tests.fuzz.door", str(seconds), str(seed), str(site.address[1]), site.control]
    attacks = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    waits: list[float] = []
    asks: tuple[Callable[[], bool], ...] = (
        lambda: site.get("/livez", timeout=within) == (200, "ok\n"),
        lambda: site.get("/readyz", timeout=within)[0] in {200, 503},
        lambda: site.get("/api/jobs", timeout=within)[0] == 200,
        lambda: _status(site.control, within),
    )
    try:
        while attacks.poll() is None:
            waits += [is_answered(ask, within) for ask in asks]
            time.sleep(0.02)
        told = attacks.communicate()[0].decode()
    finally:
        attacks.kill()
        attacks.wait()
        assert attacks.stdout is not None
        attacks.stdout.close()
    assert attacks.returncode == 0
    site.goes_on()
    wait_for(lambda: site.run.holds().descriptors <= before.descriptors + 4, "no descriptor is kept")
    grown = site.run.holds().memory - before.memory
    assert grown < 100e6, f"{grown} bytes more"
    waits.sort()
    middle, most = waits[len(waits) // 2] * 1000, waits[-1] * 1000
    return f"{told.strip()} attacks, {len(waits)} answers: median {middle:.1f} ms, longest {most:.0f} ms"


def _status(path: str, within: float) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(within)
        sock.connect(path)
        sock.sendall(json.dumps({"v": 2, "verb": "health", "args": {}}).encode() + b"\n")
        return b'"done"' in sock.recv(1 << 16)


def alone(seconds: float, seed: int | None) -> bool:
    """For `python -m tests.fuzz`: whether anything was found. A good client must be answered within a second."""
    seed = random.randrange(1 << 32) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="rpr-fuzz-") as folder:
        os.environ.setdefault("TMPDIR", tempfile.gettempdir())
        os.environ.setdefault("REPEATER_TEST_SESSION", uuid.uuid4().hex)
        try:
            print(f"door: {fuzz(Path(folder), seconds, seed, 1.0)} (seed {seed})", flush=True)
        except AssertionError as error:
            print(f"door: FOUND (seed {seed}): {error}", flush=True)
            return True
    return False


if __name__ == "__main__":
    print(attack(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
