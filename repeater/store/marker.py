"""The marker beside the database: whether the database is in use, and how many commits it has at least.

The marker is one line, `open 1234` or `closed 1234`. Version 0.1.0 wrote the word alone. The number is written without
fsync after a commit that is on disk already, so after a power cut it can only be too low.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Marker:
    """The file at `path`. `note` keeps it open until `write` or `close` is called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def read(self) -> tuple[str, int | None]:
        """The word and the number; `("", None)` if there is no marker, None if it has no number. Raises OSError."""
        try:
            parts = self.path.read_bytes().decode("ascii", "replace").splitlines()[0].split()
        except (FileNotFoundError, IndexError):
            return "", None
        word, *rest = parts or [""]
        return word, int(rest[0]) if rest and rest[0].isdigit() else None

    def write(self, word: str, commits: int) -> None:
        """Write both durably. Raises OSError."""
        self.close()
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, f"{word} {commits}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def note(self, commits: int) -> None:
        """Write a higher number of an open database. A failure is ignored: the number may be too low."""
        with contextlib.suppress(OSError):
            if self._fd is None:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            os.pwrite(self._fd, b"open %d\n" % commits, 0)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
