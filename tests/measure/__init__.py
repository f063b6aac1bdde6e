"""Measures which lines of repeater the tests reach, also in the processes that they start, and which test reaches them.

Each Python that a test starts loads `sitecustomize.py` of this folder, which starts coverage. The context of a line is the
test that ran it. `make coverage` prints a table, `make mutate` chooses the tests of a mutant by it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEST = "MEASURED_TEST"
"""The variable with the test that runs; the context of the processes that it starts."""
TIMES = "MEASURED_TIMES"
"""The variable with the folder for the times of tests, one file for each process of pytest."""
MEASURING = ("PYTHONPATH", "COVERAGE_PROCESS_START", "COVERAGE_FILE", TEST)


def measure(data: Path, arguments: Sequence[str]) -> int:
    """Run pytest with `arguments` and add what all its processes measured to `data`. The exit code of pytest."""
    from coverage import Coverage

    settings = str(ROOT / "pyproject.toml")
    data.parent.mkdir(parents=True, exist_ok=True)
    for part in data.parent.glob(f"{data.name}.*"):  # of a run that was stopped
        part.unlink()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)]),
        "COVERAGE_PROCESS_START": settings,
        "COVERAGE_FILE": str(data),
        TEST: "",
        TIMES: str(data.parent),
    }
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # `make coverage &` in a script ignores it, and so would tests
    words = [sys.executable, "-m", "pytest", "-p", "tests.measure.contexts", *arguments]
    code = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    coverage = Coverage(data_file=str(data), config_file=settings)
    if data.exists():
        coverage.load()
    coverage.combine(sorted(map(str, data.parent.glob(f"{data.name}.*"))))
    coverage.save()
    return code


def hand_on(names: Collection[str]) -> None:
    """Let processes that this one starts with an environment of their own have these variables too."""
    begin = subprocess.Popen.__init__

    def popen(self: Any, *args: Any, env: Any = None, **named: Any) -> None:
        if env is not None:
            env = {**{name: os.environ[name] for name in names if name in os.environ}, **env}
        begin(self, *args, env=env, **named)

    subprocess.Popen.__init__ = popen  # type: ignore[method-assign,assignment]
