"""`--on-crash keep`: a supervisor is killed, its jobs go on, and the next one takes them up as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import RPR, Rpr, rpr  # noqa: F401 - a fixture
from tests.faults.test_shim import gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs subreapers")


class Shop:
    """Lives of a supervisor, one after the other, on the same state."""

    def __init__(self, rpr: Rpr) -> None:  # noqa: F811
        self.rpr = rpr
        self.folder = rpr.folder
        self.lives: list[subprocess.Popen[bytes]] = []
        self.trees: list[psutil.Process] = []

    def begin(self, *args: str, on_death: str = "keep") -> Path:
        """Another life; what it prints."""
        path = self.folder / f"out.{len(self.lives)}"
        with path.open("wb") as out:
            self.lives.append(
                subprocess.Popen(
                    [RPR, "apply", "jobs.toml", "--keep-alive", "--on-crash", on_death, *args],
                    cwd=self.folder,
                    env=self.rpr.env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )
        return path

    @property
    def keeper(self) -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if any(part.endswith("shim/__main__.py") for part in line) and str(self.folder) in line[-1]:
                return process
        return None

    def kill(self) -> None:
        self.lives[-1].kill()
        self.lives[-1].wait()

    def rows(self, *args: str) -> list[dict[str, Any]]:
        done = self.rpr("history", "--json", *args)
        return [json.loads(line) for line in done.out.splitlines()]

    def state(self, job: str) -> list[tuple[str, int | None]]:
        """State and exit of each slot of a job, oldest first."""
        return [(row["state"], row["exit"]) for row in reversed(self.rows(job))]

    def close(self) -> None:
        for life in self.lives:
            if life.poll() is None:
                for _ in range(3):
                    life.send_signal(signal.SIGTERM)
                    time.sleep(0.05)
                life.wait(30)
        keeper = self.keeper
        if keeper is not None:
            keeper.terminate()
            wait_for(lambda: gone(keeper.pid), "the keeper leaves when it is told to")


@pytest.fixture
def shop(rpr: Rpr) -> Iterator[Shop]:  # noqa: F811
    made = Shop(rpr)
    yield made
    made.close()


def effects(shop: Shop) -> list[str]:
    path = shop.folder / "effects"
    return path.read_text().splitlines() if path.exists() else []


COUNTS = """
project = "shop"
[jobs.web]
command = '''echo "web $$" >> effects; i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done'''
schedule = "always"
[jobs.slow]
command = '''echo "slow $RPR_RUN_ID" >> effects; echo begun; until [ -e go ]; do sleep 0.05; done; echo ended; exit 7'''
schedule = "every 1h"
"""


def test_jobs_outlive_a_killed_supervisor_and_the_next_one_adopts_them(shop: Shop) -> None:
    shop.rpr.write("jobs.toml", COUNTS)
    first = shop.begin()
    wait_for(lambda: "line 3" in first.read_text() and "begun" in first.read_text(), "both jobs run")
    before = effects(shop)
    shop.kill()
    wait_for(lambda: shop.keeper is not None and list((shop.folder / ".state").rglob("*.out")), "output is spooled")
    (shop.folder / "go").touch()
    wait_for(lambda: list((shop.folder / ".state").rglob("ends")), "the end of `slow` is written down")
    second = shop.begin()
    wait_for(lambda: "ended" in second.read_text(), "the output of `slow` comes")
    wait_for(lambda: shop.state("slow") == [("failed", 7)], "its exit code is on record")
    shop.kill()  # and again
    third = shop.begin()
    wait_for(lambda: third.read_text().count("line ") > 3, "`web` goes on")
    assert effects(shop) == before
    assert len(before) == 2
    assert shop.state("slow") == [("failed", 7)]
    (status,) = [json.loads(line) for line in shop.rpr("status", "web", "--json").out.splitlines()]
    assert f"web {status['running'][0]['pid']}" in before
    text = first.read_text() + second.read_text() + third.read_text()
    heard = [int(line.split()[-1]) for line in text.splitlines() if line.startswith("web ") and "line " in line]
    assert heard == sorted(set(heard)), "no line is told twice, or out of order"
    missing = set(range(1, heard[-1])) - set(heard)
    assert len(missing) <= 4, missing  # what a supervisor had read and not yet written when it was killed


def test_a_job_that_prints_much_without_a_supervisor_loses_nothing(shop: Shop) -> None:
    command = "echo begun; until [ -e go ]; do sleep 0.05; done; seq 200000; echo done >> effects; echo last >&2"
    shop.rpr.write(
        "jobs.toml",
        f"project = 'shop'\n[jobs.a]\ncommand = '''{command}'''\nschedule = 'every 1h'\noutput = {{ file = 'log' }}\n",
    )
    first = shop.begin()
    wait_for(lambda: "begun" in first.read_text(), "it runs")
    shop.kill()
    (shop.folder / "go").touch()
    wait_for(lambda: effects(shop) == ["done"], "it ends, although nobody reads")
    second = shop.begin()
    wait_for(lambda: shop.state("a") == [("succeeded", 0)], "its end is on record")
    wait_for(lambda: "last" in second.read_text(), "the end of its output")
    lines = (shop.folder / "log").read_text().splitlines()
    assert [line for line in lines if line.isdigit()] == [str(n) for n in range(1, 200_001)]


PATTERNS = """
project = "shop"
[defaults]
schedule = "every 1h"
[jobs.good]
command = "echo begun; until [ -e go ]; do sleep 0.05; done; echo all is well; exit 1"
success = { pattern = "^all is well$" }
[jobs.bad]
command = "echo begun; until [ -e go ]; do sleep 0.05; done; echo all is lost"
success = { failure_pattern = "^all is lost$" }
[jobs.before]
command = "echo all is lost; echo begun; until [ -e go ]; do sleep 0.05; done"
success = { failure_pattern = "^all is lost$" }
"""


@pytest.mark.parametrize("keeper_dies", [False, True])
def test_patterns_are_found_in_output_that_was_not_read_before_the_kill(shop: Shop, keeper_dies: bool) -> None:
    shop.rpr.write("jobs.toml", PATTERNS)
    first = shop.begin()
    wait_for(lambda: first.read_text().count("begun") == 3, "all run")
    shop.kill()
    (shop.folder / "go").touch()
    ends = shop.folder / ".state" / "repeater" / "shop" / "keeper" / "ends"
    wait_for(lambda: ends.exists() and ends.read_text().count("\n") == 3, "all ends are written down")
    if keeper_dies:
        keeper = shop.keeper
        assert keeper is not None
        keeper.kill()
        wait_for(lambda: gone(keeper.pid), "it is dead")
    shop.begin()
    wait_for(
        lambda: len(rows := shop.rows()) == 3 and all(row["state"] != "running" for row in rows), "all runs have ended"
    )
    assert {row["job"]: (row["state"], row["exit"], row["reason_code"]) for row in shop.rows()} == {
        "good": ("succeeded", 1, "success_pattern"),
        "bad": ("failed", 0, "failure_pattern"),
        "before": ("succeeded", 0, "success"),
    }


def test_timeouts_are_kept_without_a_supervisor(shop: Shop) -> None:
    command = "echo begun; trap 'echo told >> effects; exit 3' TERM; while :; do sleep 0.05; done"
    shop.rpr.write(
        "jobs.toml",
        f'project = "shop"\n[jobs.a]\ncommand = """{command}"""\nschedule = "every 1h"\ntimeout = "2s"\n',
    )
    first = shop.begin()
    wait_for(lambda: "begun" in first.read_text(), "it runs")
    shop.kill()
    wait_for(lambda: effects(shop) == ["told"], "it is told to stop")
    shop.begin()
    wait_for(lambda: shop.state("a") == [("failed", 3)], "its end is on record")
    assert shop.rows("a")[0]["reason"] == "timed out after 2s"


def test_the_next_supervisor_gets_exits_although_the_shim_was_killed_too(shop: Shop) -> None:
    shop.rpr.write("jobs.toml", COUNTS)
    first = shop.begin()
    wait_for(lambda: "line 3" in first.read_text() and "begun" in first.read_text(), "both jobs run")
    shop.kill()
    (shop.folder / "go").touch()
    wait_for(lambda: list((shop.folder / ".state").rglob("ends")), "the end of `slow` is written down")
    keeper = shop.keeper
    assert keeper is not None
    keeper.kill()
    wait_for(lambda: gone(keeper.pid), "it is dead")
    second = shop.begin()
    wait_for(lambda: shop.state("slow") == [("failed", 7)], "its exit code is on record")
    wait_for(lambda: "ended" in second.read_text(), "the output of `slow` comes")
    wait_for(lambda: len(effects(shop)) == 3, "the service, whose end nobody knows, is started again")
    assert [row["state"] for row in shop.rows("web")] == ["running", "interrupted"]
    wait_for(lambda: not list((shop.folder / ".state").rglob("*.out")), "what was spooled is removed")


def test_jobs_end_with_their_supervisor_unless_they_are_to_be_kept(shop: Shop) -> None:
    shop.rpr.write("jobs.toml", COUNTS)
    first = shop.begin(on_death="kill")
    wait_for(lambda: "line 3" in first.read_text() and "begun" in first.read_text(), "both jobs run")
    keeper = shop.keeper
    assert keeper is not None
    tree = [keeper, *keeper.children(recursive=True)]
    shop.kill()
    wait_for(lambda: all(gone(process.pid) for process in tree), "all of it is dead")
    shop.begin()
    wait_for(lambda: shop.state("slow") == [("interrupted", None)], "it is shown as what it was")


def test_a_service_changed_meanwhile_is_restarted_and_others_run_on(shop: Shop) -> None:
    service = '[jobs.{0}]\ncommand = "echo {0} $$ >> effects; echo up; exec sleep {1}"\nschedule = "always"\n'
    shop.rpr.write("jobs.toml", 'project = "shop"\n' + service.format("a", 61) + service.format("b", 61))
    shop.begin()
    wait_for(lambda: len(effects(shop)) == 2, "both run")
    wait_for(lambda: [row["state"] for row in shop.rows()] == ["running", "running"], "both are on record")
    shop.kill()
    shop.rpr.write("jobs.toml", 'project = "shop"\n' + service.format("a", 62) + service.format("b", 61))
    shop.begin()
    wait_for(lambda: len(effects(shop)) == 3, "one is restarted")
    assert sorted(line.split()[0] for line in effects(shop)) == ["a", "a", "b"]
    assert shop.rows("a")[-1]["reason"] == "replaced (its definition changed while no supervisor was running)"
    assert [row["state"] for row in shop.rows("b")] == ["running"]


def test_an_unused_shim_exits(shop: Shop) -> None:
    shop.rpr.write(
        "jobs.toml", 'project = "shop"\n[jobs.a]\ncommand = "echo x >> effects; exit 5"\nschedule = "every 1h"\n'
    )
    shop.begin()
    wait_for(lambda: shop.state("a") == [("failed", 5)], "it ran")
    keeper = shop.keeper
    assert keeper is not None
    os.kill(shop.lives[-1].pid, signal.SIGKILL)
    shop.lives[-1].wait()
    wait_for(lambda: gone(keeper.pid), "it leaves")
    assert list((shop.folder / ".state").rglob("socket")) == []
