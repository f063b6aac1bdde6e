"""Starts a process with `posix_spawn`: a third of what `subprocess.Popen` costs, for what most jobs are.

That call can set a session and descriptors, and nothing else: who needs another folder, user or umask goes through
Popen (`keeper.process`, the only caller). It closes no descriptors either. All that Python opens close themselves in a
child; those that we were started with are told to, once, before the first start.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from functools import cache

_AS_PYTHON_FOUND_THEM = (signal.SIGPIPE, signal.SIGXFSZ)  # it ignores both, which a child would inherit
_RESERVED = 3  # a descriptor below may be overwritten while the child arranges its own


def can_start(cwd: str, stdin: int | None, outputs: tuple[int, int]) -> bool:
    """Whether `start` can do it: `cwd` is where we are, and no descriptor stands in the way of another."""
    if not hasattr(os, "pidfd_open"):  # an old or foreign C library may not know sessions
        return False
    moves = ((stdin, 0), (outputs[0], 1), (outputs[1], 2))
    if any(fd is not None and fd < _RESERVED and fd != place for fd, place in moves):
        return False
    return (not cwd or cwd == os.getcwd()) and _is_sealed()


def start(
    program: str, argv: tuple[str, ...], env: Mapping[str, str], stdin: int | None, outputs: tuple[int, int]
) -> int:
    """The pid of a new process that leads a session. `stdin` None: nothing to read. Raises OSError and ValueError."""
    return os.posix_spawn(
        program,
        argv,
        env,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, outputs[0], 1),
            (os.POSIX_SPAWN_DUP2, outputs[1], 2),
        ),
        setsid=True,
        setsigdef=_AS_PYTHON_FOUND_THEM,
    )


@cache
def _is_sealed() -> bool:
    """Tell descriptors from outside to close themselves; False where they cannot be found."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return False
    for fd in map(int, names):
        with contextlib.suppress(OSError):  # the one that listed the folder
            if fd >= _RESERVED and os.get_inheritable(fd):
                os.set_inheritable(fd, False)
    return True
