"""Variables, defaults, templates, matrix, --set: what wins, what is named, and where a problem is told."""

import json
from datetime import timedelta

import pytest

from repeater.jobfile.document import JsonText
from repeater.jobfile.project import default_project
from repeater.model.spec import Cron, Every, Once, Plugin, Probe
from tests.unit.jobfile.loading import SMALL, job, jobs, problems, road

TEMPLATE = """
[templates.check]
params = { url = { required = true }, code = { default = 200 } }
command = ["curl", "{{ params.url }}", "{{ params.code }}"]
timeout = "5s"
env = { FROM = "template", T = "1" }
"""


def test_the_order_is_default_defaults_template_job_set():
    text = '[defaults]\ntimeout = "1s"\nnice = 1\numask = "001"\nstop_timeout = "1s"\n' + TEMPLATE
    text += '[jobs.a]\nextends = "check"\nwith = { url = "x" }\ntimeout = "9s"\n'
    assert jobs(text)["a"].ending.timeout == timedelta(seconds=9)
    assert jobs(text, set_vars={"jobs.a.timeout": "99s"})["a"].ending.timeout == timedelta(seconds=99)
    without = jobs(text.replace('timeout = "9s"\n', ""))["a"]
    assert without.ending.timeout == timedelta(seconds=5)
    assert without.process.nice == 1
    assert without.ending.drain_timeout == timedelta(seconds=2)


def test_tables_are_merged_key_by_key():
    text = '[defaults]\nenv = { FROM = "defaults", D = "1" }\n' + TEMPLATE
    text += '[jobs.a]\nextends = "check"\nwith = { url = "x" }\nenv = { FROM = "job" }\n'
    assert dict(jobs(text)["a"].process.env) == {"FROM": "job", "D": "1", "T": "1"}


def test_lists_are_replaced():
    spec = jobs('[defaults]\nsecrets = ["A", "B"]\n[jobs.a]\ncommand = "x"\nsecrets = ["C"]\n')["a"]
    assert spec.process.secrets == ("C",)


def test_a_default_time_zone_reaches_cron_schedules_and_no_others():
    text = '[defaults]\nschedule = { timezone = "Europe/Berlin" }\n[jobs.a]\ncommand = "x"\nschedule = "@daily"\n'
    text += '[jobs.b]\ncommand = "x"\nschedule = "every 5s"\n[jobs.c]\ncommand = "x"\nschedule = "always"\n'
    found = jobs(text)
    assert found["a"].schedule == Cron("0 0 * * *", timezone="Europe/Berlin")
    assert found["b"].schedule == Every(timedelta(seconds=5))
    assert found["c"].is_service


def test_a_default_schedule_of_another_kind_is_replaced_whole():
    text = '[defaults]\nschedule = { every = "5s", immediate = false }\n[jobs.a]\ncommand = "x"\n'
    assert jobs(text)["a"].schedule == Every(timedelta(seconds=5), immediate=False)
    assert jobs(text + 'schedule = "every 9s"\n')["a"].schedule == Every(timedelta(seconds=9), immediate=False)
    assert jobs(text + 'schedule = "@hourly"\n')["a"].schedule == Cron("0 * * * *")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('{ plugin = "http", b = 2 }', {"a": 1, "b": 2}),
        ('"http"', {"a": 1}),
        ("{ b = 2 }", {"a": 1, "b": 2}),
        ('{ plugin = "other", b = 2 }', {"b": 2}),
        ('"other"', {}),
        ('"local"', None),
    ],
)
def test_the_keys_of_a_default_executor_reach_the_same_plugin_and_no_other(given, wanted):
    text = f'[defaults]\nexecutor = {{ plugin = "http", a = 1 }}\n[jobs.a]\ncommand = "true"\nexecutor = {given}\n'
    executor = jobs(text)["a"].executor
    assert (None if executor is None else executor.table()) == wanted


def test_keys_of_a_default_schedule_plugin_reach_the_same_plugin_only():
    text = '[defaults]\nschedule = { plugin = "sun", a = 1 }\n[jobs.a]\ncommand = "true"\nschedule = '
    assert jobs(f'{text}{{ plugin = "sun", b = 2 }}')["a"].schedule == Plugin.of("sun", {"a": 1, "b": 2})
    assert jobs(f'{text}{{ plugin = "moon", b = 2 }}')["a"].schedule == Plugin.of("moon", {"b": 2})
    assert jobs(f'{text}"every 1s"')["a"].schedule == Every(timedelta(seconds=1))
    assert jobs(f"{text}{{ b = 2 }}")["a"].schedule == Plugin.of("sun", {"a": 1, "b": 2})


