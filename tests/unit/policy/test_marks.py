"""Marks in the place of secrets: comparable, salted, and wherever a template put a value."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from repeater._lazy_dataclasses import replace
from repeater.jobfile.load import rebuild
from repeater.model.dump import dump_job, dump_json
from repeater.model.spec import Hooks, JobSpec, Output, Plugin, Probe, ProcessSpec
from repeater.policy.marks import UNSALTED, Marks
from tests.unit.jobfile.loading import job as built

VALUE = "correct horse/battery"
MARKS = Marks("salt", {"INHERITED": "from the shell"})


def job(**fields: object) -> JobSpec:
    process = ProcessSpec("true", env=(("TOKEN", VALUE), ("PORT", "80")), secrets=("TOKEN", "INHERITED"))
    return JobSpec("a", replace(process, **fields))  # type: ignore[type-var]


def test_the_mark_of_a_value_carries_its_algorithm() -> None:
    assert dict(MARKS.hide(job()).process.env) == {"TOKEN": "*** hmac-sha256:7823ffcb36ae1da9", "PORT": "80"}


def test_equal_values_have_equal_marks_and_others_have_not() -> None:
    assert MARKS.hide(job()) == MARKS.hide(job())
    assert MARKS.hide(job()) != MARKS.hide(job(env=(("TOKEN", VALUE + "x"), ("PORT", "80"))))


def test_another_salt_gives_other_marks() -> None:
    assert Marks("other", {}).hide(job()) != MARKS.hide(job())


@pytest.mark.parametrize("value", [VALUE, "from the shell"])
@pytest.mark.parametrize("form", ["{}", "x{}y", "{} and {}"])
def test_a_value_in_a_command_is_hidden(value: str, form: str) -> None:
    text = form.format(value, value)
    for command in (text, ("curl", "-H", text)):
        assert value not in dump_json(MARKS.hide(job(command=command)))


def test_encoded_values_in_a_command_are_hidden() -> None:
    encoded = base64.b64encode(VALUE.encode()).decode()
    shown = dump_json(MARKS.hide(job(command=f"curl -u {encoded} 'http://x/?t=correct%20horse%2Fbattery'")))
    assert encoded not in shown
    assert "correct" not in shown


@pytest.mark.parametrize(
    "change",
    [
        {"hooks": Hooks(on_failure=f"mail {VALUE}", on_skip=("x", VALUE))},
        {"ready": Probe(exec=f"check {VALUE}")},
        {"live": Probe(http=f"http://user:{quote(VALUE, safe='')}@localhost:8000/a?token={VALUE}")},
        {"description": f"uses {VALUE}"},
        {"labels": (("a", VALUE),)},
        {"output": Output(plugins=(Plugin.of("jsonl", {"header": {"list": [VALUE]}}),))},
        {"executor": Plugin.of("docker", {"env": f"TOKEN={VALUE}"})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_value_in_any_other_text_of_a_job_is_hidden(change: dict[str, object]) -> None:
    shown = dump_json(MARKS.hide(replace(job(), **change)))  # type: ignore[type-var]
    assert "horse" not in shown
    assert "hmac-sha256:7823ffcb36ae1da9" in shown


def test_a_definition_with_marks_is_still_valid() -> None:
    spec = replace(job(command=f"run {VALUE}", cwd="/", stdin=VALUE), ready=Probe(http=f"http://localhost:80/{VALUE}"))
    assert list(rebuild({"a": dump_job(MARKS.hide(spec))})) == ["a"]


def test_a_port_that_equals_a_secret_stays_a_port() -> None:
    spec = replace(job(env=(("TOKEN", "8000"),)), ready=Probe(tcp="localhost:8000"), live=Probe(http="http://x:8000/"))
    shown = MARKS.hide(spec)
    assert (shown.ready, shown.live) == (spec.ready, spec.live)


def test_short_values_are_hidden_in_env_only() -> None:
    shown = MARKS.hide(job(command="echo yes", env=(("TOKEN", "yes"),)))
    assert shown.process.command == "echo yes"
    assert "yes" not in dict(shown.process.env)["TOKEN"]


def test_a_job_without_secrets_is_the_same_object() -> None:
    spec = JobSpec("a", ProcessSpec(f"echo {VALUE}"))
    assert MARKS.hide(spec) is spec
    assert UNSALTED.hide(spec) is spec


def test_unsalted_marks_are_those_of_0_1_0() -> None:
    spec = JobSpec("web", ProcessSpec("true", env=(("TOKEN", "correct-horse-battery"),), secrets=("TOKEN",)))
    assert dict(UNSALTED.hide(spec).process.env) == {"TOKEN": "*** 62249369"}


HOLDERS = [
    'command = ["x", "hunter-two"]', 'command = "x --token=hunter-two"', 'description = "hunter-two"', 'labels = { a = "hunter-two" }',
    'env = { OTHER = "a hunter-two" }', 'stdin = "hunter-two"', 'cwd = "/hunter-two"', 'shell = ["sh", "hunter-two"]',
    'hooks = { on_failure = ["x", "hunter-two"], on_skip = "hunter-two" }', 'success = { pattern = "hunter-two", failure_pattern = "hunter-two" }',
    'stop = { pattern = "hunter-two" }', 'schedule = { watch = ["hunter-two"], ignore = ["hunter-two"] }',
    'schedule = { plugin = "p", k = { a = ["hunter-two"] } }', 'executor = { plugin = "p", k = "hunter-two" }',
    'schedule = "always"\nwatch = ["hunter-two"]\nwatch_ignore = "hunter-two"\nready = { http = "http://x/hunter-two" }\nlive = { exec = "hunter-two" }',
    'output = { file = "hunter-two", plugins = [{ plugin = "p", k = "hunter-two" }] }', 'http_aware = { fields = ["hunter-two"] }',
    'command = "x {{ run.id }} hunter-two"',
]  # fmt: skip


@pytest.mark.parametrize("keys", HOLDERS)
@pytest.mark.parametrize("own", [True, False], ids=["env", "env_file"])
def test_a_secret_is_hidden_in_every_key_that_holds_its_text(keys: str, own: bool) -> None:
    env = "[jobs.a.env]\nTOKEN = '{}'\n" if own else ""
    keys = f'secrets = ["TOKEN"]\nenv_file = "e"\n{keys}\n'
    found = []
    for value in ("hunter-two", "hunter-six"):
        text = keys.replace("hunter-two", value).replace(
            "env = {", f'env = {{ TOKEN = "{value}",' if own else "env = {"
        )
        if own and "env = {" not in text:
            text += env.format(value)
        spec = built(text, more={"e": "" if own else f"TOKEN={value}\n"})
        shown = dump_json(MARKS.hide(spec))
        assert "hunter" not in shown
        assert spec.process.command == () or "***" in shown
        found.append(shown)
    assert found[0] != found[1]  # a changed secret is a change


def test_a_short_secret_does_not_hide_everything_else() -> None:
    spec = MARKS.hide(built('secrets = ["T"]\nenv = { T = "a", U = "abc" }\ndescription = "banana"'))
    assert (spec.description, dict(spec.process.env)["U"]) == ("banana", "abc")
    assert dict(spec.process.env)["T"].startswith("*** ")
