"""P1, P2, P3, P10: the supervisor is killed at every step and at five hundred random instants; effects tell the truth."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from repeater.model.run import INTERIM, SlotRecord
from repeater.store.reader import open_reader
from tests.cli.conftest import RPR
from tests.fakes.text import text_of
from tests.faults.effects import FILE, Effects, effectful, mark
from tests.faults.lives import STEPS

HERE = Path(__file__).parents[2]
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs subreapers")


def lives(folder: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.faults.lives", str(folder), *map(str, args)],
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(folder: Path) -> list[SlotRecord]:
    reader = open_reader(folder / "state")
    assert reader is not None
    try:
        return list(reader.rows(most=100_000))
    finally:
        reader.close()


def keepers(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(part.endswith("shim/__main__.py") for part in process.info["cmdline"] or ())
        and str(folder) in process.info["cmdline"][-1]
    ]


@pytest.fixture
def no_keeper_stays(tmp_path: Path) -> Iterator[None]:
    yield
    for keeper in keepers(tmp_path):
        keeper.terminate()


def next_life(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [RPR, "apply", "jobs.toml", "--no-watch", "--keep-alive", "--state-dir", "state"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_until_decided(folder: Path) -> SlotRecord:
    """The row of the one slot, once it has its final state."""
    end = time.monotonic() + PATIENCE
    while True:
        found = [row for row in rows(folder) if row.state not in INTERIM]
        if found:
            assert len(found) == 1, found
            return found[0]
        assert time.monotonic() < end, rows(folder)
        time.sleep(0.02)


@pytest.mark.usefixtures("no_keeper_stays")
@pytest.mark.parametrize(
    ("delivery", "on_death", "step"),
    [("at-most-once", on_death, step) for on_death in ("kill", "keep") for step in STEPS]
    + [("at-least-once", "kill", step) for step in STEPS[1:4]],
)
def test_a_supervisor_that_is_killed_at_any_step_of_a_run(
    tmp_path: Path, step: str, delivery: str, on_death: Literal["kill", "keep"]
) -> None:
    command = effectful("sleep 0.4", tmp_path / FILE)
    (tmp_path / "jobs.toml").write_text(
        f"version = 1\nproject = 'crash'\n[jobs.a]\ncommand = '''{command}'''\nschedule = 'every 1h'\n"
        f"catch_up = 'latest'\ndelivery = '{delivery}'\n"
    )
    with lives(tmp_path, step, on_death) as first:
        assert first.stdout is not None
        said, _ = first.communicate(timeout=PATIENCE)
        assert first.wait(PATIENCE) == -9, said
    second = next_life(tmp_path)
    try:
        row = wait_until_decided(tmp_path)
    finally:
        second.terminate()
        second.wait(PATIENCE)
    effects = Effects(tmp_path / FILE)
    starts, ends = len(effects.starts()), len(effects.ends())
    assert row.state in ("succeeded", "interrupted")
    if delivery == "at-least-once":
        assert (row.state, text_of(row.reason)) == ("succeeded", "success")
        assert 1 <= starts <= 2
        assert ends >= 1
        return
    assert effects.twice() == []
    known = step in ("after the exit", "after the record") or (on_death == "keep" and step in STEPS[2:])
    if step == "before the claim":
        assert (row.state, starts, ends) == ("succeeded", 1, 1)  # nobody had begun it, and its slot is caught up
    elif known:
        assert (row.state, text_of(row.reason), row.exit, starts, ends) == ("succeeded", "success", 0, 1, 1)
    else:  # what was killed with its supervisor may have been killed before it wrote its first line
        assert (row.state, ends) == ("interrupted", 0)
        assert starts <= int(step != "after the claim")


def jobs(folder: Path) -> str:
    """Four jobs, each with an overlap alarm: a lock that lasts as long as any process of the run."""
    path = folder / FILE

    def alone(name: str, script: str) -> str:
        return f"exec 9>'{folder}/{name}.lock'; flock -n 9 || {mark('overlap', path)}; {effectful(script, path)}"

    def job(name: str, script: str, rest: str) -> str:
        return f"[jobs.{name}]\ncommand = '''{alone(name, script)}'''\n{rest}\n"

    return "version = 1\nproject = 'crash'\n" + "".join(
        (
            job("most", "sleep 0.02", "schedule = 'every 100ms'"),
            job("least", "sleep 0.02", "schedule = 'every 150ms'\ndelivery = 'at-least-once'"),
            job("long", "sleep 0.3", "schedule = 'every 200ms'"),
            job("service", "(setsid sleep 61 &); sleep 61", "schedule = 'always'"),
        )
    )


def check_life_after_life(folder: Path, report: dict[str, Any], kills: int) -> dict[str, int]:
    """Everything that is promised, from effects first; counts for the curious."""
    assert report == {"kills": kills, "by_itself": [], "changed": [], "gone": [], "left_with": 0}
    effects, found = Effects(folder / FILE), rows(folder)
    assert effects.all(what="overlap") == []
    assert [row for row in found if row.state in INTERIM] == []
    by_slot = {(row.job, row.nominal): row for row in found}
    assert len(by_slot) == len(found)
    began = {(effect.job, effect.nominal) for effect in effects.starts()}
    ended = {(effect.job, effect.nominal) for effect in effects.ends()}
    doubles = [slot for slot in effects.twice() if slot[0] != "least"]
    assert doubles == []
    assert began <= by_slot.keys(), "a run of which the history knows nothing"
    for slot, row in by_slot.items():
        if row.state == "succeeded":
            assert slot in began, row
            assert slot in ended or text_of(row.reason) != "success", row
        elif row.state == "interrupted":
            assert row.job != "least", row
        elif row.attempts == 0:
            assert slot not in began, row
    unseen = [row for row in found if row.job == "least" and row.attempts and (row.job, row.nominal) not in began]
    assert [row for row in unseen if row.state != "cancelled"] == []  # that one was stopped, at the very end
    for name, step in (("most", 100), ("least", 150), ("long", 200)):
        nominals = sorted(row.nominal for row in found if row.job == name)
        assert all((nominal - nominals[0]) % timedelta(milliseconds=step) == timedelta(0) for nominal in nominals)
    database = sqlite3.connect(f"file:{folder}/state/history.db?mode=ro", uri=True)
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        database.close()
    return {state: sum(row.state == state for row in found) for state in ("succeeded", "interrupted", "skipped")}


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_five_hundred_random_kills_double_and_lose_no_slot(tmp_path: Path) -> None:
    side_by_side, kills = 5, 100
    places = [tmp_path / str(number) for number in range(side_by_side)]
    begun = []
    for number, place in enumerate(places):
        place.mkdir()
        (place / "jobs.toml").write_text(jobs(place))
        begun.append(lives(place, kills, number))
    counts = []
    said_last = [one.communicate(timeout=600)[0] for one in begun]
    for place, one, out in zip(places, begun, said_last, strict=True):
        said = (place / "out").read_text(errors="replace")
        assert one.returncode == 0, out
        assert "DEFECT" not in said
        assert "Traceback" not in said
        counts.append(check_life_after_life(place, json.loads(out), kills))
    assert keepers(tmp_path) == []
    assert min(count["succeeded"] for count in counts) > 20, counts
    assert sum(count["interrupted"] for count in counts) > 20, counts
    print(os.linesep.join(map(str, counts)))
