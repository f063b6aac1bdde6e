"""Owns the processes of the runs through the shim, a small process that is the parent of all of them (`shim.server`).

The shim starts, waits for, signals and kills processes. This module sends it requests, handles its reports, and reads
the output, because the shim hands over the pipes. So a burst of starts costs the loop little. The shim outlives this
process and decides what happens to the runs if it crashes. `processes.completion` decides when a run has ended.

Everything happens in the loop. If the shim exits unexpectedly, a thread kills what it left and starts another shim, and
its runs are reported as lost. If this process crashes, the shim kills every process, or keeps the runs until another
supervisor connects. That supervisor finds the shim in the directory `folder` and adopts the runs that survived.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from repeater.engine.facts import RunLost, RunStarted, SpawnFailed, SurvivingRun
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Exit, Usage
from repeater.ports import EmitFact, LaunchRequest, Loop, RunSink, Stream
from repeater.processes.completion import RunPorts
from repeater.processes.fd_poller import NestedPoller
from repeater.processes.shim_client import (
    SHUTDOWN_TIMEOUT_S,
    ConnectionLost,
    OnDeath,
    ShimConnection,
    ShimUnavailable,
    base_message,
    connect_existing,
    spawn_message,
    start_new,
)
from repeater.processes.shim_outbox import ShimOutbox
from repeater.processes.shim_run import ShimRun
from repeater.shim import cgroup, process_tree, spool
from repeater.shim.protocol import ProtocolError

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

_REAP_INTERVAL_S = 5.0  # as process 1
_RESTART_DELAY_S = 1.0  # between tries to start a shim
_RETRY_DELAY_S = 0.5  # until a handover that failed is requested again
_HEARTBEAT_S = 1.0  # between two pings
_UNANSWERED_PINGS = 3  # after more than these the shim is stuck

Cgroups: TypeAlias = Literal["off", "services", "all"]


class ShimSpawner:
    """`ports.Spawner` for processes of this machine, through a shim. Every method is called in the loop's thread.

    `warn` gets the problems of the shim. `folder` is the directory where later supervisors find the shim; the caller
    holds the lock of its state directory. None: the runs never survive this process. `on_death` says what happens to
    the runs when this process crashes, `cgroups` which runs get a cgroup of their own, where that is possible.
    Raises ShimUnavailable when no shim can be started.
    """

    def __init__(
        self,
        emit: EmitFact,
        sink: RunSink,
        loop: Loop,
        *,
        warn: Callable[[Reason], None] = lambda _: None,
        folder: Path | None = None,
        on_death: OnDeath = "kill",
        cgroups: Cgroups = "services",
    ) -> None:
        self._emit = emit
        self._sink = sink
        self._loop = loop
        self._warn = warn
        self._folder = folder
        self._on_death = on_death
        self._cgroups = cgroups
        self._runs: dict[str, ShimRun] = {}
        self._started: list[ShimRun] = []  # in the batch of messages that is being handled
        self._bases: dict[int, tuple[int, Mapping[str, str]]] = {}
        self._closed = False
        self._closing = threading.Event()
        self._restart_thread: threading.Thread | None = None
        self._outbox = ShimOutbox(loop, self._on_shim_lost, self._refuse)
        wants_cgroups = cgroups != "off"
        self._connection: ShimConnection | None = (
            folder and connect_existing(folder, on_death, wants_cgroups)
        ) or start_new(folder, on_death, wants_cgroups)
        self._outbox.connection = self._connection
        self._has_warned_no_cgroups = False
        if cgroups == "all":  # the default needs no warning
            self._warn_no_cgroups(self._connection.hello.get("no_cgroup_reason"))
        self._survivors: dict[str, Message] = {} if folder is None else spool.read_exits(str(folder))
        self._survivors.update((run["run"], run) for run in self._connection.hello["runs"])
        # a record of a shim of an earlier boot has readings of another clock
        self._of_this_boot = frozenset(run["run"] for run in self._connection.hello["runs"])
        self._unacknowledged = set(self._survivors)
        self._unanswered = 0
        self._is_stuck = self._is_forced = False
        self._poller = NestedPoller(loop)
        self._ports = RunPorts(emit, sink, loop, self._poller, self._runs.pop)
        self._poller.add(self._connection.fd, self._receive)
        self._beat()
        if os.getpid() == 1:
            self._reap_unwaited(frozenset())

    @property
    def keeper(self) -> int | None:
        """The pid of the shim. None while there is no shim."""
        return None if self._connection is None else self._connection.pid

    @property
    def trouble(self) -> Reason | None:
        return because("shim_stuck", pid=self.keeper) if self._is_stuck else None

    def force(self) -> None:
        self._is_forced = True
        if self._is_stuck:
            self._on_shim_lost()

    def start(self, launch: LaunchRequest) -> None:
        self._runs[launch.run] = ShimRun(self._ports, self._outbox.send, launch.run, launch.kind)
        message = spawn_message(launch, self._base_of(launch.base))
        if self._cgroups == "all" or (self._cgroups == "services" and launch.is_service):
            message["cgroup"] = True
        self._outbox.send(message)

    def _base_of(self, env: Mapping[str, str]) -> int:
        """The number of these variables. The first call for them sends them to the shim."""
        number, existing = self._bases.get(id(env), (0, None))
        if env and existing is None:
            number = len(self._bases) + 1
            self._bases[id(env)] = number, env
            self._outbox.send(base_message(number, env))
        return number

    def signal(self, run: str, signal: str) -> None:
        found = self._runs.get(run)
        if found is not None:
            found.is_signalled = True
            self._outbox.send({"op": "signal", "run": run, "signal": signal})

    def kill_tree(self, run: str) -> None:
        found = self._runs.get(run)
        if found is not None:
            found.kill_tree()

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        return {
            run: SurvivingRun(
                record["pid"],
                _instant(record["began"]),
                record.get("began_mono") if run in self._of_this_boot else None,
            )
            for run, record in self._survivors.items()
        }

    def adopt(self, run: str) -> None:
        record = self._survivors.pop(run)
        adopted = self._runs[run] = ShimRun(self._ports, self._outbox.send, run, pid=record["pid"])
        if self._connection is not None and run in self._connection.has:
            self._outbox.send({"op": "attach", "run": run})
        else:
            self._loop.call_soon(self._replay_exit, adopted, record)

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        unclaimed = {run: self._survivors.pop(run) for run in list(runs)}
        running = {run: record["pid"] for run, record in unclaimed.items() if record.get("ended") is None}
        if running:
            process_tree.kill(running)
        self.acknowledge(unclaimed)

    def acknowledge(self, runs: Iterable[str]) -> None:
        runs = list(runs)
        self._outbox.acknowledge(runs)
        if self._unacknowledged:
            self._unacknowledged.difference_update(runs)
            if not self._unacknowledged and self._folder is not None:
                spool.clear(str(self._folder))

    def resume_reading(self, run: str) -> None:
        found = self._runs.get(run)
        if found is not None:
            found.resume()

    def close(self) -> None:
        """Blocks until every process is dead, for some seconds at most."""
        if self._closed:
            return
        self._closed = self._outbox.is_closed = True
        self._closing.set()
        if self._restart_thread is not None:
            self._restart_thread.join(SHUTDOWN_TIMEOUT_S)
        for run in self._runs.values():
            run.close()
        if self._connection is not None:
            self._poller.remove(self._connection.fd)
            if self._is_stuck:
                self._connection.abandon()
            if self._is_stuck or not self._connection.shut_down(self._outbox.unsent):
                process_tree.kill({name: run.pid or 0 for name, run in self._runs.items()}, within=2)
                if self._cgroups != "off":
                    with contextlib.suppress(cgroup.NotDelegated):
                        folder = None if self._folder is None else str(self._folder)
                        cgroup.remove_stale(cgroup.delegated_root(), cgroup.owner_of(folder, os.getpid()))
        self._runs.clear()
        self._poller.close()

    # --- to the shim ---

    def _refuse(self, message: Message, error: Exception) -> None:
        """A message fits in no frame. The run that it would start is refused; any other message is an error."""
        run = self._runs.pop(message.get("run", ""), None) if message["op"] == "spawn" else None
        if run is None:
            self._loop.call_soon(_raise, error)
            return
        run.close()
        self._sink.finish(run.run)
        program = str(message["argv"][0]) if message["argv"] else ""
        too_big = because("arguments_too_big", program=program)
        reason = too_big if isinstance(error, ProtocolError) else because("launch_failed", error=str(error))
        self._emit(SpawnFailed(run.run, reason, exit_code=126, kind=run.kind))

    def _beat(self) -> None:
        """Ping the shim, because a stopped process keeps its connection open.

        Pings are counted, not seconds, because after a suspension of the machine much time has passed for both.
        """
        if self._closed:
            return
        self._loop.call_later(_HEARTBEAT_S, self._beat)  # first: an exception below must not end the heartbeat
        if self._connection is not None and self._connection.hello.get("pongs"):
            self._unanswered += 1
            if self._unanswered > _UNANSWERED_PINGS:
                self._become_stuck()
            else:
                self._outbox.send({"op": "ping"})

    def _become_stuck(self) -> None:
        if not self._is_stuck:
            self._is_stuck = True
            self._warn(because("shim_silent", pid=self.keeper))
        if self._is_forced:
            self._on_shim_lost()

    # --- from the shim ---

    def _receive(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            for messages, fds in connection.receive():
                self._unanswered = 0
                if self._is_stuck:
                    self._is_stuck = False
                    self._warn(Reason("shim_answers"))
                self._handle_batch(messages, iter(fds))
            self._listen_to_started()
        except ConnectionLost:
            self._on_shim_lost()
        except ProtocolError as error:
            self._warn(because("shim_not_understood", error=str(error)))
            self._on_shim_lost()

    def _handle_batch(self, messages: list[Message], fds: Iterator[int]) -> None:
        for message in messages:
            try:
                self._on_message(message, fds)
            except Exception as error:  # noqa: BLE001 - the other messages are about other runs
                self._loop.call_soon(_raise, error)
                if isinstance(run := message.get("run"), str):
                    self._loop.call_later(_RETRY_DELAY_S, self._retry, run)

    def _listen_to_started(self) -> None:
        """Read the output of the runs of this batch. Those that have ended meanwhile are left out."""
        started, self._started = self._started, []
        for run in started:
            if not run.is_over and not run.is_paused:
                try:
                    run.listen()
                except Exception as error:  # noqa: BLE001 - the other runs have started, too
                    self._loop.call_soon(_raise, error)
                    self._loop.call_later(_RETRY_DELAY_S, run.listen_again)

    def _retry(self, run: str) -> None:
        """A message about this run raised an exception."""
        found = self._runs.get(run)
        if found is not None and not self._closed:
            if found.waits_for_output or found.exit is None:
                self._outbox.send({"op": "attach", "run": run})  # the shim reports the exit again
            else:
                found.check()

    def _on_message(self, message: Message, fds: Iterator[int]) -> None:
        op = message["op"]
        if op in ("started", "attached"):
            stdout, stderr = next(fds, None), next(fds, None)
            spools: dict[Stream, tuple[int | None, int]] = {}
            for stream, offset in message.get("spooled", {}).items():
                spools[stream] = (next(fds, None), offset)
            try:
                self._on_started(message, stdout, stderr, spools)
            except Exception:
                self._close_unused(message.get("run", ""), [stdout, stderr, *(fd for fd, _ in spools.values())])
                raise
            return
        run = self._runs.get(message.get("run", ""))
        if run is None:
            return
        if op == "exited":
            self._set_exit(run, message)
            run.is_group_empty = run.is_group_empty or message["empty"]
            run.on_exited()
        elif op == "group_empty":
            run.is_group_empty = True
            run.check()
        elif op == "tree_killed":
            run.on_tree_killed()
        elif op == "spawn_failed":
            del self._runs[run.run]
            run.close()
            self._sink.finish(run.run)
            self._emit(_spawn_failed(run, message))

    def _close_unused(self, run: str, fds: Iterable[int | None]) -> None:
        """Close the descriptors that the run did not get. The shim hands them over again."""
        found = self._runs.get(run)
        used = set() if found is None else {*found.open.values(), *(fd for fd, _ in found.spools.values())}
        for fd in fds:
            if fd is not None and fd not in used:
                os.close(fd)

    def _on_started(
        self,
        message: Message,
        stdout: int | None,
        stderr: int | None,
        spools: Mapping[Stream, tuple[int | None, int]],
    ) -> None:
        self._warn_no_cgroups(message.get("no_cgroup_reason"))
        run = self._runs.get(message["run"])
        if run is None or self._closed or not run.waits_for_output:
            for fd in (stdout, stderr, *(fd for fd, _ in spools.values())):
                if fd is not None:
                    os.close(fd)
            return
        if run.pid is None:
            run.pid = message["pid"]
            self._emit(RunStarted(run.run, run.pid, message.get("at"), run.kind))
        if stdout is None or stderr is None:
            # No descriptor was free for its output, which waits in the pipe. Others may have ended after a delay.
            self._loop.call_later(_RETRY_DELAY_S, self._attach, run.run)
            return
        run.waits_for_output = False
        run.open = {"stdout": stdout, "stderr": stderr}
        run.spools = {stream: (fd, offset) for stream, (fd, offset) in spools.items() if fd is not None}
        self._started.append(run)
        if run.exit is not None:
            run.check()

    def _warn_no_cgroups(self, error: str | None) -> None:
        if error and not self._has_warned_no_cgroups:
            self._has_warned_no_cgroups = True
            self._warn(because("cgroups_unusable", error=str(error)))

    def _replay_exit(self, run: ShimRun, record: Message) -> None:
        """The run ended while no supervisor was connected, and its shim has exited: use what the shim stored."""
        run.waits_for_output = False
        for stream in _STREAMS:
            if stream in record and self._folder is not None:
                with contextlib.suppress(OSError):
                    path = self._folder / Path(record[stream]).name
                    run.spools[stream] = (os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), 0)
        self._set_exit(run, record)
        run.is_group_empty = True
        run.listen()
        run.check()

    def _attach(self, run: str) -> None:
        if run in self._runs and not self._closed:
            self._outbox.send({"op": "attach", "run": run})

    def _set_exit(self, run: ShimRun, message: Message) -> None:
        code = os.waitstatus_to_exitcode(message["status"])
        run.exit = Exit(code=code) if code >= 0 else Exit(signal=-code)
        run.usage = Usage(message.get("memory"), message.get("cpu"))
        if run.run in self._unacknowledged:
            run.ended_at, run.timed_out = _instant(message["at"]), message.get("timed_out", False)
            run.ended_mono = message.get("mono") if run.run in self._of_this_boot else None

    def _reap_unwaited(self, dead: frozenset[int]) -> None:
        """As process 1 this process becomes the parent of orphans that do not descend from the shim."""
        if self._closed:
            return
        try:
            dead = process_tree.reap_unwaited(dead)
        finally:
            self._loop.call_later(_REAP_INTERVAL_S, self._reap_unwaited, dead)

    # --- when the shim has exited ---

    def _on_shim_lost(self) -> None:
        """The shim has exited, or does not work: kill its runs, and start another shim."""
        connection, self._connection = self._connection, None
        if connection is None or self._closed:
            return
        self._poller.remove(connection.fd)
        if self._is_stuck:
            with contextlib.suppress(OSError):
                os.kill(connection.pid, signal.SIGKILL)  # only this signal ends a stopped process
        self._is_stuck, self._unanswered = False, 0
        self._warn(because("shim_lost", error=connection.exit_reason()))
        connection.abandon()
        unsent = self._outbox.restart(base_message(*base) for base in self._bases.values())
        not_lost = {message["run"] for message in unsent}
        self._clean_up_after_shim({name: run.pid or 0 for name, run in self._runs.items() if name not in not_lost})

    def _clean_up_after_shim(self, lost: dict[str, int]) -> None:
        thread = threading.Thread(target=self._start_new_shim, args=(lost,), name="rpr-restart-shim", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            if not self._closed:
                self._loop.call_later(_RESTART_DELAY_S, self._clean_up_after_shim, lost)
        else:
            self._restart_thread = thread

    def _start_new_shim(self, lost: dict[str, int]) -> None:
        """In a thread of its own."""
        process_tree.kill(lost)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._report_lost, lost)
        while not self._closing.is_set():
            try:
                connection = start_new(self._folder, self._on_death, self._cgroups != "off")
            except ShimUnavailable:
                self._closing.wait(_RESTART_DELAY_S)
                continue
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set_connection, connection)
            return

    def _report_lost(self, lost: dict[str, int]) -> None:
        for name in lost:
            run = self._runs.pop(name, None)
            if run is not None and not self._closed:
                run.read_all_and_close()
                self._sink.finish(name)
                self._emit(RunLost(name, _SHIM_GONE, run.kind))

    def _set_connection(self, connection: ShimConnection) -> None:
        if self._closed:
            connection.shut_down(b"")
            return
        self._connection = self._outbox.connection = connection
        self._poller.add(connection.fd, self._receive)
        self._outbox.flush()


_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_SHIM_GONE = Reason("shim_gone")


def _spawn_failed(run: ShimRun, message: Mapping[str, Any]) -> SpawnFailed:
    """The shim of version 0.1 sends a text and no exit code."""
    if "code" in message:
        reason = Reason(message["code"], message["detail"])
    else:
        reason = because("legacy", text=message["reason"])
    return SpawnFailed(run.run, reason, message["temporary"], exit_code=message.get("exit_code", 126), kind=run.kind)


def _raise(error: Exception) -> None:
    raise error


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
