"""Processes that follow a script, in virtual time, telling the same facts in the same order as the real ones.

`Act` says what a process does. A spawner is given acts by job (`RPR_JOB` of the environment), one for every
run or a list of which each run takes the next and the last stays, or a function from a `LaunchRequest`. Passes the
contract of `processes.local_spawner` in `tests/contract`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.engine.facts import RunEnded, RunExited, RunLost, RunStarted, SpawnFailed, SurvivingRun
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit
from repeater.model.time import to_us
from repeater.ports import EmitFact, LaunchRequest, RunSink, Stream
from tests.fakes.clock import EPOCH, FakeAlarm, FakeClock

NOTHING = timedelta(0)
_SHIM_GONE = Reason("shim_gone")
OK = Exit(code=0)
FOR_EVER = timedelta(days=36_525)


def seconds(number: float) -> timedelta:
    """A length, for short scripts."""
    return timedelta(seconds=number)


@dataclass(frozen=True, slots=True)
class Said:
    """Output, `at` this long after the start."""

    data: bytes
    stream: Stream = "stdout"
    at: timedelta = NOTHING


@dataclass(frozen=True, slots=True)
class Act:
    """What a process does: it lives for `lasts`, says things, and ends with `exit`; None: the signal decides.

    `starting` is how long it takes to exist. It dies of any signal that it does not ignore (KILL cannot be
    ignored). `leaves` is how long a background child outlives it, holding its output unless `quiet`;
    `escaped`: the child left the session, so that only a sweep reaches it. `refusal` is why it cannot be
    started at all. `dying` is how long it outlives a sweep, as a process in uninterruptible sleep does.
    """

    lasts: timedelta = NOTHING
    exit: Exit = OK
    says: tuple[Said, ...] = ()
    ignores: frozenset[str] = frozenset()
    starting: timedelta = NOTHING
    leaves: timedelta = NOTHING
    quiet: bool = False
    escaped: bool = False
    refusal: str | None = None
    temporary: bool = False
    dying: timedelta = NOTHING


Script: TypeAlias = Mapping[str, Act | Sequence[Act]] | Callable[[LaunchRequest], Act]

_HARMLESS = frozenset({"CONT", "STOP", "TSTP", "CHLD", "WINCH", "URG"})


@dataclass(slots=True)
class _Process:
    launch: LaunchRequest
    act: Act
    alarms: list[FakeAlarm] = field(default_factory=list)
    started: bool = False
    pid: int = 0
    began: datetime = EPOCH
    early: list[str] = field(default_factory=list)
    swept_early: bool = False
    exit: Exit | None = None
    exit_told: bool = False
    child: bool = False
    paused: bool = False
    unsaid: list[Said] = field(default_factory=list)
    over: bool = False


class FakeSpawner:
    """`ports.Spawner` without processes. `launches` and `signals` are what it was asked for."""

    def __init__(self, clock: FakeClock, tell: EmitFact, sink: RunSink, script: Script | None = None) -> None:
        self.script: Script = {} if script is None else script
        self.launches: list[LaunchRequest] = []
        self.signals: list[tuple[str, str]] = []
        self.sweeps: list[str] = []
        self.closed = False
        self._clock = clock
        self._tell = tell
        self._sink = sink
        self._live: dict[str, _Process] = {}
        self._withheld: dict[str, list[Callable[[], None]]] = {}
        self._survivors: dict[str, SurvivingRun] = {}
        self.on_record: set[str] = set()
        self._turn: dict[str, int] = {}
        self._pids = count(10_001)

    def outlive(self, tell: EmitFact, sink: RunSink) -> None:
        """The client is gone without a word and another one is there: runs go on, what they tell waits for `adopt`."""
        self._tell, self._sink = tell, sink
        for run in [run for run, process in self._live.items() if not process.started]:
            self._drop(self._live.pop(run))
        for run, process in self._live.items():
            self._withheld.setdefault(run, [])
            self._survivors[run] = SurvivingRun(process.pid, process.began)

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        return dict(self._survivors)

    def adopt(self, run: str) -> None:
        del self._survivors[run]
        for call in self._withheld.pop(run):
            self._clock.call_soon(call)

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        for run in runs:
            del self._survivors[run], self._withheld[run]
            if run in self._live:
                self._drop(self._live.pop(run))

    @property
    def trouble(self) -> Reason | None:
        return None

    def force(self) -> None:
        pass

    def acknowledge(self, runs: Iterable[str]) -> None:
        self.on_record |= set(runs)

    @property
    def live(self) -> frozenset[str]:
        """Runs that were started and have not ended."""
        return frozenset(run for run, process in self._live.items() if process.started)

    def start(self, launch: LaunchRequest) -> None:
        assert not self.closed
        assert launch.run not in self._live, f"`{launch.run}` was started twice"
        self.launches.append(launch)
        process = _Process(launch, self._act(launch))
        self._live[launch.run] = process
        self._after(process, process.act.starting, self._begin)

    def signal(self, run: str, signal: str) -> None:
        process = self._live.get(run)
        if process is None:
            return
        self.signals.append((run, signal))
        if process.started:
            self._after(process, NOTHING, lambda p: self._deliver(p, signal))
        else:
            process.early.append(signal)

    def kill_tree(self, run: str) -> None:
        process = self._live.get(run)
        if process is None:
            return
        self.sweeps.append(run)
        if process.started:
            self._after(process, process.act.dying, self._sweep)
        else:
            process.swept_early = True

    def lose(self, reason: Reason = _SHIM_GONE) -> None:
        """Whatever owned the processes is gone, and they with it."""
        lost, self._live = self._live, {}
        for run, process in lost.items():
            self._drop(process)
            self._sink.finish(run)
            self._tell(RunLost(run, reason, process.launch.kind))

    def resume_reading(self, run: str) -> None:
        process = self._live.get(run)
        if process is not None and process.paused:
            process.paused = False
            self._after(process, NOTHING, self._catch_up)

    def close(self) -> None:
        self.closed = True
        for process in self._live.values():
            self._drop(process)
        self._live.clear()

    def _act(self, launch: LaunchRequest) -> Act:
        if callable(self.script):
            return self.script(launch)
        job = launch.env.get("RPR_JOB", "")
        acts = self.script.get(job, Act())
        if isinstance(acts, Act):
            return acts
        turn = self._turn.get(job, 0)
        self._turn[job] = turn + 1
        return acts[min(turn, len(acts) - 1)]

    def _after(self, process: _Process, length: timedelta, call: Callable[[_Process], None]) -> None:
        def ring() -> None:
            if not process.over and not self.closed:
                call(process)

        process.alarms.append(self._clock.call_after(to_us(length), ring))

    def _begin(self, process: _Process) -> None:
        act = process.act
        if act.refusal is not None:
            self._drop(process)
            del self._live[process.launch.run]
            self._sink.finish(process.launch.run)
            self._tell(
                SpawnFailed(
                    process.launch.run, because("text", text=act.refusal), act.temporary, kind=process.launch.kind
                )
            )
            return
        process.started = True
        process.pid, process.began = next(self._pids), self._clock.now().wall
        self._tell(RunStarted(process.launch.run, process.pid, kind=process.launch.kind))
        for said in act.says:
            if said.at <= act.lasts:
                self._after(process, said.at, lambda p, said=said: self._say(p, said))  # type: ignore[misc]
        self._after(process, act.lasts, self._exit)
        for name in process.early:
            self.signal(process.launch.run, name)
        if process.swept_early:
            self.kill_tree(process.launch.run)

    def _say(self, process: _Process, said: Said, *, late: bool = False) -> None:
        if process.exit is not None and not late:
            return
        if process.paused or process.unsaid:
            process.unsaid.append(said)
        elif process.launch.run in self._withheld:
            self._withheld[process.launch.run].append(partial(self._say, process, said, late=True))
        elif not self._sink.write(process.launch.run, said.stream, said.data):
            process.paused = True

    def _catch_up(self, process: _Process) -> None:
        while process.unsaid and not process.paused:
            said = process.unsaid.pop(0)
            process.paused = not self._sink.write(process.launch.run, said.stream, said.data)
        if process.exit is not None:
            self._look(process)

    def _exit(self, process: _Process) -> None:
        if process.exit is not None:
            return
        process.exit = process.act.exit
        if process.act.leaves > NOTHING:
            process.child = True
            self._after(process, process.act.leaves, self._bury_child)
        self._look(process)

    def _bury_child(self, process: _Process) -> None:
        process.child = False
        self._look(process)

    def _deliver(self, process: _Process, name: str) -> None:
        if name in _HARMLESS or (name in process.act.ignores and name != "KILL"):
            return
        if process.child and not process.act.escaped:
            process.child = False
        if process.exit is None:
            process.exit = Exit(signal=signal.Signals[f"SIG{name}"].value)
            if process.act.leaves > NOTHING and process.act.escaped:
                process.child = True
                self._after(process, process.act.leaves, self._bury_child)
        self._look(process)

    def _sweep(self, process: _Process) -> None:
        process.child = False
        process.paused = False
        if process.exit is None:
            process.exit = Exit(signal=signal.SIGKILL.value)
        for said in process.unsaid:
            self._sink.write(process.launch.run, said.stream, said.data)
        process.unsaid.clear()
        process.paused = False
        self._look(process)

    def _look(self, process: _Process) -> None:
        run, exit_ = process.launch.run, process.exit
        assert exit_ is not None
        if process.child and process.act.quiet and process.act.escaped:
            process.child = False  # nobody can know of it
        if process.child or process.unsaid:
            if not process.exit_told:
                process.exit_told = True
                self._now(run, lambda: self._tell(RunExited(run, exit_, process.launch.kind)))
            return
        self._drop(process)
        del self._live[run]
        at = self._clock.now().wall if run in self._withheld else None
        self._now(run, lambda: self._tell(RunEnded(run, exit_, self._sink.finish(run), at, kind=process.launch.kind)))

    def _now(self, run: str, call: Callable[[], None]) -> None:
        """Or when somebody adopts the run."""
        if run in self._withheld:
            self._withheld[run].append(call)
        else:
            call()

    def _drop(self, process: _Process) -> None:
        process.over = True
        for alarm in process.alarms:
            alarm.cancel()
