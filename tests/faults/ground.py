"""Where faults are made: a folder with its own state, the real `rpr` in it, and a list of what lives there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repeater._lazy_dataclasses import dataclass
from tests.cli.conftest import RPR, Result, Rpr
from tests.faults.effects import FILE, Effects

PATIENCE = 60.0
"""Seconds that anything may take on a machine that does ten other things. Nothing waits that long without need."""


def wait_for(condition: Callable[[], object], what: str | Callable[[], str], within: float = PATIENCE) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"never: {what() if callable(what) else what}"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Living:
    """A living process; `job` is empty if its environment names none."""

    pid: int
    job: str
    command: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process has: descriptors, threads, dead children, bytes of memory now and at most so far."""

    descriptors: int
    threads: int
    zombies: int
    memory: int
    peak: int


class Supervisor:
    """A real `rpr apply`, whose output goes to files of the folder."""

    def __init__(self, ground: Ground, words: Sequence[str], env: Mapping[str, str], **popen: Any) -> None:
        self.ground = ground
        self._out, self._err = ground.folder / ".out", ground.folder / ".err"
        with self._out.open("ab") as out, self._err.open("ab") as err:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err} | popen
            self.process = subprocess.Popen(words, cwd=ground.folder, env={**ground.rpr.env, **env}, **streams)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def is_there(self) -> bool:
        return self.process.poll() is None

    def until_err(self, text: str, count: int = 1, within: float = PATIENCE) -> None:
        wait_for(lambda: self.err.count(text) >= count, lambda: f"{count} x {text!r} in {self.err!r}", within)

    def until_ready(self) -> None:
        """Until it answers; fails if it leaves instead."""
        wait_for(lambda: self.ground.socket.exists() or not self.is_there, lambda: f"ready: {self.err}")
        wait_for(lambda: not self.is_there or self.ground.answers(), lambda: f"ready: {self.err}")
        assert self.is_there, self.err

    def holds(self) -> Holdings:
        return holdings(self.pid)

    def leaves(self, within: float = PATIENCE) -> int:
        return self.process.wait(within)

    def down(self) -> int:
        """TERM twice: stop everything, now."""
        for _ in range(2):
            self.process.terminate()
            time.sleep(0.01)
        return self.leaves()

    def kill(self) -> None:
        """As the kernel would when it is out of memory."""
        self.process.kill()
        self.process.wait()


class Ground:
    """A folder, the real `rpr`, and the processes that work in the folder or carry its mark."""

    def __init__(self, rpr: Rpr) -> None:
        self.rpr = rpr
        self.folder = rpr.folder
        self.effects = Effects(rpr.folder / FILE)
        self.state = rpr.folder / ".state" / "repeater" / "ground"
        self.socket = rpr.folder / ".run" / "repeater" / "ground.sock"
        self.begun: list[Supervisor] = []
        self._mark = f"REPEATER_TEST_GROUND={os.getpid()}-{id(self)}-{time.monotonic_ns()}"
        rpr.env |= dict([self._mark.split("=", 1)])
        (rpr.folder / ".run").mkdir(mode=0o700)

    def write(self, jobs: str) -> None:
        self.rpr.write("jobs.toml", f'version = 1\nproject = "ground"\n{jobs}')

    def apply(
        self,
        jobs: str | None = None,
        *args: str,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> Supervisor:
        """Begins a supervisor of these jobs; `prefix` is what it is started by, such as `unshare`."""
        if jobs is not None:
            self.write(jobs)
        supervisor = Supervisor(self, [*prefix, RPR, "apply", "jobs.toml", *args], env or {}, **popen)
        self.begun.append(supervisor)
        return supervisor

    def __call__(self, *args: str, **more: Any) -> Result:
        return self.rpr(*args, **more)

    def answers(self) -> bool:
        """Whether a supervisor is there that answers, be it well or not."""
        return self("status", "--json").code == 0

    def rows(self, *args: str) -> list[dict[str, Any]]:
        """The history, oldest first."""
        done = self("history", "--json", "--limit", "20000", *args)
        assert done.code == 0, done
        return [json.loads(line) for line in done.out.splitlines()][::-1]

    def row(self, job: str) -> dict[str, Any]:
        (found,) = self.rows(job)
        return found

    def living(self) -> list[Living]:
        """Living processes that are of here: by their mark, or by the folder they work in. Supervisors too."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in b"ZX":
                    continue
                environ = (entry / "environ").read_bytes().split(b"\0")
                ours = self._mark.encode() in environ or (entry / "cwd").readlink() == self.folder
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if ours:
                job = next((text[8:].decode() for text in environ if text.startswith(b"RPR_JOB=")), "")
                found.append(Living(int(entry.name), job, command[:80]))
        return found

    def down(self, *args: str) -> int:
        """`rpr down`: when it returns nothing of a job lives, and soon nothing at all. The supervisor's exit status; 0
        for one in the background.
        """
        done = self("down", *args)
        left = [found for found in self.living() if RPR not in found.command and "repeater" not in found.command]
        assert (done.code, left) == (0, []), done
        code = self.begun[-1].leaves() if self.begun else 0
        wait_for(lambda: self.living() == [], lambda: f"nothing lives: {self.living()}", within=10)
        return code

    def jobs_living(self) -> set[str]:
        """The jobs of which anything lives."""
        return {found.job for found in self.living() if found.job}

    def level(self) -> str:
        """The level of process control that `rpr doctor` reports: A (session), B (subreaper), C (cgroups)."""
        text = self("doctor").out
        return "C" if "and by cgroups" in text else "B" if "by a subreaper" in text else "A"

    def end(self) -> None:
        """Whatever still lives here ends."""
        for supervisor in self.begun:
            supervisor.process.kill()
            supervisor.process.wait()
        for _ in range(50):
            left = self.living()
            for found in left:
                try:
                    os.kill(found.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not left:
                break
            time.sleep(0.02)


def holdings(pid: int) -> Holdings:
    """What a living process has now, of /proc."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    children = [child for task in (proc / "task").iterdir() for child in (task / "children").read_text().split()]
    return Holdings(
        len(list((proc / "fd").iterdir())),
        int(status["Threads"]),
        sum(is_zombie(int(child)) for child in children),
        int(status["VmRSS"].split()[0]) << 10,
        int(status["VmHWM"].split()[0]) << 10,
    )


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False
