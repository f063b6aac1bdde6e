"""The example files do what their comments say: all are simulated for a day, the first one runs for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest

from tests.docs.pages import ROOT

RPR = str(Path(sys.executable).with_name("rpr"))
FIRST = ROOT / "jobs.example.toml"
EXAMPLES = sorted(path for path in (ROOT / "docs" / "examples").glob("*.*") if path.suffix in {".toml", ".yaml"})


def simulate(file: Path, length: str) -> list[dict[str, object]]:
    argv = [RPR, "simulate", str(file), "--for", length, "--from", "2026-11-23T00:00:00Z", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("file", [FIRST, *EXAMPLES], ids=lambda file: file.name)
def test_an_example_runs_for_a_simulated_day(file: Path) -> None:
    rows = simulate(file, "1h" if file == FIRST else "24h")
    assert list(rows[0]) == [
        "job",
        "nominal",
        "due",
        "started",
        "ended",
        "state",
        "reason",
        "reason_code",
        "detail",
        "run",
        "attempts",
        "exit",
    ]
    per_job: dict[str, list[datetime]] = {}
    for row in rows:
        per_job.setdefault(str(row["job"]), []).append(datetime.fromisoformat(str(row["nominal"])))
    assert all(times == sorted(set(times)) for times in per_job.values()), "a slot was decided twice"
    assert Counter(row["state"] for row in rows)["succeeded"] > 0


def test_eight_examples_and_the_first_use_every_kind_of_schedule() -> None:
    from repeater.apps.job_files import load_job_files
    from repeater.model.spec import Plugin, ScheduleSpec

    assert len(EXAMPLES) == 8
    loaded = [load_job_files([str(file)]).jobfile for file in (FIRST, *EXAMPLES)]
    used = {type(job.schedule) for jobfile in loaded for job in jobfile.jobs}
    assert used == set(get_args(ScheduleSpec)) - {Plugin}  # those of docs/examples/plugins have to be installed


@pytest.mark.slow
def test_the_first_example_starts_soon_and_ends_cleanly(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(FIRST, folder)
    log = tmp_path / "log"
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(
            [RPR, "apply", FIRST.name, "--set", f"port={port}"],
            cwd=folder,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    wanted = {"health": "web says 200", "upload": "attempt 1", "poll": "nothing new", "countdown": "one of five"}
    try:
        while missing := [text for text in wanted.values() if text not in log.read_text()]:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < 20, f"{missing} in\n{log.read_text()}"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(20)
    assert code in {0, 130}, log.read_text()
    assert "Traceback" not in log.read_text()
    assert {path.name for path in folder.iterdir()} == {FIRST.name, ".example"}