def test_service_keys_among_the_defaults_do_not_hurt_other_jobs():
    text = '[defaults]\nrestart = "never"\n[jobs.a]\ncommand = "x"\n[jobs.b]\ncommand = "x"\nschedule = "always"\n'
    found = jobs(text)
    assert (found["a"].restart, found["b"].restart) == ("always", "never")


def test_parameters_reach_the_template_and_keep_their_type():
    text = TEMPLATE + '[jobs.a]\nextends = "check"\nwith = { url = "u", code = 204 }\n'
    assert jobs(text)["a"].process.command == ("curl", "u", "204")


def test_a_template_may_extend_another_and_pass_parameters_on():
    text = TEMPLATE + '[templates.two]\nextends = "check"\nparams = { host = { default = "h" } }\n'
    text += 'with = { url = "http://{{ params.host }}" }\n[jobs.a]\nextends = "two"\nwith = { host = "H", code = 1 }\n'
    assert jobs(text)["a"].process.command == ("curl", "http://H", "1")


@pytest.mark.parametrize(
    ("declared", "given", "wanted"),
    [
        ("", "with = { n = 3 }", "3"),  # the job beats the template that passes a value on
        ("", "", "2"),
        ("params = { m = { default = 7 } }", "with = { n = 3 }", "3"),
        ("params = { n = { default = 7 } }", "with = { n = 3 }", "2"),  # its own parameter, which it does not pass on
    ],
)
def test_the_values_of_the_job_beat_those_that_templates_pass_on(declared, given, wanted):
    text = '[templates.base]\nparams = { n = { default = 1 } }\ncommand = "x {{ params.n }}"\n'
    text += f'[templates.mid]\nextends = "base"\nwith = {{ n = 2 }}\n{declared}\n[jobs.a]\nextends = "mid"\n{given}\n'
    assert jobs(text)["a"].process.command == f"x {wanted}"


def test_a_template_may_change_a_parameter_that_it_passes_on():
    text = '[templates.base]\nparams = { url = { required = true } }\ncommand = "get {{ params.url }}"\n'
    text += '[templates.mid]\nextends = "base"\nparams = { url = { required = true } }\nwith = { url = "{{ params.url }}/health" }\n'
    assert jobs(text + '[jobs.a]\nextends = "mid"\nwith = { url = "u" }\n')["a"].process.command == "get u/health"


# --- keys that are taken back ---

INHERITED = """
[limits.l]
rate = "1/1s"
[pools.p]
slots = 1
[defaults]
limit = "l"
env = { A = "1", B = "2" }
env_file = "e"
hooks = { on_failure = "f" }
timeout = "5s"
http_aware = true
schedule = { every = "1h", jitter = "10%" }
[templates.t]
pool = "p"
umask = "001"
"""


@pytest.mark.parametrize(
    ("unset", "found"),
    [
        ("limit", lambda spec: spec.limit is None),
        ("env.A", lambda spec: spec.process.env == (("B", "2"),)),
        ("env", lambda spec: spec.process.env == ()),
        ("env_file", lambda spec: spec.process.env_file == ()),
        ("hooks", lambda spec: spec.hooks.on_failure is None),
        ("hooks.on_failure", lambda spec: spec.hooks.on_failure is None),
        ("timeout", lambda spec: spec.ending.timeout is None),
        ("http_aware", lambda spec: spec.http_aware is None),
        ("pool", lambda spec: spec.pool is None),
        ("umask", lambda spec: spec.process.umask is None),
        ("schedule", lambda spec: spec.schedule == Once()),
        ("schedule.jitter", lambda spec: spec.schedule == Every(timedelta(hours=1))),
        ("nice", lambda spec: spec.process.nice == 0),  # nothing gives it, which is no problem
    ],
)
def test_a_job_takes_back_any_inherited_key(unset, found):
    text = INHERITED + f'[jobs.a]\nextends = "t"\ncommand = "x"\nunset = ["{unset}"]\n'
    assert found(jobs(text, more={"e": "C=3"})["a"])
    assert found(jobs(text.replace(f'["{unset}"]', f'"{unset}"'), more={"e": "C=3"})["a"])
    text = INHERITED + '[jobs.a]\nextends = "t"\ncommand = "x"\n'
    values = {"jobs.a.unset": JsonText(json.dumps([unset]))}
    assert found(jobs(text, more={"e": "C=3"}, set_vars=values)["a"])


def test_the_keys_of_the_job_apply_after_what_it_takes_back():
    text = (
        INHERITED
        + '[jobs.a]\ncommand = "x"\nunset = ["env", "schedule", "env_file"]\nenv = { C = "3" }\nschedule = { every = "1m" }\n'
    )
    spec = jobs(text, more={"e": ""})["a"]
    assert (spec.process.env, spec.schedule) == ((("C", "3"),), Every(timedelta(minutes=1)))


