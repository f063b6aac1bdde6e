"""Free file descriptors of this process, and a reserve of them that a listening socket owns.

A process that has no free descriptor cannot accept a connection and cannot start a job. `free_descriptors` counts the
free ones. `Spares` holds a few descriptors open, so that a listening socket can still accept a connection when other
parts of the process have taken all free ones.
"""

from __future__ import annotations

import errno
import os
import resource
import sys

LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of a process or system that has no descriptor or no memory for another socket."""
MOST_RESERVED = 32
_LISTING = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def free_descriptors() -> int:
    """The number of descriptors that this process may still open; 0 if even the count needs one more."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 30
    try:
        used = len(os.listdir(_LISTING)) - 1  # the listing itself is one of them
    except FileNotFoundError:  # a system without this directory: only `accept` can report the lack
        return limit
    except OSError:
        return 0
    return max(0, limit - used)


def reserve() -> int:
    """The number of descriptors that connections must leave to the jobs: 32, or a quarter of a low limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_RESERVED if limit == resource.RLIM_INFINITY else min(MOST_RESERVED, limit // 4)


class Spares:
    """Keeps `count` descriptors open. Giving one up guarantees that the next `accept` gets one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: list[int] = []
        self.refill()

    def give_up(self) -> bool:
        """Close one of them. Returns False if none is left."""
        if not self._fds:
            return False
        os.close(self._fds.pop())
        return True

    @property
    def are_missing(self) -> bool:
        return len(self._fds) < self._count

    def refill(self) -> None:
        """Open the missing descriptors, as far as possible."""
        try:
            while self.are_missing:
                self._fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return

    def close(self) -> None:
        self._count = 0
        while self.give_up():
            pass
