"""Keys and values of other programs get the sentence that shows the right form."""

import re

import pytest

from repeater.jobfile.foreign import foreign_key, known_keys
from tests.unit.jobfile.loading import problems

JOB = '[jobs.a]\ncommand = "x"\n'
KEYS = [
    ("cmd", '"x"', "command"),
    ("ExecStart", '"x"', "command"),
    ("cron", '"0 3 * * *"', 'schedule = "0 3 * * *"'),
    ("every", '"5m"', 'schedule = "every 5m"'),
    ("every", '"5 minutes"', 'schedule = "every 5m"'),
    ("interval", "5", 'schedule = "every 5s"'),
    ("interval", '"PT1H"', 'schedule = "every 1h"'),
    ("OnUnitActiveSec", '"1h"', 'schedule = "every 1h"'),
    ("timezone", '"America/Lima"', 'schedule = { cron = "0 3 * * *", timezone = "America/Lima" }'),
    ("depends_on", '["db", "cache"]', 'needs = ["db", "cache"]'),
    ("depends_on", '{ db = { condition = "service_healthy" } }', 'needs = { db = { condition = "healthy" } }'),
    ("After", '"db cache"', 'needs = ["db", "cache"]'),
    ("restart_policy", '"unless-stopped"', 'restart = "always"'),
    ("autorestart", "false", 'restart = "never"'),
    ("autorestart", '"unexpected"', 'restart = "on-failure"'),
    ("environment", '["A=1"]', 'env = { A = "1" }'),
    ("environment", '{ A = "1" }', "env"),
    ("EnvironmentFile", '"a.env"', 'env_file = "a.env"'),
    ("working_dir", '"/srv"', 'cwd = "/srv"'),
    ("retries", "3", "retry = { attempts = 4 }"),
    ("max_attempts", "3", "retry = { attempts = 3 }"),
    ("timeoutSec", "30", 'timeout = "30s"'),
    ("stopwaitsecs", "10", 'stop_timeout = "10s"'),
    ("stop_grace_period", '"1m30s"', 'stop_timeout = "1m30s"'),
    ("concurrencyPolicy", '"Replace"', 'overlap = "replace"'),
    ("on_failure", '"./alert"', 'hooks = { on_failure = "./alert" }'),
    ("stdout_logfile", '"a.log"', 'output = { file = "a.log" }'),
    ("readiness_probe", "{}", 'ready = { http = "http://127.0.0.1:8080/" }'),
    ("ready_log_line", '"up"', 'ready = { log = "up" }'),
    ("disabled", "true", "enabled = false"),
    ("disabled", "false", "enabled = true"),
    ("max_runs", "7", "stop = { times = 7 }"),
    ("RestartSec", "5", 'slowdown = { base = "5s" }'),
    ("Persistent", "true", 'catch_up = "latest"'),
    ("rate", '"5000/hour"', 'schedule = { rate = "5000/1h" }'),
]
SENTENCES = [
    ("name", "the name of a job is that of its table: `[jobs.NAME]`"),
    ("image", "a job is a command of this machine: `docker run` can be the command"),
    ("steps", "a job has one command: write one job for each step, and connect them with `needs`"),
    ("preconditions", "test it in the command: `test -f FILE && …`"),
    ("KillMode", "leave it out: the stop of a run ends its whole process tree"),
    ("Type", 'write `schedule = "always"` for a service, `schedule = "once"` for one run at start'),
    ("numprocs", "write `matrix = { number = [1, 2] }` for several jobs like this one"),
]
TABLES = [
    ("retry = { retries = 3 }", "write `attempts = 4`"),
    ("retry = { delay = 5 }", 'write `base = "5s"`'),
    ("retry = { attempts = 2, factor = 3 }", "write `multiplier`"),
    ('schedule = { cron = "0 3 * * *", tz = "Europe/Rome" }', 'write `timezone = "Europe/Rome"`'),
    ('schedule = { every = "1m", splay = 5 }', 'write `jitter = "5s"`'),
    ("stop = { runs = 3 }", "write `times = 3`"),
    ('output = { path = "a.log" }', 'write `file = "a.log"`'),
    ('schedule = "always"\nready = { tcp = "x:1", interval = 5 }', 'write `every = "5s"`'),
]
TOP = [
    ("services.a.x = 1", "write `jobs`"),
    ("tasks.a.x = 1", "write `jobs`"),
    ('name = "x"', 'write `project = "x"`'),
    ('environment = { A = "1" }', "write `defaults.env`"),
]
VALUES = [
    ("retry = 3", "write `retry = { attempts = 4 }`; the first attempt counts"),
    ("stop = 3", "write `stop = { times = 3 }`"),
    ('needs = "b"', 'write `needs = ["b"]`'),
    ('env = ["A=1"]', 'write `env = { A = "1" }`'),
    ('output = "a.log"', 'write `output = { file = "a.log" }`'),
    ('output = "/dev/null"', 'write `output = { mode = "suppress" }`'),
    ('ready = "http://x/"', 'write `ready = { http = "http://x/" }`'),
    ('ready = "db:5432"', 'write `ready = { tcp = "db:5432" }`'),
    ('live = "pg_isready"', 'write `live = { exec = "pg_isready" }`'),
    ('labels = ["team=db"]', 'write `labels = { team = "db" }`'),
    ("success = [0, 2]", "write `success = { exit_codes = [0, 2] }`"),
    ('hooks = "./alert"', 'write `hooks = { on_failure = "./alert" }`'),
    ("slowdown = true", 'write `slowdown = { base = "1s" }`'),
    ('enabled = "yes"', "write `enabled = true`"),
    ('enabled = "off"', "write `enabled = false`"),
    ("stop_signal = 9", 'write `stop_signal = "KILL"`'),
    ('restart = "unless-stopped"', 'write `restart = "always"`'),
    ("restart = false", 'write `restart = "never"`'),
    ('overlap = "Forbid"', 'write `overlap = "skip"`'),
    ('needs = { b = { condition = "service_healthy" } }', 'write `condition = "healthy"`'),
    ("schedule = {}", 'write `schedule = "every 30s"`, or leave it out for one run at start'),
    ("schedule = 5", 'write `schedule = "every 5s"`'),
    ('schedule = ["0 3 * * *"]', "a job has one schedule: write one job for each"),
]
SCHEDULES = [
    ("every 5 minutes", '"every 5m"'),
    ("every five minutes", '"every 5m"'),
    ("every minute", '"every 1m"'),
    ("Every 5m", '"every 5m"'),
    ("every 30", '"every 30s"'),
    ("every day at 03:00", '"0 3 * * *"'),
    ("@every 5 minutes", '"every 5m"'),
    ("5 minutes", '"every 5m"'),
    ("hourly", '"@hourly"'),
    ("minutely", '"every 1m"'),
    ("at 03:00", '"0 3 * * *"'),
    ("3:30 pm", '"30 15 * * *"'),
    ("daily at 3am", '"0 3 * * *"'),
    ("weekdays at 8:30", '"30 8 * * 1-5"'),
    ("mondays", '"0 0 * * mon"'),
    ("service", '"always"'),
    ("on-demand", '"manual"'),
    ("startup", '"once"'),
    ("once ever", '"once-ever"'),
    ("on-change", '{ watch = ["src/**"] }'),
    ("2027-01-01 03:00", '{ at = "2027-01-01T00:00:00Z" }'),
]


