"""Resident memory of a supervisor: with ten jobs, and after many runs."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import lasting, resident_mb, running
from bench.peers import Tools
from bench.starts import again


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    runs = size(100_000, 40)
    return {
        "memory": Bench(
            f"a supervisor with 10 jobs, and after {runs // 10} and {runs} runs",
            {"repeater": lambda folder: measure(kit, folder, runs, size(1.5, 0.3))},
            (Goal("with 10 jobs", most=45), Goal("growth", most=1)),
            most_rounds=1,
        )
    }


def measure(kit: Tools, folder: Path, runs: int, rest: float) -> Reading:
    quiet = "".join(f'[jobs.job-{n}]\ncommand = "true"\nschedule = "0 0 29 2 *"\n' for n in range(10))
    (folder / "jobs.toml").write_text("version = 1\n" + quiet)
    with running([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")], folder) as process:
        time.sleep(rest)
        found = {"with 10 jobs": (resident_mb(lasting(process.pid, "true")), "MB")}
    (folder / "jobs.toml").write_text("version = 1\n" + quiet + again(runs // 10, range(10)))
    with running([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "busy")], folder) as process:
        patience = time.monotonic() + 600
        for wanted, name in ((runs // 10, "after a tenth of the runs"), (runs, "after the runs")):
            while _runs(folder / "busy") < wanted:
                if process.poll() is not None or time.monotonic() > patience:
                    raise RuntimeError("cannot measure: the runs do not come to an end")
                time.sleep(0.2)
            found[name] = (resident_mb(lasting(process.pid, "true")), "MB")
    found["growth"] = (found["after the runs"][0] - found["after a tenth of the runs"][0], "MB")
    return found


def _runs(state: Path) -> int:
    path = state / "history.db"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            found = db.execute("SELECT sum(json_extract(data, '$.runs')) FROM progress").fetchone()[0]
        except sqlite3.OperationalError:  # it is being made
            return 0
    return int(found or 0)
