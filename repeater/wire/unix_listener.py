"""A listening Unix socket: binds a path, replaces a stale socket, and removes the path on close."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from repeater.errors import ApplyRefused
from repeater.wire.unix import cause_of, connect, proc_fd_path


class CannotListen(ApplyRefused):
    """The path of a socket cannot be used, or it is in use."""


class UnixListener:
    """A listening socket and its path.

    With `lock` the listener holds the file `PATH.lock` and refuses a path that is not a socket or that belongs to
    another user. Without `lock` the caller holds a lock and owns the directory, and any unused path is replaced.
    """

    def __init__(self, path: Path, *, peer: str, mode: int = 0o600, lock: bool = False) -> None:
        """`peer` names another process of the same kind in messages. Raises CannotListen."""
        self.path = path
        self._lock = -1
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
        try:
            if lock:
                self._lock = _take_lock(path, peer)
                _check_stale(path)
            _check_unused(path, "process" if lock else peer)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Linux creates the file with this mode minus the umask
                os.fchmod(self.socket.fileno(), 0o600)
            with proc_fd_path(path) as name:
                self.socket.bind(name)
            self._identity = _identity(path)
            path.chmod(mode)
            self.socket.listen(1024)
            self.socket.setblocking(False)
        except OSError as error:
            self._release()
            raise CannotListen(f"cannot listen on `{path}`: {cause_of(error)}") from error
        except CannotListen:
            self._release()
            raise

    def owns_path(self) -> bool:
        """Whether clients that connect to the path reach this socket."""
        return _identity(self.path) == self._identity

    def close(self) -> None:
        """Stop listening and remove the path. The lock file stays, because another process may be waiting for it."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.owns_path():
                self.path.unlink()
        self._release()

    def _release(self) -> None:
        self.socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the path, or None if it does not exist."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take_lock(path: Path, peer: str) -> int:
    import fcntl

    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        owner = os.fstat(fd).st_uid
        if owner not in (0, os.geteuid()):
            raise CannotListen(f"cannot listen on `{path}`: its lock belongs to user {owner}")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise CannotListen(f"cannot listen on `{path}`: address in use by another {peer}") from None
    except (OSError, CannotListen):
        os.close(fd)
        raise
    return fd


def _check_stale(path: Path) -> None:
    """Refuse to replace a file that a listener did not create. Raises CannotListen."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if found.st_uid not in (0, os.geteuid()):
        raise CannotListen(f"cannot listen on `{path}`: it belongs to user {found.st_uid}")
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotListen(f"cannot listen on `{path}`: the path exists and is not a socket")


def _check_unused(path: Path, peer: str) -> None:
    """Raises CannotListen if a process listens at the path, or may listen there."""
    try:
        connect(path, 1.0).close()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return
    except OSError as error:
        if path.is_symlink() or not path.is_socket():
            return
        raise CannotListen(f"cannot listen on `{path}`: address in use ({cause_of(error)})") from None
    raise CannotListen(f"cannot listen on `{path}`: address in use by another {peer}")
