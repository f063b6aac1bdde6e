"""Limits of starts: how many decisions a second, and how many round trips a second to the daemon.

Decisions: 5000 starts an hour with the window full, on a virtual clock: every 0.72 s one start is let through and the
next one is refused. The contenders are the moving window of `limits` in memory, and the rule of the Go original, which
counts the window at every attempt: quadratic, here in Python, so it is the rule that is compared and not the language.

Round trips: a reservation and the notice of its start; all clients are in one process, each waits for its answer before
it goes on.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import cpu_seconds, running
from bench.peers import Tools

_OURS = """
from repeater.policy.limit import SlidingWindow
ledger, now, step = SlidingWindow(COUNT, 3_600_000_000), 0, 3_600_000_000 // COUNT
def fill():
    global now
    now += step
    ledger.record(now)
def decide():
    global now
    now += step
    ticket = ledger.admit(now)
    ledger.started(ticket, now)
    assert isinstance(ledger.admit(now), int)
"""
_LIMITS = """
import limits, limits.storage.memory as memory
now, step = 0.0, 3600 / COUNT
class Clock:
    time = staticmethod(lambda: now)
memory.time = Clock
limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
rate = limits.RateLimitItemPerHour(COUNT)
def decide():
    global now
    now += step * 1.000001
    assert limiter.hit(rate, "api")
    if full:
        assert not limiter.hit(rate, "api")
fill = decide
"""
_QUADRATIC = """
now, step, window, known = 0, 3_600_000_000 // COUNT, 3_600_000_000, []
def fits(at):
    every = sorted([*known, at])
    for first, begin in enumerate(every):
        held = 0
        for later in every[first:]:
            if later >= begin + window:
                break
            held += 1
        if held > COUNT:
            return False
    return True
def decide():
    global now
    now += step
    if full:
        while known and known[0] <= now - window:
            del known[0]
        assert fits(now)
    known.append(now)
    if full:
        assert not fits(now)
fill = decide
"""
_MEASURE = """
import time
full = False
for _ in range(COUNT):
    fill()
full = True
done, began = 0, time.perf_counter()
while (took := time.perf_counter() - began) < SECONDS or not done:
    decide()
    done += 2
print(done / took)
"""
_CLIENTS = """
import json, select, socket, time
clients = {}
for number in range(COUNT):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect("d.sock")
    clients[sock.fileno()] = sock
poll = select.epoll()
ask = '{"type":"reserve_request","id":"%d","resource_id":"api","rate_limit":1000000,"window_ms":1000}\\n'
for fd in clients:
    poll.register(fd, select.EPOLLIN)
    clients[fd].sendall((ask % 0).encode())
done, began = 0, time.perf_counter()
while (took := time.perf_counter() - began) < SECONDS:
    for fd, _ in poll.poll(1):
        told = json.loads(clients[fd].recv(4096))
        assert told["status"] == "granted"
        done += 1
        notice = '{"type":"start_notice","reservation":"%s"}\\n' % told["reservation"]
        clients[fd].sendall((notice + ask % done).encode())
print(done / took)
"""


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    count, seconds = size(5000, 50), size(2.0, 0.1)
    return {
        "decisions": Bench(
            f"a limit of {count} starts an hour, its window full",
            {
                "repeater": decides(kit.python, _OURS, count, seconds),
                "limits": decides(kit.peer("python"), _LIMITS, count, seconds),
                "quadratic rule": decides(kit.python, _QUADRATIC, count, seconds),
            },
            (Goal("decisions", least=1, of="limits"), Goal("decisions", least=100, of="quadratic rule")),
        ),
        "daemon": Bench(
            "round trips to the rate-limit daemon, a reservation and a notice each",
            {"repeater": lambda folder: round_trips(kit, folder, seconds)},
        ),
    }


def decides(python: str, script: str, count: int, seconds: float) -> Callable[[Path], Reading]:
    def measure(folder: Path) -> Reading:
        text = f"COUNT, SECONDS = {count}, {seconds}\n{script}{_MEASURE}"
        done = subprocess.run([python, "-c", text], cwd=folder, check=True, capture_output=True, text=True)
        return {"decisions": (float(done.stdout), "/s")}

    return measure


def round_trips(kit: Tools, folder: Path, seconds: float) -> Reading:
    argv = [kit.rpr, "daemon", "--socket", "d.sock", "--state-dir", str(folder / "state")]
    found: dict[str, tuple[float, str]] = {}
    with running(argv, folder) as daemon:
        patience = time.monotonic() + 30
        while subprocess.run([*argv[:4], "--stats"], check=False, cwd=folder, capture_output=True).returncode:
            if daemon.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("cannot measure: the daemon does not listen")
            time.sleep(0.05)
        for number in (1, 20):
            before, who = cpu_seconds([daemon.pid]), f"{number} client{'s' if number > 1 else ''}"
            text = f"COUNT, SECONDS = {number}, {seconds}\n{_CLIENTS}"
            done = subprocess.run([kit.python, "-c", text], cwd=folder, check=True, capture_output=True, text=True)
            each = (cpu_seconds([daemon.pid]) - before) / max(1.0, float(done.stdout) * seconds)
            found[f"round trips, {who}"] = (float(done.stdout), "/s")
            found[f"CPU of the daemon, {who}"] = (each * 1e6, "us each")
    return found
