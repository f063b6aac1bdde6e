"""Variables, defaults, templates, matrix, --set: what wins, what is named, and where a problem is told."""

from datetime import timedelta

import pytest

from repeater.model.spec import Cron, Every, Plugin
from tests.unit.jobfile.road import SMALL, job, jobs, problems, road

TEMPLATE = """
[templates.check]
params = { url = { required = true }, code = { default = 200 } }
command = ["curl", "{{ params.url }}", "{{ params.code }}"]
timeout = "5s"
env = { FROM = "template", T = "1" }
"""


def test_the_order_is_default_then_defaults_then_template_then_job_then_set():
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


def test_the_keys_of_a_default_schedule_plugin_reach_the_same_plugin_and_no_other():
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


def test_of_several_templates_a_later_one_wins():
    text = '[templates.x]\nnice = 1\numask = "001"\n[templates.y]\nnice = 2\n'
    spec = jobs(text + '[jobs.a]\nextends = ["x", "y"]\ncommand = "c"\n')["a"]
    assert (spec.process.nice, spec.process.umask) == (2, 1)


# --- variables and --set ---


def test_a_whole_expression_keeps_its_type():
    spec = job('command = ["x"]\nsuccess = { exit_codes = "{{ vars.codes }}" }\n', set_vars={"codes": "[3, 0]"})
    assert spec.success.exit_codes == (0, 3)


def test_a_variable_may_use_those_above_it():
    text = '[vars]\na = "x"\nb = "{{ vars.a }}y"\n[jobs.a]\ncommand = "{{ vars.b }}"\n'
    assert jobs(text)["a"].process.command == "xy"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5", "5"), ("true", "true"), ('"q"', "q"), ("plain words", "plain words"), ("[1,2]", "[1, 2]"), ("null", "null")],
)
def test_set_gives_a_value_as_json_or_as_text(value, expected):
    assert jobs('[jobs.a]\ncommand = "x {{ vars.v }}"\n', set_vars={"v": value})["a"].process.command == f"x {expected}"


def test_set_leaves_a_text_a_text():
    text = 'vars = { release = "1.10" }\n[jobs.a]\ncommand = ["x", "{{ vars.release }}"]\n'
    assert jobs(text, set_vars={"release": "1.20"})["a"].process.command == ("x", "1.20")


def test_set_reaches_into_tables():
    text = 'vars = { db = { host = "h", port = 1 } }\n[jobs.a]\ncommand = "{{ vars.db.host }}:{{ vars.db.port }}"\n'
    assert jobs(text, set_vars={"vars.db.port": "2"})["a"].process.command == "h:2"
    assert jobs(text, set_vars={"db.port": "2"})["a"].process.command == "h:2"


def test_set_reaches_jobs_with_dots_in_their_names():
    text = '[jobs."a.b"]\ncommand = "x"\n[jobs.a]\ncommand = "y"\n'
    assert jobs(text, set_vars={"jobs.a.b.nice": "3"})["a.b"].process.nice == 3


def test_set_of_an_unknown_job_names_the_nearest():
    assert problems('[jobs.health]\ncommand = "x"\n', set_vars={"jobs.helth.nice": "3"}) == [
        "--set: jobs.helth: there is no job `helth` (did you mean `health`?)"
    ]


def test_a_bad_value_of_set_is_told_as_such():
    assert problems('[jobs.a]\ncommand = "x"\n', set_vars={"jobs.a.timeout": "30"}) == [
        "--set: jobs.a.timeout: found `30`, expected a duration like `30s`, `1h30m`, `500ms` or `2d`, or `never`"
    ]


def test_the_environment_is_that_of_rpr():
    text = "[jobs.a]\ncommand = \"{{ env('HOST') }} {{ env('NONE', 'd') }}\"\n"
    assert jobs(text, environ={"HOST": "h"})["a"].process.command == "h d"


# --- where a problem is told ---


def test_a_problem_of_a_default_is_told_once_and_at_its_place():
    text = '[defaults]\ntimeout = "0s"\n' + "".join(f'[jobs.j{number}]\ncommand = "x"\n' for number in range(3))
    assert problems(text) == ["jobs.toml:2:1: defaults.timeout: found `0s`, expected more than zero, at least `1us`"]


def test_a_problem_of_a_template_is_told_at_its_place():
    text = '[templates.t]\ncommand = "x"\ntimeout = "0s"\n[jobs.a]\nextends = "t"\n[jobs.b]\nextends = "t"\n'
    assert problems(text) == ["jobs.toml:3:1: templates.t.timeout: found `0s`, expected more than zero, at least `1us`"]


def test_a_problem_of_every_cell_is_told_once():
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


