"""`rpr render`, `graph`, `schema` and `init` through the real command."""

import json
import shutil
import subprocess

import jsonschema
import pytest

JOBS = """\
vars = { host = "example.com" }

[defaults]
timeout = "30s"

[templates.check]
params = { path = { default = "/" } }
command = ["curl", "https://{{ vars.host }}{{ params.path }}"]

[jobs.health]
extends = "check"
with = { path = "/health" }
schedule = "every 30s"

[jobs.poll]
command = "poll {{ matrix.region }} {{ run.id }}"
matrix = { region = ["eu", "us"] }
timeout = "5s"
needs = ["health"]
"""


def test_render_prints_the_expanded_jobs(rpr):
    rpr.write("jobs.toml", 'project = "shop"\n' + JOBS)
    folder = rpr.folder
    rpr("render").is_(
        out=f"""\
version = 1
project = "shop"

[jobs.health]
command = ["curl", "https://example.com/health"]
cwd = "{folder}"
schedule = {{ every = "30s" }}
timeout = "30s"

[jobs."poll[region=eu]"]
command = "poll {{{{ 'eu' }}}} {{{{ run.id }}}}"
cwd = "{folder}"
timeout = "5s"
needs = {{ health = {{ condition = "succeeded" }} }}

[jobs."poll[region=us]"]
command = "poll {{{{ 'us' }}}} {{{{ run.id }}}}"
cwd = "{folder}"
timeout = "5s"
needs = {{ health = {{ condition = "succeeded" }} }}
"""
    )


@pytest.mark.parametrize("form", ["toml", "yaml", "json"])
def test_a_rendered_file_renders_to_itself(rpr, form):
    rpr.write("jobs.toml", 'project = "shop"\n' + JOBS)
    once = rpr("render", "--format", form).out
    rpr.write(f"again.{form}", once)
    rpr("render", f"again.{form}", "--format", form).is_(out=once)


def test_render_of_some_jobs(rpr):
    rpr.write("jobs.toml", JOBS)
    document = json.loads(rpr("render", "--format", "json", "--job", "poll*").out)
    assert list(document["jobs"]) == ["poll[region=eu]", "poll[region=us]"]
    assert rpr("render", "--job", "nope").code == 2


EXPLAINED = {
    ("jobs.health.timeout",): """\
jobs.health.timeout = "30s"
  default                  "never"
* defaults  jobs.toml:4:1  "30s"
""",
    ("jobs.poll.timeout",): """\
jobs.poll[region=eu].timeout = "5s"
  default                   "never"
  defaults  jobs.toml:4:1   "30s"
* job       jobs.toml:18:1  "5s"
""",
    ("jobs.poll[region=us].timeout", "--set", "jobs.poll.timeout=1s"): """\
jobs.poll[region=us].timeout = "1s"
  default                   "never"
  defaults  jobs.toml:4:1   "30s"
  job       jobs.toml:18:1  "5s"
* --set     --set           "1s"
""",
    ("jobs.health.command[1]",): """\
jobs.health.command[1] = "https://example.com/health"
  vars.host       jobs.toml:1:10  "example.com"
  params.path                     "/health"
* template check  jobs.toml:8:20  "https://{{ vars.host }}{{ params.path }}"
""",
    ("jobs.health.overlap",): """\
jobs.health.overlap = "skip"
* default    "skip"
""",
}


@pytest.mark.parametrize("arguments", EXPLAINED, ids=" ".join)
def test_explain_names_every_place_that_contributed(rpr, arguments):
    rpr.write("jobs.toml", JOBS)
    rpr("render", "--explain", *arguments).is_(out=EXPLAINED[arguments])


def test_explain_follows_includes_and_the_environment(rpr):
    rpr.write("jobs.toml", 'include = ["more/*.yaml"]\n')
    rpr.write("more/b.yaml", "jobs:\n  b:\n    command: \"echo {{ env('WHO', 'me') }}\"\n")
    told = """\
jobs.b.command = "echo you"
  env WHO                   "you"
  include  jobs.toml:1:12   "more/b.yaml"
* job      more/b.yaml:3:5  "echo {{ env('WHO', 'me') }}"
"""
    rpr("render", "--explain", "jobs.b.command", env={"WHO": "you"}).is_(out=told)


def test_explain_as_json(rpr):
    rpr.write("jobs.toml", JOBS)
    told = json.loads(rpr("render", "--explain", "jobs.health.timeout", "--format", "json").out)
    assert (told["key"], told["value"]) == ("jobs.health.timeout", "30s")
    assert told["steps"][-1] == {"source": "defaults", "place": "jobs.toml:4:1", "value": "30s", "in_force": True}


def test_explain_of_nothing_is_an_error(rpr):
    rpr.write("jobs.toml", JOBS)
    rpr("render", "--explain", "jobs.helth.timeout").is_(
        err="rpr: cannot explain `jobs.helth.timeout`: expected `jobs.NAME.KEY` of a job in the file\n"
        "hint: did you mean `health`?\n",
        code=2,
    )
    assert rpr("render", "--explain", "jobs.health.pool").code == 2


# --- graph ---


