"""One-off commands: how many runs a second beside xargs, how long until the first, how exact an interval is, and how
much memory they take after many runs.

The Go program of the same name is no contender: its module cannot be had any more. On two cores it was measured at 720
runs a second, one after the other.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import resident_mb, running
from bench.peers import Tools


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    runs = size(2000, 20)

    def count(name: str, parallel: int) -> Callable[[Path], Reading]:
        return lambda folder: back_to_back(kit, folder, name, runs, parallel)

    return {
        "count": Bench(
            f"`true` {runs} times, one after the other",
            {name: count(name, 1) for name in ("repeater", "xargs")},
            (Goal("a run", most=1 / 0.9, of="xargs"), Goal("runs a second", least=720)),
        ),
        "parallel": Bench(
            f"`true` {runs} times, four at once",
            {name: count(name, 4) for name in ("repeater", "xargs", "GNU parallel")},
            (Goal("a run", most=1 / 0.8, of="xargs"),),
        ),
        "start-up": Bench(
            "a one-off command of one run, and an interpreter that does nothing",
            {
                name: lambda folder, name=name: start_up(kit, folder, name, size(10, 3))
                for name in ("repeater", "python")
            },
            (Goal("start-up", most=6, of="python"),),
        ),
        "interval": Bench(
            "an interval of 10 ms",
            {"repeater": lambda folder: interval(kit, folder, size(1000, 20))},
            (Goal("drift", most=0.1), Goal("lateness p99", most=5)),
        ),
        "one-off memory": Bench(
            f"`true` {size(100_000, 200)} times, one after the other",
            {"repeater": lambda folder: memory(kit, folder, size(100_000, 200), size(5.0, 0.05))},
            (Goal("at the end", most=30), Goal("growth", most=0.5)),
            most_rounds=1,
        ),
    }


def back_to_back(kit: Tools, folder: Path, name: str, runs: int, parallel: int) -> Reading:
    """`true`, so many times, at most `parallel` at once. The time of a run holds a share of the start-up."""
    if name == "xargs":
        command = ["xargs", f"-P{parallel}", "-n1", "true"]
    elif name == "GNU parallel":
        command = [kit.parallel, f"-j{parallel}", "true"]
        runs //= 10  # it takes milliseconds for each
    else:
        command = [kit.rpr, "count", "-t", str(runs), *(["-p", str(parallel)] if parallel > 1 else []), "--", "true"]
    words = "".join(f"{number}\n" for number in range(runs)).encode()
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(words) if name != "repeater" else None
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    length = time.perf_counter() - begin
    return {
        "a run": (length / runs * 1e6, "us"),
        "runs a second": (runs / length, ""),
        "CPU of a run": ((usage.ru_utime + usage.ru_stime) / runs * 1e6, "us"),
    }


def memory(kit: Tools, folder: Path, runs: int, settled: float) -> Reading:
    """Resident memory once it has `settled` (seconds), and at the end."""
    begin, early, last = time.monotonic(), 0.0, 0.0
    with running([kit.rpr, "count", "-t", str(runs), "--", "true"], folder) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError):  # it ends between two lines
                last = resident_mb([process.pid]) or last
            if not early or time.monotonic() - begin < settled:
                early = last
            time.sleep(0.05)
    return {"settled": (early, "MB"), "at the end": (last, "MB"), "growth": (last - early, "MB")}


def start_up(kit: Tools, folder: Path, name: str, times: int) -> Reading:
    """From nothing to the end of one run of `true`; the best of `times`."""
    bare = [kit.python, "-c", "pass"]
    command = bare if name == "python" else [kit.rpr, "i", "-e", "1s", "-t", "1", "--", "true"]
    lengths = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True)
        lengths.append(time.perf_counter() - begin)
    return {"start-up": (min(lengths) * 1e3, "ms")}


def interval(kit: Tools, folder: Path, runs: int) -> Reading:
    """Starts every 10 ms, stamped by the runs themselves."""
    log = folder / "log"
    script = f"date +%s%N >>{log}"
    subprocess.run([kit.rpr, "i", "-e", "10ms", "-t", str(runs), "--", "sh", "-c", script], cwd=folder, check=True)
    stamps = [int(line) / 1e6 for line in log.read_text().split()]
    steps = round((stamps[-1] - stamps[0]) / 10)
    drift = abs((stamps[-1] - stamps[0]) - steps * 10) / max(10 * steps, 1) * 100
    off = sorted(stamp - stamps[0] - 10 * round((stamp - stamps[0]) / 10) for stamp in stamps)
    return {"drift": (drift, "%"), "lateness p99": (off[int(len(off) * 0.99) - 1] - off[0], "ms")}
