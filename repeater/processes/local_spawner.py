"""Owns the processes of the runs, as children of this one, without ever blocking the loop.

One thread or a few start them; another one, begun when first needed, searches and kills process trees; all else is done
in the loop, woken by pidfds and pipes. What a process is, and why it could not be started, is `shim.spawn`; what
belongs to it, `shim.process_tree`. Used by `app` and `once` only; passes the contract in `tests/contract`.

Rules that must hold here: never `waitpid(-1)`, which steals the status of others (as process 1 of a
container, orphans are buried one by one); a signal goes to a process group only as long as that number is
surely ours; cancelling a task never kills or forgets a child, because no task owns one.

How a run ends. The leader's exit, the end of both pipes and an empty process group come in any order; RunEnded needs
all three. If the leader is gone and others are missing, RunExited is told at once, and only then, and only if the
output is over, the group is looked at, after a few milliseconds first, later every quarter of a second. Whoever is
tired of waiting calls `sweep`. A run that was signalled is swept at its end in any case: nothing of it is alive when
RunEnded is told, even if it left its session and closed its output.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from repeater._lazy_dataclasses import dataclass, field
from repeater.engine.facts import RunEnded, RunExited, RunStarted, SpawnFailed, SurvivingRun
from repeater.model.reasons import Reason, ReasonCode
from repeater.model.run import Exit, RunKind, Usage
from repeater.ports import EmitFact, LaunchRequest, Loop, RunSink, Stream, TimerHandle
from repeater.processes.fd_poller import NestedPoller
from repeater.shim import posix_spawn, process_tree
from repeater.shim.spawn import ChildProcess, SpawnError, program_of, spawn

if TYPE_CHECKING:
    import queue
    import threading

CHUNK = 65_536  # what a pipe holds at most by default
_BIRTHS_AT_ONCE = 16  # then the loop gets a turn
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.25  # seconds between looks at a group whose leader is gone
_READS_AT_EXIT = 32


@dataclass(slots=True)
class _Process:
    """One run, from the call of `start` to RunEnded. Touched in the loop's thread only."""

    run: str
    kind: RunKind = "run"
    early: list[str] = field(default_factory=list)
    child: ChildProcess | None = None
    open: dict[Stream, int] = field(default_factory=dict)
    paused: bool = False
    exit: Exit | None = None
    exit_told: bool = False
    signalled: bool = False
    sweep: str = ""  # "", "wanted" before there is a process, "begun", "done"
    look_again: TimerHandle | None = None
    pause: float = _FIRST_LOOK


