"""The benches still run. Nothing here looks at how long anything takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENV = dict(os.environ)  # as it was before the leak guard moved HOME: pip's configuration and cache are the user's


@pytest.mark.all
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="the bench builds its job with a C compiler")
def test_every_bench_runs_at_its_smallest() -> None:
    argv = [sys.executable, "-m", "bench", "--tiny", "--json"]
    done = subprocess.run(argv, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    benches = json.loads(done.stdout)["benches"]
    wanted = {"count", "spread", "burst", "reload-10", "many", "starts", "history", "decisions", "daemon", "kill9"}
    assert wanted <= set(benches)
    for bench in benches.values():
        assert all(len(readings) == 1 for names in bench["rounds"].values() for readings in names.values())
        assert bench["rounds"]
        assert all(bench["rounds"].values())
