"""The guard itself: it must see each kind of leak, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).parents[1] / "conftest.py"

LEAKS = {
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(4,), daemon=True, name='idle').start()",
    "open file": "import os; os.open(os.devnull, os.O_RDONLY)",
    "process": "import subprocess; run = keep = subprocess.Popen(['sleep', '4']); globals()['held'] = run",
    "process ": "import os; os.system('env -i setsid sleep 4 & true')",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", LEAKS)
def test_the_guard_names_what_a_test_leaves(kind: str, tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "conftest.py").write_text(GUARD.read_text().replace("PATIENCE = 10.0", "PATIENCE = 0.1"))
    (tmp_path / "test_it.py").write_text(
        "import os\n"
        f"def test_leaves(tmp_path):\n    os.chdir(tmp_path)\n    exec({LEAKS[kind]!r})\n"
        "def test_is_clean():\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
    )
    assert f"left behind: {kind.strip()} " in done.stdout, done.stdout
    assert "2 passed, 1 error" in done.stdout
    _end_sleepers(tmp_path)


def _end_sleepers(folder: Path) -> None:
    """Ends what the leaking tests left, so that this test leaves nothing itself."""
    import signal

    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                inside = str((entry / "cwd").readlink()).startswith(str(folder))
            except OSError:
                continue
            if inside:
                os.kill(int(entry.name), signal.SIGKILL)
