"""One-off commands: how many runs a second beside xargs, how long until the first, how exact an interval is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.peers import Tools


def back_to_back(kit: Tools, folder: Path, name: str, runs: int, parallel: int) -> Mapping[str, tuple[float, str]]:
    """`true`, so many times, at most `parallel` at once. The time of a run holds a share of the start-up."""
    if name == "xargs":
        command = ["xargs", f"-P{parallel}", "-n1", "true"]
    else:
        command = [kit.rpr, "count", "-t", str(runs), *(["-p", str(parallel)] if parallel > 1 else []), "--", "true"]
    words = "".join(f"{number}\n" for number in range(runs)).encode()
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(words) if name == "xargs" else None
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    length = time.perf_counter() - begin
    return {
        "a run": (length / runs * 1e6, "us"),
        "CPU of a run": ((usage.ru_utime + usage.ru_stime) / runs * 1e6, "us"),
        "peak memory": (usage.ru_maxrss / 1024, "MB"),
    }


def start_up(kit: Tools, folder: Path, name: str, times: int) -> Mapping[str, tuple[float, str]]:
    """From nothing to the end of one run of `true`; the best of `times`."""
    bare = [sys.executable, "-c", "pass"]
    command = bare if name == "python" else [kit.rpr, "i", "-e", "1s", "-t", "1", "--", "true"]
    lengths = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True)
        lengths.append(time.perf_counter() - begin)
    return {"start-up": (min(lengths) * 1e3, "ms")}


def interval(kit: Tools, folder: Path, runs: int) -> Mapping[str, tuple[float, str]]:
    """Starts every 10 ms, stamped by the runs themselves."""
    log = folder / "log"
    script = f"date +%s%N >>{log}"
    subprocess.run([kit.rpr, "i", "-e", "10ms", "-t", str(runs), "--", "sh", "-c", script], cwd=folder, check=True)
    stamps = [int(line) / 1e6 for line in log.read_text().split()]
    steps = round((stamps[-1] - stamps[0]) / 10)
    drift = abs((stamps[-1] - stamps[0]) - steps * 10) / max(10 * steps, 1) * 100
    off = sorted(stamp - stamps[0] - 10 * round((stamp - stamps[0]) / 10) for stamp in stamps)
    return {"drift": (drift, "%"), "lateness p99": (off[int(len(off) * 0.99) - 1] - off[0], "ms")}
