"""Readings of processes from /proc, and what rounds of them come to."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured once a round; `unit` is for people."""

    rounds: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        low, high = min(self.rounds), max(self.rounds)
        return f"{self.median:.3g} {self.unit} ({low:.3g}-{high:.3g})"


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes themselves, without that of children they waited for."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_mb(pids: Sequence[int]) -> float:
    """Resident memory now, in MB: all of the first process, and of the others what is theirs alone, as they are of the
    same program and its pages are there once.
    """
    total = 0
    for pid in pids:
        sizes = dict.fromkeys(("Rss", "Shared_Clean", "Shared_Dirty"), 0)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0])
        total += sizes["Rss"] - (0 if pid == pids[0] else sizes["Shared_Clean"] + sizes["Shared_Dirty"])
    return total * 1024 / 1e6


def lasting(pid: int, but: str) -> list[int]:
    """A supervisor and those of its descendants that are part of it: Python processes without `but` in their command
    line that live for longer than it takes to fork.
    """
    first = _descendants(pid, but)
    time.sleep(0.3)
    return [one for one in _descendants(pid, but) if one in first]


def _descendants(pid: int, but: str) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return [one for one in dict.fromkeys(found) if one == pid or _is_part(one, but)]


def _is_part(pid: int, but: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(argv) and but.encode() not in argv and b"python" in argv.split(b"\0")[0]


def run_timed(argv: Sequence[str], cwd: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of a command that must succeed."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    if process.stderr:
        process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"cannot measure `{' '.join(argv)}`: exit {process.returncode}\n{errors.decode()}")
    return took, usage.ru_maxrss * 1024 / 1e6


@contextlib.contextmanager
def running(
    argv: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there for the block, its output thrown away."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], patience: float = 20) -> None:
    """TERM, and KILL for the whole session if that does not help."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def noise() -> float:
    """Seconds of a fixed piece of work; how it varies over the rounds is the machine's doing, not ours."""
    began = time.perf_counter()
    sum(number * number for number in range(2_000_000))
    return time.perf_counter() - began
