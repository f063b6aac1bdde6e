"""`rpr plan`: what an apply would change, against what was applied last."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Rpr, to_supervisor

TWO = """
[jobs.a]
command = "true"
schedule = { cron = "0 3 * * *" }
[jobs.b]
command = "true"
schedule = "manual"
"""


def applied(rpr: Rpr, text: str) -> None:
    rpr.write("jobs.toml", 'project = "p"\n' + text + '[jobs.end]\ncommand = "' + to_supervisor("TERM") + '"\n')
    assert rpr("apply", "jobs.toml", "-q").code == 0


def planned(rpr: Rpr, text: str) -> dict[str, dict[str, object]]:
    rpr.write("jobs.toml", 'project = "p"\n' + text + '[jobs.end]\ncommand = "' + to_supervisor("TERM") + '"\n')
    done = rpr("plan", "jobs.toml", "--json")
    assert (done.err, done.code) == ("", 0)
    plan = json.loads(done.out)
    assert list(plan) == ["generation", "jobs"]
    assert all(list(job)[:4] == ["job", "class", "changes", "next"] for job in plan["jobs"])
    return {job["job"]: job for job in plan["jobs"]}


def test_before_anything_was_applied_every_job_is_new(rpr: Rpr) -> None:
    jobs = planned(rpr, TWO)
    assert {name: job["class"] for name, job in jobs.items()} == {"a": "add", "b": "add", "end": "add"}
    assert not (rpr.folder / ".state").exists()


def test_a_plan_names_the_keys_that_changed_and_the_next_start_that_moved(rpr: Rpr) -> None:
    applied(rpr, TWO)
    jobs = planned(rpr, TWO.replace("0 3 * * *", "0 4 * * *"))
    job = jobs["a"]
    assert job["class"] == "retime"
    assert job["changes"] == [{"key": "schedule", "old": {"cron": "0 3 * * *"}, "new": {"cron": "0 4 * * *"}}]
    next_ = job["next"]
    assert isinstance(next_, dict)
    assert next_["old"].endswith("T03:00:00Z")
    assert next_["new"].endswith("T04:00:00Z")
    assert jobs["b"] == {"job": "b", "class": "keep", "changes": [], "next": {"old": None, "new": None}}


def test_plan_distinguishes_every_class_of_change(rpr: Rpr) -> None:
    service = '[jobs.{}]\ncommand = "{}"\nschedule = "always"\n'
    applied(
        rpr,
        TWO + '[jobs.c]\ncommand = "true"\nschedule = "manual"\n[jobs.d]\ncommand = "true"\nschedule = "manual"\n'
        '[jobs.old]\ncommand = "true"\nschedule = "manual"\n' + service.format("s", "exec sleep 60"),
    )
    jobs = planned(
        rpr,
        TWO.replace('schedule = "manual"', 'schedule = "manual"\nlabels = { tier = "web" }')
        + '[jobs.c]\ncommand = "false"\nschedule = "manual"\n'
        '[jobs.new]\ncommand = "true"\nschedule = "manual"\nmoved_from = "old"\n'
        + service.format("s", "exec sleep 61"),
    )
    assert {name: job["class"] for name, job in jobs.items()} == {
        "a": "keep", "b": "in_place", "c": "next_run", "new": "move", "s": "restart", "end": "keep", "d": "remove",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        ("b", "a", "found `b`, but `a` and `b` exchange their names"),
        ("old", "a", "found `a`, which is still a job of this file"),
    ],
)
def test_validate_plan_and_apply_reject_names_that_change_in_a_row(
    rpr: Rpr, first: str, second: str, cause: str
) -> None:
    job = '[jobs.{0}]\ncommand = "true"\nmoved_from = "{1}"\n'
    rpr.write("jobs.toml", 'project = "p"\n' + job.format("a", first) + job.format("b", second))
    answers = [rpr(verb, "jobs.toml") for verb in ("validate", "plan", "apply")]
    assert cause in answers[0].out + answers[0].err
    assert len({(answer.code, answer.out + answer.err) for answer in answers}) == 1


def test_equal_meanings_in_another_notation_are_not_a_change(rpr: Rpr) -> None:
    applied(rpr, '[jobs.a]\ncommand = "true"\nschedule = { cron = "*/15 * * * *" }\ntimeout = "60s"\n')
    same = planned(rpr, '[jobs.a]\ntimeout = "1m"\nschedule = "0-59/15 * * * *"\ncommand = "true" # said otherwise\n')
    assert same["a"]["class"] == "keep"


def test_the_detailed_exit_code_shows_whether_anything_changes(rpr: Rpr) -> None:
    applied(rpr, TWO)
    assert rpr("plan", "jobs.toml", "--detailed-exitcode").code == 0
    rpr.write("jobs.toml", (rpr.folder / "jobs.toml").read_text().replace("0 3", "0 5"))
    changed = rpr("plan", "jobs.toml", "--detailed-exitcode")
    assert changed.code == 10
    assert "~ a  reschedules; next start " in changed.out
    assert '    schedule: {"cron": "0 3 * * *"} -> {"cron": "0 5 * * *"}\n' in changed.out
    assert changed.out.endswith("generation 2: 1 to change, 2 unchanged\n")


def test_a_secret_of_a_job_is_kept_and_only_its_change_is_shown(rpr: Rpr) -> None:
    job = (
        '[jobs.a]\ncommand = "true"\nschedule = "manual"\nsecrets = ["TOKEN"]\nenv = {{ TOKEN = "{}", OTHER = "x" }}\n'
    )
    applied(rpr, job.format("hunter-one"))
    assert planned(rpr, job.format("hunter-one"))["a"]["class"] == "keep"
    changed = planned(rpr, job.format("hunter-two"))["a"]
    assert changed["class"] == "next_run"
    assert "hunter" not in json.dumps(changed)
    assert "hunter" not in rpr("plan", "jobs.toml").out
    for path in (rpr.folder / ".state").rglob("*"):
        assert path.is_dir() or b"hunter" not in path.read_bytes(), path


def test_a_secret_is_shown_in_no_other_key_either(rpr: Rpr) -> None:
    job = (
        '[jobs.a]\ncommand = "run --token {0}"\nschedule = "manual"\nsecrets = ["TOKEN"]\n'
        'env = {{ TOKEN = "{0}" }}\ndescription = "{0}"\n'
    )
    applied(rpr, job.format("hunter-one"))
    assert planned(rpr, job.format("hunter-one"))["a"]["class"] == "keep"
    changed = planned(rpr, job.format("hunter-two"))["a"]
    assert [change["key"] for change in changed["changes"]] == ["description", "command", "env"]  # type: ignore[attr-defined,index]
    assert "hunter" not in json.dumps(changed)
    assert "hunter" not in rpr("plan", "jobs.toml").out
    for path in (rpr.folder / ".state").rglob("*"):
        assert path.is_dir() or b"hunter" not in path.read_bytes(), path


def test_a_rename_without_a_supervisor_follows_the_plan(rpr: Rpr) -> None:
    text = '[jobs.a]\ncommand = "true"\nstop = { times = 1 }\nschedule = "every 1h"\n'
    rpr.write("jobs.toml", 'project = "p"\n' + text)
    assert rpr("apply", "jobs.toml", "-q").code == 0
    rpr.write("jobs.toml", 'project = "p"\n' + text.replace("jobs.a", "jobs.b") + 'moved_from = ["z", "a"]\n')
    (job,) = json.loads(rpr("plan", "jobs.toml", "--json").out)["jobs"]
    assert (job["class"], job["from"]) == ("move", "a")
    assert rpr("apply", "jobs.toml", "-q").code == 0
    rows = [json.loads(line) for line in rpr("history", "--json").out.splitlines()]
    assert [row["job"] for row in rows] == ["b"]  # it had run, so its stop rule was met


SHARED = """
[pools.db]
slots = {slots}
[limits.api]
rate = "{rate}"
[jobs.a]
command = "true"
schedule = "manual"
pool = "db"
limit = "api"
env_file = "a.env"
secrets = ["TOKEN"]
[jobs.s]
command = "exec sleep 60"
schedule = "always"
env_file = "s.env"
"""


def test_without_a_supervisor_changed_pools_limits_and_env_files_are_seen(rpr: Rpr) -> None:
    text = SHARED.format(slots=1, rate="5/1m")
    rpr.write("a.env", "TOKEN=hush-hush\n")
    rpr.write("s.env", "A=1\n")
    applied(rpr, text)
    assert rpr("plan", "jobs.toml", "--detailed-exitcode").code == 0
    rpr.write("a.env", "# the same value\nTOKEN='hush-hush'\n")
    assert rpr("plan", "jobs.toml", "--detailed-exitcode").code == 0
    rpr.write("a.env", "TOKEN=other-value\n")
    rpr.write("s.env", "A=2\n")
    rpr.write(
        "jobs.toml", (rpr.folder / "jobs.toml").read_text().replace("slots = 1", "slots = 2").replace("5/1m", "6/1m")
    )
    done = rpr("plan", "jobs.toml", "--json", "--detailed-exitcode")
    plan = json.loads(done.out)
    assert (done.code, plan["pools"]) == (10, [{"name": "db", "old": {"slots": 1}, "new": {"slots": 2}}])
    assert [(one["name"], one["old"]["rate"], one["new"]["rate"]) for one in plan["limits"]] == [
        ("api", "5/1m", "6/1m")
    ]
    found = {job["job"]: (job["class"], [change["key"] for change in job["changes"]]) for job in plan["jobs"]}
    assert found == {"a": ("next_run", ["env_file"]), "s": ("restart", ["env_file"]), "end": ("keep", [])}
    stored = b"".join(path.read_bytes() for path in (rpr.folder / ".state").rglob("*") if path.is_file())
    assert b"hush-hush" not in stored


def test_without_a_supervisor_a_rename_alone_changes_no_env_file(rpr: Rpr) -> None:
    job = '[jobs.{}]\ncommand = "true"\nschedule = "manual"\nenv_file = "a.env"\n'
    rpr.write("a.env", "A=1\n")
    applied(rpr, job.format("a"))
    renamed = planned(rpr, job.format("b") + 'moved_from = "a"\n')
    assert (renamed["b"]["class"], renamed["b"]["from"]) == ("move", "a")
    assert [change["key"] for change in renamed["b"]["changes"]] == ["moved_from"]  # type: ignore[attr-defined]


def test_without_a_supervisor_a_removed_job_that_returns_is_found(rpr: Rpr) -> None:
    job = '[jobs.{}]\ncommand = "true"\nschedule = "manual"\n'
    applied(rpr, job.format("a"))
    applied(rpr, job.format("x"))
    back = planned(rpr, job.format("x") + job.format("b") + 'moved_from = "a"\n')
    assert (back["b"]["class"], back["b"]["from"]) == ("add", "a")
