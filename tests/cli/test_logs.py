"""`rpr logs` after the supervisor that took the output, through the real `rpr`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Rpr
from tests.cli.test_apply import Live, wait_for

JOBS = """
project = "kept"
[jobs.good]
command = "echo fine; echo odd >&2"
schedule = "once"
[jobs.bad]
command = "echo broken; exit 3"
schedule = "once"
[jobs.off]
command = "echo unseen"
schedule = "once"
output = { keep = false }
[jobs.quiet]
command = "true"
schedule = "once"
[jobs.secret]
command = "echo the word is $WORD"
schedule = "once"
env = { WORD = "correct-horse" }
secrets = ["WORD"]
"""


def outputs(rpr: Rpr) -> list[Path]:
    return sorted((rpr.folder / ".state/repeater/kept/output").glob("*/*"))


@pytest.fixture
def ended(rpr: Rpr) -> Rpr:
    """A project whose supervisor has ended."""
    rpr.write("jobs.toml", JOBS)
    assert rpr("apply", "jobs.toml", "-q").code == 1
    return rpr


def test_output_is_there_without_a_supervisor(ended: Rpr) -> None:
    assert sorted(ended("logs", "good").out.splitlines()) == ["fine", "odd"]
    ended("logs", "--failed").is_(out="bad | broken\n")
    assert ended("logs", "good", "-n", "1").out in ("fine\n", "odd\n")
    (run,) = {json.loads(line)["run"] for line in ended("logs", "bad", "--json").out.splitlines()}
    ended("logs", "--run", run).is_(out="bad | broken\n")
    assert sorted(path.name.split(".", 1)[1] for path in outputs(ended)) == ["failed.gz", "gz", "gz"]


def test_history_has_what_each_run_needed(ended: Rpr) -> None:
    rows = [json.loads(line) for line in ended("history", "--json").out.splitlines()]
    assert all(row["memory"] > 100_000 and row["cpu"] > 0 for row in rows)
    head, first, *_ = ended("history", "--usage").out.splitlines()
    assert head.split()[4:7] == ["TOOK", "CPU", "MEMORY"]
    assert "MiB" in first


def test_logs_give_the_reason_when_no_output_is_kept(ended: Rpr) -> None:
    off = "rpr: nothing of `off` is kept on disk, because its `output.keep` is `false`\n"
    ended("logs", "off").is_(err=off)
    nothing = "rpr: no output is kept: no run of these jobs printed anything\n"
    ended("logs", "quiet").is_(err=nothing)
    rows = [json.loads(line) for line in ended("history", "quiet", "off", "--json").out.splitlines()]
    for row in rows:
        why = {"quiet": "it printed nothing", "off": off[5:-1]}[row["job"]]
        hint = "\nhint: `rpr history` lists runs\n"
        ended("logs", "--run", row["run"]).is_(err=f"rpr: cannot show run `{row['run']}`: {why}{hint}", code=2)


def test_why_and_status_show_the_last_lines_of_a_failed_job(ended: Rpr, launch_on: Callable[[Rpr], Live]) -> None:
    assert ended("why", "bad").out.endswith("  the last lines of the failed run:\n    broken\n")
    assert "last lines" not in ended("why", "good").out
    launch_on(ended)
    wait_for(lambda: ended("health", "-q").code == 0, "a supervisor")
    assert ended("status").out.endswith("bad printed last:\n  broken\n")
    assert ended("why", "bad").out.endswith("  the last lines of the failed run:\n    broken\n")


def test_secrets_are_not_in_the_files(ended: Rpr) -> None:
    ended("logs", "secret").is_(out="the word is ***\n")


def test_a_project_without_a_state_has_no_logs(rpr: Rpr) -> None:
    rpr.write("jobs.toml", JOBS)
    assert rpr("logs").code == 6


def test_output_of_a_killed_supervisor_is_there(rpr: Rpr) -> None:
    command = "echo begun; sleep 600"
    rpr.write("jobs.toml", f'project = "kept"\n[jobs.a]\nschedule = "always"\ncommand = "{command}"\n')
    live = Live(rpr, "jobs.toml", "-q")
    try:
        wait_for(lambda: any(path.read_bytes() for path in outputs(rpr)), "a file")
        live.process.send_signal(signal.SIGKILL)
        live.process.wait()
        rpr("logs", "a").is_(out="begun\n")
    finally:
        live.process.kill()
        live.process.wait()
    live = Live(rpr, "jobs.toml", "-q")
    try:
        wait_for(lambda: rpr("logs", "a").out == "begun\nbegun\n", "both runs")
        rpr("logs", "--failed", "a").is_(out="begun\n")
    finally:
        live.process.send_signal(signal.SIGTERM)
        live.process.wait(60)


def test_a_running_supervisor_shows_output_of_the_one_before(ended: Rpr, launch_on: Callable[[Rpr], Live]) -> None:
    launch_on(ended)
    wait_for(lambda: ended("health", "-q").code == 0, "a supervisor")
    assert ended("logs", "good", "--json").out.count("fine") >= 1
    assert ended("logs", "bad", "--failed").out.startswith("broken\n")
    hint = "leave out `--failed` or `--follow`"
    ended("logs", "-f", "--failed").is_(err=f"rpr: cannot follow failed runs: they are over\nhint: {hint}\n", code=2)


@pytest.fixture
def launch_on() -> Iterator[Callable[[Rpr], Live]]:
    """Starts a supervisor that stays, and ends it after the test."""
    started: list[Live] = []

    def start(rpr: Rpr) -> Live:
        started.append(Live(rpr, "jobs.toml", "-q", "--keep-alive"))
        return started[-1]

    yield start
    for live in started:
        live.process.send_signal(signal.SIGTERM)
        live.process.wait(60)
