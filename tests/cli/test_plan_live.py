"""`rpr plan` with a running supervisor: it compares with the supervisor's own state, and apply does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cli.conftest import Rpr
from tests.cli.test_apply import wait_for
from tests.cli.test_control import Supervisor, launch  # noqa: F401 - a fixture

LIVE = """
project = "p"
[pools.db]
slots = 1
[limits.api]
rate = "5/1m"
[jobs.tick]
command = "true"
schedule = { every = "1h", immediate = false }
[jobs.m]
command = "true"
schedule = "manual"
matrix = { a = [1, 2], b = ["x"], max_parallel = 1 }
"""


def live_plan(rpr: Rpr, *args: str) -> dict[str, object]:
    done = rpr("plan", "jobs.toml", "--json", *args)
    assert (done.err, done.code) == ("", 0)
    found: dict[str, object] = json.loads(done.out)
    return found


def classes(plan: dict[str, object]) -> dict[str, str]:
    return {job["job"]: job["class"] for job in plan["jobs"]}  # type: ignore[attr-defined,index]


def test_plan_uses_the_running_supervisor_and_apply_follows_the_plan(
    rpr: Rpr,
    launch: Callable[..., Supervisor],  # noqa: F811
) -> None:
    launch("--keep-alive", "--no-watch", jobs=LIVE)
    same = live_plan(rpr)
    assert set(classes(same).values()) == {"keep"}  # `max_parallel` too
    assert list(same) == ["generation", "jobs"]
    reordered = LIVE.replace('a = [1, 2], b = ["x"]', 'b = ["x"], a = [2, 1]').replace("slots = 1", "slots = 2")
    rpr.write("jobs.toml", reordered.replace("5/1m", "6/1m"))
    planned = live_plan(rpr)
    assert classes(planned) == {"tick": "keep", "m[b=x,a=2]": "move", "m[b=x,a=1]": "move"}
    assert planned["pools"] == [{"name": "db", "old": {"slots": 1}, "new": {"slots": 2}}]
    assert planned["limits"] == [{"name": "api", "old": {"rate": "5/1m"}, "new": {"rate": "6/1m"}}]
    text = rpr("plan", "jobs.toml").out
    assert "> m[b=x,a=1]  is renamed from m[a=1,b=x]\n" in text
    assert "~ pool db: slots 1 -> slots 2\n" in text
    assert "generation 2: 4 to change, 1 unchanged\n" in text
    applied = rpr("apply", "jobs.toml").out
    assert "~ pool db\n~ limit api\n" in applied
    assert "generation 2 is active: 4 changed, 1 unchanged\n" in applied
    assert "m[b=x,a=1]" in rpr("status", "m[a=1,b=x]").out  # a cell is found by its values in any order
    assert set(classes(live_plan(rpr)).values()) == {"keep"}

    rpr.write(
        "jobs.toml", 'project = "p"\n[jobs.tack]\ncommand = "true"\nschedule = { every = "1h", immediate = false }\n'
    )
    planned = live_plan(rpr)
    refused = planned["refused"]
    assert isinstance(refused, dict)
    assert refused["message"] == "cannot apply: 3 of 3 jobs would be removed"
    assert "refused" not in live_plan(rpr, "--allow-removals")
    text = rpr("plan", "jobs.toml").out
    assert (
        '? was `tick` renamed to `tack`? The jobs are equal; `moved_from = "tick"` keeps counters and history\n' in text
    )
    assert "! cannot apply: 3 of 3 jobs would be removed" in text
    assert rpr("apply", "jobs.toml").code == 5
    assert rpr("apply", "jobs.toml", "--allow-removals").code == 0

    rpr.write("jobs.toml", LIVE)
    back = next(job for job in live_plan(rpr)["jobs"] if job["job"] == "m[a=1,b=x]")  # type: ignore[attr-defined]
    assert back["class"] == "add"


def test_a_trigger_of_a_matrix_gives_its_cells_one_nominal_time(
    rpr: Rpr,
    launch: Callable[..., Supervisor],  # noqa: F811
) -> None:
    built = launch("--keep-alive", "--no-watch", jobs=LIVE.replace(", max_parallel = 1", ""))
    assert built("trigger", "m").code == 0
    wait_for(lambda: len(built.lines("history", "m")) == 2, "both cells in the history")
    assert len({row["nominal"] for row in built.lines("history", "m")}) == 1


def test_a_plan_of_the_supervisor_shows_next_starts_of_its_own_grid(
    rpr: Rpr,
    launch: Callable[..., Supervisor],  # noqa: F811
) -> None:
    text = '[jobs.tick]\ncommand = "true"\nschedule = { every = "1h", immediate = false }\nlabels = { a = "1" }\n'
    launch("--keep-alive", "--no-watch", jobs=text)
    known = json.loads(rpr("status", "tick", "--json").out)["next"]
    rpr.write("jobs.toml", text.replace('"1"', '"2"'))
    (job,) = live_plan(rpr)["jobs"]  # type: ignore[misc]
    assert job["class"] == "in_place"  # type: ignore[index]
    assert job["next"] == {"old": known, "new": known}  # type: ignore[index]
    assert rpr("apply", "jobs.toml").code == 0
    assert json.loads(rpr("status", "tick", "--json").out)["next"] == known
