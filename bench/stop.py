"""A thousand live children are told to stop, and would at once: how long until all are gone; and what `apply` takes to
the first start.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.bench import Bench, Goal, Reading, Size
from bench.measure import running
from bench.peers import Tools


def benches(kit: Tools, size: Size) -> dict[str, Bench]:
    children = size(1000, 10)
    return {
        "stop": Bench(
            f"{children} services that end at a TERM",
            {
                "repeater": lambda folder: stop(kit, folder, children),
                "supervisor": lambda folder: supervisor(kit, folder, children),
            },
            (Goal("all gone after", most=1),),
        ),
        "apply": Bench(
            "from `rpr apply` to the start of its first job",
            {"repeater": lambda folder: first_start(kit, folder)},
            (Goal("first start", most=0.35),),
        ),
    }


def stop(kit: Tools, folder: Path, children: int) -> Reading:
    jobs = "".join(
        f'[jobs.s-{number}]\ncommand = ["{kit.sleeper}"]\nschedule = "always"\noutput = {{ mode = "suppress" }}\n'
        for number in range(children)
    )
    (folder / "jobs.toml").write_text("version = 1\n" + jobs)
    return _measured([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")], folder, kit, children)


def supervisor(kit: Tools, folder: Path, children: int) -> Reading:
    (folder / "conf").write_text(
        f"[supervisord]\nnodaemon = true\nminfds = {children * 4 + 100}\nlogfile = {folder}/log\n"
        f"pidfile = {folder}/pid\n[program:s]\ncommand = {kit.sleeper}\nnumprocs = {children}\n"
        "process_name = s-%(process_num)d\nstartsecs = 0\nstdout_logfile = NONE\nstderr_logfile = NONE\n"
    )
    return _measured([kit.peer("supervisord"), "-c", "conf"], folder, kit, children)


def _measured(argv: list[str], folder: Path, kit: Tools, children: int) -> Reading:
    began = time.perf_counter()
    with running(argv, folder) as process:
        patience = time.monotonic() + 120
        while _alive(kit, process.pid) < children:
            if process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("cannot measure: not all have started")
            time.sleep(0.1)
        started = time.perf_counter() - began
        time.sleep(1)
        told = time.perf_counter()
        process.terminate()
        while _alive(kit, 0):
            time.sleep(0.01)
            if time.monotonic() > patience:
                raise RuntimeError("cannot measure: not all are gone")
        gone = time.perf_counter() - told
        process.wait(60)
    return {
        "all started after": (started, "s"),
        "all gone after": (gone, "s"),
        "itself": (time.perf_counter() - told, "s"),
    }


def _alive(kit: Tools, supervisor: int) -> int:
    """How many of the children are there, as their names in /proc say; zombies have none."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(supervisor):
            try:
                found += (entry / "cmdline").read_bytes().startswith(kit.sleeper.encode())
            except OSError:
                continue
    return found


def first_start(kit: Tools, folder: Path) -> Reading:
    """From before the fork of `rpr` to the instant that the job itself writes down; ten more do not start."""
    effects = folder / "effects"
    others = "".join(f'[jobs.job-{n}]\ncommand = "true"\nschedule = "0 0 29 2 *"\n' for n in range(10))
    job = f'[jobs.first]\ncommand = ["{kit.stamp}", "{effects}"]\n'
    (folder / "jobs.toml").write_text("version = 1\n" + job + others)
    began = time.time()
    with running([kit.rpr, "apply", "jobs.toml", "--state-dir", str(folder / "state")], folder) as process:
        patience = time.monotonic() + 30
        while not effects.exists() or not effects.read_text():
            if process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("cannot measure: the job does not start")
            time.sleep(0.01)
        first = float(effects.read_text().split()[0]) - began
    return {"first start": (first, "s")}