def test_a_template_takes_back_what_weaker_layers_give():
    text = (
        INHERITED
        + '[templates.u]\nunset = ["limit", "pool"]\n[jobs.a]\nextends = ["t", "u"]\ncommand = "x"\nunset = ["env_file"]\n'
    )
    spec = jobs(text)["a"]
    assert (spec.limit, spec.pool, spec.process.umask) == (None, None, 1)


def test_unset_of_an_unknown_key_names_the_nearest():
    text = INHERITED + '[jobs.a]\ncommand = "x"\nunset = ["env_file", "limt"]\n'
    (told,) = problems(text)
    assert told.startswith("jobs.toml:19:22: jobs.a.unset[1]: found `limt`, expected a key that a job may inherit")
    assert told.endswith("(did you mean `limit`?)")
    assert problems(text.replace('"limt"', '"extends"'))


def test_a_null_is_reported_at_its_own_place_and_names_unset():
    more = {"b.yaml": "jobs:\n  b:\n    command: x\n    limit: null\n    env: {A: null}\n"}
    told = problems(
        'include = ["b.yaml"]\n[limits.l]\nrate = "1/1s"\n[defaults]\nlimit = "l"\nenv = { A = "1" }\n', more=more
    )
    assert [one.split(": ")[0] for one in told] == ["b.yaml:4:5", "b.yaml:5:11"]
    assert told[0].endswith('(`unset = ["limit"]` removes an inherited value)')
    assert told[1].endswith('(`unset = ["env.A"]` removes an inherited value)')


# --- lists in lists ---


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ('command = ["x", "{{ vars.args }}", "y"]', lambda spec: spec.process.command == ("x", "-a", "1", "y")),
        ('command = ["x", "{{ vars.args }} "]', lambda spec: spec.process.command == ("x", '["-a", 1] ')),
        ('command = ["x", "{{ vars.none }}"]', lambda spec: spec.process.command == ("x",)),
        ('hooks = { on_failure = ["f", "{{ vars.args }}"] }', lambda spec: spec.hooks.on_failure == ("f", "-a", "1")),
        ('schedule = { watch = ["x", "{{ vars.globs }}"] }', lambda spec: spec.schedule.globs == ("x", "p", "q")),
        ('success = { exit_codes = [0, "{{ vars.codes }}"] }', lambda spec: spec.success.exit_codes == (0, 3, 4)),
        (
            'executor = { plugin = "e", l = ["{{ vars.args }}"] }',
            lambda spec: spec.executor.table() == {"l": [["-a", 1]]},
        ),
        (
            'schedule = { plugin = "e", l = ["{{ vars.args }}"] }',
            lambda spec: spec.schedule.table() == {"l": [["-a", 1]]},
        ),
        (
            'output = { plugins = [{ plugin = "e", l = ["{{ vars.args }}"] }] }',
            lambda spec: spec.output.plugins[0].table() == {"l": [["-a", 1]]},
        ),
    ],
)
def test_an_expression_with_a_list_is_spread_into_the_list_around_it(keys, found):
    text = 'vars = { args = ["-a", 1], none = [], globs = ["p", "q"], codes = [3, 4] }\n[jobs.a]\n'
    command = "" if keys.startswith("command") else 'command = "x"\n'
    assert found(jobs(text + command + keys + "\n")["a"])


def test_of_several_templates_a_later_one_wins():
    text = '[templates.x]\nnice = 1\numask = "001"\n[templates.y]\nnice = 2\n'
    spec = jobs(text + '[jobs.a]\nextends = ["x", "y"]\ncommand = "c"\n')["a"]
    assert (spec.process.nice, spec.process.umask) == (2, 1)


# --- variables and --set ---


def test_a_whole_expression_keeps_its_type():
    codes = {"codes": JsonText("[3, 0]")}
    spec = job('command = ["x"]\nsuccess = { exit_codes = "{{ vars.codes }}" }\n', set_vars=codes)
    assert spec.success.exit_codes == (0, 3)


def test_a_variable_may_use_those_above_it():
    text = '[vars]\na = "x"\nb = "{{ vars.a }}y"\n[jobs.a]\ncommand = "{{ vars.b }}"\n'
    assert jobs(text)["a"].process.command == "xy"


@pytest.mark.parametrize(
    "value",
    ["5", "true", '"q"', "plain words", "[1,2]", "null", "3.10", "1e3", "007", ""],
)
def test_set_of_a_new_variable_gives_its_text(value):
    assert jobs('[jobs.a]\ncommand = "x {{ vars.v }}"\n', set_vars={"v": value})["a"].process.command == f"x {value}"


