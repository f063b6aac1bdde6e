"""`rpr validate`, and how job files are found and read, through the real command."""

import json
import os

import pytest

GOOD = '[jobs.a]\ncommand = "true"\n'
BAD = '[jobs.a]\ncommand = "true"\ntimout = "5s"\noverlap = "skp"\n'
TIMOUT = "jobs.a.timout: unknown key `timout` (did you mean `timeout`?)"
OVERLAP = "jobs.a.overlap: found `skp`, expected one of `skip`, `latest`, `first`, `queue`, `replace`, `allow` (did you mean `skip`?)"


def test_a_valid_file_is_counted(rpr):
    rpr.write("jobs.toml", GOOD)
    rpr("validate", "jobs.toml").is_(out="jobs.toml: 1 job, ok\n")
    rpr.write("jobs.toml", GOOD + '[jobs.b]\ncommand = "true"\n')
    rpr("validate", "jobs.toml").is_(out="jobs.toml: 2 jobs, ok\n")


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(rpr):
    rpr.write("jobs.toml", BAD)
    rpr("validate", "jobs.toml").is_(err=f"jobs.toml:3:1: {TIMOUT}\njobs.toml:4:1: {OVERLAP}\n", code=2)


def test_json_lists_the_problems(rpr):
    rpr.write("jobs.toml", BAD)
    result = rpr("validate", "jobs.toml", "--format", "json")
    assert (result.code, result.err) == (2, "")
    report = json.loads(result.out)
    assert report["ok"] is False
    assert report["problems"][0] == {
        "file": "jobs.toml", "line": 3, "column": 1, "key": "jobs.a.timout",
        "message": "unknown key `timout`", "hint": "did you mean `timeout`?",
    }  # fmt: skip
    rpr.write("jobs.toml", GOOD)
    report = {"ok": True, "jobs": 1, "problems": [], "warnings": []}
    assert json.loads(rpr("validate", "--format", "json").out) == report


def test_github_gets_annotations(rpr):
    rpr.write("jobs.toml", BAD)
    rpr("validate", "jobs.toml", "--format", "github").is_(
        out=f"::error file=jobs.toml,line=3,col=1::{TIMOUT}\n::error file=jobs.toml,line=4,col=1::{OVERLAP}\n", code=2
    )


def test_a_warning_has_a_place_and_does_not_change_the_exit_code(rpr):
    rpr.write("jobs.toml", GOOD + 'env = { PATH = "/opt/x:$PATH" }\n')
    words = "found `$PATH`, which is not expanded: the job gets the literal text"
    rpr("validate", "jobs.toml").is_(
        out="jobs.toml: 1 job, ok\n",
        err=f"jobs.toml:3:9: warning: jobs.a.env.PATH: {words} (write `{{{{ env('PATH') }}}}`)\n",
    )
    report = json.loads(rpr("validate", "jobs.toml", "--format", "json").out)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["warnings"] == [{
        "file": "jobs.toml", "line": 3, "column": 9, "key": "jobs.a.env.PATH",
        "message": words, "hint": "write `{{ env('PATH') }}`",
    }]  # fmt: skip
    rpr("validate", "jobs.toml", "--format", "github").is_(
        out=f"::warning file=jobs.toml,line=3,col=9::jobs.a.env.PATH: {words} (write `{{{{ env('PATH') }}}}`)\n"
    )


def test_a_doubtful_cron_expression_warns_and_a_step_too_large_is_an_error(rpr):
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\nschedule = "* 16 * * *"\n')
    result = rpr("validate")
    assert (result.code, result.out) == (0, "jobs.toml: 1 job, ok\n")
    assert result.err == (
        "jobs.toml:3:1: warning: jobs.a.schedule.cron: found `* 16 * * *`, which starts every minute of each hour that it names "
        "(for one start put a number into the minute field, such as `0`)\n"
    )
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "true"\nschedule = "*/90 * * * *"\n')
    result = rpr("validate")
    assert result.code == 2
    assert "a step of 90, but the minute field has 60 values, 0 to 59" in result.err


def test_errors_and_warnings_are_reported_together(rpr):
    rpr.write("bad.toml", BAD)
    rpr.write("jobs.toml", GOOD + 'env = { PATH = "/opt/x:$PATH" }\n')
    done = rpr("validate", "--each", "jobs.toml", "bad.toml")
    assert done.code == 2
    assert [line.split(" ")[0] for line in done.err.splitlines()] == [
        "jobs.toml:3:9:",
        "bad.toml:3:1:",
        "bad.toml:4:1:",
    ]


