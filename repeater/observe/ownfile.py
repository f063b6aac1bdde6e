"""Opens the log file of a job that runs as another user, in a way that this user cannot misuse.

The supervisor is root then, and the user may be able to replace the file or a folder on the way by a link. As long as
only root can change the folder, root opens the file without following a link at its name, and gives a new file to the
user. Otherwise the rest of the way is walked without following links, with the rights of the user: whatever the user
puts there leads to no file that the user could not write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from repeater.dataclass import dataclass
from repeater.wire.trust import Untrusted, check_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder of a log file. `user` and `group`: whose rights are needed there; None: those of root."""

    fd: int
    user: int | None = None
    group: int | None = None


def file_owner(user: str, group: str | None) -> tuple[int, int] | None:
    """Numbers of the user and group of a job's files; None if they are those of this process, or are not known."""
    import grp
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        number = entry.pw_gid
        if group is not None:
            number = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:  # its run cannot be started either, and says why
        return None
    return None if os.geteuid() != 0 or entry.pw_uid == 0 else (entry.pw_uid, number)


def open_folder(path: str, user: int, group: int) -> Folder:
    """The folder at an absolute path, made if it is not there. Raises OSError."""
    parts = Path(os.path.abspath(path)).parts
    trusted = _trusted_depth(parts)
    fd = os.open(os.path.join(*parts[:trusted]), _FOLDER)
    if trusted == len(parts):
        return Folder(fd)
    first = parts[trusted]
    try:
        if not _is_there(first, fd):  # only root can change the folder that it is in
            os.mkdir(first, 0o755, dir_fd=fd)
            os.chown(first, user, group, dir_fd=fd, follow_symlinks=False)
    except OSError:
        os.close(fd)
        raise
    folder = Folder(fd, user, group)
    for part in parts[trusted:]:
        with rights(folder):
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder.fd)
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder.fd)
            finally:
                os.close(folder.fd)
        folder = Folder(inner, user, group)
    return folder


def _trusted_depth(parts: tuple[str, ...]) -> int:
    """How many parts of a path lead to a folder that is there and that only root can change."""
    for depth in range(len(parts), 1, -1):
        path = Path(*parts[:depth])
        with contextlib.suppress(OSError, Untrusted):
            check_path(path, users=(0,))
            if path.is_dir() and not path.stat().st_mode & stat.S_IWOTH:
                return depth
    return 1


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def open_file(name: str, folder: Folder, user: int, group: int) -> int:
    """A descriptor to append to the file, which belongs to the user if it is new. Raises OSError."""
    with rights(folder):
        try:
            fd = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder.fd)
            if folder.user is None:
                os.fchown(fd, user, group)
        except FileExistsError:
            fd = os.open(name, _FILE, dir_fd=folder.fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return fd


@contextlib.contextmanager
def rights(folder: Folder) -> Iterator[None]:
    """Within, this thread has the rights on files that the folder needs. Other threads keep theirs."""
    if folder.user is None or folder.group is None:
        yield
        return
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "setfsuid"):  # not Linux: only the walk without links protects there
        yield
        return
    group, user = libc.setfsgid(folder.group), libc.setfsuid(folder.user)
    try:
        yield
    finally:
        libc.setfsuid(user)
        libc.setfsgid(group)
