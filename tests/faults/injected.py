"""A supervisor whose callbacks fail on purpose, one at a time, while twenty jobs run.

`python -m tests.faults.injected FOLDER [all]` runs `FOLDER/jobs.toml` with the HTTP server, while clients ask, files
change and the job file is read again. It collects the names of all callbacks of the event loop for a while, and then
makes each of them raise once, without `all` a few of each part. A callback raises at its end. It raises also before it
does anything if it is a method of a port, or is called again for the same reason (a readable descriptor). Writes `FOLDER/injected.json`:

    fired    {name: [[owner, job], ...] of the faults that were reported then}
    never    names that were not called again in time
    stalled  names after whose fault the timers stood still
    before, after    pids of the services
    shown    what `rpr status` and `rpr health` show at the end, as [owner, job]
    code     exit status of the supervisor
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from repeater.apps import supervisor as assembly
from repeater.apps.locate import SupervisorSelector, connect
from repeater.apps.options import HttpOptions, SupervisorOptions
from repeater.apps.reload_worker import load_selected
from repeater.apps.supervisor import supervise
from repeater.model.events import RunFinished
from repeater.processes import fd_poller
from repeater.system.loops import batching
from repeater.system.loops.slow_callbacks import name_of

COLLECTING, PATIENCE = 2.0, 1.5
FEW = 1
"""Names of each part without `all`."""
PORTS = {
    "repeater.system.net_probe.NetProber": ("run_probe", "_answer"),
    "repeater.supervisor.probes.Probes": ("run_probe", "on_run_fact"),
    "repeater.system.file_watcher.FileWatcher": ("_tell", "revive"),
    "repeater.output.router.OutputRouter": ("begin", "write", "finish"),
    "repeater.supervisor.sinks.masking.MaskingSink": ("begin", "write", "finish"),
    "repeater.supervisor.probes.LogProbeSink": ("begin", "write", "finish"),
    "repeater.system.system_load.SystemLoad": ("read",),
    "repeater.system.ratelimit_client.RateLimitClient": ("request", "report_start", "release", "withdraw", "_connect"),
    "repeater.processes.shim_spawner.ShimSpawner": ("start", "kill_tree", "signal", "acknowledge", "_become_stuck"),
    "repeater.apps.template_worker.RunTemplateWorker": ("render",),
    "repeater.supervisor.reload.Reload": ("file_changed", "read_now"),
    "repeater.system.sd_notify.SystemdNotifier": ("status",),
    "repeater.output.event_printer.EventPrinter": ("__call__",),
    "repeater.output.event_log.EventLog": ("__call__",),
    "repeater.plugins.output_feeds.OutputFeeds": ("__call__", "begin", "write", "finish"),
    "repeater.supervisor.supervisor.Supervisor": ("_watch", "_launch"),
    "repeater.supervisor.auxiliary_runs.AuxiliaryRuns": ("handle", "run_hook"),
}
"""Methods that the supervisor calls, by class: each may raise before it does anything."""
FATAL = ("repeater.store.",)
"""Callbacks of the store, whose faults end the supervisor."""


class Injected(Exception):
    """The fault."""


class Injection:
    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.armed = ""
        self.fired: list[str] = []

    def point(self, when: str, name: str) -> None:
        """A place where a fault may be: raises if it is asked for here, as if the module of `name` did so."""
        point = f"{when} of {name}"
        self.seen[point] = self.seen.get(point, 0) + 1
        if self.armed == point:
            self.armed = ""
            self.fired.append(point)
            there = {"__name__": name, "fault": Injected(point)}
            exec("def fail(): raise fault", there)
            there["fail"]()  # type: ignore[operator]


injection = Injection()


def install() -> None:
    run = asyncio.Handle._run

    def run_handle(handle: Any) -> None:
        name = name_of(handle._callback)
        if name.startswith("repeater.") and not name.startswith("repeater.system.loops.batching."):
            call = handle._callback

            def failing(*args: object) -> None:
                call(*args)
                injection.point("end", name)

            handle._callback = failing
            try:
                run(handle)
            finally:
                if handle._callback is failing:
                    handle._callback = call
        else:
            run(handle)

    asyncio.Handle._run = run_handle  # type: ignore[method-assign]

    def call(callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        name = name_of(callback)
        callback(*args)
        if name.startswith("repeater.") and not name.startswith(FATAL):
            injection.point("end", name)

    batching._call = call
    add = fd_poller.NestedPoller.add

    def add_wake(self: fd_poller.NestedPoller, fd: int, call: Callable[[], object]) -> None:
        def wake() -> None:
            injection.point("begin", name_of(call))
            call()

        add(self, fd, wake)

    fd_poller.NestedPoller.add = add_wake  # type: ignore[method-assign]
    for path, names in PORTS.items():
        module, _, owner = path.rpartition(".")
        holder = __import__(module, fromlist=["x"])
        holder = getattr(holder, owner)
        for name in names:
            setattr(holder, name, failing_first(f"{path}.{name}", getattr(holder, name)))


def failing_first(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(*args: Any, **keys: Any) -> Any:
        injection.point("begin", name)
        return original(*args, **keys)

    return method


class Control:
    """Arms one fault after the other, and looks whether the jobs go on."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.result: dict[str, Any] = {"never": [], "stalled": [], "fired": {}}
        self.supervisor: Any = None
        self.port = 0
        self.over = threading.Event()
        self.asked = threading.Event()

    async def run(self) -> None:
        await asyncio.sleep(COLLECTING)
        self.result["before"] = self.services()
        for name in chosen(injection.seen):
            faults = self.faults()
            injection.armed = name
            if not await self.until(lambda: not injection.armed, PATIENCE):
                injection.armed = ""
                self.result["never"].append(name)
                continue
            seen = self.ended()
            if not await self.until(lambda: self.ended() >= seen + 5, 20):  # noqa: B023
                self.result["stalled"].append(name)
            await self.until(lambda: self.faults() != faults, 1.0)  # noqa: B023
            new = [list(owner) for owner, count in self.faults().items() if faults.get(owner, 0) != count]
            self.result["fired"][name] = new
        await asyncio.sleep(1.0)
        self.result["after"] = self.services()
        self.asked.clear()
        await self.until(self.asked.is_set, 10)
        self.over.set()
        os.kill(os.getpid(), signal.SIGTERM)

    async def until(self, condition: Callable[[], bool], within: float) -> bool:
        end = asyncio.get_running_loop().time() + within
        while not condition():
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(0.01)
        return True

    def ended(self) -> int:
        return sum(isinstance(event, RunFinished) for event in self.events)

    def faults(self) -> dict[tuple[str, str], int]:
        """How many faults were reported for each owner and job."""
        counts: dict[tuple[str, str], int] = {}
        for record in self.supervisor.faults.recent():
            key = record.owner, record.job
            counts[key] = counts.get(key, 0) + record.count
        return counts

    def services(self) -> dict[str, list[int]]:
        jobs = self.supervisor.engine.jobs
        return {name: [held.pid for held in job.open] for name, job in jobs.items() if name.startswith("service")}


