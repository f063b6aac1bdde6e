"""The keeper itself: parent of all runs of a supervisor, and what is left of them when that supervisor dies.

One thread, one loop. It starts what it is told to start, holds the ends of the output so that no job ever dies of a
closed pipe, takes the status of each child by its number, signals, and kills whole trees. It decides nothing about
jobs. As a subreaper it becomes the parent of everything that loses its own below it, so nothing that a run leaves
behind is out of its sight, and it buries those. What it says and hears is `keeper.protocol`; it knows a client as a
connected socket and nothing else.

What became of a run is kept until the client says that it is on record (`settled`).

Imports the standard library only. It must never raise for what a client asks or a process does, for it would take all
runs along; and never inherit a descriptor to them, so every one is opened close-on-exec.
"""

from __future__ import annotations

import array
import contextlib
import heapq
import os
import select
import signal
import socket
import time
from collections import deque
from itertools import count

from repeater.keeper import direct, tree
from repeater.keeper.hands import Hands
from repeater.keeper.process import SpawnError, spawn
from repeater.keeper.protocol import MOST_FDS, VERSION, Frames, ProtocolError, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from repeater.keeper.protocol import Message

    Started: TypeAlias = tuple[int, int, int]

_TURN = 8  # messages that are worked off before there is another look around
_SLOW_LOOK = 0.25  # seconds between looks at groups that are not empty and of which nothing is heard
_SWEEP = 5.0  # seconds that a sweep takes at most
_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_READ = 1 << 18
_MARGIN = 16  # descriptors of one message that may come in


class _Kept:
    """One run, from the order to start it until what became of it is on record."""

    __slots__ = ("attempt", "began", "empty", "ended", "fds", "pid", "run", "status")

    def __init__(self, run: str, attempt: int, pid: int, fds: tuple[int, int]) -> None:
        self.run = run
        self.attempt = attempt
        self.pid = pid
        self.fds = fds
        self.began = time.time()
        self.status: int | None = None
        self.ended: float | None = None
        self.empty = False