class LocalSpawner:
    """`ports.Spawner` for processes of this machine. Every method is called in the loop's thread.

    `threads` start them. Without any they are started in the loop, which is quicker as long as there is one at a time
    and nothing else waits for the loop. With `remembers` it is looked up once where a program is, as a shell does.
    `stdin` and `outputs` are descriptors of this process that the runs get as they are; then the sink hears nothing of
    them.
    """

    def __init__(
        self,
        tell: EmitFact,
        sink: RunSink,
        loop: Loop,
        *,
        threads: int = 1,
        remembers: bool = False,
        stdin: int | None = None,
        outputs: tuple[int, int] | None = None,
    ) -> None:
        self._tell = tell
        self._sink = sink
        self._loop = loop
        self._stdin = stdin
        self._outputs = outputs
        self._processes: dict[str, _Process] = {}
        self._closed = False
        self._woken = False
        self._asked: queue.SimpleQueue[LaunchRequest | None]
        self._born: deque[tuple[LaunchRequest, ChildProcess | SpawnError]] = deque()
        self._programs: dict[str, str | None] | None = {} if remembers else None
        self._together = threads > 1 and posix_spawn.can_spawn_in_dir()
        self._wakes = NestedPoller(loop)
        self._sweeper = TreeKiller(self._call)
        self._spawn_results: threading.Lock | None = None
        self._pids: set[int] = set()
        if os.getpid() == 1:  # then orphans are given to us, and nobody else will bury them
            import threading

            self._spawn_results = threading.Lock()
        self._spawn_threads = self._start_threads(threads if self._together else 1) if threads else []

    def start(self, launch: LaunchRequest) -> None:
        self._processes[launch.run] = _Process(launch.run, launch.kind)
        if self._spawn_threads:
            self._asked.put(launch)
        else:
            self._spawn_one(launch)
            self._loop.call_soon(self._process_spawned)

    def _start_threads(self, count: int) -> list[threading.Thread]:
        import queue
        import threading

        self._asked = queue.SimpleQueue()
        midwives = [threading.Thread(target=self._spawn_all, name="rpr-spawn", daemon=True) for _ in range(count)]
        for midwife in midwives:
            midwife.start()
        return midwives

    def signal(self, run: str, signal: str) -> None:
        process = self._processes.get(run)
        if process is None:
            return
        if process.child is None:
            process.early.append(signal)
            return
        process.signalled = True
        number = _number(signal)
        process_tree.signal_group(process.child.pid, number, reaped=process.exit is not None)
        session = process_tree.session_of(process.child.pid, reaped=process.exit is not None)
        self._sweeper.ask(_Request("signal", run, session, number))

    def kill_tree(self, run: str) -> None:
        process = self._processes.get(run)
        if process is None or process.sweep in {"begun", "done"}:
            return
        if process.child is None:
            process.sweep = "wanted"
            return
        process.sweep = "begun"
        reaped = process.exit is not None
        process_tree.signal_group(process.child.pid, signal.SIGKILL, reaped=reaped)
        session = process_tree.session_of(process.child.pid, reaped=reaped)
        self._sweeper.ask(_Request("kill", run, session, then=self._on_tree_killed))

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        """Children die with their parent, or are nobody's."""
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
        process = self._processes.get(run)
        if process is not None and process.paused:
            process.paused = False
            for stream, fd in process.open.items():
                self._wakes.add(fd, partial(self._read, process, stream, fd))

    def close(self) -> None:
        """Blocks until everything is dead, 2 seconds at most."""
        if self._closed:
            return
        self._closed = True
        for _ in self._spawn_threads:
            self._asked.put(None)
        for midwife in self._spawn_threads:
            midwife.join()
        self._sweeper.close()
        for launch, born in self._born:
            process = self._processes.get(launch.run)
            if process is not None and isinstance(born, ChildProcess):
                process.child = born
                process.open = _ends(born)
        self._born.clear()
        living = [process for process in self._processes.values() if process.child is not None]
        for process in living:
            self._kill_and_reap(process)
        self._processes.clear()
        self._wakes.close()
        if living:
            process_tree.kill({p.run: 0 for p in living}, within=2)

    def _kill_and_reap(self, process: _Process) -> None:
        child = process.child
        assert child is not None
        for stream in list(process.open):
            self._close_pipe(process, stream)
        if child.pidfd is not None and process.exit is None:
            self._wakes.remove(child.pidfd)
            os.close(child.pidfd)
        if process.look_again is not None:
            process.look_again.cancel()
        process_tree.signal_group(child.pid, signal.SIGKILL, reaped=process.exit is not None)
        if process.exit is None:
            child.wait()

    # --- in the spawner's thread ---

    def _spawn_all(self) -> None:
        while (launch := self._asked.get()) is not None:
            if not self._closed:
                self._spawn_one(launch)
                if not self._woken:
                    self._woken = True
                    self._call(self._process_spawned)

    def _spawn_one(self, launch: LaunchRequest) -> None:
        if self._spawn_results is None:
            born = self._spawned(launch)
        else:
            with self._spawn_results:
                born = self._spawned(launch)
                if isinstance(born, ChildProcess):
                    self._pids.add(born.pid)
        self._born.append((launch, born))

    def _spawned(self, launch: LaunchRequest) -> ChildProcess | SpawnError:
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
        except Exception as error:  # noqa: BLE001 - a dead thread would leave every later run unstarted
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
        self._woken = False
        for _ in range(_BIRTHS_AT_ONCE):
            if not self._born or self._closed:
                return
            launch, born = self._born.popleft()
            process = self._processes[launch.run]
            if isinstance(born, SpawnError):
                del self._processes[launch.run]
                self._sink.finish(launch.run)
                reason = Reason(cast("ReasonCode", born.code), born.detail)
                self._tell(SpawnFailed(launch.run, reason, born.temporary, exit_code=born.exit_code, kind=launch.kind))
            else:
                self._adopt(process, born)
        if self._born and not self._woken:
            self._woken = True
            self._loop.call_soon(self._process_spawned)

    def _adopt(self, process: _Process, child: ChildProcess) -> None:
        process.child = child
        process.open = _ends(child)
        for stream, fd in process.open.items():
            self._wakes.add(fd, partial(self._read, process, stream, fd))
        if child.pidfd is not None:
            self._wakes.add(child.pidfd, partial(self._reap, process))
        else:
            import threading

            threading.Thread(target=self._wait, args=(process,), name="rpr-wait", daemon=True).start()
        self._tell(RunStarted(process.run, child.pid, kind=process.kind))
        for name in process.early:
            self.signal(process.run, name)
        if process.sweep == "wanted":
            self.kill_tree(process.run)

    def _read(self, process: _Process, stream: Stream, fd: int) -> bool:
        """Take what one pipe holds; whether it may hold more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_pipe(process, stream)
            if process.exit is not None and not process.open:
                self._check_complete(process)
            return False
        if not self._sink.write(process.run, stream, data) and not process.paused:
            process.paused = True
            for other in process.open.values():
                self._wakes.remove(other)
        return not process.paused

    def _wait(self, process: _Process) -> None:
        """A thread for one process, where there is no pidfd. It looks, the loop reaps: only one may."""
        assert process.child is not None
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.child.pid, os.WEXITED | os.WNOWAIT)
        self._call(self._reap, process)

    def _reap(self, process: _Process) -> None:
        child = process.child
        assert child is not None
        status = child.poll()
        if status is None or self._closed:
            return
        if child.pidfd is not None:
            self._wakes.remove(child.pidfd)
            os.close(child.pidfd)
        process.exit = Exit(code=status) if status >= 0 else Exit(signal=-status)
        self._pids.discard(child.pid)
        if self._spawn_results is not None and self._spawn_results.acquire(blocking=False):
            try:
                process_tree.reap_orphans(self._pids)
            finally:
                self._spawn_results.release()
        for stream, fd in list(process.open.items()):
            for _ in range(_READS_AT_EXIT):
                if process.paused or not self._read(process, stream, fd):
                    break
        if process.run in self._processes and not process.exit_told:
            self._check_complete(process)

    def _check_complete(self, process: _Process) -> None:
        """Find out, once the leader is gone, whether the rest is too."""
        child, exit_ = process.child, process.exit
        assert child is not None
        assert exit_ is not None
        if process.look_again is not None:
            process.look_again.cancel()
            process.look_again = None
        if process.sweep == "begun":
            return
        if process.sweep == "done":
            self._end(process)
        elif process.open or process_tree.group_is_alive(child.pid, reaped=True):
            if not process.open:
                process.look_again = self._loop.call_later(process.pause, self._scan_tree, process)
                process.pause = min(process.pause * 2, _LAST_LOOK)
            if not process.exit_told:
                process.exit_told = True
                self._tell(RunExited(process.run, exit_, process.kind))
        else:
            self._end(process)

    def _scan_tree(self, process: _Process) -> None:
        """A group may consist of zombies alone, if process 1 is slow to bury them: only /proc tells."""
        assert process.child is not None
        process.look_again = None
        if process_tree.group_is_alive(process.child.pid, reaped=True):
            self._sweeper.ask(_Request("look", process.run, process.child.pid, then=self._on_tree_scanned))
        else:
            self._check_complete(process)

    def _on_tree_scanned(self, run: str, lives: bool) -> None:
        process = self._processes.get(run)
        if process is None or self._closed or process.sweep:
            return
        if lives:
            self._check_complete(process)
        else:
            self._end(process)

    def _on_tree_killed(self, run: str, _lives: bool) -> None:
        process = self._processes.get(run)
        if process is None or self._closed:
            return
        process.sweep = "done"
        if process.exit is not None:
            self._check_complete(process)

    def _end(self, process: _Process) -> None:
        """The group and the output are over. What was asked to stop shall not live on outside of its session."""
        assert process.exit is not None
        if process.signalled and process.sweep != "done":
            self.kill_tree(process.run)
            return
        for stream, fd in list(process.open.items()):
            with contextlib.suppress(OSError):
                if data := os.read(fd, CHUNK):
                    self._sink.write(process.run, stream, data)
            self._close_pipe(process, stream)
        if process.look_again is not None:
            process.look_again.cancel()
        del self._processes[process.run]
        usage = Usage() if process.child is None or process.child.usage is None else Usage(*process.child.usage)
        matched = self._sink.finish(process.run)
        self._tell(RunEnded(process.run, process.exit, matched, kind=process.kind, usage=usage))

    def _close_pipe(self, process: _Process, stream: Stream) -> None:
        fd = process.open.pop(stream)
        self._wakes.remove(fd)
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Request:
    """`then` is told, in the loop, whether anything lives (still, after a kill)."""

    kind: Literal["kill", "signal", "look"]
    run: str
    leader: int
    number: int = 0
    then: Callable[[str, bool], None] | None = None


class TreeKiller:
    """The thread that searches /proc; it begins with the first request. Many requests share one search."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call
        self._asked: queue.SimpleQueue[_Request | None]
        self._thread: threading.Thread | None = None

    def ask(self, request: _Request) -> None:
        if self._thread is None:
            import queue
            import threading

            self._asked = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, name="rpr-sweep", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads to give: better to wait here than not to kill
                self._work_off([request])
                return
            self._thread = thread
        self._asked.put(request)

    def close(self) -> None:
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(6)

    def _work(self) -> None:
        while True:
            batch = [self._asked.get()]
            while not self._asked.empty():  # nobody else takes from it
                batch.append(self._asked.get())
            self._work_off([request for request in batch if request is not None])
            if None in batch:
                return

    def _work_off(self, requests: list[_Request]) -> None:
        for request in requests:
            if request.kind == "signal" and request.leader:
                process_tree.signal_session(request.leader, request.number)
        kills = {request.run: request.leader for request in requests if request.kind == "kill"}
        left = process_tree.kill(kills) if kills else frozenset()
        looks = {request.leader for request in requests if request.kind == "look"}
        living = process_tree.living_groups(looks) if looks else frozenset()
        for request in requests:
            if request.then is not None:
                lives = request.run in left if request.kind == "kill" else request.leader in living
                self._call(request.then, request.run, lives)


def _ends(child: ChildProcess) -> dict[Stream, int]:
    """The ends of its output that are to be read."""
    if child.stdout is None or child.stderr is None:
        return {}
    return {"stdout": child.stdout, "stderr": child.stderr}


def _number(name: str) -> int:
    return signal.Signals[f"SIG{name}"].value