@pytest.mark.parametrize(
    ("in_file", "given", "expected"),
    [
        ('"1.10"', "1.20", "1.20"),
        ('"1.10"', "true", "true"),
        ("1.5", "3.10", 3.1),
        ("1", "3.10", 3.1),
        ("1", "auto", "auto"),
        ("1", "[1]", "[1]"),
        ("false", "true", True),
        ("true", "1", 1),
        ("true", "yes", "yes"),
        ("true", "null", "null"),
    ],
)
def test_set_gives_text_unless_the_variable_is_a_number_or_a_truth(in_file, given, expected):
    loaded = road(f'vars = {{ v = {in_file} }}\n[jobs.a]\ncommand = "x"\n', set_vars={"v": given})
    found = loaded.expansion.names["vars"]["v"]
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(("in_file", "shape"), [('["a"]', "a list"), ("{ a = 1 }", "a table")])
def test_set_of_a_list_or_a_table_names_set_json(in_file, shape):
    (told,) = problems(f'vars = {{ v = {in_file} }}\n[jobs.a]\ncommand = "x"\n', set_vars={"v": "b,c"})
    assert told.startswith(
        f"--set: vars.v: found the text `b,c` for a variable that is {shape} in the file, expected `--set-json"
    )


@pytest.mark.parametrize("text", ["[1, 2.5]", "true", '"3.10"', "3.10", '{"a": [null]}', "null"])
def test_set_json_gives_the_value_whatever_the_file_has(text):
    for in_file in ("1", '"x"', "[1]", "true"):
        loaded = road(f'vars = {{ v = {in_file} }}\n[jobs.a]\ncommand = "x"\n', set_vars={"v": JsonText(text)})
        assert loaded.expansion.names["vars"]["v"] == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 3000, "[" * 60 + "]" * 60, "{'a': 1}"])
def test_set_json_refuses_what_a_job_file_could_not_hold(text):
    assert problems('[jobs.a]\ncommand = "x"\n', set_vars={"v": JsonText(text)})


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("env.VER", "3.10", lambda spec: dict(spec.process.env)["VER"] == "3.10"),
        ("labels.n", "1e3", lambda spec: dict(spec.labels)["n"] == "1e3"),
        ("description", "12", lambda spec: spec.description == "12"),
        ("command", "[1]", lambda spec: spec.process.command == "[1]"),
        ("nice", "3", lambda spec: spec.process.nice == 3),
        ("enabled", "false", lambda spec: spec.enabled is False),
        ("retry.attempts", "4", lambda spec: spec.retry.attempts == 4),
        ("http_aware", "true", lambda spec: spec.http_aware is not None),
        ("timeout", "4s", lambda spec: spec.ending.timeout == timedelta(seconds=4)),
        ("stop.times", "4", lambda spec: spec.stop.times == 4),
    ],
)
def test_set_of_a_key_gives_text_where_the_key_takes_text(key, text, found):
    assert found(jobs('[jobs.a]\ncommand = "x"\n', set_vars={f"jobs.a.{key}": text})["a"])


def test_set_reaches_into_tables():
    text = 'vars = { db = { host = "h", port = 1 } }\n[jobs.a]\ncommand = "{{ vars.db.host }}:{{ vars.db.port }}"\n'
    assert jobs(text, set_vars={"vars.db.port": "2"})["a"].process.command == "h:2"
    assert jobs(text, set_vars={"db.port": "2"})["a"].process.command == "h:2"


def test_set_reaches_jobs_with_dots_in_their_names():
    text = '[jobs."a.b"]\ncommand = "x"\n[jobs.a]\ncommand = "y"\n'
    assert jobs(text, set_vars={"jobs.a.b.nice": "3"})["a.b"].process.nice == 3


def test_set_of_an_unknown_job_names_the_nearest():
    assert problems('[jobs.health]\ncommand = "x"\n', set_vars={"jobs.helth.nice": "3"}) == [
        "--set: jobs.helth: unknown job `helth` (did you mean `health`?)"
    ]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("regoin", "--set: vars.regoin: there is no variable `regoin` (did you mean `region`?)"),
        ("vars.regoin", "--set: vars.regoin: there is no variable `regoin` (did you mean `region`?)"),
        ("db.hsot", "--set: vars.db.hsot: there is no variable `db.hsot` (did you mean `host`?)"),
        ("zz", '--set: vars.zz: there is no variable `zz` (declare it in `vars`: `zz = ""`)'),
        ("job.a.nice", '--set: vars.job: there is no variable `job` (declare it in `vars`: `job = ""`)'),
    ],
)
def test_set_of_an_unknown_variable_is_an_error(key, message):
    text = 'vars = { region = "eu", db = { host = "h" } }\n[jobs.a]\ncommand = "{{ vars.region }}"\n'
    assert problems(text, set_vars={key: "3"}) == [message]
    assert problems(text, set_vars={key: JsonText("3")}) == [message]


