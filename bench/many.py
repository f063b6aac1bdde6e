"""Ten thousand distinct jobs: what it takes to check them, and what it costs to have them and wait."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.bench import Bench, Goal, Size
from bench.measure import cpu_seconds, end, lasting, resident_mb, run_timed
from bench.peers import Tools


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    jobs, seconds = size(10_000, 20), size(5.0, 1.0)

    def validate(name: str) -> Callable[[Path], dict[str, tuple[float, str]]]:
        def measured(folder: Path) -> dict[str, tuple[float, str]]:
            write(folder, jobs)
            return {**measure(kit, folder, name, jobs), **measure_idle(kit, folder, name, seconds)}

        return measured

    return {
        "many": Bench(
            f"{jobs} distinct jobs: validate, then loaded and idle",
            {name: validate(name) for name in ("repeater", "cronstable")},
            (Goal("validate", most=0.125, of="cronstable"), Goal("idle CPU", most=1)),
            most_rounds=3,
        ),
    }


def write(folder: Path, jobs: int) -> None:
    """The same jobs in both languages; none is due soon."""
    toml, yaml = ["version = 1\n"], ["jobs:\n"]
    for number in range(jobs):
        cron = f"{number % 60} {number // 60 % 24} {number % 28 + 1} 2 *"
        toml.append(
            f'[jobs.job-{number}]\ndescription = "number {number}"\ncommand = "echo job {number}"\n'
            f'schedule = {{ cron = "{cron}", timezone = "Europe/Berlin" }}\ntimeout = "{number % 50 + 10}s"\n'
            f'env = {{ NUMBER = "{number}" }}\n'
        )
        yaml.append(
            f"  - name: job-{number}\n    command: echo job {number}\n    schedule: '{cron}'\n"
            f"    timezone: Europe/Berlin\n    executionTimeout: {number % 50 + 10}\n    captureStdout: true\n"
            f"    environment:\n      - key: NUMBER\n        value: '{number}'\n"
        )
    (folder / "jobs.toml").write_text("".join(toml))
    (folder / "jobs.yaml").write_text("".join(yaml))


def measure(tools: Tools, folder: Path, name: str, jobs: int) -> dict[str, tuple[float, str]]:
    """One validation by one contender."""
    if name == "repeater":
        took, memory = run_timed([tools.rpr, "validate", "jobs.toml"], folder)
    else:
        took, memory = run_timed([tools.peer("cronstable"), "-v", "-c", "jobs.yaml"], folder)
    return {"validate": (took, "s"), "each job": (took / jobs * 1e6, "us"), "peak memory": (memory, "MB")}


def measure_idle(tools: Tools, folder: Path, name: str, seconds: float) -> dict[str, tuple[float, str]]:
    """The same jobs loaded and none due: CPU and memory while waiting."""
    if name == "repeater":
        argv = [tools.rpr, "apply", "jobs.toml", "--state-dir", str(folder / f"state-{time.time_ns()}")]
    else:
        argv = [tools.peer("cronstable"), "-c", "jobs.yaml", "-l", "WARNING"]
    process = subprocess.Popen(
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began = time.perf_counter()
    try:
        loaded = _await_quiet(process)
        parts = lasting(process.pid, tools.stamp)
        cpu = cpu_seconds(parts)
        time.sleep(seconds)
        cpu = cpu_seconds(parts) - cpu
        memory = resident_mb(parts)
    finally:
        end(process)
    return {
        "loaded after": (loaded - began, "s"),
        "idle CPU": (cpu / seconds * 100, "%"),
        "idle memory": (memory, "MB"),
    }


def _await_quiet(process: subprocess.Popen[bytes]) -> float:
    """Waits until the process has used next to no CPU for a second; gives when that second began."""
    last, since = -1.0, time.perf_counter()
    patience = since + 120
    while time.perf_counter() - since < 1:
        if process.poll() is not None or time.perf_counter() > patience:
            raise RuntimeError("cannot measure: the process ended, or never came to rest")
        time.sleep(0.05)
        now = cpu_seconds([process.pid])
        if now > last + 0.02:
            last, since = now, time.perf_counter()
    return since
