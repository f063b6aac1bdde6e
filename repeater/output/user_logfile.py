"""Opens the log file of a job for a supervisor that is root, in a way that another user cannot misuse.

Another user may be able to replace the file, or a folder on the way, by a link. As long as only root can change the
folder, root opens the file without following a link at its name. Otherwise the rest of the way is walked without
following links. A file there that has a second name is refused, because that name may be in a folder of root.

A job with `user` gets the file: a new one belongs to this user, and the rest of the way is walked with the rights of
the user, so that it leads to no file that the user could not write. For a job that runs as root, `user` and `group` are
None here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.wire.trust import Untrusted, check_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ROOT = (0,)
_MOST_LINKS = 40
_FILE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder of a log file. `user` and `group`: whose rights are needed there; None: those of root.

    `is_trusted`: only root can change it.
    """

    fd: int
    user: int | None = None
    group: int | None = None
    is_trusted: bool = False


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


def needs_care(path: str) -> bool:
    """Whether another user than root could change where an absolute path leads to. Only root has to care."""
    if os.geteuid() != 0:
        return False
    folder = Path(os.path.dirname(path))
    existing = _existing(folder)
    if _trusted_depth(existing.parts) < len(existing.parts):
        return True
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)  # a link of root, such as /dev/stdout, which leads to nothing that has a name
    return os.path.exists(target) and needs_care(target)


def _existing(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return folder if os.path.lexists(folder) or folder == folder.parent else _existing(folder.parent)


def open_folder(path: str, user: int | None, group: int | None, links: int = _MOST_LINKS) -> Folder:
    """The folder at an absolute path, made if it is not there. Links of root are followed. Raises OSError."""
    parts = Path(os.path.abspath(path)).parts
    trusted = _trusted_depth(parts)
    if trusted < len(parts) and links and os.path.islink(link := os.path.join(*parts[: trusted + 1])):
        target = os.path.join(os.path.dirname(link), os.readlink(link))  # only root could make this link
        return open_folder(os.path.join(target, *parts[trusted + 1 :]), user, group, links - 1)
    fd = os.open(os.path.join(*parts[:trusted]), _FOLDER)
    if trusted == len(parts):
        return Folder(fd, is_trusted=True)
    first = parts[trusted]
    try:
        if not _is_there(first, fd):  # only root can change the folder that it is in
            os.mkdir(first, 0o755, dir_fd=fd)
            if user is not None and group is not None:
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
            check_path(path, users=_ROOT)
            if path.is_dir() and not path.stat().st_mode & stat.S_IWOTH:
                return depth
    return 1


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def open_file(name: str, folder: Folder, user: int | None, group: int | None) -> int:
    """A descriptor to append to the file, which belongs to the user if it is new. Raises OSError."""
    with rights(folder):
        try:
            fd = os.open(name, _FILE | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder.fd)
            if folder.user is None and user is not None and group is not None:
                os.fchown(fd, user, group)
        except FileExistsError:
            fd = os.open(name, _FILE, dir_fd=folder.fd)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if found.st_nlink > 1 and user is None and not folder.is_trusted:
        os.close(fd)
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
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