def test_set_of_a_variable_that_only_a_template_names_is_allowed():
    text = '[jobs.a]\ncommand = "{{ vars.db.host }}"\n'
    assert jobs(text, set_vars={"db.host": "h"})["a"].process.command == "h"


def test_a_bad_value_of_set_is_reported_as_such():
    (told,) = problems('[jobs.a]\ncommand = "x"\n', set_vars={"jobs.a.timeout": "30"})
    words = "found `30`, expected a duration like `30s`, `1h30m`, `500ms` or `2d`, or `never` (write `30s` for seconds)"
    assert told == f"--set: jobs.a.timeout: {words}"


def test_the_environment_is_that_of_rpr():
    text = "[jobs.a]\ncommand = \"{{ env('HOST') }} {{ env('NONE', 'd') }}\"\n"
    assert jobs(text, environ={"HOST": "h"})["a"].process.command == "h d"


# --- where a problem is told ---


def test_a_problem_of_a_default_is_reported_once_and_at_its_place():
    text = '[defaults]\ntimeout = "0s"\n' + "".join(f'[jobs.j{number}]\ncommand = "x"\n' for number in range(3))
    assert problems(text) == ["jobs.toml:2:1: defaults.timeout: found `0s`, expected more than zero, at least `1us`"]


def test_a_problem_of_a_template_is_reported_at_its_place():
    text = '[templates.t]\ncommand = "x"\ntimeout = "0s"\n[jobs.a]\nextends = "t"\n[jobs.b]\nextends = "t"\n'
    assert problems(text) == ["jobs.toml:3:1: templates.t.timeout: found `0s`, expected more than zero, at least `1us`"]


def test_a_problem_of_every_cell_is_reported_once():
    text = '[jobs.a]\ncommand = "x"\nmatrix = { r = ["x", "y"] }\ntimeout = "0s"\n'
    assert problems(text) == ["jobs.toml:4:1: jobs.a.timeout: found `0s`, expected more than zero, at least `1us`"]


def test_a_problem_in_an_included_file_names_that_file():
    more = {"jobs.d/x.yaml": "jobs:\n  b:\n    command: x\n    overlap: nope\n"}
    told = problems('include = ["jobs.d/*"]\n', more=more)
    assert len(told) == 1
    assert told[0].startswith("jobs.d/x.yaml:4:5: jobs.b.overlap: found `nope`, expected one of ")


# --- matrix ---

MATRIX = '[jobs.poll]\ncommand = "poll {{ matrix.region }} {{ job.name }} {{ job.group }}"\n'


def test_cells_have_stable_names_in_the_order_of_the_axes():
    text = MATRIX + 'matrix = { region = ["eu", "us"], size = [1, true] }\n'
    assert list(jobs(text)) == [
        "poll[region=eu,size=1]", "poll[region=eu,size=true]", "poll[region=us,size=1]", "poll[region=us,size=true]",
    ]  # fmt: skip


def test_a_cell_knows_its_group_its_axes_and_its_names():
    spec = jobs(MATRIX + 'matrix = { region = ["eu"], max_parallel = 3 }\n')["poll[region=eu]"]
    assert (spec.group, spec.cell, spec.max_parallel) == ("poll", (("region", "eu"),), 3)
    assert spec.process.command == "poll eu poll[region=eu] poll"


def test_exclude_takes_away_and_include_adds():
    text = (
        MATRIX + 'matrix = { region = ["eu", "us"], exclude = [{ region = "us" }], include = [{ region = "asia" }] }\n'
    )
    assert list(jobs(text)) == ["poll[region=eu]", "poll[region=asia]"]


def test_include_adds_keys_to_cells_that_it_fits():
    text = "[jobs.poll]\ncommand = \"{{ matrix.r }} {{ matrix.k | default('-') }}\"\n"
    text += 'matrix = { r = ["x", "y"], include = [{ r = "x", k = "more" }] }\n'
    assert [spec.process.command for spec in jobs(text).values()] == ["x more", "y -"]
    assert list(jobs(text)) == ["poll[r=x]", "poll[r=y]"]


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        ("{ r = [1, 2], exclude = [{ r = 1 }] }", ["2"]),
        ("{ r = [0, true, 1], exclude = [{ r = true }] }", ["0", "1"]),
        ("{ r = [0, true, 1], exclude = [{ r = 1 }] }", ["0", "true"]),
        ("{ r = [0, false], exclude = [{ r = false }] }", ["0"]),
        ("{ r = [0, 2], include = [{ r = false }] }", ["0", "2", "false"]),
        ("{ r = [1, 2], include = [{ r = true, k = 5 }] }", ["1", "2", "true"]),
    ],
)
def test_true_is_not_one_in_exclude_and_include(matrix, wanted):
    found = jobs(f'[jobs.a]\ncommand = "x"\nmatrix = {matrix}\n')
    assert list(found) == [f"a[r={value}]" for value in wanted]


