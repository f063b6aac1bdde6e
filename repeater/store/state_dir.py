"""The state directory: its path, its files and its lock.

The process that holds the lock may write. All other processes may only read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from repeater.errors import LockHeld, StateUnavailable
from repeater.wire.trust import Untrusted, check_path, shown_user

DATABASE = "history.db"
MARKER = "began"  # beside the database since the first start; without it, a missing database means a first start
LOCK = "lock"
RECOVERY_HINT = "to start a new history, move the state directory away or use `--state-dir`"


def state_folder(project: str, environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/repeater/<project>`, by default below `~/.local/state`. Nothing is created."""
    return _state_root(environ) / "repeater" / project


def rate_limit_folder(socket: Path, environ: Mapping[str, str]) -> Path:
    """The directory of the rate-limit daemon with this socket, below the same root."""
    import hashlib

    return _state_root(environ) / "repeater-daemon" / hashlib.sha256(os.fsencode(socket)).hexdigest()[:16]


def _state_root(environ: Mapping[str, str]) -> Path:
    root = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(root):  # the XDG base directory specification: relative paths are ignored
        root = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(root)


class Lock:
    """Its holder owns the state directory. The kernel releases the lock when the process ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock. Creates the directory (0700) if needed. Raises LockHeld or StateUnavailable."""
        import fcntl

        make_folder(folder)
        path = folder / LOCK
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise state_unavailable(path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _lock_owner(self._fd) if isinstance(error, BlockingIOError) else None
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                raise LockHeld(str(folder), holder) from None
            raise state_unavailable(path, error) from error
        with contextlib.suppress(OSError):  # a full disk: the lock works without its text
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {boot_id()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays, because without it two processes could hold a lock."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _lock_owner(fd: int) -> int | None:
    """The pid in a lock that is held. None if there is none. A process that has just taken it gets time to write it."""
    for _ in range(50):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(os.pread(fd, 100, 0).split()[0])
            with contextlib.suppress(PermissionError):
                os.kill(pid, 0)  # the pid of a process that has exited is older than the lock
            return pid
        time.sleep(0.01)
    return None


def owner_of(folder: Path) -> int | None:
    """The process that holds the lock of a state directory. None if there is none. The lock is not touched.

    The source is `/proc/locks`, because the text in the file may be older than the lock.
    """
    path = folder / LOCK
    try:
        found, words = path.stat(), path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
    pid = int(words[0]) if words and words[0].isdigit() else None
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return pid if pid is not None and words[1:] == [boot_id()] and Path(f"/proc/{pid}").exists() else None
    holders = [line.split() for line in locks.splitlines() if name in line]
    holder = next((int(line[-4]) for line in holders if "FLOCK" in line and "->" not in line), None)
    return pid if holder is not None and holder <= 0 else holder  # a process of another PID namespace has 0 or -1


def boot_id() -> str:
    """Identifies the time since the machine started. Readings of the monotonic clock are comparable within it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux: when the machine started, to the minute
        return str(round((time.time() - time.monotonic()) / 60))


def make_folder(folder: Path) -> None:
    """Create a state directory that only this user can enter, if it does not exist. Missing parents get the mode 0700,
    independent of the umask. Raises StateUnavailable, also if another user could replace the directory.
    """
    missing = []
    there = Path(os.path.abspath(folder))
    try:
        while not os.path.lexists(there):
            missing.append(there)
            there = there.parent
        check_path(there, links=len(missing) > 1, of=folder)
        for one in reversed(missing):
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=0o700)
                one.chmod(0o700)
        check_path(folder, links=False)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if found.st_uid != os.geteuid():
            raise state_unavailable(folder, f"it belongs to {shown_user(found.st_uid)}")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    except Untrusted as error:
        raise state_unavailable(
            folder, error, "use another directory with `--state-dir`, or remove write permission of other users"
        ) from None
    except OSError as error:
        raise state_unavailable(folder, error) from error


def state_unavailable(path: Path, why: object, hint: str | None = None) -> StateUnavailable:
    cause = os.strerror(why.errno) if isinstance(why, OSError) and why.errno else str(why)
    return StateUnavailable(
        f"cannot use state `{path}`: {cause}",
        hint=hint or "use another directory with `--state-dir`, or run without history with `--ephemeral`",
    )


def file_identities(folder: Path | None) -> list[tuple[int, int] | None]:
    """Device and inode of the lock, the database and its WAL, by their names."""
    found: list[tuple[int, int] | None] = []
    for name in (LOCK, DATABASE, f"{DATABASE}-wal") if folder is not None else ():
        try:
            there = os.stat(f"{folder}/{name}")
        except OSError:
            found.append(None)
        else:
            found.append((there.st_dev, there.st_ino))
    return found
