"""Where the socket of a supervisor is, and how it gets there: paths, binding, connecting, and who is at the other end.

The usual place is `$XDG_RUNTIME_DIR/repeater/PROJECT.sock`, with a link in the state folder, so that it is also found
without that variable. A supervisor with a state folder of its own (`--state-dir`) has it there; one without any
(`--ephemeral`) beside the usual place, with its pid in the name. Binding is only for whoever holds the state lock: a
name that a dead supervisor left is taken over, one that somebody answers at is not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.errors import RepeaterError
from repeater.wire.unix import cause_of, connect, proc_fd_path

LINK = "control.sock"


class CannotListen(RepeaterError):
    """There is no place for a socket. A supervisor goes on without one."""


@dataclass(frozen=True, slots=True)
class SocketPath:
    """Where a socket belongs, and the link that also leads there, if any."""

    path: Path
    link: Path | None = None


def runtime_dir(environ: Mapping[str, str]) -> Path | None:
    """`$XDG_RUNTIME_DIR/repeater`; None where there is no such folder for this user."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "repeater" if os.path.isabs(base) and os.path.isdir(base) else None


def _fallback_dir() -> Path:
    return Path(tempfile.gettempdir()) / f"repeater-{os.geteuid()}"


def socket_path_for(project: str, state: Path | None, environ: Mapping[str, str], *, own_state: bool) -> SocketPath:
    """Where a supervisor listens. `state` None: it keeps none; `own_state`: not the project's usual folder."""
    usual = runtime_dir(environ)
    if state is None:
        return SocketPath((usual or _fallback_dir()) / f"{project}@{os.getpid()}.sock")
    if own_state or usual is None:
        return SocketPath(state / LINK)
    return SocketPath(usual / f"{project}.sock", state / LINK)


def candidate_paths(project: str, state: Path, environ: Mapping[str, str], *, own_state: bool) -> Iterator[Path]:
    """Where a supervisor of a project may listen, the likeliest first."""
    yield state / LINK
    if own_state:
        return
    for folder in (runtime_dir(environ), _fallback_dir()):
        if folder is not None:
            yield folder / f"{project}.sock"
            yield from sorted(folder.glob(f"{project}@*.sock"))


def all_socket_paths(environ: Mapping[str, str]) -> Iterator[Path]:
    """The sockets of all projects of this user that are at a usual place."""
    for folder in (runtime_dir(environ), _fallback_dir()):
        if folder is not None:
            yield from sorted(folder.glob("*.sock"))


# --- the listening end ----------------------------------------------------------------------------------------------


class ControlSocket:
    """A listening socket under its name. The caller holds the lock of the state that belongs to it."""

    def __init__(self, place: SocketPath) -> None:
        """Raises CannotListen."""
        self.path = place.path
        self._link: Path | None = None
        _check_folder(place.path.parent)
        if _is_listening(place.path):
            raise CannotListen(f"cannot listen on `{place.path}`: address in use by another supervisor")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
        try:
            with contextlib.suppress(FileNotFoundError):
                place.path.unlink()
            with contextlib.suppress(OSError):  # Linux gives the file these; elsewhere the folder alone guards it
                os.fchmod(self.socket.fileno(), 0o600)
            with proc_fd_path(place.path) as name:
                self.socket.bind(name)
            self._identity = _identity(place.path)
            self.socket.listen(1024)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            raise CannotListen(f"cannot listen on `{place.path}`: {cause_of(error)}") from error
        self._make_link(place)

    def keeps_its_name(self) -> bool:
        """Whether clients that look for the name find this socket. A link that was removed is made again."""
        if _identity(self.path) != self._identity:
            return False
        if self._link is not None and not self._link.is_symlink():
            self._make_link(SocketPath(self.path, self._link))
        return True

    def _make_link(self, place: SocketPath) -> None:
        if place.link is None:
            return
        with contextlib.suppress(OSError):  # a convenience only
            place.link.unlink(missing_ok=True)
            place.link.symlink_to(place.path)
            self._link = place.link

    def close(self) -> None:
        """Nobody is let in any more, and the name is free."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
        with contextlib.suppress(OSError):
            if self._link is not None and self._link.readlink() == self.path:
                self._link.unlink()
        if self.path.parent == _fallback_dir():
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_folder(folder: Path) -> None:
    """A folder that only we can enter, made if it is not there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
            found = folder.lstat()
    except OSError as error:
        raise CannotListen(f"cannot use directory `{folder}` for the socket: {cause_of(error)}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise CannotListen(f"cannot use directory `{folder}` for the socket: it is a symbolic link")
    if found.st_uid != os.geteuid():
        raise CannotListen(f"cannot use directory `{folder}` for the socket: it belongs to user {found.st_uid}")


def _is_listening(path: Path) -> bool:
    try:
        connect(path, 1.0).close()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except OSError:
        return path.exists() and not path.is_symlink() and path.is_socket()
    return True
