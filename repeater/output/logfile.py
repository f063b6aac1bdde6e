"""The log file of a job: rotated by size, reopened when another process moved or removed it.

The files are `name`, `name.1` (the newest backup) to `name.N`. A file is cut between lines if a whole line fits. Called
in a writer's thread only (`output.background_writer`), so that a slow disk does not delay the loop. It never raises:
lost bytes are counted, reported once, and noted in the file when writing works again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.output import user_logfile


class LogFile:
    """A file, opened with the first write. `max_size` 0 never rotates. `warn` is called in the writing thread.

    `is_ours`: it is rpr's own file, readable by its user only and not reached through a link. `owner` is the user and
    the group of a job that runs as another user. `user_logfile` opens the file of such a job. It also opens any file of
    a job that another user could replace while this process is root.
    """

    def __init__(
        self,
        path: str,
        max_size: int,
        backups: int,
        warn: Callable[[Reason], None],
        *,
        is_ours: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self.max_size = max_size
        self.backups = backups
        self._warn = warn
        self._is_ours = is_ours
        self.owner = owner
        self._folder: user_logfile.Folder | None = None
        self._fd: int | None = None
        self._size = 0
        self._lost = 0

    def write(self, data: bytes) -> None:
        """Append, and rotate if needed."""
        remaining = data
        try:
            self._open()
            if self._lost:
                self._append(f"\n[rpr: {self._lost} bytes could not be written here]\n".encode())
                self._lost = 0
            while remaining:
                fits = self._fitting(remaining)
                if fits == 0:
                    self._rotate()
                    continue
                written = self._append(remaining[:fits])
                remaining = remaining[written:]
        except OSError as error:
            if not self._lost:
                self._warn(because("file_unwritable", path=self.path, errno=errno.errorcode.get(error.errno or 0)))
            self._lost += len(remaining)
            self.close()

    def skip(self, size: int) -> None:
        """Count bytes that were dropped before writing."""
        self._lost += size

    def close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None
        if self._folder is not None:
            os.close(self._folder.fd)
            self._folder = None

    def _open(self) -> None:
        """Open the file that has the path now, and read its current size."""
        if self._fd is not None:
            with contextlib.suppress(FileNotFoundError):
                there, ours = self._stat(), os.fstat(self._fd)
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    self._size = ours.st_size  # another process may have truncated it
                    return
            self.close()
        if self.owner is not None or (not self._is_ours and user_logfile.needs_care(self.path)):
            owner = self.owner or (None, None)
            self._folder = user_logfile.open_folder(os.path.dirname(self.path) or ".", *owner)
            self._fd = user_logfile.open_file(os.path.basename(self.path), self._folder, *owner)
            self._size = os.fstat(self._fd).st_size
            return
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        # O_NONBLOCK: a FIFO without reader would block the thread that writes the files of all jobs.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        flags |= os.O_NOFOLLOW if self._is_ours else 0
        self._fd = os.open(self.path, flags, 0o600 if self._is_ours else 0o644)
        self._size = os.fstat(self._fd).st_size

    def _fitting(self, data: bytes) -> int:
        """Number of bytes that fit into this file; 0: rotate first."""
        if not self.max_size:
            return len(data)
        room = self.max_size - self._size
        if len(data) <= room:
            return len(data)
        line_end = data.rfind(b"\n", 0, max(0, room)) + 1
        if line_end:
            return line_end
        # The line does not fit. It begins in the next file, unless this one is empty already.
        return max(1, room) if self._size == 0 else 0

    def _append(self, data: bytes) -> int:
        assert self._fd is not None
        written = os.write(self._fd, data)
        self._size += written
        return written

    def _stat(self) -> os.stat_result:
        if self._folder is None:
            return os.stat(self.path)
        return os.stat(os.path.basename(self.path), dir_fd=self._folder.fd, follow_symlinks=False)

    def _rotate(self) -> None:
        if self._folder is not None:
            self._rotate_in(self._folder)
            return
        self.close()
        for number in range(self.backups, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self.path}.{number}")
        if self.backups == 0:
            os.truncate(self.path, 0)
        self._open()

    def _rotate_in(self, folder: user_logfile.Folder) -> None:
        assert self._fd is not None
        name = os.path.basename(self.path)
        with user_logfile.rights(folder):
            for number in range(self.backups, 0, -1):
                older = name if number == 1 else f"{name}.{number - 1}"
                with contextlib.suppress(FileNotFoundError):
                    os.replace(older, f"{name}.{number}", src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        if self.backups == 0:
            os.ftruncate(self._fd, 0)
        self.close()
        self._open()
