"""Runs the tests of a mutant in a copy of the checkout, in a fork of a process that has the libraries imported.

The copy is the folder that tests run in and the first on the path of all Pythons that they start, so the mutant is also in
those. Each fork has a limit of time, and what it started and left is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.measure import ROOT, hand_on
from tests.mutate.covering import Timed
from tests.mutate.operators import Mutant

SETUP = 40.0
"""Seconds of CPU time for the imports. Real time has four times the limits of CPU time."""
LEAST = 10.0
SLACK = 3.0
"""A test may use this many times the seconds that it took before, and `LEAST` more."""
BEGUN = b"\0"


class Outcome(NamedTuple):
    """`by` names the test that failed, or the limit that ended it; empty for a mutant that survives."""

    mutant: Mutant
    by: str
    tests: int
    seconds: float


class Ground:
    """One copy. It is used by one process, which changes into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(".*", "found-*", "build", "dist"))
        for name in (".venv", ".gitignore", ".github"):
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self._count = 0

    def enter(self) -> None:
        """Makes this process one that runs tests of the copy, and the parent of all that they leave."""
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder)
        os.environ["PYTHONDONTWRITEBYTECODE"] = ""
        sys.path[:] = [str(self.folder), *(path for path in sys.path if path not in {"", str(ROOT)})]
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    def try_(self, mutant: Mutant, tests: Sequence[Timed]) -> Outcome:
        began = time.monotonic()
        path = self.folder / mutant.path
        source, stat = path.read_bytes(), path.stat()
        self._count += 1
        try:
            path.write_bytes(mutant.applied(source))
            os.utime(path, (self._count, self._count))  # so that no compiled file is taken for it
            by = self._run(tests) if tests else ""
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return Outcome(mutant, by, len(tests), time.monotonic() - began)

    def _run(self, tests: Sequence[Timed]) -> str:
        """The fork sends a byte at each start of a test, and at the end the result."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._child(write, tests)
        os.close(write)
        answer, begun = b"", 0
        with open(read, "rb", buffering=0) as pipe:
            while True:
                limit = 4 * (SETUP if begun == 0 else allowance(tests[begun - 1]))  # the machine may be busy
                part = pipe.read(65536) if _is_ready(pipe.fileno(), limit, pid) else b""
                begun += part.count(BEGUN)
                answer += part
                if not part:
                    break
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _end_all()
        answer = answer.replace(BEGUN, b"")
        return (
            json.loads(answer) if answer else f"a limit of time, in {tests[begun - 1].name if begun else 'an import'}"
        )

    def _child(self, write: int, tests: Sequence[Timed]) -> None:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a script that starts `make mutate &` ignores it
            _limit_cpu(SETUP)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in enumerate("rww"))
            os.set_inheritable(write, False)
            failed = run(tests, lambda: os.write(write, BEGUN))
            os.write(write, json.dumps(failed).encode())
        except BaseException as error:  # noqa: BLE001 - a mutant may do anything, and that kills it
            with contextlib.suppress(OSError):
                os.write(write, json.dumps(f"{type(error).__name__}: {error}"[:300]).encode())
        finally:
            os._exit(0)


def allowance(test: Timed) -> float:
    """Seconds of CPU time for a test."""
    return LEAST + SLACK * test.seconds


def _limit_cpu(seconds: float) -> None:
    """End this process if it uses more than that from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 1, hard))


def run(tests: Sequence[Timed], on_start: Callable[[], object]) -> str:
    """The first test that fails, or how pytest itself did; empty if all pass."""
    import pytest
    from hypothesis import Phase, settings

    hand_on(["PYTHONPATH"])
    place = {test.name: index for index, test in enumerate(tests)}
    failed: list[str] = []

    class Chosen:
        @pytest.hookimpl(tryfirst=True)
        def pytest_collection(self) -> None:
            """An example that fails is not made smaller: that takes long, and only that it fails counts."""
            settings.register_profile("mutate", settings(), phases=[Phase.explicit, Phase.generate])
            settings.load_profile("mutate")

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            _limit_cpu(allowance(tests[place[nodeid]]))
            on_start()

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    files = list(dict.fromkeys(test.name.partition("::")[0] for test in tests))
    words = ["-x", "-q", "-n", "0", "--tb=no", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning", *files]
    code = pytest.main(words, plugins=[Chosen()])
    if failed:
        return failed[0]
    return "" if code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED} else f"collection: {code!r}"


def prepare(modules: Iterable[str]) -> None:
    """Import the libraries that the tests use, so that forks have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            if name.partition(".")[0] not in {"repeater", "tests", "__main__", "coverage", "conftest", "sitecustomize"}:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)


def _is_ready(fd: int, seconds: float, fork: int) -> bool:
    """Whether there is something to read in time. Meanwhile orphans of the fork are reaped, as its tests expect it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            return True
        for pid in _children():
            if pid != fork:
                with contextlib.suppress(OSError):
                    os.waitpid(pid, os.WNOHANG)
    return False


def _children() -> list[int]:
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]


def _end_all() -> None:
    """Kill what the fork left: this process is the parent of it now."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)