@pytest.mark.parametrize(
    ("matrix", "wanted"),
    [
        (
            "{ r = [1, 2], exclude = [{ r = true }] }",
            ".exclude[0]: found `true`, which is not a value of the axis `r`: `1`, `2`",
        ),
        (
            "{ r = [1, 2], exclude = [{ r = 1 }, { r = 3 }] }",
            ".exclude[1]: found `3`, which is not a value of the axis `r`: `1`, `2`",
        ),
        (
            '{ r = ["' + "x" * 101 + '"] }',
            ".r[0]: found 101 characters, expected at most 100: the value is part of the name of the cell",
        ),
        (
            '{ r = ["a b"] }',
            ".r[0]: found `a b`, which contains a space, expected a number or a text without spaces, commas, `=` and brackets",
        ),
        ('{ r = ["?a=b"] }', ".r[0]: found `?a=b`, which contains `=`, expected"),
        ('{ r = ["x", "y", "x"] }', ".r[2]: found `x` twice, also in `r[0]`: both name the same cell"),
        ('{ r = ["1", 1] }', ".r[1]: found `1` twice, also in `r[0]`: both name the same cell"),
        (
            "{ include = [{ r = 1, s = 2 }, { r = 1, s = 2 }] }",
            ": found two cells with `r` = `1`, `s` = `2`, expected each",
        ),
        (
            "{ " + ", ".join(f'{axis} = ["{axis * 99}"]' for axis in "abcde") + " }",
            ": found a cell whose axes and values have 509 characters",
        ),
    ],
)
def test_a_bad_matrix_is_reported_with_its_problem_and_place(matrix, wanted):
    (told,) = problems(f'[jobs.a]\ncommand = "x"\nmatrix = {matrix}\n')
    assert f"jobs.a.matrix{wanted}" in told


@pytest.mark.parametrize("value", ["a/b", "../x", "https://x/y"])
def test_a_value_with_slashes_names_a_cell(value):
    assert list(jobs(f'[jobs.a]\ncommand = "x"\nmatrix = {{ r = ["{value}"] }}\n')) == [f"a[r={value}]"]


@pytest.mark.parametrize("mark", ["{#", "{{", "{%"])
def test_a_template_mark_in_a_command_gets_a_hint_with_the_syntax(mark):
    text = '[jobs.a]\ncommand = "echo $' + mark + 'arr[@]}"\n'
    (told,) = problems(text)
    assert told.endswith(f"(to write `{mark}` itself, use `{{{{ '{mark}' }}}}`)")
    written = text.replace(mark, f"{{{{ '{mark}' }}}}")
    assert jobs(written)["a"].process.command == f"echo ${mark}arr[@]}}"


def test_even_stagger_spreads_the_cells_over_the_distance():
    text = MATRIX + 'matrix = { region = ["a", "b", "c", "d"], stagger = "even" }\nschedule = "every 1m"\n'
    offsets = [spec.schedule.offset.total_seconds() for spec in jobs(text).values()]
    assert offsets == [0, 15, 30, 45]


def test_axes_can_be_taken_from_a_variable():
    text = 'vars = { rs = ["p", "q"] }\n' + MATRIX + 'matrix = { region = "{{ vars.rs }}" }\n'
    assert list(jobs(text)) == ["poll[region=p]", "poll[region=q]"]


def test_the_old_name_of_a_matrix_is_that_of_each_cell():
    spec = jobs(MATRIX + 'matrix = { region = ["eu"] }\nmoved_from = "old"\n')["poll[region=eu]"]
    assert spec.moved_from == "old[region=eu]"


def test_the_number_of_jobs_is_capped_before_they_are_made():
    text = '[jobs.a]\ncommand = "x"\nmatrix = { r = [1, 2, 3], s = [1, 2] }\n'
    assert problems(text, caps=SMALL) == ["jobs.toml:3:1: jobs.a.matrix: 6 cells, more than the limit of 5 jobs"]
    fits = '[jobs.a]\ncommand = "x"\nmatrix = { r = [1, 2, 3, 4, 5] }\n'
    assert len(jobs(fits, caps=SMALL)) == 5
    many = "".join(f'[jobs.j{number}]\ncommand = "x"\n' for number in range(6))
    assert problems(many, caps=SMALL) == ["jobs.toml:11:1: jobs.j5: more than 5 jobs, the limit"]