def test_even_stagger_spreads_the_cells_over_the_distance():
    text = MATRIX + 'matrix = { region = ["a", "b", "c", "d"], stagger = "even" }\nschedule = "every 1m"\n'
    offsets = [spec.schedule.offset.total_seconds() for spec in jobs(text).values()]
    assert offsets == [0, 15, 30, 45]


def test_axes_may_come_from_a_variable():
    text = 'vars = { rs = ["p", "q"] }\n' + MATRIX + 'matrix = { region = "{{ vars.rs }}" }\n'
    assert list(jobs(text)) == ["poll[region=p]", "poll[region=q]"]


def test_the_old_name_of_a_matrix_is_that_of_each_cell():
    spec = jobs(MATRIX + 'matrix = { region = ["eu"] }\nmoved_from = "old"\n')["poll[region=eu]"]
    assert spec.moved_from == "old[region=eu]"


def test_the_number_of_jobs_is_capped_before_they_are_made():
    text = '[jobs.a]\ncommand = "x"\nmatrix = { r = [1, 2, 3], s = [1, 2] }\n'
    assert problems(text, caps=SMALL) == ["jobs.toml:3:1: jobs.a.matrix: 6 cells, more than the 5 jobs allowed"]
    many = "".join(f'[jobs.j{number}]\ncommand = "x"\n' for number in range(6))
    assert problems(many, caps=SMALL) == ["jobs.toml:11:1: jobs.j5: more than 5 jobs, the most allowed"]


# --- the file as a whole ---


def test_the_project_is_named_by_the_folder_unless_the_file_says_so():
    assert road('[jobs.a]\ncommand = "x"\n').jobfile.project == "p"
    assert road('project = "shop"\n').jobfile.project == "shop"


def test_relative_paths_count_from_the_folder_of_the_first_file():
    more = {
        "sub/b.toml": '[jobs.b]\ncommand = "x"\ncwd = "w"\noutput = { file = "b.log" }\nenv_file = "e"\n',
        "e": "A=1",
    }
    spec = jobs('include = ["sub/b.toml"]\n', more=more)["b"]
    assert (spec.process.cwd, spec.output.file, spec.process.env_file) == ("/p/w", "/p/b.log", ("/p/e",))
    assert spec.process.env_from_files == (("A", "1"),)


def test_every_file_that_was_read_is_told_with_its_digest():
    more = {"d/b.toml": '[jobs.b]\ncommand = "x"\nenv_file = "e"\n', "e": "A=1"}
    loaded = road('include = ["d/*.toml"]\n', more=more)
    assert sorted(loaded.files) == ["/p/d/b.toml", "/p/e", "/p/jobs.toml"]
    assert all(len(digest) == 64 for digest in loaded.files.values())
    assert loaded.globs == ("/p/d/*.toml",)


def test_an_include_may_not_leave_the_folder_by_a_link():
    told = problems('include = ["d/b.toml"]\n', more={"../q/b.toml": '[jobs.b]\ncommand = "x"\n'}, links={"/p/d": "/q"})
    assert told == ["jobs.toml:1:12: include[0]: `d/b.toml` leads to `/q/b.toml`, outside the folder of the first file"]


def test_a_glob_does_not_include_the_file_itself():
    more = {"b.toml": '[jobs.b]\ncommand = "x"\n'}
    assert list(jobs('include = ["*.toml"]\n[jobs.a]\ncommand = "x"\n', more=more)) == ["b", "a"]


def test_variables_of_the_including_file_win():
    more = {"b.toml": 'vars = { x = 1, y = 2 }\n[jobs.b]\ncommand = "{{ vars.x }} {{ vars.y }}"\n'}
    assert jobs('include = ["b.toml"]\nvars = { x = 5 }\n', more=more)["b"].process.command == "5 2"


def test_sizes_are_capped_for_one_file_and_for_all():
    filler = "# " + "x" * 900 + "\n"
    assert problems(filler * 2, caps=SMALL) == [
        "jobs.toml: cannot read it: it has more than 1000 bytes, the most allowed"
    ]
    told = problems('include = ["b.toml"]\n' + filler, more={"b.toml": filler}, caps=SMALL)
    assert told == [
        "jobs.toml:1:12: include[0]: cannot include `b.toml`: all files together have more than 1500 bytes, the most allowed"
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
        "jobs.toml:3:1: jobs.a.needs: the jobs need each other in a circle: a -> m[r=1] -> a",
    ]


def test_after_a_thousand_problems_the_rest_is_not_looked_for():
    many = "".join(f'[jobs.j{number}]\ncommand = "x"\nnope = 1\nneeds = ["q{number}"]\n' for number in range(2000))
    assert len(problems(many)) == 1000
