"""Ten services under a supervisor that is killed with `kill -9` and started again as it was: how many copies run then?

One of the ten does not listen to TERM. Counted are processes in /proc, by the mark that each service has in its words;
what supervisors say of themselves is not asked for. Two copies of a service are what a port, a lock or a queue does not
forgive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import running
from bench.peers import Tools

WHILE = 5.0
"""Seconds that things get to come to rest after a kill or a restart."""


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    services, rest = size(10, 2), size(WHILE, 2.0)
    return {
        "kill9": Bench(
            f"{services} services, `kill -9` of their supervisor, and the same command again",
            {
                "repeater": lambda folder: _measured(*_repeater(kit, folder, services, "kill"), services, rest),
                "repeater, keep": lambda folder: _measured(*_repeater(kit, folder, services, "keep"), services, rest),
                "supervisor": lambda folder: _measured(*_supervisor(kit, folder, services), services, rest),
                "circus": lambda folder: _measured(*_circus(kit, folder, services), services, rest),
            },
            (Goal("most copies of one", most=1), Goal("left after the end", most=0)),
        )
    }


def _service(folder: Path, number: int) -> str:
    """A script, in a file; its name is its mark."""
    script = folder / f"service-{number}"
    deaf = "trap '' TERM\n" if number == 1 else ""
    script.write_text(f"#!/bin/sh\n{deaf}while :; do sleep 1; done\n")
    script.chmod(0o755)
    return str(script)


def _repeater(kit: Tools, folder: Path, services: int, on_death: str) -> tuple[list[str], Path]:
    jobs = (
        f'[jobs.s-{n}]\ncommand = ["{_service(folder, n)}"]\nschedule = "always"\nstop_timeout = "1s"\n'
        for n in range(services)
    )
    (folder / "jobs.toml").write_text("version = 1\n" + "".join(jobs))
    return [kit.rpr, "apply", "jobs.toml", "--on-crash", on_death, "--state-dir", str(folder / "state")], folder


def _supervisor(kit: Tools, folder: Path, services: int) -> tuple[list[str], Path]:
    programs = (
        f"[program:s-{n}]\ncommand = {_service(folder, n)}\nstartsecs = 0\nstopwaitsecs = 1\nstopasgroup = true\n"
        f"killasgroup = true\nautorestart = true\n"
        for n in range(services)
    )
    (folder / "conf").write_text(
        f"[supervisord]\nnodaemon = true\nlogfile = {folder}/log\npidfile = {folder}/pid\nchildlogdir = {folder}\n"
        + "".join(programs)
    )
    return [kit.peer("supervisord"), "-c", "conf"], folder


def _circus(kit: Tools, folder: Path, services: int) -> tuple[list[str], Path]:
    watchers = (
        f"[watcher:s-{n}]\ncmd = {_service(folder, n)}\nnumprocesses = 1\ngraceful_timeout = 1\nstop_children = true\n"
        for n in range(services)
    )
    ends = "".join(f"{name} = ipc://{folder}/{name}\n" for name in ("endpoint", "pubsub_endpoint"))
    (folder / "circus.ini").write_text(f"[circus]\nstatsd = false\n{ends}{''.join(watchers)}")
    return [kit.peer("circusd"), "circus.ini"], folder


def _measured(argv: list[str], folder: Path, services: int, rest: float) -> Reading:
    try:
        with running(argv, folder) as process:
            _until_all(folder, services, process)
            process.kill()
            process.wait()
            time.sleep(rest)
            left = copies(folder)
        with running(argv, folder) as process:
            _until_all(folder, services, process)
            time.sleep(rest)
            again = copies(folder)
            process.terminate()
            if argv[0].endswith("rpr"):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            time.sleep(rest / 2)
            after = copies(folder)
    finally:
        _clear(folder)
    return {
        "alive without a supervisor": (sum(left.values()), "processes"),
        "alive after the restart": (sum(again.values()), "processes"),
        "most copies of one": (max(again.values(), default=0), "copies"),
        "services with two": (sum(count > 1 for count in again.values()), "services"),
        "left after the end": (sum(after.values()), "processes"),
    }


def copies(folder: Path) -> Counter[str]:
    """Living processes of each service; the `sleep` of a loop is not counted, and neither is a zombie."""
    return Counter(name for _, name in _processes(folder))


def _processes(folder: Path) -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            mark = os.fsencode(folder / "service-")
            if name := next((word for word in words[:2] if word.startswith(mark)), b""):
                found.append((int(entry.name), name.decode()))
    return found


def _until_all(folder: Path, services: int, process: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 60
    while len(copies(folder)) < services:
        if process.poll() is not None or time.monotonic() > patience:
            raise RuntimeError(f"cannot measure: {len(copies(folder))} of {services} services run")
        time.sleep(0.05)


def _clear(folder: Path) -> None:
    while found := _processes(folder):
        for pid, _ in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
