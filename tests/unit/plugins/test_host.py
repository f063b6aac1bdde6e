"""A run of an executor: what it is told, how it ends, and whose fault it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.plugins.bad import MODULE

TASK = {
    "job": "a", "run": "1", "attempt": 2, "nominal": "2030-01-01T00:00:00Z", "due": "2030-01-01T00:00:00Z",
    "trigger": "schedule", "command": ["do", "it"], "stdin": "in",
}  # fmt: skip


@pytest.fixture
def start(tmp_path: Path):
    (tmp_path / "bad_plugins.py").write_text(MODULE)

    def begin(do: str = "", target: str = "Runs") -> subprocess.Popen[bytes]:
        keys = json.dumps({"do": do} if do else {})
        path = [str(tmp_path), *sys.path]
        request = {"path": path, "name": "x", "target": f"bad_plugins:{target}", "keys": keys, "task": TASK}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "repeater.plugins.host", "run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "RPR_JOB": "a"},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        return process

    return begin


def test_a_run_gets_its_task_and_its_code_is_passed_on(start) -> None:
    process = start("echo")
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"['do', 'it'] in 2 2030 a\n", b"", 3)


def test_nothing_returned_is_success(start) -> None:
    process = start()
    assert (*process.communicate(timeout=60), process.returncode) == (b"", b"", 0)


@pytest.mark.parametrize(
    ("do", "target", "told"),
    [
        ("raise", "Runs", "LookupError: nothing there (bad_plugins.py:"),
        ("odd", "Runs", "TypeError: `run` gave 'fine' (str), expected an exit code from 0 to 124"),
        ("large", "Runs", "TypeError: `run` gave 125 (int), expected an exit code from 0 to 124"),
        ("", "Missing", "AttributeError: module 'bad_plugins' has no attribute 'Missing'"),
        ("", "Good", "TypeError: `bad_plugins:Good` is not a subclass of `repeater.plugins.Executor`"),
    ],
)
def test_a_failure_of_the_plugin_has_its_own_code_and_names_it(start, do: str, target: str, told: str) -> None:
    process = start(do, target)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert out == (b"before\n" if do == "raise" else b"")
    assert err.decode().splitlines()[-1].startswith(f"rpr: executor plugin `x` failed: {told}")
    assert b"Traceback" in err


def test_a_run_that_is_asked_to_end_may_tidy_up(start) -> None:
    process = start("wait")
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"tidied up\n", b"", 143)
