"""Finds and kills what belongs to a run: its session, and whatever carries its token in the environment.

Level A of the process levels: a process that leaves the session *and* clears its environment is not found. Reads
/proc; where there is none (macOS) nothing is found and only the process group is reached. Blocking, some 30 ms for
1 000 processes: never call it in the loop. A pid is only killed through a pidfd, after it was looked at again, so a
pid that was given to somebody else meanwhile is safe. Imports the standard library only.
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
    """A living process: no zombie. `token` is the run that its environment names, empty if none can be read."""

    __slots__ = ("group", "parent", "pid", "session", "token")

    def __init__(self, pid: int, parent: int, group: int, session: int, token: str) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.token = token

    def is_same_process(self, other: ProcessInfo) -> bool:
        """Whether both are the same process, as far as one can see. Its parent may have died meanwhile."""
        return (self.pid, self.group, self.session, self.token) == (other.pid, other.group, other.session, other.token)


def find_by_run_id(runs: Mapping[str, int]) -> Iterator[tuple[str, ProcessInfo]]:
    """Each living process of these runs (run -> its session, 0 if that is over), with its run."""
    by_session = {leader: run for run, leader in runs.items() if leader}
    for pid in _pids():
        member = read_stat(pid)
        if member is not None and (run := _owner(member, runs, by_session)) is not None:
            yield run, member


def kill(runs: Mapping[str, int], *, within: float = 5.0) -> frozenset[str]:
    """Kill these runs' processes until none is left, and give the runs of which some lived on for `within` seconds."""
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
    """Those of these process groups that have a member which is no zombie."""
    found = (read_stat(pid, token=False) for pid in _pids())
    return frozenset(member.group for member in found if member is not None and member.group in leaders)


def descendants(pid: int, *, token: bool = True) -> Iterator[ProcessInfo]:
    """Every living process that descends from `pid`, parents before their children.

    Below a subreaper that is all that ever came of its children, wherever it went: whoever loses its parent becomes a
    child of the subreaper. As it may do so during the search, it ends with another look at the subreaper's own.
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
    """As process 1: take the status of dead children that are not ours. None of ours may be born meanwhile."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in map(int, _read(f"/proc/self/task/{task}/children").split()):
                if pid not in ours:
                    os.waitpid(pid, os.WNOHANG)


def signal_session(leader: int, number: int) -> None:
    """Signal the processes of a session that are in another process group than its leader (`set -m`)."""
    for pid in _pids():
        member = read_stat(pid, token=False)
        if member is not None and member.session == leader != member.group:
            send(member, number)
            if number != signal.SIGKILL:
                send(member, signal.SIGCONT)


def reap_unwaited(before: Collection[int]) -> frozenset[int]:
    """As process 1: take the status of children that were dead already at the last look, `before`. Give those of now.

    Whoever started a child waits for it sooner than that, so they are orphans from outside of any run.
    """
    dead = frozenset(pid for pid in _children(os.getpid()) if read_stat(pid, token=False) is None)
    for pid in dead.intersection(before):
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
    return dead


def session_of(leader: int, *, reaped: bool) -> int:
    """The session that a run's leader began; 0 if it is over and its number was given away."""
    return 0 if reaped and _is_alive(leader) else leader


def group_is_alive(leader: int, *, reaped: bool) -> bool:
    """Whether a process group has a member, be it a zombie.

    After its leader was reaped, its number belongs to the group as long as that has members; a process with that
    very pid means that the group died out and the number was given away.
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
    """Signal a process group and let its stopped processes go on; nothing happens if it is empty."""
    if group_is_alive(leader, reaped=reaped):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)
            if number not in {signal.SIGSTOP, signal.SIGTSTP}:
                os.killpg(leader, signal.SIGCONT)


def read_stat(pid: int, *, token: bool = True) -> ProcessInfo | None:
    """What a pid is now; None if it is gone, dead, or not ours to see."""
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
    """To the process that was looked at, not to one that has its pid by now."""
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
