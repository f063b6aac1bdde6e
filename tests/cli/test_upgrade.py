"""State directories and processes of a released version under the commands of this one."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Rpr

CORPUS = Path(__file__).parent.parent / "corpus" / "state"


def install(rpr: Rpr, archive: str) -> Path:
    """The state folder of the project `corpus`, and its job file."""
    folder = rpr.folder / ".state" / "repeater" / "corpus"
    folder.mkdir(parents=True, mode=0o700)
    with tarfile.open(CORPUS / archive) as packed:
        packed.extractall(folder, filter="data")
    shutil.copy(CORPUS / "jobs.toml", rpr.folder)
    (rpr.folder / ".run").mkdir(mode=0o700)
    return folder


def stored(folder: Path) -> list[tuple[str, str, str | None]]:
    """Job, state and sentence of each slot, newest first, as 0.1.0 wrote them."""
    with sqlite3.connect(f"file:{folder}/history.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT job, state, reason FROM runs WHERE last ORDER BY nominal DESC, job DESC").fetchall()
    db.close()
    return found


def lines(rpr: Rpr, *args: str) -> list[dict[str, Any]]:
    done = rpr(*args)
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


@contextmanager
def supervised(rpr: Rpr) -> Iterator[None]:
    """A supervisor of the job file, until it answers and has begun."""
    with rpr.start("apply", "-q", "--no-watch", "jobs.toml") as process:
        try:
            end = time.monotonic() + 60
            while rpr("status", "--project", "corpus").code != 0:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
            yield
        finally:
            rpr("down", "--kill", "-q", "--project", "corpus")
            process.communicate(timeout=60)


@pytest.mark.parametrize("archive", ["v0.1.0.tar.gz", "v0.1.0-killed.tar.gz"])
def test_history_and_why_read_the_state_of_0_1_0_without_a_change(rpr: Rpr, archive: str) -> None:
    folder = install(rpr, archive)
    before = stored(folder)
    database = (folder / "history.db").read_bytes()
    rows = lines(rpr, "history", "--json", "--limit", "100000")
    assert [(row["job"], row["reason"]) for row in rows] == [(job, reason) for job, _, reason in before]
    shown = rpr("history", "--limit", "100000").out
    for sentence in ("the disk moves", "exit 3", "signal 9", "timed out after 300ms", "No such file or directory"):
        assert sentence in shown
    failed = lines(rpr, "history", "--json", "--limit", "100000", "--outcome", "failed")
    assert {row["job"] for row in failed} >= {"fails", "retries", "times-out", "cannot-start"}
    assert {row["outcome"] for row in failed} == {"failed"}
    (row,) = lines(rpr, "history", "--json", "--limit", "1", "times-out")
    assert "timed out after 300ms" in rpr("why", f"times-out@{row['nominal']}").out
    (row,) = lines(rpr, "history", "--json", "--limit", "1", "needs-a-failure")
    assert "fails-for-another" in rpr("why", f"needs-a-failure@{row['nominal']}").out
    assert (folder / "history.db").read_bytes() == database


def test_plan_finds_that_an_upgrade_changes_nothing(rpr: Rpr) -> None:
    install(rpr, "v0.1.0.tar.gz")
    removed = lines(rpr, "plan", "--json", "jobs.toml")[0]
    changed = {job["job"]: job["class"] for job in removed["jobs"] if job["class"] != "keep"}
    assert changed == {"removed": "add"}  # make.py took that job out of the file


@pytest.mark.slow
def test_a_supervisor_continues_with_the_state_of_0_1_0(rpr: Rpr) -> None:
    folder = install(rpr, "v0.1.0.tar.gz")
    before = stored(folder)
    with supervised(rpr):
        jobs = {item["job"]: item for item in lines(rpr, "status", "--json", "--project", "corpus")}
        for job in ("succeeds", "fails", "stops-on-failure", "stops-on-pattern", "stops-at-all", "stops-until"):
            assert jobs[job]["state"] == "done", job
        assert jobs["pausable"]["state"] == "paused"
        assert "the disk moves" in json.dumps(jobs["pausable"])
        assert "`succeeds` is done: 2 runs" in rpr("why", "succeeds", "--project", "corpus").out
        rows = lines(rpr, "history", "--json", "--limit", "100000", "--project", "corpus", "fails", "times-out")
        assert {row["reason"] for row in rows} >= {"failure: exit 3", "failure: timed out after 300ms"}
    after = stored(folder)
    for job in ("succeeds", "fails", "stops-on-failure"):  # done is done
        assert [row[2] for row in after if row[0] == job] == [row[2] for row in before if row[0] == job]


@pytest.mark.slow
def test_open_rows_of_a_killed_0_1_0_are_closed(rpr: Rpr) -> None:
    install(rpr, "v0.1.0-killed.tar.gz")
    assert {row["state"] for row in lines(rpr, "history", "--json", "--outcome", "running")} == {"running"}
    with supervised(rpr):
        found = lines(rpr, "history", "--json", "--project", "corpus", "--outcome", "interrupted")
        assert {row["job"] for row in found} == {"web", "worker"}


ROOT = Path(__file__).parents[2]
RELEASE = "3ca1745"  # tag v0.1.0; clones of CI may lack the tag
COUNTS = """project = "corpus"
[jobs.web]
command = '''echo $$ >> pids; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done'''
schedule = "always"
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the package of 0.1.0."""
    made = subprocess.run(
        ["git", "archive", RELEASE, "repeater", "schemas"], cwd=ROOT, capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this clone has no commit {RELEASE}: {made.stderr.decode()}")
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def until(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def pids_of_web(rpr: Rpr) -> list[int]:
    done = rpr("status", "--json")
    shown = [json.loads(line) for line in done.out.splitlines()] if done.code == 0 else []
    return [run["pid"] for item in shown if item.get("job") == "web" for run in item["running"]]


@pytest.mark.all
@pytest.mark.skipif(sys.platform != "linux", reason="needs subreapers")
def test_a_service_keeps_its_process_over_an_upgrade(rpr: Rpr, released: Path) -> None:
    """0.1.0 starts the service and is killed; this version takes it over and stops it."""
    rpr.write("jobs.toml", COUNTS)
    apply = ["apply", "jobs.toml", "--keep-alive", "--on-death", "keep"]
    logs = [rpr.folder / "old.log", rpr.folder / "new.log"]
    with logs[0].open("wb") as out:
        env = {**rpr.env, "PYTHONPATH": str(released)}
        old = subprocess.Popen(
            [sys.executable, "-m", "repeater", *apply], cwd=rpr.folder, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: "line 3" in logs[0].read_text(), old, logs[0])
    finally:
        old.kill()
        old.wait()
    version = subprocess.run([sys.executable, "-m", "repeater", "--version"], env=env, capture_output=True, text=True)
    assert "0.1.0" in version.stdout
    (pid,) = map(int, (rpr.folder / "pids").read_text().split())
    with logs[1].open("wb") as out:
        new = subprocess.Popen(
            [str(Path(sys.executable).with_name("rpr")), *apply],
            cwd=rpr.folder, env=rpr.env, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until(lambda: "line " in logs[1].read_text(), new, logs[1])
        until(lambda: pids_of_web(rpr) == [pid], new, logs[1])
        seen = logs[1].read_text().count("line ")
        until(lambda: logs[1].read_text().count("line ") > seen + 3, new, logs[1])
        rows = lines(rpr, "history", "--json", "web")
        assert [row["state"] for row in rows] == ["running"]
        assert rpr("stop", "web").code == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert "interrupted" not in [row["state"] for row in lines(rpr, "history", "--json", "web")]
        assert (rpr.folder / "pids").read_text().split() == [str(pid)]
        numbers = [
            int(line.rsplit(" ", 1)[1]) for log in logs for line in log.read_text().splitlines() if "line " in line
        ]
        assert numbers == sorted(set(numbers))
    finally:
        rpr("down", "--kill", "-q")
        new.wait(60)
