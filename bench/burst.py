"""Many jobs, each due every second: how late they begin, and what it costs.

`spread`: their due times are spread over the second, so that what counts is one start after the other. Otherwise all
are due in the same instant. cronstable knows full seconds only, so its jobs are always due at once.

Lateness is taken from effects: each job is a C program that appends the time at which it began. When it was due is told
by rpr in the environment; with the peers it is a known part of the second, so that more than a second late looks like
less than one, in their favour. All capture the output; rpr also keeps a claim and a row for every start.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from bench.bench import Bench, Goal, Size
from bench.measure import cpu_seconds, end, lasting, resident_mb
from bench.peers import Tools


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    jobs, many, seconds = size(300, 5), size(900, 10), size(4.0, 1.0)

    def start(name: str, jobs: int, spread: bool) -> Callable[[Path], dict[str, tuple[float, str]]]:
        return lambda folder: measure(kit, folder, name, jobs=jobs, seconds=seconds, spread=spread)

    return {
        "spread": Bench(
            f"{jobs} jobs every second, spread over the second, output captured, {seconds:g} s a round",
            {name: start(name, jobs, True) for name in CONTENDERS},
            (
                Goal("lateness p99", most=5),
                Goal("CPU", most=1.5, of="APScheduler"),
                Goal("lateness p50", most=0.1, of="cronstable"),
            ),
        ),
        "spread-900": Bench(
            f"{many} jobs every second, spread over the second, output captured, {seconds:g} s a round",
            {name: start(name, many, True) for name in ("repeater", "APScheduler")},
            (Goal("lateness p99", most=5), Goal("CPU", most=1.5, of="APScheduler")),
        ),
        "burst": Bench(
            f"{jobs} jobs due in the same instant, every second, output captured, {seconds:g} s a round",
            {name: start(name, jobs, False) for name in CONTENDERS},
            (Goal("lateness p99", most=1, of="APScheduler"),),
        ),
    }


def repeater(tools: Tools, folder: Path, jobs: int, spread: bool) -> Sequence[str]:
    effects = folder / "effects"
    jitter = ', jitter = "100%"' if spread else ""
    text = "".join(
        f'[jobs.job-{number}]\ncommand = ["{tools.stamp}", "{effects}"]\nschedule = {{ every = "1s"{jitter} }}\n'
        for number in range(jobs)
    )
    (folder / "jobs.toml").write_text("version = 1\n" + text)
    return [tools.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")]


def apscheduler(tools: Tools, folder: Path, jobs: int, spread: bool) -> Sequence[str]:
    driver = Path(__file__).with_name("apscheduler_jobs.py")
    return [tools.peer("python"), str(driver), str(jobs), str(int(spread)), tools.stamp, str(folder / "effects")]


def cronstable(tools: Tools, folder: Path, jobs: int, _: bool) -> Sequence[str]:
    head = "defaults:\n  captureStdout: true\n  captureStderr: true\njobs:\n"
    text = "".join(
        f"  - name: job-{number}\n    command:\n      - {tools.stamp}\n      - {folder / 'effects'}\n"
        '    schedule: "* * * * * * *"\n'
        for number in range(jobs)
    )
    (folder / "jobs.yaml").write_text(head + text)
    return [tools.peer("cronstable"), "-c", "jobs.yaml", "-l", "WARNING"]


CONTENDERS: dict[str, Callable[[Tools, Path, int, bool], Sequence[str]]] = {
    "repeater": repeater,
    "APScheduler": apscheduler,
    "cronstable": cronstable,
}


def measure(
    tools: Tools, folder: Path, name: str, *, jobs: int, seconds: float, spread: bool
) -> dict[str, tuple[float, str]]:
    """One round of one contender."""
    argv = CONTENDERS[name](tools, folder, jobs, spread)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
    try:
        _await_first(folder / "effects", process)
        time.sleep(min(1.5, seconds))
        parts = lasting(process.pid, tools.stamp)
        began, cpu = time.time(), cpu_seconds(parts)
        time.sleep(seconds)
        cpu, took = cpu_seconds(parts) - cpu, time.time() - began
        memory = resident_mb(parts)
    finally:
        end(process)
    late = lateness(folder / "effects", began, began + took)
    return {
        "lateness p50": (statistics.median(late) * 1e3, "ms"),
        "lateness p99": (late[int(len(late) * 0.99)] * 1e3, "ms"),
        "lateness max": (late[-1] * 1e3, "ms"),
        "CPU": (cpu / took, "cores"),
        "memory": (memory, "MB"),
        "starts": (len(late) / took, "/s"),
    }


def lateness(effects: Path, since: float, until: float) -> list[float]:
    """Seconds after due of every start in the window, sorted."""
    found = []
    for line in effects.read_text().splitlines():
        began, due = line.split()
        start = float(began)
        if since <= start < until:
            # a difference of floats near 1.8e9 is exact to a quarter of a microsecond
            known = "T" in due
            found.append(start - datetime.fromisoformat(due).timestamp() if known else (start - float(due)) % 1)
    if not found:
        raise RuntimeError(f"cannot measure: `{effects}` holds no start in the window")
    return sorted(found)


def _await_first(effects: Path, process: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 30
    while not effects.exists():
        if process.poll() is not None or time.monotonic() > patience:
            log = (effects.parent / "log").read_text(errors="replace")
            raise RuntimeError(f"cannot measure: no job was started\n{log[-2000:]}")
        time.sleep(0.01)
