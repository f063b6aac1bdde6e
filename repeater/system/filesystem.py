"""Reads job files: regular files only, bounded, never blocking. The `Files` that `app` hands to `jobfile`.

A FIFO, a device or a folder in the place of a file is an error, not a wait. Links are followed on purpose, because
mounted configuration is full of them; what was resolved is opened without following another one.
"""

from __future__ import annotations

import errno
import glob
import os
import stat

from repeater.jobfile.document import Missing, Unreadable

_CAUSES = {
    errno.ENOENT: "the file does not exist",
    errno.ENOTDIR: "the file does not exist",
    errno.EACCES: "permission denied",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "it is not a regular file",
}


class Filesystem:
    """The real disk."""

    def read(self, path: str, most: int) -> bytes:
        try:
            real = os.path.realpath(path, strict=True)
            if not stat.S_ISREG(os.lstat(real).st_mode):  # before opening: to open some devices is to use them
                raise Unreadable("it is a directory" if os.path.isdir(real) else "it is not a regular file")
            fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Unreadable("it is not a regular file")
                return _read_all(file.fileno(), most)
        except OSError as error:
            kind = Missing if error.errno in (errno.ENOENT, errno.ENOTDIR) else Unreadable
            raise kind(_CAUSES.get(error.errno or 0) or os.strerror(error.errno or 0).lower()) from None
        except ValueError:
            raise Unreadable("the name contains a zero byte") from None

    def resolve(self, path: str) -> str:
        try:
            return os.path.realpath(path)
        except (OSError, ValueError):
            return path

    def glob(self, folder: str, pattern: str) -> list[str]:
        found = glob.iglob(pattern, root_dir=folder, recursive=True, include_hidden=False)
        paths = (os.path.join(folder, name) for name in found)
        return sorted(path for path in paths if not os.path.isdir(path))


def _read_all(fd: int, most: int) -> bytes:
    parts, size = [], 0
    while chunk := os.read(fd, min(1 << 20, most + 1 - size)):
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            raise Unreadable(f"it has more than {most} bytes, the limit")
    return b"".join(parts)