def test_several_files_are_one_unless_each_is_asked_for(rpr):
    rpr.write("a.toml", '[jobs.a]\ncommand = "true"\nneeds = ["b"]\n')
    rpr.write("b.yaml", "jobs:\n  b: {command: 'true'}\n")
    rpr("validate", "a.toml", "b.yaml").is_(out="a.toml: 2 jobs, ok\n")
    rpr("validate", "--each", "a.toml", "b.yaml").is_(
        out="b.yaml: 1 job, ok\n", err="a.toml:3:1: jobs.a.needs.b: unknown job `b`\n", code=2
    )


def test_standard_input_is_a_dash(rpr):
    rpr("validate", "-", stdin=GOOD).is_(out="-: 1 job, ok\n")
    rpr("validate", "-", stdin="jobs:\n  a: {command: 5}\n").is_(
        err="standard input:2:7: jobs.a.command: found `5`, expected a command: text for the shell, or a list of arguments\n",
        code=2,
    )


@pytest.mark.parametrize("name", ["repeater.toml", "jobs.toml", "jobs.yaml", "repeater.yml"])
def test_without_a_file_the_nearest_one_upward_is_taken(rpr, name):
    rpr.write(name, GOOD if name.endswith("toml") else "jobs: {a: {command: 'true'}}\n")
    rpr("validate").is_(out=f"{name}: 1 job, ok\n")
    rpr.write("deep/er/x", "")
    rpr.folder = rpr.folder / "deep/er"
    rpr("validate").is_(out=f"../../{name}: 1 job, ok\n")


def test_rpr_file_names_the_file(rpr):
    rpr.write("other.toml", GOOD)
    rpr("validate", env={"RPR_FILE": "other.toml"}).is_(out="other.toml: 1 job, ok\n")


def test_no_file_at_all_points_to_init(rpr):
    rpr("validate").is_(
        err="rpr: cannot find a job file: no `repeater.toml` or `jobs.toml` here or above\n"
        "hint: name a file, or create one with `rpr init`\n",
        code=2,
    )


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: None, "the file does not exist"),
        (lambda path: path.mkdir(), "it is a directory"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: path.symlink_to(path), "its symbolic links form a loop"),
        (lambda path: path.write_bytes(b"#" * (9 << 20)), "it has more than 8388608 bytes, the limit"),
    ],
    ids=["missing", "folder", "fifo", "device", "circle", "huge"],
)
def test_an_unreadable_file_is_reported_in_one_line(rpr, make, cause):
    make(rpr.folder / "jobs.toml")
    rpr("validate", "jobs.toml", timeout=10).is_(err=f"jobs.toml: cannot read it: {cause}\n", code=2)


def test_caps_are_settings(rpr):
    rpr.write("jobs.toml", GOOD)
    rpr("validate", env={"RPR_MAX_FILE_SIZE": "10B"}).is_(
        err="jobs.toml: cannot read it: it has more than 10 bytes, the limit\n", code=2
    )
    rpr("validate", env={"RPR_MAX_JOBS": "x"}).is_(err="rpr: cannot use `RPR_MAX_JOBS=x`: expected a number\n", code=2)


def test_set_reaches_the_file(rpr):
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "{{ vars.x }}"\n')
    rpr("validate").is_(
        err="jobs.toml:2:1: jobs.a.command: cannot render `{{ vars.x }}`: `vars.x` is not defined\n", code=2
    )
    rpr("validate", "--set", "x=echo").is_(out="jobs.toml: 1 job, ok\n")


def test_validate_creates_no_file(rpr):
    rpr.write("jobs.toml", GOOD)
    rpr("validate")
    assert sorted(path.name for path in rpr.folder.iterdir()) == ["jobs.toml"]


def test_a_name_that_is_not_text_breaks_nothing(rpr):
    result = rpr("validate", os.fsdecode(b"caf\xe9.toml"))
    assert result.code == 2
    assert "the file does not exist" in result.err


HEAVY = {"jinja2", "jsonschema", "yaml", "asyncio", "croniter", "rich", "regex", "watchfiles", "sqlite3", "subprocess"}


def test_a_plain_file_needs_none_of_the_heavy_libraries(rpr):
    text = 'vars = { x = "y" }\n[defaults]\nnice = 1\n[pools.p]\nslots = 1\n'
    text += '[templates.t]\nparams = { p = { default = "q" } }\ncommand = "{{ vars.x }} {{ params.p }}"\n'
    text += '[jobs.a]\nextends = "t"\nschedule = "every 5s"\nmatrix = { r = ["x", "y"] }\n'
    rpr.write("jobs.toml", text)
    result = rpr("validate", env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in result.err.splitlines()}
    assert result.out == "jobs.toml: 2 jobs, ok\n"
    assert "repeater.jobfile.build" in loaded
    assert not loaded & HEAVY
