"""Owns the processes of the runs, as children of this process. Never blocks the loop.

One thread or several threads start processes. Another thread, started at the first request, searches and kills process
trees. Everything else runs in the loop, woken by pidfds and pipes. `shim.spawn` starts a process, `shim.process_tree`
finds what belongs to it, `processes.completion` decides when a run has ended.

Three rules hold here. No `waitpid(-1)`, which takes the status of children that other code waits for; as process 1 of a
container, orphans are reaped one by one. A signal goes to a process group only while its number certainly belongs to
the run. No task owns a child, so a cancelled task never kills or loses one.

When the leader has exited and the output is over, the group is polled: first after a few milliseconds, later every
quarter of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from repeater._lazy_dataclasses import dataclass
from repeater.engine.facts import RunStarted, SpawnFailed, SurvivingRun
from repeater.model.reasons import Reason, ReasonCode
from repeater.model.run import Exit, RunKind, Usage
from repeater.ports import EmitFact, LaunchRequest, Loop, RunSink, Stream, TimerHandle
from repeater.processes.completion import RunCompletion, RunPorts
from repeater.processes.fd_poller import NestedPoller
from repeater.shim import posix_spawn, process_tree
from repeater.shim.spawn import ChildProcess, SpawnError, program_of, spawn

if TYPE_CHECKING:
    import queue
    import threading

_STARTS_PER_ITERATION = 16
_FIRST_POLL_S, _LAST_POLL_S = 0.005, 0.25  # time between polls of a group whose leader has exited
_READS_AT_EXIT = 32


class _LocalRun(RunCompletion):
    """A run whose first process is our child. `child` is None until that process is started."""

    __slots__ = ("_group_has_zombies_only", "_killer", "_poll_delay", "_poll_timer", "child", "early_signals",
                 "wants_tree_kill")  # fmt: skip

    def __init__(self, ports: RunPorts, killer: TreeKiller, run: str, kind: RunKind) -> None:
        super().__init__(ports, run, kind)
        self._killer = killer
        self.child: ChildProcess | None = None
        self.early_signals: list[str] = []  # requested before the process was started
        self.wants_tree_kill = False  # the same
        self._group_has_zombies_only = False
        self._poll_timer: TimerHandle | None = None
        self._poll_delay = _FIRST_POLL_S

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    @property
    def session(self) -> int:
        return process_tree.session_of(self.pid, reaped=self.exit is not None)

    def signal_group(self, number: int) -> None:
        process_tree.signal_group(self.pid, number, reaped=self.exit is not None)

    def check(self) -> None:
        self._cancel_poll()
        super().check()

    def close(self) -> None:
        self._cancel_poll()
        super().close()

    def _cancel_poll(self) -> None:
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    def _start_tree_kill(self) -> None:
        self.signal_group(signal.SIGKILL)
        self._killer.submit(_Request("kill", self.run, self.session, on_done=self._on_killed))

    def _on_killed(self, _lives: bool) -> None:
        if not self.is_over:
            self.on_tree_killed()

    def _group_is_empty(self) -> bool:
        if self._group_has_zombies_only or not process_tree.group_is_alive(self.pid, reaped=True):
            return True
        self._poll_timer = self._ports.loop.call_later(self._poll_delay, self._poll_group)
        self._poll_delay = min(self._poll_delay * 2, _LAST_POLL_S)
        return False

    def _poll_group(self) -> None:
        """The group may consist of zombies, if process 1 reaps late. Only /proc shows that."""
        self._poll_timer = None
        if process_tree.group_is_alive(self.pid, reaped=True):
            self._killer.submit(_Request("scan", self.run, self.pid, on_done=self._on_group_scanned))
        else:
            self.check()

    def _on_group_scanned(self, lives: bool) -> None:
        if not self.is_over and not self.tree_kill:
            self._group_has_zombies_only = not lives
            self.check()


class LocalSpawner:
    """`ports.Spawner` for processes of this machine. Every method is called in the loop's thread.

    `threads` threads start processes. With 0 the loop starts them, which is faster if one starts at a time and the
    loop has nothing else to do. With `remembers` the path of a program is looked up once, as a shell does. `stdin` and
    `outputs` are descriptors of this process that the runs inherit; the sink then gets no output.
    """

    def __init__(
        self,
        emit: EmitFact,
        sink: RunSink,
        loop: Loop,
        *,
        threads: int = 1,
        remembers: bool = False,
        stdin: int | None = None,
        outputs: tuple[int, int] | None = None,
    ) -> None:
        self._emit = emit
        self._sink = sink
        self._loop = loop
        self._stdin = stdin
        self._outputs = outputs
        self._runs: dict[str, _LocalRun] = {}
        self._closed = False
        self._is_wake_pending = False
        self._launches: queue.SimpleQueue[LaunchRequest | None]
        self._spawned: deque[tuple[LaunchRequest, ChildProcess | SpawnError]] = deque()
        self._programs: dict[str, str | None] | None = {} if remembers else None
        self._together = threads > 1 and posix_spawn.can_spawn_in_dir()
        self._poller = NestedPoller(loop)
        self._killer = TreeKiller(self._call)
        self._ports = RunPorts(emit, sink, loop, self._poller, self._runs.pop)
        self._spawn_lock: threading.Lock | None = None
        self._pids: set[int] = set()
        if os.getpid() == 1:  # orphans become our children, and no other process reaps them
            import threading

            self._spawn_lock = threading.Lock()
        self._spawn_threads = self._start_threads(threads if self._together else 1) if threads else []

    def start(self, launch: LaunchRequest) -> None:
        self._runs[launch.run] = _LocalRun(self._ports, self._killer, launch.run, launch.kind)
        if self._spawn_threads:
            self._launches.put(launch)
        else:
            self._spawn_one(launch)
            self._loop.call_soon(self._process_spawned)

    def _start_threads(self, count: int) -> list[threading.Thread]:
        import queue
        import threading

        self._launches = queue.SimpleQueue()
        threads = [threading.Thread(target=self._spawn_all, name="rpr-spawn", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def signal(self, run: str, signal: str) -> None:
        found = self._runs.get(run)
        if found is None:
            return
        if found.child is None:
            found.early_signals.append(signal)
            return
        found.is_signalled = True
        number = _number(signal)
        found.signal_group(number)
        self._killer.submit(_Request("signal", run, found.session, number))

    def kill_tree(self, run: str) -> None:
        found = self._runs.get(run)
        if found is None:
            return
        if found.child is None:
            found.wants_tree_kill = True
        else:
            found.kill_tree()

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        """None. This spawner never adopts runs of an earlier supervisor."""
        return {}

    def adopt(self, run: str) -> None:
        raise AssertionError(f"no surviving run `{run}`")

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        pass

    @property
    def trouble(self) -> Reason | None:
        return None

    def force(self) -> None:
        pass

    def acknowledge(self, runs: Iterable[str]) -> None:
        pass

    def resume_reading(self, run: str) -> None:
        found = self._runs.get(run)
        if found is not None:
            found.resume()

    def close(self) -> None:
        """Blocks until every process is dead, 2 seconds at most."""
        if self._closed:
            return
        self._closed = True
        for _ in self._spawn_threads:
            self._launches.put(None)
        for thread in self._spawn_threads:
            thread.join()
        self._killer.close()
        for launch, outcome in self._spawned:
            run = self._runs.get(launch.run)
            if run is not None and isinstance(outcome, ChildProcess):
                run.child = outcome
                run.open = _pipes_of(outcome)
        self._spawned.clear()
        started = [run.run for run in self._runs.values() if run.child is not None]
        for run in self._runs.values():
            run.close()
            if run.child is not None:
                self._kill_and_reap(run, run.child)
        self._runs.clear()
        self._poller.close()
        if started:
            process_tree.kill(dict.fromkeys(started, 0), within=2)

    def _kill_and_reap(self, run: _LocalRun, child: ChildProcess) -> None:
        if child.pidfd is not None and run.exit is None:
            self._poller.remove(child.pidfd)
            os.close(child.pidfd)
        run.signal_group(signal.SIGKILL)
        if run.exit is None:
            child.wait()

    # --- in the threads that start processes ---

    def _spawn_all(self) -> None:
        while (launch := self._launches.get()) is not None:
            if not self._closed:
                self._spawn_one(launch)
                if not self._is_wake_pending:
                    self._is_wake_pending = True
                    self._call(self._process_spawned)

    def _spawn_one(self, launch: LaunchRequest) -> None:
        if self._spawn_lock is None:
            outcome = self._spawn(launch)
        else:
            with self._spawn_lock:
                outcome = self._spawn(launch)
                if isinstance(outcome, ChildProcess):
                    self._pids.add(outcome.pid)
        self._spawned.append((launch, outcome))

    def _spawn(self, launch: LaunchRequest) -> ChildProcess | SpawnError:
        env = {**launch.base, **launch.env}
        env.setdefault(process_tree.TOKEN, launch.run)
        try:
            return spawn(
                launch.argv,
                cwd=launch.cwd,
                env=env,
                stdin=launch.stdin if self._stdin is None else self._stdin,
                outputs=self._outputs,
                user=launch.user,
                group=launch.group,
                umask=launch.umask,
                nice=launch.nice,
                rlimits=launch.rlimits,
                program=self._program(launch.argv, env),
                together=self._together,
            )
        except SpawnError as error:
            if self._programs is not None:
                self._programs.clear()
            return error
        except Exception as error:  # noqa: BLE001 - if the thread ended, no later run would start
            return SpawnError("program_failed", {"program": " ".join(launch.argv[:1]), "error": repr(error)})

    def _program(self, argv: Sequence[str], env: Mapping[str, str]) -> str | None:
        if self._programs is None or not argv:
            return None
        command = argv[0]
        if command not in self._programs:
            self._programs[command] = program_of(command, env)
        return self._programs[command]

    def _call(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *args)

    # --- in the loop ---

    def _process_spawned(self) -> None:
        self._is_wake_pending = False
        for _ in range(_STARTS_PER_ITERATION):
            if not self._spawned or self._closed:
                return
            launch, outcome = self._spawned.popleft()
            run = self._runs[launch.run]
            if isinstance(outcome, SpawnError):
                del self._runs[launch.run]
                self._sink.finish(launch.run)
                reason = Reason(cast("ReasonCode", outcome.code), outcome.detail)
                temporary, exit_code = outcome.temporary, outcome.exit_code
                self._emit(SpawnFailed(launch.run, reason, temporary, exit_code=exit_code, kind=launch.kind))
            else:
                self._on_started(run, outcome)
        if self._spawned and not self._is_wake_pending:
            self._is_wake_pending = True
            self._loop.call_soon(self._process_spawned)

    def _on_started(self, run: _LocalRun, child: ChildProcess) -> None:
        run.child = child
        run.open = _pipes_of(child)
        run.listen()
        if child.pidfd is not None:
            self._poller.add(child.pidfd, partial(self._reap, run, child))
        else:
            import threading

            threading.Thread(target=self._wait, args=(run, child), name="rpr-wait", daemon=True).start()
        self._emit(RunStarted(run.run, child.pid, kind=run.kind))
        for name in run.early_signals:
            self.signal(run.run, name)
        if run.wants_tree_kill:
            run.kill_tree()

    def _wait(self, run: _LocalRun, child: ChildProcess) -> None:
        """In a thread for one process, where there is no pidfd. The loop reaps the child."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        self._call(self._reap, run, child)

    def _reap(self, run: _LocalRun, child: ChildProcess) -> None:
        status = child.poll()
        if status is None or self._closed:
            return
        if child.pidfd is not None:
            self._poller.remove(child.pidfd)
            os.close(child.pidfd)
        if child.usage is not None:
            run.usage = Usage(*child.usage)
        run.exit = Exit(code=status) if status >= 0 else Exit(signal=-status)
        self._pids.discard(child.pid)
        if self._spawn_lock is not None and self._spawn_lock.acquire(blocking=False):
            try:
                process_tree.reap_orphans(self._pids)
            finally:
                self._spawn_lock.release()
        run.read_at_exit(_READS_AT_EXIT)


