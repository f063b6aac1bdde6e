"""Long histories: what it takes to ask one, to begin with it, to add to it, and to delete the old of it meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.burst import lateness
from bench.measure import cpu_seconds, running
from bench.peers import HOME, Tools
from bench.starts import again


def _file(jobs: int) -> str:
    return "version = 1\nproject = 'bench'\n" + "".join(
        f'[jobs.job-{number}]\ncommand = "true"\nschedule = "0 0 29 2 *"\n' for number in range(jobs)
    )


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    rows, jobs, times = size(1_000_000, 1000), size(1000, 20), size(400, 5)

    def with_rows(rows: int) -> Callable[[Path], Reading]:
        return lambda folder: measure(kit, folder, rows, jobs, times)

    old, seconds = size(3000, 50), size(25.0, 1.0)

    def with_old(rows: int) -> Callable[[Path], Reading]:
        return lambda folder: retain(kit, folder, rows, seconds)

    return {
        "retention": Bench(
            f"{_RETAINED * 10} starts a second of {_RETAINED} jobs, with {old} old rows of each, and with none",
            {"repeater": with_old(old), "no rows": with_old(0)},
            (
                Goal("lateness p50", most=1.2, of="no rows"),
                Goal("lateness p99", most=1.5, of="no rows"),
                Goal("rows of a job", most=1100),
            ),
        ),
        "history": Bench(
            f"a history of {rows} rows of {jobs} jobs, and one of none",
            {"repeater": with_rows(rows), "no rows": with_rows(0)},
            (
                *(Goal(asked, most=0.5) for asked in ("history", "history of a job", "status", "why", "why then")),
                Goal("CPU of a row more", most=1.5, of="no rows"),
            ),
        ),
    }


def measure(kit: Tools, folder: Path, rows: int, jobs: int, times: int) -> Reading:
    state = folder / "state"
    shutil.copytree(_kept(kit, rows, jobs), state)
    file, asked = folder / "jobs.toml", {}
    file.write_text(_file(jobs))
    began = time.perf_counter()
    with running([kit.rpr, "apply", "jobs.toml", "--allow-removals", "--state-dir", str(state)], folder) as process:
        last = f"job-{jobs // 2}"
        for name, words in {
            "status": ["status"],
            "history": ["history"],
            "history of a job": ["history", last],
            "history of failures": ["history", "--outcome", "failed"],
            "why": ["why", last],
            "why then": ["why", f"{last}@2026-01-01T00:00:00Z"],
        }.items():
            once = time.perf_counter()
            argv = [kit.rpr, *words, "--state-dir", str(state)]
            patience = time.monotonic() + 60
            while subprocess.run(argv, cwd=folder, capture_output=True, check=False).returncode:
                if process.poll() is not None or time.monotonic() > patience:  # before the socket is there
                    raise RuntimeError(f"cannot measure: `{' '.join(argv)}` fails")
                time.sleep(0.05)
            if name == "status":
                asked["ready"] = (time.perf_counter() - began, "s")
                once = time.perf_counter()
                subprocess.run(argv, cwd=folder, capture_output=True, check=True)
            asked[name] = (time.perf_counter() - once, "s")
        cpu = cpu_seconds([process.pid])
        file.write_text(_file(jobs) + again(times, ["new"]))
        done = "SELECT count(*) FROM runs WHERE job = 'busy-new' AND state = 'succeeded'"
        patience = time.monotonic() + 60
        with contextlib.closing(sqlite3.connect(f"file:{state}/history.db?mode=ro", uri=True)) as db:
            while db.execute(done).fetchone()[0] < times:
                if time.monotonic() > patience:
                    raise RuntimeError("cannot measure: the rows are not added")
                time.sleep(0.05)
        asked["CPU of a row more"] = ((cpu_seconds([process.pid]) - cpu) / times * 1e6, "us")
    return asked


_RETAINED = 30


def retain(kit: Tools, folder: Path, rows: int, seconds: float) -> Reading:
    """Each hundredth row of a job makes the supervisor look for old ones, beyond the thousand that it keeps."""
    state, effects = folder / "state", folder / "effects"
    shutil.copytree(_kept(kit, rows * _RETAINED, _RETAINED), state)
    (folder / "jobs.toml").write_text(
        "version = 1\nproject = 'bench'\n"
        + "".join(
            f'[jobs.job-{number}]\ncommand = ["{kit.stamp}", "{effects}"]\n'
            'schedule = { every = "100ms", jitter = "100%" }\n'
            for number in range(_RETAINED)
        )
    )
    with running([kit.rpr, "apply", "jobs.toml", "--allow-removals", "--state-dir", str(state)], folder) as process:
        patience = time.monotonic() + 30
        while not effects.exists():
            if process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("cannot measure: no job was started")
            time.sleep(0.01)
        time.sleep(min(1.5, seconds))
        began = time.time()
        time.sleep(seconds)
        late = lateness(effects, began, time.time())
        with contextlib.closing(sqlite3.connect(f"file:{state}/history.db?mode=ro", uri=True)) as db:
            most = db.execute("SELECT count(*) FROM runs GROUP BY job ORDER BY 1 DESC").fetchone()[0]
    return {
        "lateness p50": (statistics.median(late) * 1e3, "ms"),
        "lateness p99": (late[int(len(late) * 0.99)] * 1e3, "ms"),
        "lateness max": (late[-1] * 1e3, "ms"),
        "rows of a job": (most, ""),
        "starts": (len(late) / seconds, "/s"),
    }


_FILL = """
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)
INSERT INTO runs (job, nominal, attempt, due, started, ended, state, reason_code, detail, run, exit,
    trigger, generation)
SELECT 'job-' || (i % :jobs), t, 1, t, t + 2000, t + 900000,
    iif(i % 10, 'succeeded', 'failed'), iif(i % 10, 'success', 'exit'), iif(i % 10, '{}', '{"exit": 1}'),
    printf('%020x', i), iif(i % 10, 0, 1), 'schedule', 1
FROM (SELECT i, (:now - 3600 - (:rows - i) / :jobs * 60) * 1000000 AS t FROM n)
"""  # one row a minute for each job, every tenth a failure, the newest an hour ago


def _kept(kit: Tools, rows: int, jobs: int) -> Path:
    """A state folder with so many rows: what a short life of the supervisor left, then filled."""
    state, folder = HOME / f"history-{rows}", HOME / "history"
    if not (state / "whole").exists():
        shutil.rmtree(state, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        (folder / "jobs.toml").write_text("version = 1\nproject = 'bench'\n[jobs.first]\ncommand = ['true']\n")
        argv = [kit.rpr, "apply", "jobs.toml", "--state-dir", str(state)]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        (folder / "jobs.toml").unlink()  # so that another file may take the state over
        if rows:
            with contextlib.closing(sqlite3.connect(state / "history.db", isolation_level=None)) as db:
                db.execute(_FILL, {"rows": rows, "jobs": jobs, "now": int(time.time())})
        (state / "whole").touch()
    return state
