"""Starts coverage in each Python process of a measured test. `measure` puts this folder on PYTHONPATH.

The shim process runs with `-I -S`, which leaves out PYTHONPATH and this module. Its parent starts it through `isolated.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def _start() -> None:
    try:
        import coverage
    except ImportError:  # the Python of a job, without the packages of the tests
        return
    coverage.process_startup(slug="measure")
    here = Path(__file__).parent
    packages = str(Path(coverage.__file__).parents[1])
    isolated = [sys.executable, "-I", "-S"]
    begin = subprocess.Popen.__init__

    def popen(self: Any, args: Any, *more: Any, **named: Any) -> None:
        if isinstance(args, list) and args[:3] == isolated:
            args = [*isolated, str(here / "isolated.py"), packages, *args[3:]]
        begin(self, args, *more, **named)

    subprocess.Popen.__init__ = popen  # type: ignore[method-assign,assignment]


if os.environ.get("COVERAGE_PROCESS_START"):
    _start()
