"""Owns the processes of the runs through a keeper: a small process that is the parent of them all (`shim.server`).

The keeper starts, waits, signals and kills; here is only the conversation with it, and the reading of the output, whose
ends the keeper hands over. So a burst of starts costs the loop little, and what this process's death means for the runs
is decided by the keeper, which outlives it. Messages of one turn of the loop travel in one frame. Used by `app` only;
passes the contract in `tests/contract`.

Everything happens in the loop. If the keeper dies, whatever it left is swept in a thread of its own, its runs are told
as lost, and another keeper is started. If this process dies, the keeper ends everything, or looks after the runs
until another supervisor comes: with a folder to meet in, that one finds them as its `survivors`.

How a run ends: the exit of its first process, the end of both pipes and an empty process group come in any order, see
`processes.local_spawner`; the keeper tells the first and the last, and sweeps when asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.engine.facts import RunEnded, RunExited, RunLost, RunStarted, SpawnFailed, SurvivingRun
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, RunKind, Usage
from repeater.model.time import Mono
from repeater.ports import EmitFact, LaunchRequest, Loop, RunSink, Stream
from repeater.processes.fd_poller import NestedPoller
from repeater.processes.shim_client import (
    LAST_WORDS,
    ConnectionLost,
    OnDeath,
    ShimConnection,
    ShimUnavailable,
    base_message,
    connect_existing,
    spawn_message,
    start_new,
)
from repeater.shim import cgroup, process_tree, spool
from repeater.shim.protocol import ProtocolError, frame

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

CHUNK = 65_536  # what a pipe holds at most by default
_WIDE = 1 << 20  # what the pipe of a run holds that has filled it: both sides are woken less often
_READS_AT_EXIT = 4  # the rest is read like output of a living run
_ROUND = 5.0  # seconds between looks for dead orphans, as process 1
_RETRY = 1.0  # seconds between tries to start one
_AGAIN = 0.5  # seconds until output is asked for again
_NO_HURRY = 0.1  # seconds that the keeper may wait to hear what it can forget, if there is nothing else to tell it
_BEAT = 1.0  # seconds between two pings
_SILENT = 3  # pings without an answer after which the keeper is stuck
_FIRST_WAIT, _LAST_WAIT = 0.001, 0.05  # seconds between tries to send when the keeper does not take any more
_FRAME = 256  # messages in one frame at most

Cgroups: TypeAlias = Literal["off", "services", "all"]


@dataclass(slots=True)
class _Run:
    """One run, from the call of `start` to RunEnded."""

    run: str
    kind: RunKind = "run"
    pid: int | None = None
    open: dict[Stream, int] = field(default_factory=dict)
    wide: list[int] = field(default_factory=list)
    withheld: bool = True  # its output was not handed over yet
    paused: bool = False
    exit: Exit | None = None
    exit_told: bool = False
    empty: bool = False
    at: datetime | None = None  # when it ended, if that was while nobody listened
    mono: Mono | None = None  # the same by the monotonic clock
    timed_out: bool = False
    spools: dict[Stream, tuple[int, int]] = field(default_factory=dict)  # descriptor, and where to go on
    signalled: bool = False
    sweep: Literal["", "begun", "done"] = ""
    usage: Usage = Usage()


class ShimSpawner:
    """`ports.Spawner` for processes of this machine, through a keeper of its own. Every method is called in the
    loop's thread.

    `warn` tells a person that the keeper was lost. `folder` is where keepers can be found by later supervisors; whoever
    uses it holds the lock of the state that it belongs to. None: nobody will look. `on_death` says what becomes of the
    runs when this process dies without a word, `cgroups` which of them get a cgroup of their own where that can be.
    Raises CannotKeep when no keeper can be started.
    """

    def __init__(
        self,
        tell: EmitFact,
        sink: RunSink,
        loop: Loop,
        *,
        warn: Callable[[Reason], None] = lambda _: None,
        folder: Path | None = None,
        on_death: OnDeath = "kill",
        cgroups: Cgroups = "services",
    ) -> None:
        self._tell = tell
        self._sink = sink
        self._loop = loop
        self._warn = warn
        self._runs: dict[str, _Run] = {}
        self._fresh: list[_Run] = []
        self._bases: dict[int, tuple[int, Mapping[str, str]]] = {}
        self._closed = False
        self._outbox: list[Message] = []
        self._unsent = b""
        self._flushing = False
        self._settled: list[str] = []
        self._settling = False
        self._closing = threading.Event()
        self._mourner: threading.Thread | None = None
        self._folder = folder
        self._on_death = on_death
        self._cgroups = cgroups
        fences = cgroups != "off"
        self._line: ShimConnection | None = (folder and connect_existing(folder, on_death, fences)) or start_new(
            folder, on_death, fences
        )
        self._told_unfenced = False
        if cgroups == "all":  # by default it is taken as it comes
            self._warn_no_cgroup(self._line.hello.get("unfenced"))
        self._survivors: dict[str, Message] = {} if folder is None else spool.read_exits(str(folder))
        self._survivors.update((one["run"], one) for one in self._line.hello["runs"])
        # what a keeper of an earlier boot noted has readings of another clock
        self._told = frozenset(one["run"] for one in self._line.hello["runs"])
        self._unsettled = set(self._survivors)
        self._unanswered = 0
        self._is_stuck = self._is_forced = False
        self._wakes = NestedPoller(loop)
        self._wakes.add(self._line.fd, self._receive)
        self._beat()
        if os.getpid() == 1:
            self._reap_unwaited(frozenset())

    @property
    def keeper(self) -> int | None:
        """The pid of the keeper; None between two."""
        return None if self._line is None else self._line.pid

    @property
    def trouble(self) -> Reason | None:
        return because("shim_stuck", pid=self.keeper) if self._is_stuck else None

    def force(self) -> None:
        self._is_forced = True
        if self._is_stuck:
            self._on_shim_lost()

    def start(self, launch: LaunchRequest) -> None:
        self._runs[launch.run] = _Run(launch.run, launch.kind)
        message = spawn_message(launch, self._base_of(launch.base))
        if self._cgroups == "all" or (self._cgroups == "services" and launch.is_service):
            message["fence"] = True
        self._ask(message)

    def _base_of(self, env: Mapping[str, str]) -> int:
        """The number by which the keeper knows these variables; it is told them the first time."""
        number, known = self._bases.get(id(env), (0, None))
        if env and known is None:
            number = len(self._bases) + 1
            self._bases[id(env)] = number, env
            self._ask(base_message(number, env))
        return number

    def signal(self, run: str, signal: str) -> None:
        known = self._runs.get(run)
        if known is not None:
            known.signalled = True
            self._ask({"op": "signal", "run": run, "signal": signal})

    def kill_tree(self, run: str) -> None:
        known = self._runs.get(run)
        if known is not None and not known.sweep:
            known.sweep = "begun"
            self._ask({"op": "sweep", "run": run})

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        return {
            run: SurvivingRun(one["pid"], _instant(one["began"]), one.get("began_mono") if run in self._told else None)
            for run, one in self._survivors.items()
        }

    def adopt(self, run: str) -> None:
        one = self._survivors.pop(run)
        known = self._runs[run] = _Run(run, pid=one["pid"])
        if self._line is not None and run in self._line.has:
            self._ask({"op": "attach", "run": run})
        else:
            self._loop.call_soon(self._replay_exit, known, one)

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        ours = {run: self._survivors.pop(run) for run in list(runs)}
        living = {run: one["pid"] for run, one in ours.items() if one.get("ended") is None}
        if living:
            process_tree.kill(living)
        self.acknowledge(ours)

    def acknowledge(self, runs: Iterable[str]) -> None:
        runs = list(runs)
        self._settled += runs
        if runs and not self._settling:
            self._settling = True
            self._loop.call_later(_NO_HURRY, self._send_acks)
        if self._unsettled:
            self._unsettled.difference_update(runs)
            if not self._unsettled and self._folder is not None:
                spool.clear(str(self._folder))

    def _send_acks(self) -> None:
        self._settling = False
        if self._settled:
            self._flush_soon()

    def resume_reading(self, run: str) -> None:
        known = self._runs.get(run)
        if known is not None and known.paused:
            known.paused = False
            self._listen(known)

    def close(self) -> None:
        """Blocks until everything is dead, for some seconds at most."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        if self._mourner is not None:
            self._mourner.join(LAST_WORDS)
        for known in self._runs.values():
            for stream in list(known.open):
                self._close_pipe(known, stream)
            for fd, _ in known.spools.values():
                os.close(fd)
        if self._line is not None:
            self._wakes.remove(self._line.fd)
            if self._is_stuck:
                self._line.abandon()
            if self._is_stuck or not self._line.shut_down(self._unsent):
                process_tree.kill({run: known.pid or 0 for run, known in self._runs.items()}, within=2)
                if self._cgroups != "off":
                    with contextlib.suppress(cgroup.NotDelegated):
                        folder = None if self._folder is None else str(self._folder)
                        cgroup.remove_stale(cgroup.delegated_root(), cgroup.owner_of(folder, os.getpid()))
        self._runs.clear()
        self._wakes.close()

    # --- to the keeper ---

    def _ask(self, message: Message) -> None:
        self._outbox.append(message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and not self._closed:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self, wait: float = _FIRST_WAIT) -> None:
        self._flushing = False
        if self._closed or self._line is None:
            return
        if self._settled:
            self._outbox.append({"op": "settled", "runs": self._settled})
            self._settled = []
        try:
            while self._unsent or self._outbox:
                if not self._unsent:
                    messages, self._outbox = self._outbox[:_FRAME], self._outbox[_FRAME:]
                    self._unsent = self._framed(messages)
                self._unsent = self._unsent[self._line.socket.send(self._unsent) :]
        except BlockingIOError:  # it is stopped, or busy; the loop has no way to tell when there is room
            self._flushing = True
            self._loop.call_later(wait, self._flush, min(wait * 2, _LAST_WAIT))
        except OSError:
            self._on_shim_lost()

    def _framed(self, messages: list[Message]) -> bytes:
        """In several frames if they are too big for one. The run of a message that is too big for any is refused."""
        try:
            return frame(messages)
        except (ProtocolError, TypeError, ValueError) as error:
            if len(messages) > 1:
                half = len(messages) // 2
                return self._framed(messages[:half]) + self._framed(messages[half:])
            self._refuse(messages[0], error)
            return b""

    def _refuse(self, message: Message, error: Exception) -> None:
        """A message that cannot be sent costs the run that it starts, and is reported in any other case."""
        known = self._runs.pop(message.get("run", ""), None) if message["op"] == "spawn" else None
        if known is None:
            self._loop.call_soon(_raise, error)
            return
        self._sink.finish(known.run)
        program = str(message["argv"][0]) if message["argv"] else ""
        too_big = because("arguments_too_big", program=program)
        reason = too_big if isinstance(error, ProtocolError) else because("launch_failed", error=str(error))
        self._tell(SpawnFailed(known.run, reason, exit_code=126, kind=known.kind))

    def _beat(self) -> None:
        """Ask now and then whether the keeper works: a stopped process keeps its connection open.

        Beats are counted, not seconds, because after a suspension of the machine much time has passed for both.
        """
        if self._closed:
            return
        self._loop.call_later(_BEAT, self._beat)  # first: an exception below must not end the beats
        if self._line is not None and self._line.hello.get("pongs"):
            self._unanswered += 1
            if self._unanswered > _SILENT:
                self._become_stuck()
            else:
                self._ask({"op": "ping"})

    def _become_stuck(self) -> None:
        if not self._is_stuck:
            self._is_stuck = True
            self._warn(because("shim_silent", pid=self.keeper))
        if self._is_forced:
            self._on_shim_lost()

    # --- from the keeper ---

    def _receive(self) -> None:
        line = self._line
        if line is None:
            return
        try:
            for messages, handed in line.receive():
                self._unanswered = 0
                if self._is_stuck:
                    self._is_stuck = False
                    self._warn(Reason("shim_answers"))
                ends = iter(handed)
                for message in messages:
                    try:
                        self._on_message(message, ends)
                    except Exception as error:  # noqa: BLE001 - the other messages are about other runs
                        self._failed(message, error)
            fresh, self._fresh = self._fresh, []
            for known in fresh:  # that have not ended by what came with their start
                if known.run in self._runs and not known.paused:
                    try:
                        self._listen(known)
                    except Exception as error:  # noqa: BLE001 - the other runs have started, too
                        self._loop.call_soon(_raise, error)
                        self._loop.call_later(_AGAIN, self._listen_again, known)
        except ConnectionLost:
            self._on_shim_lost()
        except ProtocolError as error:
            self._warn(because("shim_not_understood", error=str(error)))
            self._on_shim_lost()

    def _failed(self, message: Message, error: Exception) -> None:
        """Let the loop report the error, and look after the run of this message again after a pause."""
        self._loop.call_soon(_raise, error)
        run = message.get("run")
        if isinstance(run, str):
            self._loop.call_later(_AGAIN, self._look_again, run)

    def _look_again(self, run: str) -> None:
        known = self._runs.get(run)
        if known is not None and not self._closed:
            if known.withheld or known.exit is None:
                self._ask({"op": "attach", "run": run})  # the keeper repeats what became of it
            else:
                self._check_complete(known)

    def _on_message(self, message: Message, ends: Any) -> None:
        op = message["op"]
        if op in ("started", "attached"):
            spools: dict[Stream, tuple[int | None, int]] = {}
            stdout, stderr = next(ends, None), next(ends, None)
            for stream, offset in message.get("spooled", {}).items():
                spools[stream] = (next(ends, None), offset)
            try:
                self._started(message, stdout, stderr, spools)
            except Exception:
                self._close_strays(message.get("run", ""), [stdout, stderr, *(fd for fd, _ in spools.values())])
                raise
            return
        known = self._runs.get(message.get("run", ""))
        if known is None:
            return
        if op == "exited":
            self._exited(known, message)
        elif op == "empty":
            known.empty = True
            self._check_complete(known)
        elif op == "swept":
            known.sweep = "done"
            self._check_complete(known)
        elif op == "refused":
            del self._runs[known.run]
            self._sink.finish(known.run)
            self._tell(_refused(known, message))

    def _close_strays(self, run: str, fds: Iterable[int | None]) -> None:
        """Close those that the run did not get; the keeper hands them over again."""
        known = self._runs.get(run)
        ours = set() if known is None else {*known.open.values(), *(fd for fd, _ in known.spools.values())}
        for fd in fds:
            if fd is not None and fd not in ours:
                os.close(fd)

    def _started(
        self,
        message: Message,
        stdout: int | None,
        stderr: int | None,
        spools: Mapping[Stream, tuple[int | None, int]],
    ) -> None:
        self._warn_no_cgroup(message.get("unfenced"))
        known = self._runs.get(message["run"])
        if known is None or self._closed or not known.withheld:
            for fd in (stdout, stderr, *(fd for fd, _ in spools.values())):
                if fd is not None:
                    os.close(fd)
            return
        if known.pid is None:
            known.pid = message["pid"]
            self._tell(RunStarted(known.run, known.pid, message.get("at"), known.kind))
        if stdout is None or stderr is None:
            # No descriptor was free to take its output. It waits in the pipe; ask again when others may have ended.
            self._loop.call_later(_AGAIN, self._attach, known.run)
            return
        known.withheld = False
        known.open = {"stdout": stdout, "stderr": stderr}
        known.spools = {stream: (fd, offset) for stream, (fd, offset) in spools.items() if fd is not None}
        self._fresh.append(known)
        if known.exit is not None:
            self._check_complete(known)

    def _warn_no_cgroup(self, why: str | None) -> None:
        if why and not self._told_unfenced:
            self._told_unfenced = True
            self._warn(because("cgroups_unusable", error=str(why)))

    def _listen(self, known: _Run) -> None:
        """To what was spooled first, then to what comes."""
        if known.spools:
            self._loop.call_soon(self._read_ahead, known)
        else:
            for stream, fd in known.open.items():
                self._wakes.add(fd, partial(self._read, known, stream, fd))

    def _listen_again(self, known: _Run) -> None:
        if not known.paused and not self._closed and self._runs.get(known.run) is known:
            for fd in known.open.values():
                self._wakes.remove(fd)
            self._listen(known)

    def _read_ahead(self, known: _Run) -> None:
        """Take a piece of what was spooled."""
        if not known.spools or known.paused or known.run not in self._runs:
            return
        stream, (fd, offset) = next(iter(known.spools.items()))
        data = os.pread(fd, CHUNK, offset)
        if data:
            known.spools[stream] = (fd, offset + len(data))
            known.paused = not self._sink.write(known.run, stream, data)
        else:
            del known.spools[stream]
            os.close(fd)
            self._ask({"op": "took", "run": known.run, stream: offset})
        if known.paused:
            return
        self._listen(known)
        if not known.spools and known.exit is not None:
            self._check_complete(known)

    def _replay_exit(self, known: _Run, end: Message) -> None:
        """A run that ended when there was nobody, with a keeper that is gone: what it wrote down of it."""
        known.withheld = False
        for stream in _STREAMS:
            if stream in end and self._folder is not None:
                with contextlib.suppress(OSError):
                    fd = os.open(self._folder / Path(end[stream]).name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                    known.spools[stream] = (fd, 0)
        self._take_exit(known, end)
        known.empty = True
        self._listen(known)
        self._check_complete(known)

    def _attach(self, run: str) -> None:
        if run in self._runs and not self._closed:
            self._ask({"op": "attach", "run": run})

    def _exited(self, known: _Run, message: Message) -> None:
        self._take_exit(known, message)
        known.empty = known.empty or message["empty"]
        if known.spools:
            return  # there is a look when they have been read
        for stream, fd in list(known.open.items()):
            for _ in range(_READS_AT_EXIT):
                if known.paused or not self._read(known, stream, fd):
                    break
        if known.run in self._runs and not known.exit_told:
            self._check_complete(known)

    def _take_exit(self, known: _Run, message: Message) -> None:
        code = os.waitstatus_to_exitcode(message["status"])
        known.exit = Exit(code=code) if code >= 0 else Exit(signal=-code)
        known.usage = Usage(message.get("memory"), message.get("cpu"))
        if known.run in self._unsettled:
            known.at, known.timed_out = _instant(message["at"]), message.get("timed_out", False)
            known.mono = message.get("mono") if known.run in self._told else None

    def _read(self, known: _Run, stream: Stream, fd: int) -> bool:
        """Take what one pipe holds; whether it may hold more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_pipe(known, stream)
            if not known.open:
                self._check_complete(known)
            return False
        if len(data) == CHUNK and fd not in known.wide:
            known.wide.append(fd)
            with contextlib.suppress(OSError):  # users have a limit for all their pipes together
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)
        if not self._sink.write(known.run, stream, data) and not known.paused:
            known.paused = True
            for other in known.open.values():
                self._wakes.remove(other)
        return not known.paused

    def _check_complete(self, known: _Run) -> None:
        """Find out, once the first process is gone, whether the rest is too."""
        if known.exit is None or known.sweep == "begun" or known.run not in self._runs:
            return
        if known.sweep == "done":
            self._end(known)
        elif known.open or known.spools or known.withheld or not known.empty:
            if not known.exit_told:
                known.exit_told = True
                self._tell(RunExited(known.run, known.exit, known.kind))
        elif known.signalled:
            self.kill_tree(known.run)  # what was asked to stop shall not live on outside of its session
        else:
            self._end(known)

    def _end(self, known: _Run) -> None:
        assert known.exit is not None
        for stream, (fd, offset) in known.spools.items():
            while data := os.pread(fd, CHUNK, offset):
                self._sink.write(known.run, stream, data)
                offset += len(data)  # noqa: PLW2901
            os.close(fd)
        known.spools.clear()
        for stream, fd in list(known.open.items()):
            with contextlib.suppress(OSError):
                if data := os.read(fd, CHUNK):
                    self._sink.write(known.run, stream, data)
            self._close_pipe(known, stream)
        del self._runs[known.run]
        matched = self._sink.finish(known.run)
        end = RunEnded(known.run, known.exit, matched, known.at, known.timed_out, known.kind, known.mono, known.usage)
        self._tell(end)

    def _close_pipe(self, known: _Run, stream: Stream) -> None:
        fd = known.open.pop(stream)
        self._wakes.remove(fd)
        os.close(fd)

    def _reap_unwaited(self, dead: frozenset[int]) -> None:
        """As process 1 we are given what loses its parent anywhere but below the keeper."""
        if self._closed:
            return
        try:
            dead = process_tree.reap_unwaited(dead)
        finally:
            self._loop.call_later(_ROUND, self._reap_unwaited, dead)

    # --- the death of the keeper ---

    def _on_shim_lost(self) -> None:
        """The keeper is dead, or as good as dead. Nothing of its runs shall live on unseen."""
        line, self._line = self._line, None
        if line is None or self._closed:
            return
        self._wakes.remove(line.fd)
        if self._is_stuck:
            with contextlib.suppress(OSError):
                os.kill(line.pid, signal.SIGKILL)  # a stopped process ends of this signal alone
        self._is_stuck, self._unanswered = False, 0
        self._warn(because("shim_lost", error=line.exit_reason()))
        line.abandon()
        spawns = [message for message in self._outbox if message["op"] == "spawn"]
        self._outbox = [*(base_message(*base) for base in self._bases.values()), *spawns]
        self._unsent, self._settled = b"", []
        unasked = {message["run"] for message in spawns}
        lost = {run: known.pid or 0 for run, known in self._runs.items() if run not in unasked}
        self._clean_up_after_shim(lost)

    def _clean_up_after_shim(self, lost: dict[str, int]) -> None:
        mourner = threading.Thread(target=self._start_new_shim, args=(lost,), name="rpr-mourn", daemon=True)
        try:
            mourner.start()
        except RuntimeError:  # the system has no more threads to give
            if not self._closed:
                self._loop.call_later(_RETRY, self._clean_up_after_shim, lost)
        else:
            self._mourner = mourner

    def _start_new_shim(self, lost: dict[str, int]) -> None:
        """In a thread of its own."""
        process_tree.kill(lost)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._report_lost, lost)
        while not self._closing.is_set():
            try:
                line = start_new(self._folder, self._on_death, self._cgroups != "off")
            except ShimUnavailable:
                self._closing.wait(_RETRY)
                continue
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_connection, line)
            return

    def _report_lost(self, lost: dict[str, int]) -> None:
        for run in lost:
            known = self._runs.pop(run, None)
            if known is None or self._closed:
                continue
            for fd, _ in known.spools.values():
                os.close(fd)
            for stream, fd in list(known.open.items()):
                while self._read_last(known, stream, fd):
                    pass
                self._close_pipe(known, stream)
            self._sink.finish(run)
            self._tell(RunLost(run, _SHIM_GONE, known.kind))

    def _read_last(self, known: _Run, stream: Stream, fd: int) -> bool:
        with contextlib.suppress(OSError):
            if data := os.read(fd, CHUNK):
                self._sink.write(known.run, stream, data)
                return True
        return False

    def _set_connection(self, line: ShimConnection) -> None:
        if self._closed:
            line.shut_down(b"")
            return
        self._line = line
        self._wakes.add(line.fd, self._receive)
        self._flush()


_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_SHIM_GONE = Reason("shim_gone")


def _refused(known: _Run, message: Mapping[str, Any]) -> SpawnFailed:
    """A keeper of version 0.1 sends a text, and no exit code."""
    if "code" in message:
        reason = Reason(message["code"], message["detail"])
    else:
        reason = because("legacy", text=message["reason"])
    return SpawnFailed(
        known.run, reason, message["temporary"], exit_code=message.get("exit_code", 126), kind=known.kind
    )


def _raise(error: Exception) -> None:
    raise error


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
