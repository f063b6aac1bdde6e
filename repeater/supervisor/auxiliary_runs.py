"""Hooks and `exec` probes: runs beside the runs of jobs. The engine does not know them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from repeater.engine.actions import RunHook
from repeater.engine.facts import RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.events import Event, Warned
from repeater.model.reasons import reason as because
from repeater.model.time import to_us
from repeater.ports import TimerHandle
from repeater.supervisor.driven_ports import Ports
from repeater.supervisor.faults import Faults, describe
from repeater.supervisor.launch import BaseEnvironment, hook_launch

RETRY = 1_000_000
"""Microseconds until the spawner is asked again after it raised an exception."""
RunFact: TypeAlias = RunStarted | RunExited | RunEnded | RunLost | SpawnFailed


class AuxiliaryRuns:
    """`emit` gets warnings. `on_hook_ended` is called after each end of a hook."""

    def __init__(
        self,
        ports: Ports,
        inherited: BaseEnvironment,
        faults: Faults,
        emit: Callable[[Event], None],
        on_hook_ended: Callable[[], None],
    ) -> None:
        self._ports = ports
        self._inherited = inherited
        self._faults = faults
        self._emit = emit
        self._on_hook_ended = on_hook_ended
        self._hooks: dict[str, tuple[str, str]] = {}  # run -> (kind of hook, job)
        self._timers: dict[str, TimerHandle] = {}
        self._waiting: dict[tuple[str, str], RunHook] = {}  # (kind of hook, job) -> the newest that waits
        self._closed = False

    @property
    def has_hooks(self) -> bool:
        return bool(self._hooks)

    def hook_of(self, run: str) -> tuple[str, str]:
        """The kind and the job of a live hook; empty texts if the run is not a hook."""
        return self._hooks.get(run, ("", ""))

    def close(self) -> None:
        """Start no further hook."""
        self._closed = True

    def give_up_hooks(self) -> None:
        """Forget the live hooks: the supervisor no longer waits for them."""
        self._hooks.clear()
        for timer in self._timers.values():
            timer.cancel()

    def run_hook(self, action: RunHook) -> None:
        """Run a hook. While a hook of the same kind and job is live, only the newest request waits."""
        owner = action.kind, action.job
        if owner in self._hooks.values():
            self._waiting[owner] = action
            return
        command = getattr(action.spec.hooks, action.kind)
        launch = hook_launch(action.spec, action.kind, command, action.row, self._inherited)
        self._hooks[launch.run] = owner
        timeout = action.spec.hooks.timeout
        try:
            self._ports.outputs.begin(launch.run, action.spec, launch.kind)
            self._ports.spawner.start(launch)
        except Exception:
            del self._hooks[launch.run]
            raise
        if timeout is not None:
            end = partial(self._ports.spawner.kill_tree, launch.run)
            self._timers[launch.run] = self._ports.clock.call_after(to_us(timeout), end)

    def _end_hook(self, run: str) -> tuple[str, str]:
        """Start the hook that waits for this one. Returns the kind and the job of the hook that has ended."""
        owner = self._hooks.pop(run, ("", ""))
        timer = self._timers.pop(run, None)
        if timer is not None:
            timer.cancel()
        waiting = self._waiting.pop(owner, None)
        if waiting is not None and not self._closed:
            try:
                self.run_hook(waiting)
            except Exception as error:  # noqa: BLE001 - one hook
                self._faults.report("hook", error, job=waiting.job, name=waiting.kind)
        return owner

    def handle(self, fact: RunFact) -> None:
        if fact.kind == "probe":
            self._ports.prober.on_run_fact(fact)
            if isinstance(fact, RunEnded):
                self._ports.spawner.acknowledge([fact.run])
            return
        if isinstance(fact, RunExited):
            self._ports.spawner.kill_tree(fact.run)
        if isinstance(fact, RunStarted | RunExited):
            return
        self._ports.spawner.acknowledge([fact.run])
        kind, job = self._end_hook(fact.run)
        if isinstance(fact, SpawnFailed):
            self._emit(Warned(job, because("hook_spawn_failed", hook=kind, cause=fact.reason)))
        elif isinstance(fact, RunLost):
            self._emit(Warned(job, because("hook_lost", hook=kind, cause=fact.reason)))
        elif fact.exit.code != 0:
            self._emit(Warned(job, because("hook_failed", hook=kind, exit=fact.exit.code, signal=fact.exit.signal)))
        self._on_hook_ended()

    def contain(self, fact: RunFact, error: Exception) -> None:
        """Handle an exception of a hook or of an `exec` probe. Its end still counts: the next hook of the kind may
        start, and the probe gets an answer.
        """
        if fact.kind == "probe":
            self._faults.report("probe", error, name=fact.run)
        else:
            kind, job = self.hook_of(fact.run)
            self._faults.report("hook", error, job=job, name=kind)
        if isinstance(fact, RunStarted):
            return
        if isinstance(fact, RunExited):
            self._ports.clock.call_after(RETRY, partial(self._ports.spawner.kill_tree, fact.run))
            return
        try:
            if fact.kind == "probe":
                self._ports.prober.on_run_fact(
                    RunLost(fact.run, because("probe_failed", error=describe(error)), "probe")
                )
            elif fact.run in self._hooks:
                self._end_hook(fact.run)
                self._on_hook_ended()
        except Exception as second:  # noqa: BLE001 - the same hook or probe
            self._faults.report("hook" if fact.kind == "hook" else "probe", second, name=fact.run)
