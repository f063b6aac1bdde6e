"""The leak guard: every test must leave the machine as it found it, and none may write outside its folders.

Watched around each test are this process's threads (also those that Python did not begin), open files and children, dead
ones that nobody buried among them; every process that carries this session's mark in its environment or works in a
folder of its tests, whoever its parent is, and whatever such a process began or shares a session with; and what is in
the session's own temporary, runtime, state and other folders. What is about to end is given time: a leak is what is
still there after `PATIENCE`. A test that hangs fails after `LIMIT`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
from hypothesis import core, settings

SEED = os.environ.get("TEST_SEED", "")
"""Chooses the examples of the property tests; without it they are the same in every run. CI prints a new one each time."""

# Property tests have no deadline (the machine may be busy) and write nothing.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("seeded", deadline=None, derandomize=False, database=None, print_blob=False)
settings.load_profile("seeded" if SEED else "same")

MARK = f"REPEATER_TEST_SESSION={uuid.uuid4().hex}"
PATIENCE = 10.0
PROC = Path("/proc")

LIMIT = 600.0
"""Seconds that the setup, the call or the teardown of a test may take. Most take less than one."""

Found: TypeAlias = dict[tuple[str, ...], str]
"""What is there: a key that no two things share, and words for it."""


def pytest_configure(config: pytest.Config) -> None:
    if SEED:
        config.option.hypothesis_seed = int(SEED)
        core.global_force_seed = int(SEED)


def pytest_report_header() -> str:
    return f"property tests: TEST_SEED={SEED}" if SEED else "property tests: fixed examples, TEST_SEED=1 for others"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    with _limited():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    with _limited():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    with _limited():
        return (yield)


@contextmanager
def _limited() -> Iterator[None]:
    """Fails what takes longer than `LIMIT`. A blocking read ends too, as the signal interrupts it."""

    def fail(_number: int, _frame: object) -> None:
        pytest.fail(f"it hangs: it took longer than {LIMIT:g} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 30.0)  # again, in case something swallowed the first failure
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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


@pytest.fixture(autouse=True)
def nothing_is_left(own_folders: Path) -> Iterator[None]:
    """Fails the test that leaves a thread, an open file, a process or a temporary file behind."""

    def look() -> Found:
        return _threads() | _open_files() | _processes(str(own_folders.parent)) | _files(own_folders)

    before = look()
    yield
    patience = time.monotonic() + PATIENCE
    while left := {key: text for key, text in look().items() if key not in before}:
        gc.collect()  # an object that nobody holds any more is garbage, not a leak
        if time.monotonic() > patience:
            pytest.fail("left behind: " + ", ".join(left.values()), pytrace=False)
        time.sleep(0.02)


def _threads() -> Found:
    """Those of the system, with the names that Python has for them."""
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()] if PROC.exists() else list(known)
    return {("thread", str(task)): f"thread {known.get(task, 'of a library')}" for task in tasks}


def _files(root: Path) -> Found:
    """What is in the session's own folders."""
    return {
        ("file", f"{folder}/{name}"): f"temporary file {folder}/{name}"
        for folder, inner, files in os.walk(root)
        for name in (*inner, *files)
        if folder != str(root)
    }


def _open_files() -> Found:
    found: Found = {}
    listing = f"/proc/{os.getpid()}/fd"
    for entry in Path("/proc/self/fd").iterdir() if PROC.exists() else ():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target != listing:
            found["open file", entry.name, target] = f"open file {entry.name} -> {target}"
    return found


class _ProcessList:
    """The session's processes. Reading /proc costs milliseconds, so it is read again only after this process started
    another one, or while any is known to be there.
    """

    def __init__(self) -> None:
        self.stale = True
        self.found: Found = {}
        self._sessions: set[int] = set()
        sys.addaudithook(self.notice)

    def notice(self, event: str, _: object) -> None:
        if event in {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}:
            self.stale = True

    def __call__(self, basetemp: str) -> Found:
        if self.stale or self.found:
            self.stale = False
            self.found = _read_processes(basetemp, self._sessions)
        return self.found


_processes = _ProcessList()


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int
    state: str
    began: str
    is_marked: bool
    command: str


def _read_processes(basetemp: str, sessions: set[int]) -> Found:
    """Children of this process, marked processes, processes whose folder is a test's; and what belongs to any of them:
    what they began, and what is in a session that one of them leads or led. `sessions` remembers these.
    """
    there = {process.pid: process for process in _all_processes(basetemp)}
    ours = {pid for pid, process in there.items() if process.is_marked or process.parent == os.getpid()}
    our_session = os.getsid(0)
    grown = True
    while grown:
        sessions |= {there[pid].session for pid in ours} - {our_session, 0}
        sessions &= {process.session for process in there.values()}  # an empty one is over, its number may come again
        more = {pid for pid, one in there.items() if one.parent in ours or one.session in sessions} - ours
        grown = bool(more)
        ours |= more
    return {
        ("process", str(pid), there[pid].began): f"process {pid} ({there[pid].state}) `{there[pid].command[:80]}`"
        for pid in ours
    }


def _all_processes(basetemp: str) -> Iterator[_Process]:
    for entry in PROC.iterdir() if PROC.exists() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state, parent, _, session, *rest = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # gone meanwhile
            continue
        is_marked, command = False, b""
        try:
            environ = (entry / "environ").read_bytes()
            is_marked = MARK.encode() in environ or str((entry / "cwd").readlink()).startswith(basetemp)
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
        except OSError:  # dead, or not ours to look at
            pass
        words = command.decode(errors="replace")
        yield _Process(int(entry.name), int(parent), int(session), state.decode(), rest[15].decode(), is_marked, words)
