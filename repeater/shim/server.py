"""The keeper itself: parent of all runs of a supervisor, and what is left of them when that supervisor dies.

One loop, and a few hands (`shim.spawn_pool`) that start what it is told to start. It holds the ends of the output so
that no job ever dies of a closed pipe, takes the status of each child by its number, signals, and kills whole trees. It
decides nothing about jobs. As a subreaper it becomes the parent of everything that loses its own below it, so nothing
that a run leaves behind is out of its sight, and it buries those. What it says and hears is `shim.protocol`; it knows
a client as a connected socket and nothing else. What became of a run is kept until the client says that it is on record
(`settled`).

When its client is gone without a word it ends everything, or looks after the runs until there is another client
(`shim.detached`), whichever the client had asked for.

Imports the standard library only. It must never raise for what a client asks or a process does, for it would take all
runs along; and never inherit a descriptor to them, so every one is opened close-on-exec.
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
from repeater.shim.protocol import VERSION
from repeater.shim.run import ManagedRun
from repeater.shim.spawn import SpawnError, spawn, usage_of
from repeater.shim.spawn_pool import SpawnPool
from repeater.shim.spool import SOCKET, Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from repeater.shim.cgroup import RunCgroup
    from repeater.shim.protocol import Message

    Started: TypeAlias = tuple[int, int, int, int]

MESSAGES_PER_ITERATION = 8  # messages that are worked off before there is another look around
LINGERING_POLL_S = 0.25  # seconds between looks at groups that are not empty and of which nothing is heard
_SWEEP = 5.0  # seconds that a sweep takes at most
IDLE_CHECK_S = 1.0  # seconds between looks whether a keeper without a client is needed
KILL_BACKOFF_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class Shim:
    """Lives as long as its client and until everything is dead, or as long as any run has to be looked after.

    `folder` is where it can be found by a later client, and where it writes down what that has to know; None: nowhere.
    """

    def __init__(self, client: socket.socket, folder: str | None) -> None:
        self._poll = select.epoll()
        self._link: ClientConnection | None = ClientConnection(client, self._poll)
        self._inbox: deque[Message] = deque()
        self._bases: dict[int, dict[str, str]] = {}
        self._runs: dict[str, ManagedRun] = {}
        self._by_pid: dict[int, ManagedRun] = {}
        self._lingering: dict[str, ManagedRun] = {}
        self._signals: dict[int, int] = {}
        self._sweeps: dict[str, float] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._looks = False
        self._sweep_turn = 0
        self._leaving: float | None = None
        self._over = False
        self._keeps = False
        self._spool = None if folder is None else Spool(folder)
        self._absence: DetachedMode | None = None
        self._listener, self._inode = (None, 0) if folder is None else _listen(folder)
        self._wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._hands = SpawnPool(_started, waker)
        self._is_handy = posix_spawn.can_spawn_in_dir()
        self._fences: cgroup.RunCgroups | None = None
        self._owner = cgroup.owner_of(folder, os.getppid())
        self._early: dict[
            int, tuple[int, tuple[int, int]]
        ] = {}  # status and usage of children of which a hand has not told yet
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _nothing)
        self._poll.register(self._wake, select.EPOLLIN)

    def run(self) -> None:
        """Returns when there is nothing left to do."""
        try:
            while not self._over:
                for fd, events in self._poll.poll(self._wait()):
                    self._on_poll_event(fd, events)
                self._run_due_timers()
                self._process_inbox()
                self._start_queued()
                if self._link is not None and not self._link.flush():
                    self._on_client_lost()
        finally:
            self._remove_socket()
            if self._fences is not None:
                self._fences.close()

    def _on_poll_event(self, fd: int, events: int) -> None:
        if fd == self._wake:
            self._on_sigchld()
        elif self._link is not None and fd == self._link.fd:
            if events & ~select.EPOLLOUT:
                self._receive(self._link)
        elif self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)
        elif self._absence is not None:
            self._absence.add_run(fd)

    # --- time ---

    def _wait(self) -> float:
        self._hands.house_sleeps = True  # before a last look, so that no landing is missed
        if self._inbox or self._hands.in_flight:
            return 0.0
        due = None if self._link is None else self._link.next_flush
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

    def _receive(self, link: ClientConnection) -> None:
        messages = link.receive()
        if messages is None:
            self._on_client_lost()
        elif messages and messages[-1]["op"] == "shutdown":  # what it asked for before need not be begun any more
            self._inbox = deque(messages[-1:])
        else:
            self._inbox += messages

    def _on_client_lost(self) -> None:
        """What it had asked for before it died is not begun any more."""
        if self._link is None:
            return
        self._link.close()
        self._link = None
        self._inbox.clear()
        self._hands.cancel_pending()
        if self._leaving is not None:
            return
        if self._spool is not None:
            self._absence = DetachedMode(self._spool, self._poll, self._call_later, self._stop, self._start_kill_tree)
            ended = [kept for kept in self._runs.values() if kept.status is not None]
            self._absence.begin(self._runs.values() if self._keeps else ended)
        if self._keeps and self._listener is not None:
            self._poll.register(self._listener, select.EPOLLIN)
            self._call_later(IDLE_CHECK_S, self._exit_if_idle)
        else:
            self._leave_detached_mode()
            self._kill_all()

    def _leave_detached_mode(self) -> None:
        if self._absence is not None:
            self._absence.end()
            self._absence = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        if self._link is not None or _user_of(client) != os.geteuid():
            client.close()
            return
        self._poll.unregister(listener)
        self._leave_detached_mode()
        self._link = ClientConnection(client, self._poll)

    def _exit_if_idle(self) -> None:
        """Nobody is there for some time, and nothing has to be looked after: what a client has to know is in files."""
        if self._absence is None or self._leaving is not None:
            return
        alive = any(kept.status is None or not kept.empty for kept in self._runs.values())
        if not alive and self._absence.has_no_live_run():
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
        if self._link is not None:
            self._link.send(message, fds, hurries=hurries)

    # --- what the client asks ---

    def _process_inbox(self) -> None:
        for _ in range(MESSAGES_PER_ITERATION):
            if not self._inbox:
                break
            message = self._inbox.popleft()
            if (run := message.get("run")) in self._hands.flying:
                self._hands.flying[run].append(message)
                continue
            if self._hands.flying and self._needs_exclusive_spawn(message):
                self._inbox.appendleft(message)
                break
            answer = _ANSWERS.get(message["op"])
            if answer is not None:
                try:
                    answer(self, message)
                except (KeyError, TypeError, ValueError):  # a client that does not keep to the protocol
                    self._on_client_lost()
                    return
        if not self._inbox:
            self._send_signals()

    def _needs_exclusive_spawn(self, message: Message) -> bool:
        """For the time of such a start its umask, or its cgroup, is everybody's."""
        return "umask" in message or (self._fences is not None and bool(message.get("cgroup")))

    def _on_hello(self, message: Message) -> None:
        self._keeps = message.get("on_death") == "keep" and self._spool is not None
        runs = [kept.as_message() for kept in self._runs.values()]
        hello = {"op": "hello", "version": VERSION, "pid": os.getpid(), "runs": runs, "pongs": True}
        if message.get("use_cgroups") and self._fences is None:
            try:
                self._fences = cgroup.RunCgroups(cgroup.delegated_root(), self._owner)
            except cgroup.NotDelegated as error:
                hello["no_cgroup_reason"] = str(error)
        self._send(hello)

    def _ping(self, _: Message) -> None:
        self._send({"op": "pong"})

    def _start_queued(self) -> None:
        hands = self._hands
        hands.house_sleeps = False
        hands.run_here()
        for message, outcome, later in hands.completed():
            self._register_child(message, outcome)
            self._inbox.extendleft(reversed(later))
        if not hands.flying:
            self._early.clear()

    def _on_env_base(self, message: Message) -> None:
        self._bases[message["base"]] = message["env"]

    def _spawn(self, message: Message) -> None:
        if message["run"] in self._runs:
            return
        if "base" in message:
            message["env"] = {**self._bases[message["base"]], **message["env"]}
        if self._fences is not None and message.get("cgroup"):
            outcome, fence, why = self._fences.begin(message["run"], lambda: _started(message, together=False))
            self._register_child(message, outcome, fence, why)
        elif self._is_handy and not any(name in message for name in _SPECIAL):
            self._hands.submit(message)
        else:
            self._register_child(message, _started(message, together=False))

    def _register_child(
        self, message: Message, outcome: Started | SpawnError, fence: RunCgroup | None = None, unfenced: str = ""
    ) -> None:
        run = message["run"]
        if isinstance(outcome, SpawnError):
            if fence is not None:
                self._release_run(fence)
            self._send(
                {
                    "op": "spawn_failed",
                    "run": run,
                    "code": outcome.code,
                    "detail": outcome.detail,
                    "exit_code": outcome.exit_code,
                    "temporary": outcome.temporary,
                }
            )
            return
        pid, at, *fds = outcome
        kept = ManagedRun(message, pid, (fds[0], fds[1]), fence)
        self._runs[run] = self._by_pid[pid] = kept
        started = {"op": "started", "run": run, "pid": pid, "at": at}
        self._send({**started, "no_cgroup_reason": unfenced} if unfenced else started, kept.fds, hurries=False)
        if self._absence is not None:
            self._absence.begin([kept])  # its client died while it was being started
        if pid in self._early:
            del self._by_pid[pid]
            self._exited(kept, *self._early.pop(pid))

    def _signal(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is not None:
            self._stop(kept, message["signal"])

    def _stop(self, kept: ManagedRun, name: str) -> None:
        number = getattr(signal, f"SIG{name}")
        reaped = kept.status is not None
        process_tree.signal_group(kept.pid, number, reaped=reaped)
        if session := process_tree.session_of(kept.pid, reaped=reaped):
            self._signals[session] = number

    def _send_signals(self) -> None:
        """To groups of a session beside its leader's, which are rare: one search for all that wait."""
        if not self._signals:
            return
        wanted, self._signals = self._signals, {}
        for member in process_tree.descendants(os.getpid(), token=False):
            number = wanted.get(member.session)
            if number is not None and member.group != member.session:
                process_tree.send(member, number)
                if number != signal.SIGKILL:
                    process_tree.send(member, signal.SIGCONT)

    def _attach(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is not None:
            offsets, fds = kept.spooled()
            self._send({"op": "attached", "run": kept.run, "pid": kept.pid, "spooled": offsets}, (*kept.fds, *fds))
            if kept.status is not None:
                self._send({"op": "exited", **kept.as_exit_message()})

    def _on_spool_ack(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is not None and self._spool is not None:
            kept.acknowledge_spool(
                {stream: message[stream] for stream in ("stdout", "stderr") if stream in message}, self._spool
            )

    def _on_ack(self, message: Message) -> None:
        for run in message["runs"]:
            kept = self._runs.get(run)
            if kept is not None:
                kept.settled = True
                if kept.status is not None:
                    self._forget(kept)

    def _forget(self, kept: ManagedRun) -> None:
        del self._runs[kept.run]
        self._lingering.pop(kept.run, None)
        if self._absence is not None:
            self._absence.forget(kept)
        kept.close(self._spool)
        if kept.fence is not None:
            self._release_run(kept.fence)

    def _release_run(self, fence: RunCgroup, pause: float = KILL_BACKOFF_S[0]) -> None:
        """Of a run that is over: whatever still is inside ends, too."""
        fence.kill()
        if not fence.remove():
            self._call_later(pause, lambda: self._release_run(fence, min(pause * 2, LINGERING_POLL_S)))

    def _on_shutdown(self, message: Message) -> None:
        if message.get("kill", True):
            self._kill_all()
        else:
            self._on_client_lost()

    # --- what becomes of processes ---

    def _on_sigchld(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._wake, 4096):
                if signal.SIGTERM in numbers and self._absence is not None:
                    self._kill_all()  # with nobody there it is the only way to tell it
        orphans = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            try:
                _, status, used = os.wait4(found.si_pid, 0)
            except ChildProcessError:  # it could not become its program, and the C library of a hand buried it
                continue
            kept = self._by_pid.pop(found.si_pid, None)
            if kept is None:
                orphans = True
                if self._hands.flying:
                    self._early[found.si_pid] = status, usage_of(used)
            else:
                self._exited(kept, status, usage_of(used))
        if orphans and self._lingering:
            self._poll_group(closely=False)

    def _exited(self, kept: ManagedRun, status: int, usage: tuple[int, int]) -> None:
        memory, cpu = (None, None) if kept.fence is None else kept.fence.usage()
        kept.memory, kept.cpu = usage[0] if memory is None else memory, usage[1] if cpu is None else cpu
        kept.status, kept.ended, kept.ended_mono = status, time.time(), time.monotonic_ns() // 1000
        kept.empty = not process_tree.group_is_alive(kept.pid, reaped=True) and not kept.cgroup_is_populated
        self._send({"op": "exited", **kept.as_exit_message()})
        if self._absence is not None and self._leaving is None:
            self._absence.record_exit(kept)
        if kept.settled:
            self._forget(kept)
        elif not kept.empty:
            self._lingering[kept.run] = kept
            self._schedule_group_poll()

    def _schedule_group_poll(self) -> None:
        if not self._looks:
            self._looks = True
            self._call_later(LINGERING_POLL_S, self._poll_lingering)

    def _poll_lingering(self) -> None:
        self._looks = False
        self._poll_group(closely=True)
        if self._lingering:
            self._schedule_group_poll()

    def _poll_group(self, *, closely: bool) -> None:
        """Which of the groups that outlived their leaders are over. A close look does not count zombies as alive."""
        fenced = {kept.run for kept in self._lingering.values() if kept.cgroup_is_populated}
        lingering = self._lingering.values()
        lives = [kept for kept in lingering if kept.run in fenced or process_tree.group_is_alive(kept.pid, reaped=True)]
        if closely and lives:
            groups = {member.group for member in process_tree.descendants(os.getpid(), token=False)}
            lives = [kept for kept in lives if kept.run in fenced or kept.pid in groups]
        over = self._lingering.keys() - {kept.run for kept in lives}
        for run in over:
            self._lingering.pop(run).empty = True
            self._send({"op": "group_empty", "run": run})

    # --- killing trees ---

    def _on_kill_tree(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is not None:
            self._start_kill_tree(kept)

    def _start_kill_tree(self, kept: ManagedRun) -> None:
        process_tree.signal_group(kept.pid, signal.SIGKILL, reaped=kept.status is not None)
        if kept.fence is not None:
            kept.fence.kill()
        self._sweeps.setdefault(kept.run, time.monotonic() + _SWEEP)
        self._sweep_turn = 0
        self._call_later(0, self._continue_kill_tree)

    def _continue_kill_tree(self) -> None:
        """One search for all runs that are being swept; again until nothing of them is found."""
        if not self._sweeps or self._leaving is not None:
            return
        left = self._kill_found()
        now = time.monotonic()
        for run, end in list(self._sweeps.items()):
            if run not in left or now > end:
                del self._sweeps[run]
                self._send({"op": "tree_killed", "run": run})
        if self._sweeps:
            self._call_later(self._backoff_delay(), self._continue_kill_tree)

    def _backoff_delay(self) -> float:
        pause = KILL_BACKOFF_S[min(self._sweep_turn, len(KILL_BACKOFF_S) - 1)]
        self._sweep_turn += 1
        return pause

    def _kill_found(self) -> set[str]:
        """Kill whatever belongs to a swept run: by its session, its token, or because it descends from what does."""
        sessions, owners, left = {}, {}, set()
        for swept in self._sweeps:
            kept = self._runs.get(swept)
            if kept is not None:
                owners[kept.pid] = swept
                if kept.cgroup_is_populated:
                    left.add(swept)
                sessions[process_tree.session_of(kept.pid, reaped=kept.status is not None)] = swept
        sessions.pop(0, None)
        found = list(process_tree.descendants(os.getpid()))
        for member in found:
            run: str | None = member.token if member.token in self._sweeps else sessions.get(member.session)
            if run is None and member.token not in self._runs:
                run = owners.get(member.parent)
            if run is not None:
                owners[member.pid] = run
                left.add(run)
                process_tree.send(member, signal.SIGKILL)
        return left

    def _kill_all(self) -> None:
        """Nothing that ever came of a run shall live on; then leave."""
        if self._leaving is None:
            self._inbox.clear()
            self._hands.cancel_pending()
            self._leaving = time.monotonic() + _SWEEP
            self._sweep_turn = 0
            for kept in self._runs.values():
                process_tree.signal_group(kept.pid, signal.SIGKILL, reaped=kept.status is not None)
                if kept.fence is not None:
                    kept.fence.kill()
            self._continue_kill_all()

    def _continue_kill_all(self) -> None:
        found = list(process_tree.descendants(os.getpid(), token=False))
        for member in found:
            process_tree.send(member, signal.SIGKILL)
        assert self._leaving is not None
        if (found or self._hands.flying) and time.monotonic() < self._leaving:
            self._call_later(self._backoff_delay(), self._continue_kill_all)
        else:
            self._on_sigchld()  # the last of them may be dead and not buried
            self._over = True


def _nothing(_number: int, _frame: object) -> None:
    """A handler that is there only so that the loop is woken."""


def _listen(folder: str) -> tuple[socket.socket | None, int]:
    """A socket in a folder that only we can enter, by a name that is never too long; none if that cannot be."""
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
    """Pid, when (microseconds of the monotonic clock), and the read ends of its output. Called in the hands' threads,
    too, if others are started `together`.
    """
    try:
        env = message["env"]
        if process_tree.TOKEN not in env:
            env[process_tree.TOKEN] = message["run"]
        given: dict[str, Any] = {name: message[name] for name in _SPECIAL if name in message}
        stdin = message.get("stdin", "").encode("utf-8", "surrogateescape")
        child = spawn(message["argv"], cwd=message["cwd"], env=env, stdin=stdin, roams=True, together=together, **given)
    except SpawnError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's and shall not end all others
        return SpawnError("program_failed", {"program": str(message.get("argv")), "error": repr(error)})
    assert child.stdout is not None
    assert child.stderr is not None
    return child.pid, time.monotonic_ns() // 1000, child.stdout, child.stderr


_SPECIAL = ("user", "group", "umask", "nice", "rlimits")
_ANSWERS: dict[str, Callable[[Shim, Message], None]] = {
    "hello": Shim._on_hello,
    "env_base": Shim._on_env_base,
    "spawn": Shim._spawn,
    "signal": Shim._signal,
    "kill_tree": Shim._on_kill_tree,
    "attach": Shim._attach,
    "spool_ack": Shim._on_spool_ack,
    "ack": Shim._on_ack,
    "ping": Shim._ping,
    "shutdown": Shim._on_shutdown,
}