@dataclass(frozen=True, slots=True)
class _Request:
    """`on_done` is called in the loop with whether a process of the request still lives."""

    kind: Literal["kill", "signal", "scan"]
    run: str
    leader: int
    number: int = 0
    on_done: Callable[[bool], None] | None = None


class TreeKiller:
    """The thread that searches /proc. The first request starts it. Requests that wait share one search."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call
        self._requests: queue.SimpleQueue[_Request | None]
        self._thread: threading.Thread | None = None

    def submit(self, request: _Request) -> None:
        if self._thread is None:
            import queue
            import threading

            self._requests = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, name="rpr-sweep", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads: blocking here is better than no kill
                self._serve([request])
                return
            self._thread = thread
        self._requests.put(request)

    def close(self) -> None:
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join(6)

    def _work(self) -> None:
        while True:
            batch = [self._requests.get()]
            while not self._requests.empty():  # only this thread takes from it
                batch.append(self._requests.get())
            self._serve([request for request in batch if request is not None])
            if None in batch:
                return

    def _serve(self, requests: list[_Request]) -> None:
        for request in requests:
            if request.kind == "signal" and request.leader:
                process_tree.signal_session(request.leader, request.number)
        kills = {request.run: request.leader for request in requests if request.kind == "kill"}
        left = process_tree.kill(kills) if kills else frozenset()
        leaders = {request.leader for request in requests if request.kind == "scan"}
        living = process_tree.living_groups(leaders) if leaders else frozenset()
        for request in requests:
            if request.on_done is not None:
                lives = request.run in left if request.kind == "kill" else request.leader in living
                self._call(request.on_done, lives)


def _pipes_of(child: ChildProcess) -> dict[Stream, int]:
    """The read ends of its output."""
    if child.stdout is None or child.stderr is None:
        return {}
    return {"stdout": child.stdout, "stderr": child.stderr}


def _number(name: str) -> int:
    return signal.Signals[f"SIG{name}"].value