def chosen(seen: dict[str, int]) -> list[str]:
    """All names, or a few of each module."""
    names = sorted(seen)
    if "all" in sys.argv:
        return names
    parts: dict[str, list[str]] = {}
    for name in names:
        module = ".".join(name.removeprefix("begin of ").removeprefix("end of ").split(".")[:3])
        parts.setdefault(module, []).append(name)
    return [name for part in parts.values() for name in part[:FEW]]


def ask(control: Control, project: str) -> None:
    """Clients that ask again and again, files that change, and a job file that is saved."""
    jobs, number = Path("jobs.toml").read_text(), 0
    while not control.over.wait(0.2):
        number += 1
        Path("seen.py").write_text(str(number))
        if number % 5 == 0:
            Path("jobs.toml").write_text(f"{jobs}# {number}\n")
        try:
            with connect(SupervisorSelector(project=project)) as client:
                shown = client.ask("status", patience=2.0, jobs=[]).result()["faults"]
                shown += client.ask("health", patience=2.0).result()["faults"]
            control.result["shown"] = sorted({(fault["owner"], fault["job"] or "") for fault in shown})
            control.asked.set()
            http = HTTPConnection("127.0.0.1", control.port, timeout=2.0)
            try:
                http.request("GET", "/livez")
                http.getresponse().read()
            finally:
                http.close()
        except Exception:  # noqa: BLE001 - its own connection may be the one that failed
            continue


def main() -> None:
    os.chdir(sys.argv[1])
    install()
    control = Control()
    original = assembly.SupervisorApp.begin

    def begin(self: Any, loaded: Any, ready: Any) -> None:
        original(self, loaded, ready)
        supervisor = control.supervisor = self._supervisor
        control.port = self.control.http._door.getsockname()[1]
        supervisor._listeners = (control.events.append, *supervisor._listeners)
        task = asyncio.get_running_loop().create_task(control.run())
        self._task_of_control = task

    assembly.SupervisorApp.begin = begin  # type: ignore[method-assign]
    asking = threading.Thread(target=ask, args=(control, "ground"), daemon=True)
    asking.start()
    options = SupervisorOptions(("jobs.toml",), quiet=True, http=HttpOptions("0"))
    code = supervise(options, load_selected(("jobs.toml",)))
    control.over.set()
    asking.join()
    Path("injected.json").write_text(json.dumps({**control.result, "code": code}))


if __name__ == "__main__":
    main()
