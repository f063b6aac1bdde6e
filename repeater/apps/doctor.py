"""The checks of `rpr doctor`: what this machine offers. They read, and change nothing.

A finding is `ok`, a `note` that explains a limit, or `bad`: something that keeps repeater from
working as it should.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.shim import cgroup

Level: TypeAlias = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing about this machine, in words."""

    topic: str
    level: Level
    text: str


def run_checks(state: Path, environ: Mapping[str, str]) -> list[CheckResult]:
    """Everything worth knowing, for a state folder that may not exist yet."""
    return [
        CheckResult("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.release()}"),
        *_processes(environ),
        *_limits(),
        *_clock(),
        *_state(state),
        *_socket(environ),
        *_watching(),
    ]


def _processes(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    if not hasattr(os, "pidfd_open"):
        yield CheckResult("processes", "note", "no pidfd on this system: process exits are detected by a thread")
    elif not _can_pidfd():
        yield CheckResult(
            "processes", "note", "pidfd_open is not permitted here: process exits are detected by a thread"
        )
    if sys.platform == "linux" and Path("/proc/self/stat").exists():
        yield from _shim_checks(environ.get("RPR_CGROUPS") or "services")
    elif Path("/proc/self/stat").exists():
        yield CheckResult(
            "processes", "ok", "runs are tracked by session; processes that leave their session are found in /proc"
        )
    else:
        yield CheckResult("processes", "bad", "no /proc: processes that leave their session cannot be found")
    if os.getpid() == 1 or Path("/.dockerenv").exists():
        yield CheckResult("container", "note", "this looks like a container; as process 1 rpr reaps orphans")


def _can_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _shim_checks(cgroups: str) -> Iterator[CheckResult]:
    """What can be promised with a shim; `cgroups` says which jobs get a cgroup of their own."""
    plain = "runs are tracked by a subreaper"
    try:
        folder = cgroup.delegated_root()
    except cgroup.NotDelegated as why:
        yield CheckResult("processes", "ok", plain)
        yield CheckResult("cgroup", "note", f"not used: {why}")
        return
    if cgroups == "off":
        yield CheckResult("processes", "ok", plain)
        yield CheckResult(
            "cgroup", "note", f"not used: `{folder}` is delegated to this user, but `RPR_CGROUPS` is `off`"
        )
    else:
        whose = "all jobs" if cgroups == "all" else "services only (`--cgroups all`: all jobs)"
        yield CheckResult("processes", "ok", f"{plain} and by cgroups")
        yield CheckResult("cgroup", "ok", f"`{folder}` is delegated to this user; own cgroups for {whose}")


def _limits() -> Iterator[CheckResult]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    runs = max(0, (files - 64) // 3)
    level: Level = "ok" if runs >= 100 else "bad"
    yield CheckResult("open files", level, f"limit {_limit(files)}, enough for about {_limit(runs)} live runs")
    if hasattr(resource, "RLIMIT_NPROC"):
        processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        yield CheckResult("processes", "ok", f"limit {_limit(processes)}")


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY or value > 1 << 30 else str(value)


def _clock() -> Iterator[CheckResult]:
    zone = time.tzname[0]
    yield CheckResult("clock", "ok", f"local zone {zone}, now {time.strftime('%Y-%m-%d %H:%M:%S%z')}")
    if time.time() < 1_700_000_000:
        yield CheckResult("clock", "bad", "the clock is not set")
    if not hasattr(time, "CLOCK_BOOTTIME"):
        yield CheckResult("clock", "note", "suspend time is not available")
    try:
        from zoneinfo import ZoneInfo

        ZoneInfo("Europe/Berlin")
    except Exception as error:  # noqa: BLE001 - the zone files can be broken in any way
        yield CheckResult("time zones", "bad", f"cannot be read: {error}")
    else:
        yield CheckResult("time zones", "ok", "known")


def _state(state: Path) -> Iterator[CheckResult]:
    there = state
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        yield CheckResult("state directory", "bad", f"`{state}` cannot be written")
        return
    free = shutil.disk_usage(there).free
    words = f"`{state}`" + ("" if state.exists() else ", created by the first apply") + f"; {free >> 20} MiB free"
    yield CheckResult("state directory", "bad" if free < 16 << 20 else "ok", words)


def _socket(environ: Mapping[str, str]) -> Iterator[CheckResult]:
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base and Path(base).is_dir():
        yield CheckResult("socket", "ok", f"in `{base}/repeater`")
    else:
        why = "`XDG_RUNTIME_DIR` is not set" if not base else f"`{base}` (`XDG_RUNTIME_DIR`) does not exist"
        yield CheckResult("socket", "note", f"in the state directory: {why}")
    if sys.platform == "linux" and not Path("/proc/self/fd").is_dir():
        yield CheckResult("socket", "note", "no /proc: its path may have at most 107 bytes")


def _watching() -> Iterator[CheckResult]:
    try:
        watches = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text(encoding="ascii"))
        instances = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    level: Level = "ok" if watches >= 8192 and instances >= 16 else "note"
    yield CheckResult("file watching", level, f"{watches} watches, {instances} instances; above that, files are polled")
