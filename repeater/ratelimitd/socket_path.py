"""The path of the socket of the rate-limit daemon, and its listener.

The Go tool's daemon, `patienced`, uses `/var/run/patience/daemon.sock`. A user who cannot create it has a socket in the
user's runtime directory. The client of the Go tool looks in `/tmp` by default: `PATIENCE_SOCKETS`. A daemon holds the
lock beside its socket. It replaces a stale socket, but not one at which a process listens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from repeater.wire.trust import Untrusted, check_path, check_peer, trusted_users
from repeater.wire.unix import cause_of, connect
from repeater.wire.unix_listener import CannotListen, UnixListener

USUAL = Path("/var/run/patience/daemon.sock")


PATIENCE_SOCKETS = (Path("/tmp/patience-daemon.sock"), Path("/tmp/retryd.sock"))  # noqa: S108 - fixed by the Go tool
"""The default paths at which the Go tool `patience` looks for its daemon, and to which it sends metrics of runs."""


def places(environ: Mapping[str, str]) -> Iterator[Path]:
    """The default paths of the socket of this machine's daemon, the preferred path first."""
    yield USUAL
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield Path(runtime) / "patience" / USUAL.name
    else:
        yield Path(tempfile.gettempdir()) / f"patience-{os.geteuid()}" / USUAL.name


def listen_path(environ: Mapping[str, str]) -> Path:
    """The first path at which this user can create a socket."""
    usual, spare = places(environ)
    return usual if _is_usable(usual.parent) else spare


def connect_path(environ: Mapping[str, str]) -> Path:
    """The first path with a socket, or else the path that `rpr daemon` would use."""
    for path in places(environ):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.W_OK):
                with contextlib.suppress(Untrusted):  # every user can create directories in /tmp
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
    """A function that returns the named path, or looks for the daemon at each call."""
    if named:
        path = Path(named).absolute()
        return lambda: path
    return lambda: connect_path(environ)


def _is_usable(folder: Path) -> bool:
    if folder.is_dir():
        return os.access(folder, os.W_OK | os.X_OK)
    return folder.parent.is_dir() and os.access(folder.parent, os.W_OK | os.X_OK)


class ListeningSocket(UnixListener):
    """The listening socket of the daemon. `mode` is the mode of the socket file."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        """Raises CannotListen."""
        try:
            _make_directory(path.parent)
        except OSError as error:
            raise CannotListen(f"cannot listen on `{path}`: {cause_of(error)}") from error
        super().__init__(path, peer="daemon", mode=mode, lock=True)


def _make_directory(directory: Path) -> None:
    """Create the directory. Refuse an existing one in which other users could replace the socket."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700)
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise CannotListen(f"cannot listen in `{directory}`: it is not a directory")
    if found.st_uid not in (0, os.geteuid()):
        raise CannotListen(f"cannot listen in `{directory}`: it belongs to user {found.st_uid}")
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise CannotListen(f"cannot listen in `{directory}`: it is world-writable")