@pytest.mark.parametrize(("length", "fits"), [(97, True), (98, False)])
def test_a_cell_has_at_most_400_characters(length, fits):
    axes = {"a": "x" * 98, "b": "x" * 97, "c": "x" * 97, "d": "x" * length}
    text = '[jobs.j]\ncommand = "x"\n[jobs.j.matrix]\n' + "".join(
        f'{axis} = ["{text}"]\n' for axis, text in axes.items()
    )
    found = (
        []
        if fits
        else [
            "jobs.toml:3:1: jobs.j.matrix: found a cell whose axes and values have 401 characters, expected at most 400"
        ]
    )
    assert problems(text) == found


# --- the file as a whole ---


def test_the_project_is_named_by_the_file_or_else_the_folder():
    assert road('[jobs.a]\ncommand = "x"\n').jobfile.project == "p"
    assert road('project = "shop"\n').jobfile.project == "shop"
    assert default_project("/srv/" + "x" * 70) == "x" * 64


def test_a_probe_without_times_has_those_of_the_schema():
    spec = job('command = "x"\nschedule = "always"\nready = { tcp = "h:1" }\nlive = { tcp = "h:1" }\n')
    assert spec.ready == Probe(tcp="h:1") == spec.live
    assert (spec.ready.every, spec.ready.timeout) == (timedelta(seconds=1), timedelta(seconds=2))


def test_relative_paths_count_from_the_folder_of_the_first_file():
    more = {
        "sub/b.toml": '[jobs.b]\ncommand = "x"\ncwd = "w"\noutput = { file = "b.log" }\nenv_file = "e"\n',
        "e": "A=1",
    }
    spec = jobs('include = ["sub/b.toml"]\n', more=more)["b"]
    assert (spec.process.cwd, spec.output.file, spec.process.env_file) == ("/p/w", "/p/b.log", ("/p/e",))
    assert spec.process.env_from_files == (("A", "1"),)


def test_every_file_that_was_read_is_reported_with_its_digest():
    more = {"d/b.toml": '[jobs.b]\ncommand = "x"\nenv_file = "e"\n', "e": "A=1"}
    loaded = road('include = ["d/*.toml"]\n', more=more)
    assert sorted(loaded.files) == ["/p/d/b.toml", "/p/e", "/p/jobs.toml"]
    assert all(len(digest) == 64 for digest in loaded.files.values())
    assert loaded.globs == ("/p/d/*.toml",)


def test_an_include_cannot_reach_outside_the_folder_by_a_link():
    told = problems('include = ["d/b.toml"]\n', more={"../q/b.toml": '[jobs.b]\ncommand = "x"\n'}, links={"/p/d": "/q"})
    assert told == [
        "jobs.toml:1:12: include[0]: `d/b.toml` leads to `/q/b.toml`, outside the directory of the first file"
    ]


def test_a_glob_does_not_include_the_file_itself():
    more = {"b.toml": '[jobs.b]\ncommand = "x"\n'}
    assert list(jobs('include = ["*.toml"]\n[jobs.a]\ncommand = "x"\n', more=more)) == ["b", "a"]


def test_a_glob_that_matches_only_including_files_is_not_a_cycle():
    assert list(jobs('include = ["*.toml"]\n[jobs.a]\ncommand = "x"\n')) == ["a"]
    more = {"d/b.toml": 'include = ["*.toml"]\n[jobs.b]\ncommand = "x"\n', "c.toml": 'include = ["j*.toml"]\n'}
    assert list(jobs('include = ["d/b.toml", "c.toml"]\n[jobs.a]\ncommand = "x"\n', more=more)) == ["b", "a"]


def test_a_file_that_is_included_twice_is_read_once():
    more = {"b.toml": '[jobs.b]\ncommand = "x"\n', "c.toml": 'include = ["b.toml"]\n[jobs.c]\ncommand = "x"\n'}
    root = 'include = ["b.toml", "*.toml", "b.toml", "c.toml"]\n[jobs.a]\ncommand = "x"\n'
    assert list(jobs(root, more=more)) == ["b", "c", "a"]
    assert list(jobs(root, more=more, links={"/p/l.toml": "/p/b.toml"})) == ["b", "c", "a"]


