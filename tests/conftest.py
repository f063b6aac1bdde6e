"""The leak guard: every test must leave the machine as it found it, and none may write outside its folders.

Watched around each test are this process's threads, open files and children, and every process that carries this
session's mark in its environment or works in a folder of its tests, whoever its parent is; around the session, files in
the temporary folder. What is about to end is given time: a leak is what is still there after `PATIENCE`.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import settings

# Property tests are the same in every run, have no deadline (the machine may be busy) and write nothing.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")

MARK = f"RPR_TEST_SESSION={uuid.uuid4().hex}"
PATIENCE = 10.0
PROC = Path("/proc")

Found: TypeAlias = dict[tuple[str, ...], str]
"""What is there: a key that no two things share, and words for it."""


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gives the session its own home, state and temporary folders; the last must be empty at the end."""
    root = tmp_path_factory.mktemp("own")
    places = {"TMPDIR": "tmp", "HOME": "home", "XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": "run"}
    places |= {"XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RPR_")]:
            patch.delenv(name)
        for name, folder in places.items():
            (root / folder).mkdir(mode=0o700)
            patch.setenv(name, str(root / folder))
        patch.setenv(*MARK.split("="))
        patch.setattr(tempfile, "tempdir", None)
        yield root
        assert not [str(path) for path in (root / "tmp").rglob("*")], "temporary files were left"


@pytest.fixture(autouse=True)
def nothing_is_left(own_folders: Path) -> Iterator[None]:
    """Fails the test that leaves a thread, an open file or a process behind."""
    basetemp = str(own_folders.parent)
    before = _threads() | _open_files() | _processes(basetemp)
    yield
    patience = time.monotonic() + PATIENCE
    while left := {
        key: text for key, text in (_threads() | _open_files() | _processes(basetemp)).items() if key not in before
    }:
        gc.collect()  # an object that nobody holds any more is garbage, not a leak
        if time.monotonic() > patience:
            pytest.fail("left behind: " + ", ".join(left.values()), pytrace=False)
        time.sleep(0.02)


def _threads() -> Found:
    return {("thread", str(thread.ident)): f"thread {thread.name}" for thread in threading.enumerate()}


def _open_files() -> Found:
    found: Found = {}
    for entry in Path("/proc/self/fd").iterdir() if PROC.exists() else ():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if not target.startswith("/proc/"):  # the listing itself
            found["open file", entry.name, target] = f"open file {entry.name} -> {target}"
    return found


class _ProcessList:
    """The session's processes. Reading /proc costs milliseconds, so it is read again only after this process started
    another one, or while any is known to be there.
    """

    def __init__(self) -> None:
        self.stale = True
        self.found: Found = {}
        sys.addaudithook(self.notice)

    def notice(self, event: str, _: object) -> None:
        if event in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}:
            self.stale = True

    def __call__(self, basetemp: str) -> Found:
        if self.stale or self.found:
            self.stale = False
            self.found = _read_processes(basetemp)
        return self.found


_processes = _ProcessList()


def _read_processes(basetemp: str) -> Found:
    """Children of this process, marked processes, and processes whose folder is a test's."""
    found: Found = {}
    for entry in PROC.iterdir() if PROC.exists() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            after_name = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            state, parent, began = after_name[0].decode(), int(after_name[1]), after_name[19].decode()
            ours = (
                parent == os.getpid()
                or MARK.encode() in (entry / "environ").read_bytes()
                or str((entry / "cwd").readlink()).startswith(basetemp)
            )
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # gone meanwhile, or not ours to look at
            continue
        if ours:
            found["process", entry.name, began] = f"process {entry.name} ({state}) `{command[:80]}`"
    return found
