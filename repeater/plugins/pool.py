"""Long-running processes of the plugins of the active jobs. Implements `model.plugins.Plugins`.

`prepare` is called outside of the loop before a generation becomes active, and `retain_only` afterwards. Between the
two calls old and new plugins run at the same time. A plugin with a new version is restarted.
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
    """Called in the loop's thread, except for outputs, which `plugins.output_feeds` calls in a thread for each use.

    With `live` false there is no loop, so `call` waits for the response.
    """

    def __init__(self, descriptions: Iterable[Description] = (), *, live: bool = True) -> None:
        self._live = live
        self._ending: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._known: dict[tuple[Kind, str], Description] = {}
        self._residents: dict[tuple[Kind, str], PluginProcess] = {}
        self.prepare(descriptions)

    def update_catalog(self, descriptions: Iterable[Description]) -> bool:
        """Whether all of these plugins are prepared."""
        return all(self._known.get((one.kind, one.name)) == one for one in descriptions)

    def prepare(self, descriptions: Iterable[Description]) -> None:
        """Start the processes of new plugins in parallel, and wait for them."""
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
        """End the plugins that neither the active jobs nor these outputs use."""
        used: set[tuple[Kind, str]] = {(kind, plugin.name) for kind, plugin in uses(jobfile)}
        used.update(("output", name) for name in outputs)
        with self._lock:
            unused = [self._residents.pop(key) for key in list(self._residents) if key not in used]
            self._known = {key: description for key, description in self._known.items() if key in used}
        if unused:  # in a thread, because a plugin that hangs takes a moment to end
            ending = threading.Thread(target=_close_all, args=(unused,), name="rpr-plugin", daemon=True)
            try:
                ending.start()
                self._ending = [thread for thread in (*self._ending, ending) if thread.is_alive()]
            except RuntimeError:  # the system has no more threads
                _close_all(unused)

    def describe(self, kind: Kind, name: str) -> Description | None:
        return self._known.get((kind, name))

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:
        resident = self.resident(kind, plugin.name)
        if self._live:
            return resident.ask(question, plugin.keys, arguments)
        return resident.ask_and_wait(question, plugin.keys, arguments, CALL_LIMIT)

    def resident(self, kind: Kind, name: str) -> PluginProcess:
        """The process of a plugin. Raises PluginFailed if there is none."""
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
        """End all processes, and block until they have exited."""
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