def test_the_tree_puts_a_job_below_what_it_needs(rpr):
    rpr.write("jobs.toml", 'project = "shop"\n' + JOBS)
    rpr("graph").is_(
        out="shop\n└─ health  every 30s\n   ├─ poll[region=eu]  once  (succeeded)\n   └─ poll[region=us]  once  (succeeded)\n"
    )


def test_the_tree_names_a_job_again_but_not_what_is_below_it(rpr):
    text = (
        'project = "p"\n[jobs.a]\ncommand = "x"\n[jobs.b]\ncommand = "x"\n[jobs.c]\ncommand = "x"\nneeds = ["a", "b"]\n'
    )
    text += '[jobs.d]\ncommand = "x"\nneeds = { c = { condition = "failed", required = false, trigger = true } }\n'
    rpr.write("jobs.toml", text)
    rpr("graph").is_(
        out="p\n├─ a  once\n│  └─ c  once  (succeeded)\n│     └─ d  once  (failed, triggers, optional)\n"
        "└─ b  once\n   └─ c  …  (succeeded)\n"
    )


def test_mermaid_and_json_carry_the_edges(rpr):
    rpr.write("jobs.toml", JOBS)
    lines = rpr("graph", "--format", "mermaid").out.splitlines()
    assert lines[0] == "flowchart LR"
    assert lines[-1] == "  j0 -->|succeeded| j2"
    data = json.loads(rpr("graph", "--format", "json").out)
    assert [node["job"] for node in data["nodes"]] == ["health", "poll[region=eu]", "poll[region=us]"]
    assert data["edges"][0] == {
        "from": "health", "to": "poll[region=eu]", "condition": "succeeded", "trigger": False, "required": True, "while": False,
    }  # fmt: skip


@pytest.mark.skipif(not shutil.which("dot"), reason="graphviz is not installed")
def test_dot_renders_with_graphviz(rpr):
    rpr.write("jobs.toml", JOBS)
    drawn = subprocess.run(["dot", "-Tsvg"], input=rpr("graph", "--format", "dot").out, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert "poll[region=eu]" in drawn.stdout


def test_dot_quotes_what_must_be_quoted(rpr):
    rpr.write("jobs.toml", '[jobs.a]\ncommand = "x"\nschedule = { watch = [\'a"b\\\'] }\n')
    assert '"a" [label="a\\nwatch a\\"b\\\\"];' in rpr("graph", "--format", "dot").out


# --- schema and init ---


def test_the_schema_is_printed_as_shipped(rpr):
    schema = json.loads(rpr("schema").out)
    jsonschema.Draft7Validator.check_schema(schema)
    assert rpr("schema", "--format", "markdown").out.startswith("# The keys of a job file\n")


def test_the_starter_is_valid_and_an_existing_file_is_not_replaced(rpr):
    rpr("init").is_(out="wrote jobs.toml; to run it: `rpr apply`\n")
    text = (rpr.folder / "jobs.toml").read_text()
    rpr("validate").is_(out="jobs.toml: 2 jobs, ok\n")
    rpr("init").is_(err="rpr: cannot write `jobs.toml`: the file already exists\nhint: name another file\n", code=2)
    assert (rpr.folder / "jobs.toml").read_text() == text


def test_the_commented_parts_of_the_starter_are_valid_too(rpr):
    rpr("init", "other.toml").is_(out="wrote other.toml; to run it: `rpr apply other.toml`\n")
    path = rpr.folder / "other.toml"
    lines = [
        line.removeprefix("# ") if "=" in line or "[jobs." in line else line for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(line for line in lines if not line.startswith("#:schema")))
    rpr("validate", "other.toml").is_(out="other.toml: 4 jobs, ok\n")


def test_set_keeps_text_and_set_json_gives_any_value(rpr):
    rpr.write(
        "jobs.toml",
        'vars = { ver = "1.0", regions = ["eu"] }\n[jobs.a]\ncommand = ["x", "{{ vars.ver }}", "{{ vars.regions }}"]\n',
    )
    rendered = rpr("render", "--set", "ver=3.10", "--set-json", 'regions=["us", "asia"]').out
    assert 'command = ["x", "3.10", "us", "asia"]' in rendered
    rpr("render", "--set", "regions=us").is_(
        err="--set: vars.regions: found the text `us` for a variable that is a list in the file, expected "
        "`--set-json 'regions=[…]'`\n", code=2,
    )  # fmt: skip
    rpr("render", "--set-json", "regions=us").is_(
        err="rpr: cannot use `--set-json regions=us`: the value is not JSON\nhint: a text in JSON needs quotes\n",
        code=2,
    )
    rpr("render", "--set-json", "regions").is_(
        err="rpr: cannot use `--set-json regions`: expected `KEY=JSON`\n", code=2
    )


def test_explain_shows_what_a_job_takes_back(rpr):
    rpr.write("jobs.toml", '[defaults]\ntimeout = "5s"\n[jobs.a]\ncommand = "x"\nunset = ["timeout"]\n')
    told = rpr("render", "--explain", "jobs.a.timeout").out
    assert "job       jobs.toml:5:10  (unset)" in told.replace('"', "")
    assert "timeout" not in rpr("render").out
