"""Finds and kills the processes of a run: those of its session, and those that have its token in their environment.

A process that leaves the session *and* clears its environment is not found. The functions read /proc. Without /proc
(macOS) nothing is found, and only the process group is reached. A search takes some 30 ms for 1,000 processes: never
call it in the loop. A process is killed through a pidfd after it was read again, so a pid that was reused is safe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count

TOKEN = "RPR_RUN_ID"  # noqa: S105 - no secret
_MARK = f"\0{TOKEN}=".encode()
_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class ProcessInfo:
    """A process that is not a zombie. `token` is the run that its environment names, empty if none can be read."""

    __slots__ = ("group", "parent", "pid", "session", "token")

    def __init__(self, pid: int, parent: int, group: int, session: int, token: str) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.token = token

    def is_same_process(self, other: ProcessInfo) -> bool:
        """Whether both are the same process, by what can be read. Its parent may have exited meanwhile."""
        return (self.pid, self.group, self.session, self.token) == (other.pid, other.group, other.session, other.token)


def find_by_run_id(runs: Mapping[str, int]) -> Iterator[tuple[str, ProcessInfo]]:
    """Each live process of these runs (run -> its session, 0 if the session has ended), with its run."""
    by_session = {leader: run for run, leader in runs.items() if leader}
    for pid in _pids():
        member = read_stat(pid)
        if member is not None and (run := _owner(member, runs, by_session)) is not None:
            yield run, member


def kill(runs: Mapping[str, int], *, within: float = 5.0) -> frozenset[str]:
    """Kill the processes of these runs until none is left. Returns the runs that had one after `within` seconds."""
    end = time.monotonic() + within
    for turn in count():
        left = set()
        for run, member in find_by_run_id(runs):
            left.add(run)
            send(member, signal.SIGKILL)
        if not left or time.monotonic() > end:
            break
        time.sleep(_PAUSES[min(turn, len(_PAUSES) - 1)])
    return frozenset(left)


def living_groups(leaders: Collection[int]) -> frozenset[int]:
    """The process groups, of these, with a member that is not a zombie."""
    found = (read_stat(pid, token=False) for pid in _pids())
    return frozenset(member.group for member in found if member is not None and member.group in leaders)


def descendants(pid: int, *, token: bool = True) -> Iterator[ProcessInfo]:
    """Every live process that descends from `pid`, parents before their children.

    Below a subreaper these are all descendants, because orphans become children of the subreaper. A process may become
    one during the search, so the search ends with the children of the subreaper.
    """
    waiting, seen = _children(pid), {pid}
    while waiting:
        child = waiting.pop()
        if child not in seen:
            seen.add(child)
            waiting += _children(child)
            if (member := read_stat(child, token=token)) is not None:
                yield member
        if not waiting:
            waiting = [child for child in _children(pid) if child not in seen]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def reap_orphans(ours: Collection[int]) -> None:
    """As process 1: reap the orphans. No process of `ours` may be started meanwhile."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in map(int, _read(f"/proc/self/task/{task}/children").split()):
                if pid not in ours:
                    os.waitpid(pid, os.WNOHANG)


def signal_session(leader: int, number: int) -> None:
    """Signal the processes of a session that are in other process groups than its leader (`set -m`)."""
    for pid in _pids():
        member = read_stat(pid, token=False)
        if member is not None and member.session == leader != member.group:
            send(member, number)
            if number != signal.SIGKILL:
                send(member, signal.SIGCONT)


def reap_unwaited(before: Collection[int]) -> frozenset[int]:
    """As process 1: reap the children that were zombies at the last call (`before`). Returns the present zombies.

    A child that this process started is reaped sooner, so these are orphans that belong to no run.
    """
    dead = frozenset(pid for pid in _children(os.getpid()) if read_stat(pid, token=False) is None)
    for pid in dead.intersection(before):
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
    return dead


def session_of(leader: int, *, reaped: bool) -> int:
    """The session of a leader. 0 if it has ended and the kernel has reused its number."""
    return 0 if reaped and _is_alive(leader) else leader


def group_is_alive(leader: int, *, reaped: bool) -> bool:
    """Whether a process group has a member. Zombies count.

    After its leader was reaped, the number belongs to the group while the group has members. A process with that pid
    means that the group is empty and the number was reused.
    """
    if not reaped:
        return True
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_alive(leader)


def signal_group(leader: int, number: int, *, reaped: bool) -> None:
    """Signal a process group and continue its stopped processes. Nothing happens if the group is empty."""
    if group_is_alive(leader, reaped=reaped):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)
            if number not in {signal.SIGSTOP, signal.SIGTSTP}:
                os.killpg(leader, signal.SIGCONT)


def read_stat(pid: int, *, token: bool = True) -> ProcessInfo | None:
    """The process with this pid. None if there is none, if it is a zombie, or if it cannot be read."""
    try:
        stat = _read(f"/proc/{pid}/stat")
        state, parent, group, session = stat[stat.rindex(b")") + 2 :].split(maxsplit=4)[:4]
    except (OSError, ValueError):
        return None
    if state in b"ZXx":
        return None
    return ProcessInfo(pid, int(parent), int(group), int(session), _token(pid) if token else "")


def _owner(member: ProcessInfo, runs: Mapping[str, int], by_session: Mapping[int, str]) -> str | None:
    return member.token if member.token in runs else by_session.get(member.session)


def _token(pid: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        environ = b"\0" + _read(f"/proc/{pid}/environ")
        start = environ.find(_MARK)
        if start >= 0:
            start += len(_MARK)
            return environ[start : environ.index(b"\0", start)].decode(errors="replace")
    return ""


def send(member: ProcessInfo, number: int) -> None:
    """To the process that was read, not to another one with the same pid."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(member.pid)
        try:
            now = read_stat(member.pid, token=bool(member.token))
            if now is not None and now.is_same_process(member):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _pids() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return ()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)
