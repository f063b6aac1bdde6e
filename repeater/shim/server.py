"""The shim: the parent of all runs of a supervisor, which outlives a supervisor that crashes.

One loop and a few threads (`shim.spawn_pool`) start processes on request. The shim holds the read ends of the output,
so no job fails because of a closed pipe. It reaps each child by its pid (`shim.reaper`), and signals and kills process
trees (`shim.kill_tree`). It decides nothing about jobs. `shim.protocol` describes the messages; a client is a connected
socket. The shim keeps the result of a run until the client has acknowledged it (`ack`).

When the client exits without `shutdown`, the shim kills every process, or keeps the runs until another client connects
(`shim.detached`), as the client has requested.

This package imports the standard library only. Two rules hold here. No request and no process may raise an exception,
because the shim would end and all runs with it. Every descriptor is close-on-exec, so no run inherits one.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import signal
import socket
import struct
import time
from collections import deque
from itertools import count

from repeater.shim import cgroup, posix_spawn, process_tree
from repeater.shim.connection import ClientConnection
from repeater.shim.detached import DetachedMode
from repeater.shim.kill_tree import BACKOFF_S, RunKiller
from repeater.shim.protocol import VERSION
from repeater.shim.reaper import GROUP_POLL_S, Reaper
from repeater.shim.run import STREAMS, ManagedRun
from repeater.shim.spawn import SpawnError, spawn
from repeater.shim.spawn_pool import SpawnPool
from repeater.shim.spool import SOCKET, Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from repeater.shim.cgroup import RunCgroup
    from repeater.shim.protocol import Message

    Started: TypeAlias = tuple[int, int, int, int]

MESSAGES_PER_ITERATION = 8
IDLE_CHECK_S = 1.0
"""Time between checks whether a shim without a client is still needed."""


class Shim:
    """Runs until its client has disconnected and every process is dead, or until no run has to be kept.

    `folder` is the directory where a later client finds the shim, and where the shim stores results and output. None:
    there is no later client.
    """

    def __init__(self, client: socket.socket, folder: str | None) -> None:
        self._poll = select.epoll()
        self._client: ClientConnection | None = ClientConnection(client, self._poll)
        self._inbox: deque[Message] = deque()
        self._bases: dict[int, dict[str, str]] = {}
        self._runs: dict[str, ManagedRun] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._is_over = False
        self._keeps_runs = False
        self._spool = None if folder is None else Spool(folder)
        self._detached: DetachedMode | None = None
        self._listener, self._inode = (None, 0) if folder is None else _listen(folder)
        self._wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._pool = SpawnPool(_started, waker)
        self._can_use_pool = posix_spawn.can_spawn_in_dir()
        self._cgroups: cgroup.RunCgroups | None = None
        self._owner = cgroup.owner_of(folder, os.getppid())
        self._reaper = Reaper(self._pool.is_spawning, self._on_exited, self._on_group_empty, self._call_later)
        self._killer = RunKiller(
            self._runs, self._call_later, self._pool.is_spawning, self._on_tree_killed, self._on_all_killed
        )
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _do_nothing)
        self._poll.register(self._wake, select.EPOLLIN)

    def run(self) -> None:
        """Returns when every process is dead, or when no run has to be kept."""
        try:
            while not self._is_over:
                for fd, events in self._poll.poll(self._wait()):
                    self._on_poll_event(fd, events)
                self._run_due_timers()
                self._process_inbox()
                self._start_queued()
                if self._client is not None and not self._client.flush():
                    self._on_client_lost()
        finally:
            self._remove_socket()
            if self._cgroups is not None:
                self._cgroups.close()

    def _on_poll_event(self, fd: int, events: int) -> None:
        if fd == self._wake:
            self._on_wake()
        elif self._client is not None and fd == self._client.fd:
            if events & ~select.EPOLLOUT:
                self._receive(self._client)
        elif self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)
        elif self._detached is not None:
            self._detached.add_run(fd)

    def _on_wake(self) -> None:
        """A signal has arrived, or a thread of the pool has started a process."""
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._wake, 4096):
                if signal.SIGTERM in numbers and self._detached is not None:
                    self._kill_all()  # without a client this signal is the only way to end the shim
        self._reaper.reap()

    # --- time ---

    def _wait(self) -> float:
        self._pool.wakes_server = True  # before the check, so that no start is missed
        if self._inbox or self._pool.has_work:
            return 0.0
        due = None if self._client is None else self._client.next_flush
        if self._timers and (due is None or self._timers[0][0] < due):
            due = self._timers[0][0]
        return -1 if due is None else max(0.0, due - time.monotonic())

    def _call_later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), call))

    def _run_due_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    # --- the client ---

    def _receive(self, client: ClientConnection) -> None:
        messages = client.receive()
        if messages is None:
            self._on_client_lost()
        elif messages and messages[-1]["op"] == "shutdown":  # earlier requests need not be served any more
            self._inbox = deque(messages[-1:])
        else:
            self._inbox += messages

    def _on_client_lost(self) -> None:
        """Requests that are not served yet are dropped."""
        if self._client is None:
            return
        self._client.close()
        self._client = None
        self._inbox.clear()
        self._pool.cancel_pending()
        if self._killer.kills_all:
            return
        if self._spool is not None:
            self._detached = DetachedMode(
                self._spool, self._poll, self._call_later, self._killer.signal, self._killer.kill
            )
            ended = [run for run in self._runs.values() if run.status is not None]
            self._detached.begin(self._runs.values() if self._keeps_runs else ended)
        if self._keeps_runs and self._listener is not None:
            self._poll.register(self._listener, select.EPOLLIN)
            self._call_later(IDLE_CHECK_S, self._exit_if_idle)
        else:
            self._leave_detached_mode()
            self._kill_all()

    def _leave_detached_mode(self) -> None:
        if self._detached is not None:
            self._detached.end()
            self._detached = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        if self._client is not None or _user_of(client) != os.geteuid():
            client.close()
            return
        self._poll.unregister(listener)
        self._leave_detached_mode()
        self._client = ClientConnection(client, self._poll)

    def _exit_if_idle(self) -> None:
        """Exit if no client has connected for some time and no run is alive. The results are in files."""
        if self._detached is None or self._killer.kills_all:
            return
        alive = any(run.status is None or not run.empty for run in self._runs.values())
        if not alive and self._detached.has_no_live_run():
            self._kill_all()
        else:
            self._call_later(IDLE_CHECK_S, self._exit_if_idle)

    def _remove_socket(self) -> None:
        if self._listener is not None and self._spool is not None:
            with contextlib.suppress(OSError):
                path = os.path.join(self._spool.folder, SOCKET)
                if os.stat(path).st_ino == self._inode:
                    os.unlink(path)

    def _send(self, message: Message, fds: Iterable[int] = (), *, hurries: bool = True) -> None:
        if self._client is not None:
            self._client.send(message, fds, hurries=hurries)

    # --- requests ---

    def _process_inbox(self) -> None:
        for _ in range(MESSAGES_PER_ITERATION):
            if not self._inbox:
                break
            message = self._inbox.popleft()
            if (run := message.get("run")) in self._pool.deferred:
                self._pool.deferred[run].append(message)
                continue
            if self._pool.deferred and self._needs_exclusive_spawn(message):
                self._inbox.appendleft(message)
                break
            serve = _REQUESTS.get(message["op"])
            if serve is not None:
                try:
                    serve(self, message)
                except (KeyError, TypeError, ValueError):  # the client does not follow the protocol
                    self._on_client_lost()
                    return
        if not self._inbox:
            self._killer.send_signals()

    def _needs_exclusive_spawn(self, message: Message) -> bool:
        """Whether the start changes the umask or the cgroup of the whole shim."""
        return "umask" in message or (self._cgroups is not None and bool(message.get("cgroup")))

    def _hello(self, message: Message) -> None:
        self._keeps_runs = message.get("on_death") == "keep" and self._spool is not None
        runs = [run.as_message() for run in self._runs.values()]
        hello = {"op": "hello", "version": VERSION, "pid": os.getpid(), "runs": runs, "pongs": True}
        if message.get("use_cgroups") and self._cgroups is None:
            try:
                self._cgroups = cgroup.RunCgroups(cgroup.delegated_root(), self._owner)
            except cgroup.NotDelegated as error:
                hello["no_cgroup_reason"] = str(error)
        self._send(hello)

    def _ping(self, _: Message) -> None:
        self._send({"op": "pong"})

    def _env_base(self, message: Message) -> None:
        self._bases[message["base"]] = message["env"]

    def _spawn(self, message: Message) -> None:
        if message["run"] in self._runs:
            return
        if "base" in message:
            message["env"] = {**self._bases[message["base"]], **message["env"]}
        if self._cgroups is not None and message.get("cgroup"):
            outcome, own, error = self._cgroups.begin(message["run"], lambda: _started(message, together=False))
            self._on_spawned(message, outcome, own, error)
        elif self._can_use_pool and not any(name in message for name in _SPECIAL):
            self._pool.submit(message)
        else:
            self._on_spawned(message, _started(message, together=False))

    def _signal(self, message: Message) -> None:
        run = self._runs.get(message["run"])
        if run is not None:
            self._killer.signal(run, message["signal"])

    def _kill_tree(self, message: Message) -> None:
        run = self._runs.get(message["run"])
        if run is not None:
            self._killer.kill(run)

    def _attach(self, message: Message) -> None:
        run = self._runs.get(message["run"])
        if run is not None:
            offsets, fds = run.spooled()
            self._send({"op": "attached", "run": run.run, "pid": run.pid, "spooled": offsets}, (*run.fds, *fds))
            if run.status is not None:
                self._send({"op": "exited", **run.as_exit_message()})

    def _acknowledge_spool(self, message: Message) -> None:
        run = self._runs.get(message["run"])
        if run is not None and self._spool is not None:
            offsets = {stream: message[stream] for stream in STREAMS if stream in message}
            run.acknowledge_spool(offsets, self._spool)

    def _acknowledge(self, message: Message) -> None:
        for name in message["runs"]:
            run = self._runs.get(name)
            if run is not None:
                run.settled = True
                if run.status is not None:
                    self._forget(run)

    def _shutdown(self, message: Message) -> None:
        if message.get("kill", True):
            self._kill_all()
        else:
            self._on_client_lost()

    # --- runs ---

    def _start_queued(self) -> None:
        pool = self._pool
        pool.wakes_server = False
        pool.run_here()
        for message, outcome, deferred in pool.completed():
            self._on_spawned(message, outcome)
            self._inbox.extendleft(reversed(deferred))
        if not pool.is_spawning():
            self._reaper.forget_early_exits()

    def _on_spawned(
        self, message: Message, outcome: Started | SpawnError, own: RunCgroup | None = None, no_cgroup_reason: str = ""
    ) -> None:
        name = message["run"]
        if isinstance(outcome, SpawnError):
            if own is not None:
                self._release_cgroup(own)
            self._send(
                {
                    "op": "spawn_failed",
                    "run": name,
                    "code": outcome.code,
                    "detail": outcome.detail,
                    "exit_code": outcome.exit_code,
                    "temporary": outcome.temporary,
                }
            )
            return
        pid, at, *fds = outcome
        run = self._runs[name] = ManagedRun(message, pid, (fds[0], fds[1]), own)
        started = {"op": "started", "run": name, "pid": pid, "at": at}
        if no_cgroup_reason:
            started["no_cgroup_reason"] = no_cgroup_reason
        self._send(started, run.fds, hurries=False)
        if self._detached is not None:
            self._detached.begin([run])  # the client has exited during the start
        self._reaper.add(run)

    def _on_exited(self, run: ManagedRun) -> None:
        self._send({"op": "exited", **run.as_exit_message()})
        if self._detached is not None and not self._killer.kills_all:
            self._detached.record_exit(run)
        if run.settled:
            self._forget(run)

    def _on_group_empty(self, run: ManagedRun) -> None:
        self._send({"op": "group_empty", "run": run.run})

    def _on_tree_killed(self, run: str) -> None:
        self._send({"op": "tree_killed", "run": run})

    def _forget(self, run: ManagedRun) -> None:
        del self._runs[run.run]
        self._reaper.remove(run)
        if self._detached is not None:
            self._detached.forget(run)
        run.close(self._spool)
        if run.fence is not None:
            self._release_cgroup(run.fence)

    def _release_cgroup(self, own: RunCgroup, delay: float = BACKOFF_S[0]) -> None:
        """The run has ended: kill what is left in its cgroup, and remove the cgroup."""
        own.kill()
        if not own.remove():
            self._call_later(delay, lambda: self._release_cgroup(own, min(delay * 2, GROUP_POLL_S)))

    def _kill_all(self) -> None:
        """Kill every process of every run, and exit."""
        if not self._killer.kills_all:
            self._inbox.clear()
            self._pool.cancel_pending()
            self._killer.kill_all()

    def _on_all_killed(self) -> None:
        self._on_wake()
        self._is_over = True


def _do_nothing(_number: int, _frame: object) -> None:
    """With a handler the signal wakes the loop."""


def _listen(folder: str) -> tuple[socket.socket | None, int]:
    """A listening socket in `folder`, and its inode. None if that fails.

    The name is relative, because a path of a socket may have only 107 bytes.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.chdir(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(SOCKET)
        listener.listen(1)
        listener.setblocking(False)
        return listener, os.stat(SOCKET).st_ino
    except OSError:
        listener.close()
        return None, 0
    finally:
        os.chdir("/")


def _user_of(client: socket.socket) -> int:
    return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _started(message: Message, together: bool) -> Started | SpawnError:
    """The pid, the time of the start (microseconds of the monotonic clock), and the read ends of the output.

    Also called in the threads of the pool, then with `together`.
    """
    try:
        env = message["env"]
        if process_tree.TOKEN not in env:
            env[process_tree.TOKEN] = message["run"]
        special: dict[str, Any] = {name: message[name] for name in _SPECIAL if name in message}
        stdin = message.get("stdin", "").encode("utf-8", "surrogateescape")
        child = spawn(
            message["argv"], cwd=message["cwd"], env=env, stdin=stdin, roams=True, together=together, **special
        )
    except SpawnError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the fault of one run must not end all others
        return SpawnError("program_failed", {"program": str(message.get("argv")), "error": repr(error)})
    assert child.stdout is not None
    assert child.stderr is not None
    return child.pid, time.monotonic_ns() // 1000, child.stdout, child.stderr


_SPECIAL = ("user", "group", "umask", "nice", "rlimits")
_REQUESTS: dict[str, Callable[[Shim, Message], None]] = {
    "hello": Shim._hello,
    "env_base": Shim._env_base,
    "spawn": Shim._spawn,
    "signal": Shim._signal,
    "kill_tree": Shim._kill_tree,
    "attach": Shim._attach,
    "spool_ack": Shim._acknowledge_spool,
    "ack": Shim._acknowledge,
    "ping": Shim._ping,
    "shutdown": Shim._shutdown,
}
