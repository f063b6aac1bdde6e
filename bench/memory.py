"""Resident memory of a supervisor: with ten jobs, and after many runs."""

from __future__ import annotations

import time
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import lasting, resident_mb, running
from bench.peers import Tools
from bench.starts import again


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    runs = size(10_000, 40)
    return {
        "memory": Bench(
            f"a supervisor with 10 jobs, and after {runs} runs and ten times as many",
            {"repeater": lambda folder: measure(kit, folder, runs, size(1.5, 0.3))},
            (Goal("after the runs", most=45), Goal("with 10 jobs", most=45)),
            most_rounds=1,
        )
    }


def measure(kit: Tools, folder: Path, runs: int, rest: float) -> Reading:
    quiet = "".join(f'[jobs.job-{n}]\ncommand = "true"\nschedule = "0 0 29 2 *"\n' for n in range(10))
    (folder / "jobs.toml").write_text("version = 1\n" + quiet)
    with running([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")], folder) as process:
        time.sleep(rest)
        parts = lasting(process.pid, "true")
        before = resident_mb(parts)
    found = {"with 10 jobs": (before, "MB")}
    text = "version = 1\n" + quiet + again(runs // 10, range(10))
    (folder / "jobs.toml").write_text(text)
    with running([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "busy")], folder) as process:
        patience = time.monotonic() + 300
        while _rows(folder / "busy") < min(runs, 10 * 1000):
            if process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("cannot measure: the runs do not come to an end")
            time.sleep(0.2)
        found["after the runs"] = (resident_mb(lasting(process.pid, "true")), "MB")
    return found


def _rows(state: Path) -> int:
    import contextlib
    import sqlite3

    path = state / "history.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM runs WHERE state = 'ran'").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
