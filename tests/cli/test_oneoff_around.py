"""Around the one-off commands: what they import, examples, completion."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repeater.cli.commands import COMMANDS, CONTROL, ONE_OFF
from tests.cli.conftest import Rpr

# The modules that a one-off command may import. Each addition delays the first run: `asyncio`, `click`, `pathlib`,
# `subprocess`, `logging` or `zoneinfo` each take longer than a run does.
OF_PYTHON = {
    "abc", "atexit", "bisect", "collections", "contextlib", "copyreg", "datetime", "enum", "errno", "functools", "gc", "heapq",
    "importlib", "itertools", "json", "keyword", "math", "operator", "queue", "random", "re", "reprlib", "resource", "select",
    "selectors", "signal", "threading", "types", "typing", "warnings",
}  # fmt: skip
PURE = {"engine", "model", "plan", "policy", "schedule"}  # of these any: they import nothing but each other
OURS = {
    "apps": {"process_lifecycle"},
    "cli": {"commands", "main", "oneoff.document", "oneoff.options", "oneoff.parse", "oneoff.run", "settings"},
    "jobfile": {
        "build", "document", "fast_schema", "layers", "number_text", "schedules", "schema", "single_job", "table_reader",
        "validate",
    },
    "output": {"run_summary"},
    "processes": {"completion", "fd_poller", "local_spawner"},
    "shim": {"posix_spawn", "process_tree", "spawn"},
    "supervisor": {"auxiliary_runs", "driven_ports", "faults", "launch", "supervisor"},
    "system": {"clock", "loops", "loops.minimal", "null", "signals"},
}  # fmt: skip
ALONE = {"_lazy_dataclasses", "errors", "ports", "settings"}


def imported(rpr: Rpr, *words: str) -> set[str]:
    """The modules that a command line imports beyond those that a bare interpreter does."""
    script = (
        "import sys; before = set(sys.modules); from repeater.cli.main import run; code = run(sys.argv[1:]);"
        "print(*sorted(set(sys.modules) - before), file=open('modules', 'w')); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=rpr.folder, env=rpr.env, capture_output=True)
    assert done.returncode == 0, done.stderr
    return set((rpr.folder / "modules").read_text().split())


def is_allowed(module: str) -> bool:
    first, _, rest = module.partition(".")
    if first != "repeater":
        return first in OF_PYTHON or first.startswith("_")
    package, _, name = rest.partition(".")
    if package in PURE | ALONE or not name:
        return package in PURE | OURS.keys() | ALONE or not package
    return name == "oneoff" or name.startswith("oneoff.") or name in OURS.get(package, set())


def test_a_one_off_command_imports_only_the_listed_modules(rpr: Rpr) -> None:
    found = imported(rpr, "i", "-e", "1s", "-t", "1", "--", "true")
    assert sorted(module for module in found if not is_allowed(module)) == []
    assert "repeater.engine.engine" in found


def test_the_version_imports_three_modules(rpr: Rpr) -> None:
    assert imported(rpr, "--version") == {"repeater", "repeater.cli", "repeater.cli.commands", "repeater.cli.main"}


def test_examples_show_every_command_without_a_file(rpr: Rpr) -> None:
    out = rpr("examples").out
    assert all(f"\nrpr {name} " in out for name in ONE_OFF)
    assert rpr("examples", "fib").out == "rpr fibonacci --base-delay 1s --attempts 8 -- ./flaky.sh\n"
    assert rpr("examples", "nothing").code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_knows_every_command(rpr: Rpr, shell: str) -> None:
    done = rpr("completion", shell)
    assert (done.err, done.code) == ("", 0)
    assert all(name in done.out for name in [*COMMANDS, *CONTROL, *ONE_OFF])


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(rpr: Rpr, tmp_path: Path) -> None:
    script = rpr("completion", "bash").out + (
        'ask() { COMP_WORDS=(rpr "$@"); COMP_CWORD=$#; _rpr; echo "${COMPREPLY[*]}"; }\n'
        "ask inter; ask count --ti; ask c file; ask validate --for\n"
    )
    out = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["interval", "--times --timeout --timestamps", "", "--format"]
