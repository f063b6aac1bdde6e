"""A cgroup (v2) for one run. No process leaves it by forking.

The kernel kills all its processes at once (`cgroup.kill`), and reports when it is empty, independent of sessions,
parents and environments. Cgroups are created only below a cgroup that is delegated to this user (`home`): one directory
for each shim, locked while the shim runs, and in it one directory for each run. Nothing else there is changed.

A process starts in the cgroup of its parent. So the shim moves itself into the new cgroup, starts the run, and moves
back. The run has no instruction outside, and the start is the usual one. This moves the whole shim, so nothing else may
be started meanwhile, and a cgroup that the shim could not leave is not killed. It costs 1 ms, and 20 ms at worst.

A failure here must not fail a start.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import os
import time
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

MARK = "rpr-keeper-"
_DELEGATED = ("user.delegate", "trusted.delegate")  # systemd writes `1` into them
_LAST_LOOKS = 1.0  # seconds that killed processes may take to exit
_LOOK = 0.005


class NotDelegated(Exception):
    """No cgroup is delegated to this user. The text is the cause."""


def delegated_root() -> str:
    """The directory of the cgroup of this process, if it is delegated. Changes nothing. Raises NotDelegated."""
    try:
        mounts, membership = _read("/proc/self/mountinfo"), _read("/proc/self/cgroup")
    except OSError as error:
        raise NotDelegated(f"cannot detect cgroups: {error.strerror}") from None
    folder, path = locate(mounts, membership)
    if not _is_delegated(folder) and (path != "/" or os.path.isdir("/run/systemd/system")):
        raise NotDelegated(f"`{folder}` is not delegated to us")
    if not all(os.access(name, os.W_OK) for name in (folder, f"{folder}/cgroup.procs")):
        raise NotDelegated(f"`{folder}` cannot be written")
    if not _can_kill(folder):
        raise NotDelegated("this system is too old: there is no `cgroup.kill` before Linux 5.14")
    return folder


def locate(mounts: str, membership: str) -> tuple[str, str]:
    """Directory and path of our cgroup, from the texts of mountinfo and cgroup in /proc/self. Raises NotDelegated."""
    path = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)
    if path is None:
        raise NotDelegated("there is no cgroup v2")
    if path == "/.." or path.startswith("/../") or path.endswith(" (deleted)"):
        raise NotDelegated("our cgroup is outside this cgroup namespace")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if after.startswith("cgroup2 ") and len(words) > 4:
            root, point = (_unescaped(word) for word in words[3:5])
            root = root.rstrip("/")
            if path == root or path.startswith(f"{root}/"):
                return f"{point}{path[len(root) :]}".rstrip("/"), path
    raise NotDelegated("no cgroup v2 mount contains our cgroup")


class RunCgroup:
    """The cgroup of one run."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def is_populated(self) -> bool:
        """Whether it has a live process. Zombies do not count."""
        try:
            return "populated 1" in _read(f"{self.path}/cgroup.events")
        except OSError:  # it does not exist
            return False

    def usage(self) -> tuple[int | None, int | None]:
        """The largest memory of everything in it, in bytes, and its CPU time, in microseconds; None where the kernel or
        its controllers do not say.
        """
        memory = cpu = None
        with contextlib.suppress(OSError, ValueError):
            memory = int(_read(f"{self.path}/memory.peak"))
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = _read(f"{self.path}/cpu.stat").splitlines()
            cpu = int(next(line for line in lines if line.startswith("usage_usec ")).split()[1])
        return memory, cpu

    def kill(self) -> None:
        """Kill all its processes at once."""
        with contextlib.suppress(OSError):
            _write(f"{self.path}/cgroup.kill", b"1")

    def remove(self) -> bool:
        """Remove it. False while it has a live process."""
        return _remove(self.path)