def hint(text: str) -> str:
    (problem,) = problems(text)
    return problem.partition(" (")[2].removesuffix(")")


@pytest.mark.parametrize(("key", "value", "form"), KEYS)
def test_a_key_of_another_program_gets_its_form_here(key, value, form):
    assert hint(f"{JOB}{key} = {value}\n") == f"write `{form}`"


@pytest.mark.parametrize(("key", "sentence"), SENTENCES)
def test_a_key_without_a_counterpart_gets_a_sentence(key, sentence):
    assert hint(f'{JOB}{key} = "x"\n') == sentence


@pytest.mark.parametrize(("keys", "sentence"), TABLES)
def test_a_foreign_key_of_a_table_gets_its_form_there(keys, sentence):
    assert hint(f"{JOB}{keys}\n") == sentence


@pytest.mark.parametrize(("keys", "sentence"), TOP)
def test_a_foreign_key_at_the_top_of_the_file_gets_its_form(keys, sentence):
    assert hint(f"{keys}\n{JOB}") == sentence


@pytest.mark.parametrize(("keys", "sentence"), VALUES)
def test_a_value_of_the_wrong_shape_gets_the_right_form(keys, sentence):
    assert hint(f'{JOB}{keys}\n[jobs.b]\ncommand = "x"\nschedule = "always"\nready.tcp = "x:1"\n') == sentence


