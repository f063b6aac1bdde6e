"""How many starts a second a supervisor makes, with its output captured and its history on, beside the limit of the
machine: a C loop over both cores that does nothing but start and wait.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import run_timed
from bench.peers import Tools

AT_ONCE = 16


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    runs = size(3200, 32)
    return {
        "starts": Bench(
            f"`true` {runs} times, {AT_ONCE} at once",
            {
                "repeater": lambda folder: supervisor(kit, folder, runs),
                "C loop": lambda folder: limit(kit, folder, runs, os.cpu_count() or 1),
                "C loop, one process": lambda folder: limit(kit, folder, runs, 1),
                "xargs": lambda folder: xargs(folder, runs),
            },
            (Goal("starts", least=0.6, of="C loop"),),
        )
    }


def supervisor(kit: Tools, folder: Path, runs: int) -> Reading:
    """`rpr apply` of jobs that start again when they end; what it takes without any run is taken off."""
    took, cpu = _apply(kit, folder, runs // AT_ONCE)
    idle, idle_cpu = _apply(kit, folder, 1)
    runs -= AT_ONCE
    return _reading(runs, took - idle, cpu - idle_cpu)


def _apply(kit: Tools, folder: Path, times: int) -> tuple[float, float]:
    (folder / "jobs.toml").write_text("version = 1\n" + again(times, range(AT_ONCE)))
    state = folder / f"state-{time.time_ns()}"
    before = os.times()
    took, _ = run_timed([kit.rpr, "apply", "jobs.toml", "--state-dir", str(state)], folder)
    after = os.times()
    return took, sum(after[2:4]) - sum(before[2:4])


def again(times: int, numbers: Iterable[int]) -> str:
    """Jobs `busy-N` that start again as soon as they end, so many times."""
    rest = f'command = ["true"]\nschedule = {{ every = "0s", after_end = true }}\nstop = {{ times = {times} }}\n'
    return "".join(f"[jobs.busy-{number}]\n{rest}" for number in numbers)


def limit(kit: Tools, folder: Path, runs: int, workers: int) -> Reading:
    return _timed([kit.limit, str(runs), str(AT_ONCE), str(workers), "true"], folder, runs)


def xargs(folder: Path, runs: int) -> Reading:
    (folder / "words").write_text("".join(f"{number}\n" for number in range(runs)))
    return _timed(["xargs", "-a", "words", f"-P{AT_ONCE}", "-n1", "true"], folder, runs)


def _timed(argv: list[str], folder: Path, runs: int) -> Reading:
    before, began = os.times(), time.perf_counter()
    subprocess.run(argv, cwd=folder, check=True)
    took, after = time.perf_counter() - began, os.times()
    return _reading(runs, took, sum(after[2:4]) - sum(before[2:4]))


def _reading(runs: int, took: float, cpu: float) -> Reading:
    return {"starts": (runs / took, "/s"), "CPU of start and run": (cpu / runs * 1e6, "us")}
