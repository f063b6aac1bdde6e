"""A small runner for the real `rpr`: its own process, in its own folder, with its own state."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest

from repeater._lazy_dataclasses import dataclass

RPR = str(Path(sys.executable).with_name("rpr"))


def to_supervisor(signal: str) -> str:
    """A command of a job that signals its supervisor, whether a keeper stands between them or not."""
    find = "pid=$PPID; grep -qa apply /proc/$pid/cmdline || pid=$(cut -d ' ' -f 4 /proc/$pid/stat)"
    return f"{find}; grep -qa apply /proc/$pid/cmdline && kill -{signal} $pid"


@dataclass(frozen=True)
class Result:
    """What a command left: texts as printed, and its exit code."""

    out: str
    err: str
    code: int

    def is_(self, *, out: str = "", err: str = "", code: int = 0) -> None:
        """Compares everything to the letter."""
        assert (self.out, self.err, self.code) == (out, err, code)


class Lines:
    """The lines that a process prints, without waiting for ever. `stream` is not read in another way meanwhile."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self._fd = stream.fileno()
        self._held = b""

    def next(self, within: float = 60) -> str:
        """The next line, without its end; an AssertionError if there is none within so many seconds."""
        until = time.monotonic() + within
        while b"\n" not in self._held:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no line in {within:g} seconds, held: {self._held!r}"
            part = os.read(self._fd, 65536)
            assert part, f"the output has ended, held: {self._held!r}"
            self._held += part
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()


class Rpr:
    """`rpr("validate", "jobs.toml")` runs the command in `folder` and waits for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": os.environ["TMPDIR"],
            "XDG_STATE_HOME": str(folder / ".state"),
            "XDG_RUNTIME_DIR": str(folder / ".run"),
            "XDG_CONFIG_HOME": str(folder / ".config"),
            "REPEATER_TEST_SESSION": os.environ["REPEATER_TEST_SESSION"],  # by which the leak guard knows what is ours
        }

    def write(self, name: str, text: str | bytes) -> Path:
        """Writes a file under the folder, making its parents."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts the command and does not wait; the caller ends it."""
        return subprocess.Popen(
            [RPR, *args],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *args: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Result:
        done = subprocess.run(
            [RPR, *args],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Result(done.stdout, done.stderr, done.returncode)


@pytest.fixture
def rpr(tmp_path: Path) -> Rpr:
    return Rpr(tmp_path)
