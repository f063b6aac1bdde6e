"""The plugins of the jobs in force: `model.plugins.Plugins`, by processes that stay.

`prepare` is told of every generation before it comes into force, away from the loop; `keep` afterwards. Between both,
old and new plugins are there side by side. One that is installed in another version is started anew.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

from repeater.errors import PluginFailed
from repeater.model.plugins import WORDS, Description, Kind, Program
from repeater.model.spec import JobFile, Plugin
from repeater.plugins.client import CALL_LIMIT, PluginProcess

_STAY = ("schedule", "stop_condition", "output")
_AT_ONCE = 8
"""Processes that are started at the same time."""


class PluginPool:
    """Asked in the loop's thread, but for outputs, which `plugins.output_feeds` asks in a thread of its own for each.

    Without a loop that must not wait (`live` false) an answer is waited for.
    """

    def __init__(self, descriptions: Iterable[Description] = (), *, live: bool = True) -> None:
        self._live = live
        self._ending: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._known: dict[tuple[Kind, str], Description] = {}
        self._residents: dict[tuple[Kind, str], PluginProcess] = {}
        self.prepare(descriptions)

    def update_catalog(self, descriptions: Iterable[Description]) -> bool:
        """Whether all of these are prepared."""
        return all(self._known.get((one.kind, one.name)) == one for one in descriptions)

    def prepare(self, descriptions: Iterable[Description]) -> None:
        """Start the processes of plugins that are new, side by side, and wait for them."""
        new = {(one.kind, one.name): one for one in descriptions if self._known.get((one.kind, one.name)) != one}
        residents = {key: PluginProcess(one) for key, one in new.items() if one.kind in _STAY}
        waiting = list(residents.values())
        for first in range(0, len(waiting), _AT_ONCE):
            group = waiting[first : first + _AT_ONCE]
            for resident in group:
                resident.begin()
            for resident in group:
                resident.finish()
        for key, one in new.items():
            with self._lock:
                self._known[key] = one
                old = self._residents.pop(key, None)
                if key in residents:
                    self._residents[key] = residents[key]
            if old is not None:
                old.close()

    def retain_only(self, jobfile: JobFile, outputs: Iterable[str] = ()) -> None:
        """Only these jobs are in force, and only these outputs have something to do: end what nobody uses."""
        wanted: set[tuple[Kind, str]] = {(kind, plugin.name) for kind, plugin in uses(jobfile)}
        wanted.update(("output", name) for name in outputs)
        with self._lock:
            gone = [self._residents.pop(key) for key in list(self._residents) if key not in wanted]
            self._known = {key: one for key, one in self._known.items() if key in wanted}
        if gone:  # one that hangs takes a moment, and nobody has to wait for that
            ending = threading.Thread(target=_close_all, args=(gone,), name="rpr-plugin", daemon=True)
            try:
                ending.start()
                self._ending = [thread for thread in (*self._ending, ending) if thread.is_alive()]
            except RuntimeError:  # the system has no more threads to give
                _close_all(gone)

    def describe(self, kind: Kind, name: str) -> Description | None:
        return self._known.get((kind, name))

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:
        resident = self.resident(kind, plugin.name)
        if self._live:
            return resident.ask(question, plugin.keys, arguments)
        return resident.ask_and_wait(question, plugin.keys, arguments, CALL_LIMIT)

    def resident(self, kind: Kind, name: str) -> PluginProcess:
        """Raises PluginFailed if there is none."""
        resident = self._residents.get((kind, name))
        if resident is None:
            raise PluginFailed(f"cannot use {WORDS[kind]} `{name}`: it is not loaded")
        return resident

    def program(self, plugin: Plugin) -> Program:
        known = self._known.get(("executor", plugin.name))
        if known is None:
            raise PluginFailed(f"cannot use {WORDS['executor']} `{plugin.name}`: it is not loaded")
        argv = (sys.executable, "-P", "-m", "repeater.plugins.host", "run")
        return Program(argv, {"path": sys.path, "name": plugin.name, "target": known.target, "keys": plugin.keys})

    def waits_for_end(self, plugin: Plugin) -> bool:
        known = self._known.get(("schedule", plugin.name))
        return known is not None and known.waits_for_end

    def close(self) -> None:
        """Blocks until everything has ended, which takes a moment."""
        _close_all(self._residents.values())
        self._residents.clear()
        for thread in self._ending:
            thread.join(2)


def _close_all(residents: Iterable[PluginProcess]) -> None:
    for resident in residents:
        resident.close()


def uses(jobfile: JobFile) -> Iterable[tuple[Kind, Plugin]]:
    """Every use of a plugin."""
    for job in jobfile.jobs:
        if isinstance(job.schedule, Plugin):
            yield "schedule", job.schedule
        if job.executor is not None:
            yield "executor", job.executor
        yield from (("output", plugin) for plugin in job.output.plugins)
        yield from (("stop_condition", plugin) for plugin in job.stop.plugins)
