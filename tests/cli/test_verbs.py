"""Commands about single jobs do what their names say, and report what to do otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.test_control import JOBS, Supervisor, launch  # noqa: F401 - a fixture

REFUSED = """
[jobs.off]
command = "true"
schedule = "every 1h"
enabled = false

[jobs.web]
command = "echo up; exec sleep 600"
schedule = "always"

[jobs.twice]
command = "true"
schedule = "every 10ms"
stop = { times = 2 }
"""


def without_id(text: str) -> str:
    return re.sub(r"run [0-9A-Za-z-]+", "run ID", text)


def test_trigger_with_wait_shows_the_result_of_the_run(launch: Callable[..., Supervisor]) -> None:  # noqa: F811
    built = launch("--keep-alive", jobs=f'{JOBS}\n[jobs.quick]\ncommand = "true"\nschedule = "manual"\n')
    good, bad = built("trigger", "quick", "--wait"), built("trigger", "bad", "--wait")
    assert (good.code, without_id(good.out)) == (0, "quick: success, run ID\n")
    assert (bad.code, without_id(bad.out)) == (1, "bad: failed, run ID: exit 3\n")
    (item,) = [json.loads(line) for line in built("trigger", "bad", "--wait", "--json").out.splitlines()]
    assert (item["outcome"], item["exit"]) == ("failed", 3)


def test_trigger_with_follow_shows_the_output_and_exits_like_the_run(
    launch: Callable[..., Supervisor],  # noqa: F811
) -> None:
    jobs = '[jobs.a]\ncommand = "printf one; sleep 0.2; echo two; exit 7"\nschedule = "manual"\n'
    built = launch("--keep-alive", jobs=jobs)
    done = built("trigger", "a", "--follow")
    first, last = done.out.splitlines()
    assert (done.code, first) == (7, "onetwo")
    assert last.startswith("a: failed, run ")


def test_a_job_that_cannot_run_is_refused_with_what_to_do(launch: Callable[..., Supervisor]) -> None:  # noqa: F811
    built = launch(jobs=REFUSED, wait="web   | up")
    built("trigger", "off").is_(
        out="off: skipped: the job was disabled\n",
        err="hint: `rpr start off` lets it run again; then trigger it\n",
        code=1,
    )
    running = built("trigger", "web")
    assert (running.code, running.err) == (1, "hint: `rpr restart web` replaces the current run\n")
    built.until("twice", state="done")
    hint = "hint: `rpr reset twice` starts it over"
    for verb in ("start", "restart"):
        built(verb, "twice").is_(err=f"rpr: cannot {verb} `twice`: it is done: 2 runs\n{hint}\n", code=1)
    assert built("trigger", "twice").err == f"{hint}; `rpr trigger --force twice` runs it once\n"


def test_restart_returns_when_the_new_run_has_started(launch: Callable[..., Supervisor]) -> None:  # noqa: F811
    built = launch(wait="web  | up")
    (before,) = built.job("web")["running"]
    built("restart", "web").is_(out="web: running\n")
    (after,) = built.job("web")["running"]
    assert after["pid"] not in (before["pid"], None)


@pytest.mark.parametrize("verb", ["start", "restart", "trigger"])
def test_each_verb_starts_a_service_that_has_ended(launch: Callable[..., Supervisor], verb: str) -> None:  # noqa: F811
    jobs = '[jobs.a]\ncommand = "test -e again && exec sleep 600"\nschedule = "always"\nrestart = "never"\n'
    built = launch("--keep-alive", jobs=jobs)
    built.until("a", state="done")
    built.rpr.write("again", "")
    assert built(verb, "a").code == 0
    built.until("a", state="running")


def test_pause_takes_the_end_as_a_time_of_day_or_a_duration(launch: Callable[..., Supervisor]) -> None:  # noqa: F811
    built = launch()
    (paused,) = built.lines("pause", "tick", "--until", "07:00")
    until = datetime.fromisoformat(paused["until"]).astimezone()
    assert (until.hour, until.minute) == (7, 0)
    assert timedelta() < until - datetime.now(UTC) <= timedelta(days=1, hours=1)
    (paused,) = built.lines("pause", "tick", "--until", "2h")
    assert timedelta(hours=1) < datetime.fromisoformat(paused["until"]) - datetime.now(UTC) <= timedelta(hours=2)
    built("pause", "tick", "--until", "yesterday").is_(
        err="rpr: cannot use `--until yesterday`: that time is over\n", code=2
    )
    built("pause", "tick", "--until", "07:00", "--for", "1h").is_(
        err="rpr: cannot use `--for` with `--until`: they exclude each other\n", code=2
    )


def test_history_takes_the_name_of_a_day(launch: Callable[..., Supervisor]) -> None:  # noqa: F811
    built = launch(wait="web  | up")
    assert len(built.lines("history", "--since", "yesterday")) == len(built.lines("history"))
    assert built.lines("history", "--until", "yesterday") == []