@pytest.mark.parametrize(("text", "form"), SCHEDULES)
def test_prose_for_a_schedule_gets_a_hint_with_the_syntax(text, form):
    assert hint(f'{JOB}schedule = "{text}"\n') == f"write `schedule = {form}`"
    assert problems(f"{JOB}schedule = {form}\n") == []


def test_four_cron_fields_get_the_fifth():
    words = "a cron expression has five fields: minute, hour, day of month, month, day of week"
    assert hint(f'{JOB}schedule = "*/5 3 * *"\n') == f'{words}; write `schedule = "*/5 3 * * *"`'


@pytest.mark.parametrize("version", ['"1"', '"3.8"', "2"])
def test_another_version_gets_the_form_of_the_key(version):
    sentence = "`version` is that of the job-file language: write `version = 1`, or leave it out"
    assert hint(f"version = {version}\n{JOB}") == sentence


@pytest.mark.parametrize(
    ("rate", "form"),
    [("5000/hour", "5000/1h"), ("10 per minute", "10/1m"), ("10/min", "10/1m"), ("5", "5/1s"), ("6 a day", "6/1d")],
)
def test_prose_for_a_rate_gets_a_hint_with_the_syntax(rate, form):
    assert hint(f'{JOB}schedule = {{ rate = "{rate}" }}\n') == f'write `rate = "{form}"`'
    assert hint(f'[limits.x]\nrate = "{rate}"\n{JOB}') == f'write `rate = "{form}"`'


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("-a", "a name begins with a letter or a digit: `a`"),
        (".a", "a name begins with a letter or a digit: `a`"),
        ("my job", "write `my-job`"),
        ("a/b", "write `a-b`"),
    ],
)
def test_a_name_that_cannot_be_gets_one_that_can(name, sentence):
    assert hint(f'[jobs."{name}"]\ncommand = "x"\n') == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("jobs:\n  a:\n    command:x\n", "put a space after the `:` of a key"),
        ('jobs:\n  a:\n    command = "x"\n', "YAML writes `key: value`"),
        ("jobs:\n  a: ./run\n", 'write `{ command = "./run" }`'),
        (
            "jobs:\n  - name: a\n",
            "the name of a job is that of its table: `[jobs.NAME]` in TOML, a key below `jobs` in YAML",
        ),
        ("jobs:\n  a:\n    command: x\n    enabled: yes\n", "write `enabled = true`"),
    ],
)
def test_the_shape_of_a_yaml_file_gets_a_hint(text, sentence):
    (problem,) = problems(text, name="jobs.yaml")
    assert problem.endswith(f"({sentence})")


@pytest.mark.parametrize("value", [5, True, "x", "5 minutes", ["a", "b"], {"a": {"condition": "x"}}, {}, [], "", None])
def test_every_form_for_a_foreign_key_of_a_job_is_valid(value):
    sentences = {foreign_key(key, value, "job") for key in known_keys("job")}
    forms = sorted(re.findall("^write `(.*)`$", one)[0] for one in sentences)
    text = "".join(f'[jobs.{name}]\ncommand = "x"\n' for name in ("a", "b", "x", "other-job", "5", "minutes"))
    for number, form in enumerate(forms):
        if " = " in form:
            service = 'schedule = "always"\n' if form.startswith(("ready", "live", "restart")) else ""
            text += f'[jobs.job{number}]\ncommand = "x"\n{service}{form}\n'
        else:
            assert form in ("command", "env", "env_file", "cwd", "stop_signal", "user", "group")
    given = {"x", "5 minutes", "5", "true"}  # texts that the job file had: no signal, no time
    found = problems(text, more={"x": "", "5 minutes": ""})
    assert [one for one in found if not any(f"found `{text}`" in one for text in given)] == []


@pytest.mark.parametrize("key", ["image2", "hour2", "colour", "zz"])
def test_an_unlike_key_gets_no_suggestion_by_likeness(key):
    assert "did you mean" not in problems(f"{JOB}{key} = 1\n")[0]