def test_files_of_a_list_and_of_a_glob_have_the_documented_order():
    more = {
        f"d/{name}.toml": f'vars = {{ x = "{name}" }}\n[defaults]\numask = "00{number}"\n'
        for number, name in enumerate("acb")
    }
    root = '[jobs.a]\ncommand = "{{ vars.x }}"\n'
    assert jobs('include = ["d/*.toml"]\n' + root, more=more)["a"].process.command == "c"
    assert jobs('include = ["d/*.toml"]\n' + root, more=more)["a"].process.umask == 1
    spec = jobs('include = ["d/c.toml", "d/b.toml", "d/a.toml"]\n' + root, more=more)["a"]
    assert (spec.process.command, spec.process.umask) == ("a", 0)
    assert jobs('include = ["d/*.toml"]\nvars = { x = "own" }\n' + root, more=more)["a"].process.command == "own"


def test_variables_of_the_including_file_win():
    more = {"b.toml": 'vars = { x = 1, y = 2 }\n[jobs.b]\ncommand = "{{ vars.x }} {{ vars.y }}"\n'}
    assert jobs('include = ["b.toml"]\nvars = { x = 5 }\n', more=more)["b"].process.command == "5 2"


def test_sizes_are_capped_for_one_file_and_for_all():
    filler = "# " + "x" * 900 + "\n"
    assert problems(filler * 2, caps=SMALL) == ["jobs.toml: cannot read it: it has more than 1000 bytes, the limit"]
    told = problems('include = ["b.toml"]\n' + filler, more={"b.toml": filler}, caps=SMALL)
    assert told == [
        "jobs.toml:1:12: include[0]: cannot include `b.toml`: all files together have more than 1500 bytes, the limit"
    ]


# --- equal meanings ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('schedule = "every 30s"', 'schedule = { every = "30000ms" }'),
        ('schedule = "*/5 * * * *"', 'schedule = "0-59/5 * * * *"'),
        ('schedule = "@daily"', 'schedule = { cron = "0 0 * * *", timezone = "UTC" }'),
        ('timeout = "1h30m"', 'timeout = "90m"'),
        ('env = { A = 1, B = "x" }', 'env = { B = "x", A = "1" }'),
        ("success = { exit_codes = [3, 0, 3] }", "success = { exit_codes = [0, 3] }"),
        ('stop_signal = "SIGINT"', 'stop_signal = "INT"'),
        ('cwd = "a/../b"', 'cwd = "/p/b"'),
        ('output = { max_size = "1MB", file = "x" }', 'output = { max_size = "1000kB", file = "./x" }'),
        ("retry = { attempts = 2, multiplier = 3 }", "retry = { attempts = 2, multiplier = 3.0 }"),
        ("umask = 0o027", 'umask = "027"'),
        ('needs = ["b"]', 'needs = { b = { condition = "succeeded" } }'),
    ],
)
def test_two_texts_of_one_meaning_give_equal_specs(one, other):
    rest = '\n[jobs.b]\ncommand = "x"\n'
    text = '[jobs.a]\ncommand = "x"\n'
    assert jobs(text + one + rest)["a"] == jobs(text + other + rest)["a"]


def test_toml_yaml_and_json_carry_the_same_model():
    toml = '[jobs.a]\ncommand = ["x", "1"]\nschedule = { every = "5s" }\nenv = { ON = "no" }\n'
    yaml = "jobs:\n  a:\n    command: [x, 1]\n    schedule: {every: 5s}\n    env: {ON: no}\n"
    plain = '{"jobs": {"a": {"command": ["x", 1], "schedule": {"every": "5s"}, "env": {"ON": "no"}}}}'
    assert jobs(toml) == jobs(yaml, name="j.yaml") == jobs(plain, name="j.json")


@pytest.mark.parametrize(
    ("keys", "condition"), [('schedule = "always"\nready = { tcp = "h:1" }', "healthy"), ('schedule = "always"', "started"), ("", "succeeded")]
)  # fmt: skip
def test_the_usual_condition_depends_on_the_needed_job(keys, condition):
    found = jobs(f'[jobs.a]\ncommand = "x"\nneeds = ["b"]\n[jobs.b]\ncommand = "x"\n{keys}\n')
    assert [need.condition for need in found["a"].needs] == [condition]


def test_a_circle_through_a_matrix_is_named():
    text = '[jobs.a]\ncommand = "x"\nneeds = ["m"]\n[jobs.m]\ncommand = "x"\nmatrix = { r = [1, 2] }\nneeds = ["a"]\n'
    assert problems(text) == [
        "jobs.toml:3:1: jobs.a.needs: dependency cycle: a -> m[r=1] -> a",
    ]


def test_after_a_thousand_problems_the_rest_is_not_looked_for():
    many = "".join(f'[jobs.j{number}]\ncommand = "x"\nnope = 1\nneeds = ["q{number}"]\n' for number in range(2000))
    assert len(problems(many)) == 1000
