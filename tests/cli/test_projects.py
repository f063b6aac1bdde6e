"""Which job file a state belongs to, which name a project has, and `rpr projects`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Rpr

JOB = '[jobs.a]\ncommand = "true"\n'
NAMED = f'project = "shop"\n{JOB}'


def listed(rpr: Rpr) -> list[dict[str, Any]]:
    done = rpr("projects", "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


def place(rpr: Rpr, folder: str, text: str = JOB) -> str:
    path = rpr.folder / folder / "jobs.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return f"{folder}/jobs.toml"


def test_another_existing_file_cannot_take_a_state_over(rpr: Rpr) -> None:
    first, second = place(rpr, "one", NAMED), place(rpr, "two", NAMED)
    assert rpr("apply", "-q", first).code == 0
    for command in (["apply", "-q", second], ["apply", "--dry-run", second], ["plan", second]):
        refused = rpr(*command)
        assert refused.code != 0
        assert f"cannot apply `{rpr.folder}/two/jobs.toml`: the state in `" in refused.err
        assert f"belongs to project `shop` of `{rpr.folder}/one/jobs.toml`" in refused.err
        assert "hint: give this file its own `project`" in refused.err
    assert rpr("apply", "-q", first).code == 0
    assert rpr("apply", "-q", "--project", "other", second).code == 0
    assert [(one["project"], one["file"]) for one in listed(rpr)] == [
        ("other", f"{rpr.folder}/two/jobs.toml"),
        ("shop", f"{rpr.folder}/one/jobs.toml"),
    ]


def test_another_project_cannot_take_a_state_folder_over(rpr: Rpr) -> None:
    first, second = place(rpr, "one", NAMED), place(rpr, "two", 'project = "other"\n' + JOB)
    assert rpr("apply", "-q", "--state-dir", "state", first).code == 0
    refused = rpr("apply", "-q", "--state-dir", "state", second)
    assert refused.code != 0
    assert "belongs to project `shop`" in refused.err


def test_a_moved_file_keeps_its_state_and_reports_it(rpr: Rpr) -> None:
    assert rpr("apply", "-q", place(rpr, "one", NAMED)).code == 0
    (rpr.folder / "one").rename(rpr.folder / "two")
    moved = rpr("apply", "-q", "two/jobs.toml")
    assert moved.code == 0
    assert f"was created by `{rpr.folder}/one/jobs.toml`, which no longer exists" in moved.err
    assert rpr("apply", "-q", "two/jobs.toml").err == ""


def test_one_file_by_two_paths_is_one_file(rpr: Rpr) -> None:
    first = place(rpr, "one", NAMED)
    (rpr.folder / "link").symlink_to(rpr.folder / "one")
    assert rpr("apply", "-q", first).code == 0
    assert rpr("apply", "-q", "link/jobs.toml").code == 0


def test_a_state_without_an_origin_is_adopted(rpr: Rpr) -> None:
    first = place(rpr, "one", NAMED)
    assert rpr("apply", "-q", first).code == 0
    (rpr.folder / ".state/repeater/shop/origin").unlink()
    assert rpr("apply", "-q", place(rpr, "two", NAMED)).code == 0


def test_a_running_supervisor_does_not_take_the_files_of_another_path(rpr: Rpr) -> None:
    first, second = place(rpr, "one", NAMED), place(rpr, "two", NAMED)
    with rpr.start("apply", "-q", "--keep-alive", first) as process:
        for _ in range(200):
            if rpr("status", "--project", "shop").code == 0:
                break
        (rpr.folder / first).rename(rpr.folder / "one" / "gone.toml")
        refused = rpr("apply", second)
        assert refused.code != 0
        assert "`rpr down` stops the supervisor of the other file" in refused.err
        rpr("down", "--project", "shop")
        process.wait(30)


def test_two_folders_of_one_name_are_two_projects(rpr: Rpr) -> None:
    first, second = place(rpr, "a/web"), place(rpr, "b/web")
    for _ in range(2):
        assert rpr("apply", "-q", first).code == 0
        assert rpr("apply", "-q", second).code == 0
    names = {one["file"]: one["project"] for one in listed(rpr)}
    assert names[f"{rpr.folder}/a/web/jobs.toml"] == "web"
    assert re.fullmatch("web-[0-9a-f]{6}", names[f"{rpr.folder}/b/web/jobs.toml"])
    assert len(rpr("history", env={"RPR_FILE": second}).out.splitlines()) == 3  # two runs and a head
    (rpr.folder / first).unlink()
    assert rpr("apply", "-q", second).code == 0  # and keeps its name when the other one is gone
    assert len(listed(rpr)) == 2


def test_the_project_option_wins_over_the_file_and_the_variable(rpr: Rpr) -> None:
    path = place(rpr, "one", NAMED)
    rpr.env["RPR_PROJECT"] = "variable"
    assert json.loads(rpr("render", "--format", "json", path).out)["project"] == "variable"
    assert json.loads(rpr("render", "--format", "json", "--project", "given", path).out)["project"] == "given"
    refused = rpr("validate", "--project", "../x", path)
    assert refused.code == 2
    assert "cannot use project `../x`" in refused.err


def test_files_of_two_projects_are_an_error_with_both_places(rpr: Rpr) -> None:
    first, second = place(rpr, "one", NAMED), place(rpr, "two", '\nproject = "other"\n')
    refused = rpr("validate", first, second)
    assert refused.code == 2
    assert "two/jobs.toml:2" in refused.err
    assert "found `other`, but one/jobs.toml:1 has `shop`" in refused.err


@pytest.mark.parametrize("allowed", [False, True])
def test_a_start_that_removes_more_than_half_is_refused(rpr: Rpr, allowed: bool) -> None:
    jobs = "".join(f'[jobs.j{number}]\ncommand = "true"\n' for number in range(5))
    path = place(rpr, "one", f'project = "shop"\n{jobs}')
    assert rpr("apply", "-q", path).code == 0
    place(rpr, "one", 'project = "shop"\n[jobs.j1]\ncommand = "true"\n[jobs.new]\ncommand = "true"\n')
    done = rpr("apply", "-q", *(["--allow-removals"] if allowed else []), path)
    assert (done.code == 0) is allowed
    if not allowed:
        assert done.err.startswith("rpr: cannot apply: 4 of 5 jobs would be removed\nhint: ")
        place(rpr, "one", f'project = "shop"\n{jobs}')
        assert rpr("apply", "-q", "--only", "j1", path).code == 0  # the file still has the others


def test_projects_are_shown_with_what_they_are(rpr: Rpr) -> None:
    assert rpr("projects").out == "PROJECT  STATE  JOBS  ACTIVE  FILE\n"
    path = place(rpr, "one", NAMED)
    assert rpr("apply", "-q", path).code == 0
    place(rpr, "bad", 'project = "bad"\n' + JOB)
    assert rpr("apply", "-q", "bad/jobs.toml").code == 0
    (rpr.folder / ".state/repeater/bad/history.db").write_bytes(b"")
    shown = rpr("projects").out
    assert re.search(rf"(?m)^shop +stopped +1 +\S+ +{re.escape(str(rpr.folder))}/one/jobs\.toml$", shown)
    assert re.search(r"(?m)^bad +damaged .*the file is empty", shown)
    Path(rpr.folder / path).unlink()
    assert "one/jobs.toml (does not exist)" in rpr("projects").out
    found = {one["project"]: one for one in listed(rpr)}
    assert set(found["shop"]) == {
        "project", "file", "file_exists", "state_dir", "pid", "generation", "jobs", "active", "problem",
    }  # fmt: skip
    assert (found["shop"]["file_exists"], found["shop"]["pid"], found["shop"]["jobs"]) == (False, None, 1)
