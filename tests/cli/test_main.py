"""The command line as a whole: listing, version, typing errors, pipes, unexpected errors."""

import importlib.util
import subprocess
import sys

import pytest

from repeater import __version__
from repeater.cli.commands import COMMANDS


@pytest.mark.parametrize("flag", ["--version", "-V", "version"])
def test_version_is_one_line(rpr, flag):
    rpr(flag).is_(out=f"rpr {__version__}\n")


def test_version_imports_neither_click_nor_the_commands():
    code = (
        "import sys; from repeater.cli.main import run; run(['--version']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in eval(done.stderr) if not name.startswith("_")}
    assert not loaded & {"click", "dataclasses", "re", "asyncio", "yaml", "importlib.metadata"}
    assert {name for name in loaded if name.startswith("repeater")} == {
        "repeater",
        "repeater.cli",
        "repeater.cli.commands",
        "repeater.cli.main",
    }


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command_without_importing_any(rpr, flag):
    result = rpr(flag)
    assert (result.code, result.err) == (0, "")
    out = " ".join(result.out.split())
    for name, (_, _, summary, shorts) in COMMANDS.items():
        assert f"{', '.join((name, *shorts))} {summary}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_exists_and_has_help_with_an_example(rpr, name):
    module, *_ = COMMANDS[name]
    assert importlib.util.find_spec(module), f"{module} is in the table but does not exist"
    result = rpr(name, "-h")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: rpr {name} ")
    assert "Example" in result.out


def test_an_unknown_command_names_the_nearest(rpr):
    rpr("aply").is_(err="rpr: cannot run `rpr`: unknown command `aply`\nhint: did you mean `rpr apply`?\n", code=2)


def test_an_unknown_command_without_a_neighbour_points_to_the_list(rpr):
    rpr("xyzzy").is_(
        err="rpr: cannot run `rpr`: unknown command `xyzzy`\nhint: `rpr --help` lists all commands\n",
        code=2,
    )


def test_an_unknown_option_names_the_nearest(rpr):
    rpr("validate", "--formt", "json").is_(
        err="rpr: cannot run `rpr validate`: unknown option `--formt`\nhint: did you mean `--format`?\n",
        code=2,
    )


def test_a_closed_pipe_ends_quietly(rpr):
    shell = f'"{sys.executable}" -m repeater schema | head -c 1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=rpr.env, cwd=rpr.folder)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_an_unexpected_error_is_one_line_and_a_hint(monkeypatch, capsys):
    from repeater.cli import main

    def fail(arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(main, "_invoke", fail)
    monkeypatch.delenv("RPR_DEBUG", raising=False)
    monkeypatch.setattr(main, "_secure_streams", lambda: None)
    assert main.run([]) == 1
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "rpr: internal error: ZeroDivisionError: division by zero",
        "hint: this is a bug in rpr; please report it with the traceback shown by `RPR_DEBUG=1`",
    ]


def test_closed_streams_do_no_harm(rpr):
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -m repeater --help <&- >&- 2>&-'], env=rpr.env)
    assert done.returncode == 0
