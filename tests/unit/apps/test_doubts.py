"""What a job names and this machine lacks: problems with the place of the job."""

import sys
from datetime import UTC, datetime
from importlib import util

import pytest

from repeater.apps.doubts import machine_problems
from repeater.wire.installed import extra_hint
from tests.unit.jobfile.loading import road

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def told(keys: str, *, path: str = "/bin:/usr/bin", command: str = 'command = "ls"\n') -> list[str]:
    loaded = road(f'[jobs.a]\ncwd = "/"\n{command}{keys}\n')
    return [f"{one.severity} {one}" for one in machine_problems(loaded, {"PATH": path}, NOW)]


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ('schedule = { at = "2026-05-01T00:00:00Z" }', "4:14: warning: jobs.a.schedule.at", "found a time in the past"),
        ('user = "no-such-user"', "4:1: warning: jobs.a.user", "the user `no-such-user` does not exist"),
        ('group = "no-such-group"', "4:1: warning: jobs.a.group", "the group `no-such-group` does not exist"),
        ('shell = ["no-such-shell", "-c"]', "4:1: warning: jobs.a.shell", "there is no program `no-such-shell` in PATH"),
        ('hooks = { on_failure = "no-such-hook x" }', "4:11: warning: jobs.a.hooks.on_failure", "there is no program `no-such-hook`"),
        ('schedule = "always"\nready = { exec = ["no-such-probe"] }', "5:11: warning: jobs.a.ready.exec", "there is no program `no-such-probe`"),
        ('env = { PATH = "/nowhere" }', "3:1: warning: jobs.a.command", "there is no program `ls` in PATH"),
    ],
)  # fmt: skip
def test_a_name_that_this_machine_lacks_is_a_warning(keys, place, message):
    (warning,) = told(keys)
    assert warning.startswith(f"warning jobs.toml:{place}: {message}")


def test_a_directory_that_does_not_exist_is_a_warning():
    loaded = road('[jobs.a]\ncommand = "true"\ncwd = "/no/such/directory"\n')
    (warning,) = machine_problems(loaded, {"PATH": "/bin"}, NOW)
    assert str(warning) == ("jobs.toml:3:1: warning: jobs.a.cwd: the directory `/no/such/directory` does not exist")


@pytest.mark.parametrize("command", ['"no-such-program -x | cat"', '["no-such-program", "-x"]'])
def test_a_program_that_is_not_in_path_is_a_warning(command):
    (warning,) = told("", command=f"command = {command}\n")
    assert "jobs.a.command: there is no program `no-such-program` in PATH" in warning


@pytest.mark.parametrize(
    "command",
    [
        '"cd x && ./run"',
        '"./run"',
        '["./run"]',
        '"A=1 run"',
        '"(run)"',
        '"for x in 1 2; do run; done"',
        "\"'my run' x\"",
    ],
)
def test_a_command_that_only_a_shell_understands_is_not_looked_for(command):
    assert told("", command=f"command = {command}\n") == []


def test_a_job_of_an_executor_plugin_is_not_looked_at():
    assert told('executor = "remote"\nuser = "no-such-user"') == []


def test_a_package_that_is_missing_is_an_error_with_the_place_of_the_job(monkeypatch):
    keys = "schedule = { load = {} }"
    assert told(keys) == []
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    (error,) = told(keys)
    assert error.startswith("error jobs.toml:4:14: jobs.a.schedule.load: found `load`, which needs a package that")
    assert error.endswith(f"({extra_hint('load')})")


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("pipx_metadata.json", "{}", "pipx install --force 'repeater-rpr[load]'"),
        ("uv-receipt.toml", "", "uv tool install 'repeater-rpr[load]'"),
        ("pyvenv.cfg", "home = /usr\nuv = 0.5\n", "uv pip install 'repeater-rpr[load]'"),
        ("pyvenv.cfg", "home = /usr\n", "pip install 'repeater-rpr[load]'"),
        ("other", "", "pip install 'repeater-rpr[load]'"),
    ],
)
def test_the_hint_for_an_extra_fits_the_installer(tmp_path, file, text, line):
    (tmp_path / file).write_text(text)
    assert extra_hint("load", str(tmp_path)) == line
    assert extra_hint("load") == extra_hint("load", sys.prefix)