class House:
    """Lives as long as its client, and until everything is dead."""

    def __init__(self, client: socket.socket) -> None:
        self._client: socket.socket | None = client
        client.setblocking(False)
        self._frames = Frames()
        self._inbox: deque[Message] = deque()
        self._outbox: list[Message] = []
        self._out_fds: list[int] = []
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._runs: dict[str, _Kept] = {}
        self._by_pid: dict[int, _Kept] = {}
        self._lingering: dict[str, _Kept] = {}
        self._signals: dict[int, int] = {}
        self._sweeps: dict[str, float] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._looks = False
        self._sweep_turn = 0
        self._leaving: float | None = None
        self._over = False
        self._poll = select.epoll()
        self._wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._hands = Hands(_started, waker)
        self._is_handy = direct.can_start_elsewhere()
        self._early: dict[int, int] = {}  # the status of children of which a hand has not told yet
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _nothing)
        self._poll.register(self._wake, select.EPOLLIN)
        self._poll.register(client, select.EPOLLIN)

    def live(self) -> None:
        """Returns when there is nothing left to do."""
        while not self._over:
            for fd, events in self._poll.poll(self._wait()):
                if fd == self._wake:
                    self._woken()
                elif self._client is not None and fd == self._client.fileno():
                    if events & select.EPOLLOUT:
                        self._send()
                    if events & ~select.EPOLLOUT:
                        self._receive(self._client)
            self._ring()
            self._work()
            self._start_some()
            self._flush()

    # --- time ---

    def _wait(self) -> float:
        self._hands.house_sleeps = True  # before a last look, so that no landing is missed
        if self._inbox or self._hands.busy:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._order), call))

    def _ring(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    # --- the client ---

    def _receive(self, client: socket.socket) -> None:
        try:
            data = client.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_client()
            return
        try:
            for messages, _ in self._frames.feed(data):
                self._inbox += messages
                if messages and messages[-1]["op"] == "leave":  # what it asked for before need not be begun any more
                    self._inbox = deque(messages[-1:])
        except ProtocolError:
            self._lose_client()

    def _lose_client(self) -> None:
        """What it had asked for before it died is not begun any more."""
        if self._client is not None:
            self._poll.unregister(self._client)
            self._client.close()
            self._client = None
            self._inbox.clear()
            self._outbox.clear()
            self._out_fds.clear()
            self._unsent.clear()
            self._end_all()

    def _tell(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        if self._client is None:
            return
        if len(self._out_fds) + len(fds) > MOST_FDS:
            self._pack()
        self._outbox.append(message)
        self._out_fds += fds

    def _pack(self) -> None:
        self._unsent.append((frame(self._outbox, len(self._out_fds)), self._out_fds))
        self._outbox, self._out_fds = [], []

    def _flush(self) -> None:
        if self._outbox:
            waits = bool(self._unsent)
            self._pack()
            if not waits:
                self._send()

    def _send(self) -> None:
        while self._unsent and self._client is not None:
            data, fds = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._client.sendmsg([data], rights)
            except BlockingIOError:
                self._poll.modify(self._client, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError as error:
                if error.errno == _TOO_MANY_IN_FLIGHT:
                    self._later(0.01, self._send)
                    return
                self._lose_client()
                return
            self._unsent.popleft()
            if sent < len(data):
                self._unsent.appendleft((data[sent:], []))
        if self._client is not None:
            self._poll.modify(self._client, select.EPOLLIN)

    # --- what the client asks ---

    def _work(self) -> None:
        for _ in range(_TURN):
            if not self._inbox:
                break
            message = self._inbox.popleft()
            if (run := message.get("run")) in self._hands.flying:
                self._hands.flying[run].append(message)
                continue
            if "umask" in message and self._hands.flying:  # for the time of a start it is everybody's
                self._inbox.appendleft(message)
                break
            answer = _ANSWERS.get(message["op"])
            if answer is not None:
                try:
                    answer(self, message)
                except (KeyError, TypeError, ValueError):  # a client that does not keep to the protocol
                    self._lose_client()
                    return
        if not self._inbox:
            self._send_signals()

    def _hello(self, _: Message) -> None:
        runs = [
            {"run": kept.run, "attempt": kept.attempt, "pid": kept.pid, "began": kept.began, "ended": kept.ended}
            for kept in self._runs.values()
        ]
        self._tell({"op": "hello", "version": VERSION, "pid": os.getpid(), "runs": runs})

    def _start_some(self) -> None:
        hands = self._hands
        hands.house_sleeps = False
        hands.lend()
        for message, outcome, later in hands.landed():
            self._take_up(message, outcome)
            self._inbox.extendleft(reversed(later))
        if not hands.flying:
            self._early.clear()

    def _spawn(self, message: Message) -> None:
        if message["run"] in self._runs:
            return
        if self._is_handy and not any(name in message for name in _SPECIAL):
            self._hands.take(message)
        else:
            self._take_up(message, _started(message, together=False))

    def _take_up(self, message: Message, outcome: Started | SpawnError) -> None:
        run = message["run"]
        if isinstance(outcome, SpawnError):
            self._tell({"op": "refused", "run": run, "reason": outcome.reason, "temporary": outcome.temporary})
            return
        pid, *fds = outcome
        kept = _Kept(run, message.get("attempt", 1), pid, (fds[0], fds[1]))
        self._runs[run] = self._by_pid[pid] = kept
        self._tell({"op": "started", "run": run, "pid": pid}, kept.fds)
        if pid in self._early:
            del self._by_pid[pid]
            self._exited(kept, self._early.pop(pid))

    def _signal(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        number = getattr(signal, f"SIG{message['signal']}")
        if kept is not None:
            reaped = kept.status is not None
            tree.signal_group(kept.pid, number, reaped=reaped)
            if session := tree.session_of(kept.pid, reaped=reaped):
                self._signals[session] = number

    def _send_signals(self) -> None:
        """To groups of a session beside its leader's, which are rare: one search for all that wait."""
        if not self._signals:
            return
        wanted, self._signals = self._signals, {}
        for member in tree.offspring(os.getpid(), token=False):
            number = wanted.get(member.session)
            if number is not None and member.group != member.session:
                tree.send(member, number)
                if number != signal.SIGKILL:
                    tree.send(member, signal.SIGCONT)

    def _settled(self, message: Message) -> None:
        for run in message["runs"]:
            kept = self._runs.get(run)
            if kept is not None and kept.status is not None:
                self._forget(kept)

    def _forget(self, kept: _Kept) -> None:
        del self._runs[kept.run]
        self._lingering.pop(kept.run, None)
        for fd in kept.fds:
            os.close(fd)

    def _attach(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is not None:
            self._tell({"op": "attached", "run": kept.run, "pid": kept.pid}, kept.fds)

    def _leave(self, _: Message) -> None:
        self._end_all()

    # --- what becomes of processes ---

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass
        orphans = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            kept = self._by_pid.pop(found.si_pid, None)
            _, status = os.waitpid(found.si_pid, 0)
            if kept is None:
                orphans = True
                if self._hands.flying:
                    self._early[found.si_pid] = status
            else:
                self._exited(kept, status)
        if orphans and self._lingering:
            self._look(closely=False)

    def _exited(self, kept: _Kept, status: int) -> None:
        kept.status, kept.ended = status, time.time()
        kept.empty = not tree.group_lives(kept.pid, reaped=True)
        self._tell({"op": "exited", "run": kept.run, "status": status, "at": kept.ended, "empty": kept.empty})
        if not kept.empty:
            self._lingering[kept.run] = kept
            self._look_again()

    def _look_again(self) -> None:
        if not self._looks:
            self._looks = True
            self._later(_SLOW_LOOK, self._look_slowly)

    def _look_slowly(self) -> None:
        self._looks = False
        self._look(closely=True)
        if self._lingering:
            self._look_again()

    def _look(self, *, closely: bool) -> None:
        """Which of the groups that outlived their leaders are over. A close look does not count zombies as alive."""
        lives = [kept for kept in self._lingering.values() if tree.group_lives(kept.pid, reaped=True)]
        if closely and lives:
            groups = {member.group for member in tree.offspring(os.getpid(), token=False)}
            lives = [kept for kept in lives if kept.pid in groups]
        over = self._lingering.keys() - {kept.run for kept in lives}
        for run in over:
            self._lingering.pop(run).empty = True
            self._tell({"op": "empty", "run": run})

    # --- killing trees ---

    def _sweep(self, message: Message) -> None:
        kept = self._runs.get(message["run"])
        if kept is None:
            return
        tree.signal_group(kept.pid, signal.SIGKILL, reaped=kept.status is not None)
        self._sweeps.setdefault(kept.run, time.monotonic() + _SWEEP)
        self._sweep_turn = 0
        self._later(0, self._sweep_on)

    def _sweep_on(self) -> None:
        """One search for all runs that are being swept; again until nothing of them is found."""
        if not self._sweeps or self._leaving is not None:
            return
        left = self._kill_found()
        now = time.monotonic()
        for run, end in list(self._sweeps.items()):
            if run not in left or now > end:
                del self._sweeps[run]
                self._tell({"op": "swept", "run": run})
        if self._sweeps:
            self._later(self._pause(), self._sweep_on)

    def _pause(self) -> float:
        pause = _PAUSES[min(self._sweep_turn, len(_PAUSES) - 1)]
        self._sweep_turn += 1
        return pause

    def _kill_found(self) -> set[str]:
        """Kill whatever belongs to a swept run: by its session, its token, or because it descends from what does."""
        sessions, owners, left = {}, {}, set()
        for swept in self._sweeps:
            kept = self._runs.get(swept)
            if kept is not None:
                owners[kept.pid] = swept
                sessions[tree.session_of(kept.pid, reaped=kept.status is not None)] = swept
        sessions.pop(0, None)
        found = list(tree.offspring(os.getpid()))
        for member in found:
            run: str | None = member.token if member.token in self._sweeps else sessions.get(member.session)
            if run is None and member.token not in self._runs:
                run = owners.get(member.parent)
            if run is not None:
                owners[member.pid] = run
                left.add(run)
                tree.send(member, signal.SIGKILL)
        return left

    def _end_all(self) -> None:
        """Nothing that ever came of a run shall live on; then leave."""
        if self._leaving is None:
            self._inbox.clear()
            self._hands.drop()
            self._leaving = time.monotonic() + _SWEEP
            self._sweep_turn = 0
            for kept in self._runs.values():
                tree.signal_group(kept.pid, signal.SIGKILL, reaped=kept.status is not None)
            self._end_on()

    def _end_on(self) -> None:
        found = list(tree.offspring(os.getpid(), token=False))
        for member in found:
            tree.send(member, signal.SIGKILL)
        assert self._leaving is not None
        if (found or self._hands.flying) and time.monotonic() < self._leaving:
            self._later(self._pause(), self._end_on)
        else:
            self._woken()  # the last of them may be dead and not buried
            self._over = True


def _nothing(_number: int, _frame: object) -> None:
    """A handler that is there only so that the loop is woken."""


def _started(message: Message, together: bool) -> Started | SpawnError:
    """Pid, and the read ends of its output. Called in the hands' threads, too, if others are started `together`."""
    try:
        env = message["env"]
        if tree.TOKEN not in env:
            env[tree.TOKEN] = message["run"]
        given: dict[str, Any] = {name: message[name] for name in _SPECIAL if name in message}
        stdin = message.get("stdin", "").encode("utf-8", "surrogateescape")
        child = spawn(message["argv"], cwd=message["cwd"], env=env, stdin=stdin, roams=True, together=together, **given)
    except SpawnError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's and shall not end all others
        return SpawnError(f"cannot start `{message.get('argv')}`: {error!r}")
    assert child.stdout is not None
    assert child.stderr is not None
    return child.pid, child.stdout, child.stderr


_SPECIAL = ("user", "group", "umask", "nice", "rlimits")
_TOO_MANY_IN_FLIGHT = 109  # ETOOMANYREFS
_ANSWERS: dict[str, Callable[[House, Message], None]] = {
    "hello": House._hello,
    "spawn": House._spawn,
    "signal": House._signal,
    "sweep": House._sweep,
    "settled": House._settled,
    "attach": House._attach,
    "leave": House._leave,
}
