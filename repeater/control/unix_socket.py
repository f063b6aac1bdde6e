"""The control socket of a supervisor: its path, binding, connecting, and the user of the other end.

The usual place is `$XDG_RUNTIME_DIR/repeater/PROJECT.sock`, with a link in the state folder, so that it is also found
without that variable. A supervisor with a state folder of its own (`--state-dir`) has it there; one without any
(`--ephemeral`) beside the usual place, with its pid in the name. Only the holder of the state lock binds it. A
stale name of an ended supervisor is replaced; a name that a process answers on is not.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.wire.unix import cause_of
from repeater.wire.unix_listener import CannotListen, UnixListener

LINK = "control.sock"


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


class ControlSocket(UnixListener):
    """The listening control socket and the link to it. The caller holds the lock of the state directory."""

    def __init__(self, place: SocketPath) -> None:
        """Raises CannotListen."""
        self._link: Path | None = None
        _check_folder(place.path.parent)
        super().__init__(place.path, peer="supervisor")
        self._make_link(place)

    def keeps_its_name(self) -> bool:
        """Whether clients that connect to the path reach this socket. Recreates the link if it was removed."""
        if not self.owns_path():
            return False
        if self._link is not None and not self._link.is_symlink():
            self._make_link(SocketPath(self.path, self._link))
        return True

    def _make_link(self, place: SocketPath) -> None:
        if place.link is None:
            return
        with contextlib.suppress(OSError):  # clients also find the socket without the link
            place.link.unlink(missing_ok=True)
            place.link.symlink_to(place.path)
            self._link = place.link

    def close(self) -> None:
        """Stop listening, and remove the socket, the link and the fallback directory."""
        super().close()
        with contextlib.suppress(OSError):
            if self._link is not None and self._link.readlink() == self.path:
                self._link.unlink()
        if self.path.parent == _fallback_dir():
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


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