class RunCgroups:
    """The cgroups of one shim, below `home`. Cgroups of exited shims of the same `owner` are killed and removed."""

    def __init__(self, home: str, owner: str) -> None:
        self._home = home
        self._owner = owner
        self._folder = ""
        self._lock = -1
        self._count = count(1)
        self._is_lost = False
        remove_stale(home, owner)

    def begin(self, run: str, start: Callable[[], T]) -> tuple[T, RunCgroup | None, str]:
        """Call `start` in a new cgroup. Returns its result, and the cgroup, or None and the cause."""
        try:
            fence = self._join(run)
        except OSError as error:
            return start(), None, str(error)
        try:
            outcome = start()
        finally:
            why = self._rejoin_root()
        return outcome, None if why else fence, why

    def close(self) -> None:
        """Remove the cgroups. Every process is dead."""
        if self._lock >= 0:
            _kill(self._folder, kill=not self._is_lost)
            os.close(self._lock)
            self._lock = -1

    def _join(self, run: str) -> RunCgroup:
        if self._is_lost:
            raise OSError("the shim did not return from a cgroup")
        if self._lock < 0:
            self._enable_controllers()
        path = f"{self._folder}/{next(self._count)}"
        if run.isalnum():
            path += f"-{run[:40]}"
        os.mkdir(path)
        try:
            _write(f"{path}/cgroup.procs", b"0")
        except OSError:
            _remove(path)
            raise
        return RunCgroup(path)

    def _rejoin_root(self) -> str:
        try:
            _write(f"{self._home}/cgroup.procs", b"0")
        except OSError as error:
            self._is_lost = True
            return f"cannot come back: {error}"
        return ""

    def _enable_controllers(self) -> None:
        """Create and lock the directory of this shim. Another process may remove it before it is locked."""
        for _ in range(3):
            folder = f"{self._home}/{MARK}{self._owner}-{os.getpid()}-{time.time_ns():x}"
            os.mkdir(folder, 0o755)
            lock = -1
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _read(f"{folder}/cgroup.type").strip() != "domain" or not os.path.exists(f"{folder}/cgroup.kill"):
                    raise OSError(f"`{self._home}` cannot have child cgroups")
            except OSError as error:
                if lock >= 0:
                    os.close(lock)
                if isinstance(error, BlockingIOError) or not os.path.isdir(folder):
                    continue
                _remove(folder)
                raise
            self._folder, self._lock = folder, lock
            return
        raise OSError("our cgroups are removed by another process")


def owner_of(folder: str | None, supervisor: int) -> str:
    """Which shims clean up after each other: those of a state directory, or of one supervisor (its pid) without one."""
    return f"p{supervisor}" if folder is None else f"{binascii.crc32(os.fsencode(folder)):08x}"


def remove_stale(home: str, owner: str) -> None:
    """Kill and remove the cgroups of exited shims of this owner, whose directories are not locked.

    Of other owners only empty ones are removed.
    """
    try:
        names = [name for name in os.listdir(home) if name.startswith(MARK)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            path = f"{home}/{name}"
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if name.startswith(f"{MARK}{owner}-"):
                        _kill(path)
                    else:
                        _remove(path)
            finally:
                os.close(fd)


def _kill(folder: str, *, kill: bool = True) -> None:
    """Kill the processes of a cgroup and remove it. It stays if that takes too long."""
    fence = RunCgroup(folder)
    if kill and fence.is_populated():
        fence.kill()
    end = time.monotonic() + _LAST_LOOKS
    while not fence.remove() and time.monotonic() < end:
        time.sleep(_LOOK)


def _remove(path: str) -> bool:
    """Remove a cgroup and those below it."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        try:
            below = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            if not below or not all(map(_remove, below)):
                return False
            os.rmdir(path)
        except OSError:
            return False
    return True


def _is_delegated(folder: str) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _can_kill(folder: str) -> bool:
    if os.path.exists(f"{folder}/cgroup.events"):
        return os.path.exists(f"{folder}/cgroup.kill")
    try:  # the root cgroup has neither file
        major, minor = os.uname().release.split(".")[:2]
        return (int(major), int("".join(filter(str.isdigit, minor)))) >= (5, 14)
    except ValueError:
        return False


def _unescaped(word: str) -> str:
    """Decode the spaces, tabs, newlines and backslashes of /proc: a backslash and three octal digits."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        word = word.replace(code, chr(int(code[1:], 8)))
    return word


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
