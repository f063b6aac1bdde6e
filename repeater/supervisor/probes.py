"""Probes of every kind behind one port: HTTP and TCP go to an adapter, `exec` is run like a job, `log` reads output.

An `exec` probe is a process of the spawner, so its whole tree ends with its timeout; no sink knows it, so its output is
dropped. A
`log` probe looks at every line since the start of the run and answers once. Decides nothing about readiness; that is
`engine.probe_monitor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, Protocol

from repeater.engine.facts import ProbeReported, RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.reasons import Reason
from repeater.model.run import RunKind
from repeater.model.spec import JobSpec, Probe, Success
from repeater.model.time import to_us
from repeater.policy.verdict import Matcher, judge
from repeater.ports import Clock, EmitFact, Prober, Spawner, Stream, TimerHandle, Users
from repeater.supervisor.launch import BaseEnvironment, probe_launch

_EXIT_ZERO = Success()
_RETRY = 1_000_000  # microseconds until the spawner is asked again to end a probe


class Output(Protocol):
    """The sink that `LogProbeSink` listens in front of."""

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None: ...

    def write(self, run: str, stream: Stream, data: bytes) -> bool: ...

    def finish(self, run: str) -> frozenset[str]: ...


class Probes:
    """Implements `ports.Prober` for all kinds. `take` must be given the facts of kind `probe`."""

    def __init__(
        self,
        clock: Clock,
        spawner: Spawner,
        net: Prober,
        tell: EmitFact,
        environ: Mapping[str, str],
        users: Users = lambda _: {},
    ) -> None:
        self._clock = clock
        self._spawner = spawner
        self._net = net
        self._tell = tell
        self._inherited = BaseEnvironment(environ, users)
        self._asked = 0
        self._running: dict[str, tuple[str, str, TimerHandle]] = {}
        self._late: set[str] = set()

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None:
        if probe.log is not None:
            return  # LogTap answers when the line comes
        if probe.exec is None:
            self._net.run_probe(job, kind, probe, spec)
            return
        self._asked += 1
        run = f"probe:{self._asked}"
        alarm = self._clock.call_after(to_us(probe.timeout), lambda: self._give_up(run))
        self._running[run] = (job, kind, alarm)
        try:
            self._spawner.start(probe_launch(spec, run, probe.exec, self._inherited))
        except Exception:
            alarm.cancel()
            del self._running[run]
            raise

    def on_run_fact(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        """A fact about an `exec` probe. After an exception it may be called again, with RunLost."""
        if isinstance(fact, RunExited):
            self._spawner.kill_tree(fact.run)
        if isinstance(fact, RunStarted | RunExited) or fact.run not in self._running:
            return
        if isinstance(fact, SpawnFailed | RunLost):
            problem: Reason | None = fact.reason
        elif fact.run in self._late:
            problem = Reason("probe_timeout")
        else:
            problem = None if fact.exit.code == 0 else judge(_EXIT_ZERO, fact.exit, frozenset(), None).reason
        self._answer(fact.run, problem)

    def _answer(self, run: str, problem: Reason | None) -> None:
        job, kind, alarm = self._running.pop(run)
        self._late.discard(run)
        alarm.cancel()
        self._tell(ProbeReported(job, _probe_kind(kind), problem is None, problem))

    def close(self) -> None:
        for _, _, alarm in self._running.values():
            alarm.cancel()
        self._net.close()

    def _give_up(self, run: str) -> None:
        self._late.add(run)
        try:
            self._spawner.kill_tree(run)
        except Exception:
            self._answer(run, Reason("probe_timeout"))
            self._clock.call_after(_RETRY, partial(self._spawner.kill_tree, run))
            raise


class LogProbeSink:
    """A sink in front of another one. It reports when a line of a service matches its `log` probe."""

    def __init__(self, behind: Output, tell: EmitFact) -> None:
        self._behind = behind
        self._tell = tell
        self._taps: dict[str, tuple[str, Matcher]] = {}

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.ready is not None and spec.ready.log is not None and kind == "run":
            self._taps[run] = (spec.name, Matcher(Success(pattern=spec.ready.log, stderr=True), None))
        self._behind.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._taps:
            job, matcher = self._taps[run]
            matcher.feed(stream, data)
            if "success" in matcher.found():
                del self._taps[run]
                self._tell(ProbeReported(job, "ready", ok=True))
        return self._behind.write(run, stream, data)

    def finish(self, run: str) -> frozenset[str]:
        self._taps.pop(run, None)
        return self._behind.finish(run)


def _probe_kind(kind: str) -> Literal["ready", "live"]:
    return "live" if kind == "live" else "ready"
