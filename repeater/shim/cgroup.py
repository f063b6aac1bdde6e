"""Fences: a cgroup (v2) of its own for a run, out of which nothing gets by forking. Process level C.

The kernel kills all that is inside at once (`cgroup.kill`), and tells when it is empty, whatever its processes did with
their sessions, parents and environments. Only below a cgroup that was given to us (`home`), and never anything there
but what carries our mark: a folder for each keeper, locked while it lives, and in it a folder for each fenced run.

A process is born where its parent is. So the keeper goes into the fence itself, starts the run, and comes back: no
instruction of the run is outside, and starting is the same as ever. That moves the whole keeper, so nothing else may be
started meanwhile, and no fence is killed that the keeper did not get out of. It costs a millisecond, and 20 at worst.

Called by `shim.server`; `apps.doctor` asks for `home`. Standard library only. What fails here must fail no start.
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
_LAST_LOOKS = 1.0  # seconds that what was killed may take to be gone
_LOOK = 0.005


class NotDelegated(Exception):
    """There is no cgroup here that we may divide; says why."""


def delegated_root() -> str:
    """The folder of our own cgroup, if it is ours to divide. Only looks. Raises NotOurs."""
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
    """Folder and path of our own cgroup, from the texts of mountinfo and cgroup in /proc/self. Raises NotOurs."""
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
        """Whether anything in it lives. Zombies do not count."""
        try:
            return "populated 1" in _read(f"{self.path}/cgroup.events")
        except OSError:  # it is gone
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
        """All that is in it, at once."""
        with contextlib.suppress(OSError):
            _write(f"{self.path}/cgroup.kill", b"1")

    def remove(self) -> bool:
        """Whether it is gone; not as long as anything in it lives."""
        return _remove(self.path)


class RunCgroups:
    """Those of one keeper, below `home`. What dead keepers of the same `owner` left there is ended and removed."""

    def __init__(self, home: str, owner: str) -> None:
        self._home = home
        self._owner = owner
        self._folder = ""
        self._lock = -1
        self._count = count(1)
        self._is_lost = False
        remove_stale(home, owner)

    def begin(self, run: str, start: Callable[[], T]) -> tuple[T, RunCgroup | None, str]:
        """Call `start` inside of a new fence: what it gave, and the fence; None if that cannot be, and why."""
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
        """Everything is dead: remove what can be."""
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
        """Make and lock our own folder. Whoever clears up may be quicker than we are with the lock."""
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
    """Whose keepers take care of each other: those of a state folder, or of one supervisor (its pid) without any."""
    return f"p{supervisor}" if folder is None else f"{binascii.crc32(os.fsencode(folder)):08x}"


def remove_stale(home: str, owner: str) -> None:
    """End and remove what keepers of this owner left that are dead: nobody locks their folders any more.

    Of others only what is empty is removed.
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
    """Kill what is in a cgroup, and remove it when that is dead; it stays if that takes too long."""
    fence = RunCgroup(folder)
    if kill and fence.is_populated():
        fence.kill()
    end = time.monotonic() + _LAST_LOOKS
    while not fence.remove() and time.monotonic() < end:
        time.sleep(_LOOK)


def _remove(path: str) -> bool:
    """Remove a cgroup and what it was divided into."""
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
    try:  # the root of all has neither file
        major, minor = os.uname().release.split(".")[:2]
        return (int(major), int("".join(filter(str.isdigit, minor)))) >= (5, 14)
    except ValueError:
        return False


def _unescaped(word: str) -> str:
    """As /proc writes spaces and the like: a backslash and three octal digits."""
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
