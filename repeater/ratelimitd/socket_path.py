"""Where the socket of the rate-limit daemon is, and how it gets there.

`/var/run/patience/daemon.sock` is the place of the Go tool's daemon, `patienced`; who may not make it has one in the
runtime folder of the user. The client of the Go tool looks in `/tmp` by default: `PATIENCE_SOCKETS`. Binding is only
for whoever holds the lock beside the socket: a name that a dead daemon left is taken over, one that somebody answers
at is not. Used by `app` and by whoever looks for the daemon.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from repeater.errors import ApplyRefused
from repeater.wire.trust import Untrusted, check_path, check_peer, trusted_users
from repeater.wire.unix import cause_of, connect, proc_fd_path

USUAL = Path("/var/run/patience/daemon.sock")


PATIENCE_SOCKETS = (Path("/tmp/patience-daemon.sock"), Path("/tmp/retryd.sock"))  # noqa: S108 - fixed by the Go tool
"""Where the Go tool `patience` looks for its daemon by default, and where it sends the metrics of its runs."""


class CannotListen(ApplyRefused):
    """There is no place for the socket of a daemon, or it is taken."""


def places(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where the daemon of this machine may be if nobody names a socket, the first choice first."""
    yield USUAL
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield Path(runtime) / "patience" / USUAL.name
    else:
        yield Path(tempfile.gettempdir()) / f"patience-{os.geteuid()}" / USUAL.name


def listen_path(environ: Mapping[str, str]) -> Path:
    """The first place that can be used by us."""
    usual, spare = places(environ)
    return usual if _is_usable(usual.parent) else spare


def connect_path(environ: Mapping[str, str]) -> Path:
    """The first place where a socket is; where none is, the one that `rpr daemon` would use."""
    for path in places(environ):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.W_OK):
                with contextlib.suppress(Untrusted):  # anybody makes folders in /tmp
                    check_path(path)
                    return path
    return listen_path(environ)


def open_daemon(path: Path, timeout: float) -> socket.socket:
    """A connection to a daemon. Raises OSError like `wire.unix.connect`, and Untrusted.

    Users may share the daemon of another user by naming its socket, so the process that listens may also be the owner
    of the folder that the socket is in, which no third user may change.
    """
    users = {*trusted_users(), path.parent.stat().st_uid}
    check_path(path, users=users)
    sock = connect(path, timeout)
    try:
        check_peer(sock, users)
    except Untrusted:
        sock.close()
        raise
    return sock


def path_resolver(named: str | None, environ: Mapping[str, str]) -> Callable[[], Path]:
    """Gives the place to ask, anew at each call: the one that was named, or the usual one as it is then."""
    if named:
        path = Path(named).absolute()
        return lambda: path
    return lambda: connect_path(environ)


def _is_usable(folder: Path) -> bool:
    if folder.is_dir():
        return os.access(folder, os.W_OK | os.X_OK)
    return folder.parent.is_dir() and os.access(folder.parent, os.W_OK | os.X_OK)


class ListeningSocket:
    """A listening socket under its name, with the lock that belongs to it. `mode` is that of the socket's file."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        """Raises CannotListen."""
        self.path = path
        self._lock = -1
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
        try:
            _make_folder(path.parent)
            self._lock = _take_lock(path)
            _check_free(path)
            with contextlib.suppress(OSError):  # Linux gives the file this mode, less the umask
                os.fchmod(self.socket.fileno(), 0o600)
            with proc_fd_path(path) as name:
                self.socket.bind(name)
            self._inode = path.lstat().st_ino
            path.chmod(mode)
            self.socket.listen(1024)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            self._unlock()
            raise CannotListen(f"cannot listen on `{path}`: {cause_of(error)}") from error
        except CannotListen:
            self.socket.close()
            self._unlock()
            raise

    def close(self) -> None:
        """Nobody is let in any more, and the name is free. The file of the lock stays: others may be waiting at it."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _make_folder(folder: Path) -> None:
    """Make the folder if it is not there; refuse one in which anybody could put another socket in our place."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise CannotListen(f"cannot listen in `{folder}`: it is not a directory")
    if found.st_uid not in (0, os.geteuid()):
        raise CannotListen(f"cannot listen in `{folder}`: it belongs to user {found.st_uid}")
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise CannotListen(f"cannot listen in `{folder}`: it is world-writable")


def _take_lock(path: Path) -> int:
    import fcntl

    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    owner = os.fstat(fd).st_uid
    if owner not in (0, os.geteuid()):
        os.close(fd)
        raise CannotListen(f"cannot listen on `{path}`: its lock belongs to user {owner}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise CannotListen(f"cannot listen on `{path}`: address in use by another daemon") from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _check_free(path: Path) -> None:
    """Remove what a dead daemon left. Raises CannotListen if somebody listens, or if it is no socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if found.st_uid not in (0, os.geteuid()):
        raise CannotListen(f"cannot listen on `{path}`: it belongs to user {found.st_uid}")
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotListen(f"cannot listen on `{path}`: the path exists and is not a socket")
    try:
        connect(path, 1.0).close()
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotListen(f"cannot listen on `{path}`: address in use ({cause_of(error)})") from None
    else:
        raise CannotListen(f"cannot listen on `{path}`: address in use by another process")
