"""Numbers keep their text where they become text; quotes are suggested where they are missing."""

import pickle

import pytest

from repeater.jobfile.number_text import written_float, written_int
from tests.unit.jobfile.loading import job, jobs, problems


def in_yaml(keys: str) -> str:
    return f"jobs:\n  a:\n    command: x\n    {keys}\n"


def test_numbers_in_env_keep_their_text_in_yaml():
    env = "env: {A: 1.10, B: 0777, C: 1e3, D: 0o17, E: 0x1F, F: +1, G: .5}"
    found = jobs(in_yaml(env), name="jobs.yaml")["a"].process.env
    assert dict(found) == {"A": "1.10", "B": "0777", "C": "1e3", "D": "0o17", "E": "0x1F", "F": "+1", "G": ".5"}


def test_numbers_and_dates_in_env_keep_their_text_in_toml():
    env = "env = { A = 1.10, C = 1e3, D = 0o17, E = 0x1F, F = +1, G = 1_000, H = 1979-05-27 07:32:00, I = 07:32 }"
    assert dict(job(env).process.env) == {
        "A": "1.10", "C": "1e3", "D": "0o17", "E": "0x1F", "F": "+1", "G": "1_000", "H": "1979-05-27 07:32:00", "I": "07:32",
    }  # fmt: skip


def test_numbers_in_env_keep_their_text_in_json():
    text = '{"jobs": {"a": {"command": "x", "env": {"A": 1.10, "C": 1e3, "D": -0, "E": 1.0E+2}}}}'
    assert dict(jobs(text, name="jobs.json")["a"].process.env) == {"A": "1.10", "C": "1e3", "D": "-0", "E": "1.0E+2"}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("labels = { version = 1.10 }", lambda it: it.labels),
        ('command = ["deploy", 1.10]', lambda it: [it.process.command]),
        ('env = { version = "{{ vars.v }}" }', lambda it: it.process.env),
        ('command = "deploy {{ vars.v }}"', lambda it: [("deploy", it.process.command.split()[1])]),
        ('command = ["deploy", "{{ vars.v }}"]', lambda it: [it.process.command]),
    ],
)
def test_a_number_keeps_its_text_wherever_it_becomes_text(keys, found):
    command = "" if "command" in keys else 'command = "x"\n'
    it = jobs(f"vars = {{ v = 1.10 }}\n[jobs.a]\n{command}{keys}\n")["a"]
    assert [pair[1] for pair in found(it)] == ["1.10"]


def test_a_number_keeps_its_text_beside_what_a_run_fills_in():
    it = jobs('vars = { v = 1.10 }\n[jobs.a]\ncommand = "deploy {{ vars.v }} {{ run.id }} {{ vars.v + 1 }}"\n')["a"]
    assert it.process.command.startswith("deploy {{ '1.10' }} {{ run.id }}")


def test_cells_are_named_by_the_text_of_their_numbers():
    text = 'jobs:\n  a:\n    command: "x{{ matrix.v }}"\n    matrix: {v: [3.9, 3.10]}\n'
    found = jobs(text, name="jobs.yaml")
    assert {name: it.process.command for name, it in found.items()} == {"a[v=3.9]": "x3.9", "a[v=3.10]": "x3.10"}


def test_numbers_that_are_used_as_numbers_are_plain_numbers():
    it = jobs(
        in_yaml("nice: 010\n    retry: {attempts: +3, multiplier: 1.50}\n    rlimits: {nofile: 0x10}"), name="j.yaml"
    )["a"]
    values = (it.process.nice, it.retry.attempts, it.retry.backoff.multiplier, it.process.rlimits[0][1][0])
    assert values == (10, 3, 1.5, 16)
    assert {type(one) for one in values} == {int, float}


def test_a_number_crosses_processes_as_a_plain_one():
    for number in (written_int("+1"), written_float("1.10")):
        assert type(pickle.loads(pickle.dumps(number))) in (int, float)


@pytest.mark.parametrize(
    ("value", "hint"),
    [("077", "077"), ("22", "022"), ("0", "000"), ("777", "777"), ("8", None), ("0x12", None), ("1777", None)],
)
def test_a_file_mode_that_may_not_be_octal_is_an_error(value, hint):
    (told,) = problems(in_yaml(f"umask: {value}"), name="jobs.yaml")
    words = f'jobs.yaml:4:5: jobs.a.umask: found the number `{value}`, expected octal digits as text like `"027"`'
    assert told == words + (f' (write `"{hint}"`)' if hint else "")


@pytest.mark.parametrize("value", ['"022"', "'0022'", "0o22"])
def test_octal_digits_as_text_are_a_file_mode(value):
    assert jobs(in_yaml(f"umask: {value}"), name="jobs.yaml")["a"].process.umask == 0o22


def test_a_file_mode_of_a_template_that_fails_is_one_error():
    (told,) = problems('[jobs.a]\ncommand = "x"\numask = "{{ vars.nope }}"\n')
    assert "cannot render" in told


@pytest.mark.parametrize(
    ("keys", "quoted"),
    [
        ("schedule: */5 * * * *", "*/5 * * * *"),
        ("schedule: * * * * *", "* * * * *"),
        ("schedule: {cron: */5 * * * *}", "*/5 * * * *"),
        ("schedule: @daily  # c", "@daily"),
        ("watch: [*.py]", "*.py"),
        ("watch:\n      - *.py", "*.py"),
        ("cwd: {{ vars.x }}", "{{ vars.x }}"),
        ("cwd: %h/x", "%h/x"),
        ("description: !important", "!important"),
        ("description: *nothing", "*nothing"),
    ],
)
def test_yaml_that_needs_quotes_gets_a_hint(keys, quoted):
    (told,) = problems(in_yaml(keys), name="jobs.yaml")
    assert told.endswith(f'`"{quoted}"`)'), told
    assert "put quotes around" in told


@pytest.mark.parametrize("keys", ["description: a: b", "description: run: fast"])
def test_yaml_with_two_colons_gets_a_hint(keys):
    (told,) = problems(in_yaml(keys), name="jobs.yaml")
    text = keys.partition(": ")[2]
    assert told.endswith(f'found `: ` in a text without quotes (put quotes around it: `"{text}"`)'), told


@pytest.mark.parametrize("value", ["every 30s", "*/5 * * * *", "./run", "@daily", "{{ vars.x }}", "~/x"])
def test_toml_text_without_quotes_gets_a_hint(value):
    (told,) = problems(f"[jobs.a]\nschedule = {value}\n")
    quoted = f'put quotes around it: `"{value}"`'
    assert told.endswith(f"({quoted})"), told
