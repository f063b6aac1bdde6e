"""The guard itself: it must see each kind of leak, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).parents[1] / "conftest.py"
NATIVE = "import ctypes; c = ctypes.CDLL(None); t = ctypes.c_ulong(); f = ctypes.cast(c.pause, ctypes.c_void_p);"

LEAKS = {
    "thread idle": "import threading, time; "
    "threading.Thread(target=time.sleep, args=(4,), daemon=True, name='idle').start()",
    "thread of a library": f"{NATIVE} c.pthread_create(ctypes.byref(t), None, f, None)",
    "open file": "import os; os.open(os.devnull, os.O_RDONLY)",
    "open file, of the system": "import os; os.open('/proc/self/stat', os.O_RDONLY)",
    "process": "import subprocess; globals()['held'] = subprocess.Popen(['sleep', '4'])",
    "process, by its folder": "import os; os.system('env -i setsid sleep 4 & true')",
    "process, by its mark": "import os; os.system('cd /; setsid sleep 4 & true')",
    "process, by its session": "import os; os.system('setsid sh -c \"sleep 4 & cd /; exec env -i sleep 4\" & sleep 0.3')",
    "process (Z)": "import os, time; pid = os.fork() or os._exit(0); time.sleep(0.1); globals()['ended'] = pid",
    "temporary file": "import os, tempfile; os.close(tempfile.mkstemp()[0])",
    "temporary folder": "import tempfile; tempfile.mkdtemp()",
    "runtime file": "import os, socket; s = socket.socket(socket.AF_UNIX); "
    "s.bind(os.environ['XDG_RUNTIME_DIR'] + '/s'); s.close()",
    "state": "import os; os.mkdir(os.environ['XDG_STATE_HOME'] + '/repeater')",
}
WORDS = {name: name.partition(",")[0] for name in LEAKS} | {
    "process (Z)": "process",
    "temporary folder": "temporary file",
    "runtime file": "temporary file",
    "state": "temporary file",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_guard_names_the_leaks_of_each_test_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(GUARD.read_text().replace("PATIENCE = 10.0", "PATIENCE = 0.3"))
    tests = [
        f"def test_leak_{number}(tmp_path):\n    os.chdir(tmp_path)\n    exec({leak!r})\n"
        f"def test_clean_{number}():\n    pass\n"
        for number, leak in enumerate(LEAKS.values())
    ]
    (tmp_path / "test_it.py").write_text("import os\n" + "".join(tests))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RPR_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**env, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
    )
    _end_sleepers(tmp_path)
    told = [line for line in done.stdout.splitlines() if line.startswith("left behind: ")]
    assert len(told) == len(LEAKS), done.stdout
    for name, line in zip(LEAKS, told, strict=True):
        assert f"{line} ".startswith(f"left behind: {WORDS[name]} "), (name, line)
        if name == "process (Z)":
            assert "(Z)" in line
    # some Pythons warn of what leaks, too
    assert re.search(rf"^{2 * len(LEAKS)} passed,( \d+ warnings?,)? {len(LEAKS)} errors ", done.stdout, re.MULTILINE)


HANGS = {
    "a read": "os.read(os.pipe()[0], 1)",
    "a loop": "while True: pass",
    "an event loop": "asyncio.run(asyncio.Event().wait())",
    "a swallowed failure": "while True:\n        try:\n            os.read(os.pipe()[0], 1)\n        except BaseException:\n"
    "            if len(seen) > 1: raise\n            seen.append(1)",
}


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    text = GUARD.read_text()
    for found, other in (("LIMIT = 600.0", "LIMIT = 0.3"), ("LIMIT, 30.0", "LIMIT, 0.2"), ("autouse=True", "")):
        assert found in text
        text = text.replace(found, other)
    (tmp_path / "conftest.py").write_text(text)
    tests = [f"def test_{number}():\n    {hang}\n" for number, hang in enumerate(HANGS.values())]
    (tmp_path / "test_it.py").write_text("import asyncio, os\nseen = []\n" + "".join(tests) + "def test_last(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search(rf"^{len(HANGS)} failed, 1 passed", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count("it hangs: it took longer than 0.3 seconds") >= len(HANGS)


def _end_sleepers(folder: Path) -> None:
    """Ends what the leaking tests left, so that this test leaves nothing itself."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            inside = str((entry / "cwd").readlink()).startswith(str(folder))
            sleeps = (entry / "cmdline").read_bytes() == b"sleep\x004\x00"
            if inside or (sleeps and str(folder).encode() in (entry / "environ").read_bytes()):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
