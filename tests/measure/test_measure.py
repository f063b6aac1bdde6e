"""The lines that a test runs are those of the processes that it starts too."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

import repeater
from tests.measure import ROOT, measure

TESTS = """
import subprocess, sys

def start(*arguments):
    subprocess.run([sys.executable, *arguments], env={}, check=True)

def test_nothing():
    pass

def test_child():
    start("-c", "import repeater")

def test_ends_without_exit_functions():
    start("-c", "import os, repeater; os._exit(0)")

def test_isolated():
    start("-I", "-S", "SCRIPT")
"""


@pytest.mark.slow
def test_lines_of_child_processes_belong_to_the_test(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport repeater\n")
    tests = tmp_path / "test_it.py"
    tests.write_text(TESTS.replace("SCRIPT", str(script)))
    data = tmp_path / "measured" / "coverage"
    assert measure(data, ["-q", "-n", "0", str(tests)]) == 0
    measured = CoverageData(str(data))
    measured.read()
    contexts = set().union(*measured.contexts_by_lineno(str(repeater.__file__)).values())
    names = {context.rpartition("::")[2] for context in contexts}
    assert names - {""} == {"test_child", "test_ends_without_exit_functions", "test_isolated"}
