"""Starts a process with `posix_spawn`, which costs a third of `subprocess.Popen`. Most jobs can be started this way.

The call sets a session and descriptors only: a job with another directory, user or umask needs Popen (`shim.spawn`). It
closes no descriptors. Those that Python opens are close-on-exec; inherited ones are made so once, before the first
start.

`spawn_in_dir` is the same call of the C library through ctypes. It can set the directory too (`addchdir_np`, glibc
2.29, musl 1.1.24), and other threads run meanwhile. The import of ctypes is slow, so only the shim uses it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from itertools import starmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any

_AS_PYTHON_FOUND_THEM = (signal.SIGPIPE, signal.SIGXFSZ)  # it ignores both, which a child would inherit
_LONG = 1024  # characters of a value that is not cached
_RESERVED = 3  # a descriptor below may be overwritten while the child arranges its own


def can_start(cwd: str, stdin: int | None, outputs: tuple[int, int]) -> bool:
    """Whether `spawn` can do it: `cwd` is the current directory, and no descriptor overwrites another."""
    if not hasattr(os, "pidfd_open"):  # an old or foreign C library may not know sessions
        return False
    return inherits_nothing(stdin, outputs) and (not cwd or _is_here(cwd)) and _is_cloexec()


def _is_here(folder: str) -> bool:
    try:
        return folder == os.getcwd()
    except OSError:  # the current directory was removed
        return False


def inherits_nothing(stdin: int | None, outputs: tuple[int, int]) -> bool:
    """Whether no descriptor overwrites another."""
    out, err = outputs
    if not (out >= _RESERVED or out == 1) or not (err >= _RESERVED or err == 2):
        return False
    return stdin is None or stdin >= _RESERVED or stdin == 0


def spawn(
    program: str, argv: tuple[str, ...], env: Mapping[str, str], stdin: int | None, outputs: tuple[int, int]
) -> int:
    """The pid of a new process that leads a session. `stdin` None: nothing to read. Raises OSError and ValueError."""
    return os.posix_spawn(
        program,
        argv,
        env,
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, outputs[0], 1),  # also for an inherited one, which may be close-on-exec
            (os.POSIX_SPAWN_DUP2, outputs[1], 2),
        ),
        setsid=True,
        setsigdef=_AS_PYTHON_FOUND_THEM,
    )


@cache
def can_spawn_in_dir() -> bool:
    """Whether `spawn_in_dir` works here, and no inherited descriptor would leak."""
    return _spawning() is not None and _is_cloexec()


def spawn_in_dir(
    program: str,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    stdin: int | None,
    outputs: tuple[int, int],
    cwd: str,
) -> int:
    """As `spawn`, in directory `cwd`. The descriptors are above 2."""
    spawning = _spawning()
    assert spawning is not None
    return spawning.start(program, argv, env, stdin, outputs, cwd)


@cache
def _spawning() -> _SpawnAttributes | None:
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "posix_spawn_file_actions_addchdir_np") or not hasattr(os, "pidfd_open"):
        return None
    return _SpawnAttributes(ctypes, libc)


class _SpawnAttributes:
    """posix_spawn(3) by ctypes, in the words of <spawn.h> as glibc and musl have them."""

    _SETSIGDEF, _SETSID = 0x04, 0x80
    _ROOM = 1024  # bytes for a structure of which we only know that it is smaller

    def __init__(self, c: Any, libc: ctypes.CDLL) -> None:
        self._c = c
        self._libc = libc
        pointer, number, text = c.c_void_p, c.c_int, c.c_char_p
        libc.posix_spawn.argtypes = [c.POINTER(number), text, pointer, pointer, pointer, pointer]
        libc.posix_spawn_file_actions_adddup2.argtypes = [pointer, number, number]
        libc.posix_spawn_file_actions_addopen.argtypes = [pointer, number, text, number, number]
        libc.posix_spawn_file_actions_addchdir_np.argtypes = [pointer, text]
        libc.posix_spawnattr_setflags.argtypes = [pointer, c.c_short]
        defaults = c.create_string_buffer(self._ROOM)
        libc.sigemptyset(defaults)
        for one in _AS_PYTHON_FOUND_THEM:
            libc.sigaddset(defaults, int(one))
        self._attributes = c.create_string_buffer(self._ROOM)  # only read from here on, so threads may share it
        libc.posix_spawnattr_init(self._attributes)
        libc.posix_spawnattr_setsigdefault(self._attributes, defaults)
        libc.posix_spawnattr_setflags(self._attributes, self._SETSIGDEF | self._SETSID)

    def start(
        self,
        program: str,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        stdin: int | None,
        outputs: tuple[int, int],
        cwd: str,
    ) -> int:
        libc, pid = self._libc, self._c.c_int()
        words, variables = self._array(map(_text, argv)), self._array(starmap(_variable, env.items()))
        actions = self._c.create_string_buffer(self._ROOM)
        libc.posix_spawn_file_actions_init(actions)
        try:
            if cwd:
                libc.posix_spawn_file_actions_addchdir_np(actions, _text(cwd))
            if stdin is None:
                libc.posix_spawn_file_actions_addopen(actions, 0, b"/dev/null", os.O_RDONLY, 0)
            else:
                libc.posix_spawn_file_actions_adddup2(actions, stdin, 0)
            libc.posix_spawn_file_actions_adddup2(actions, outputs[0], 1)
            libc.posix_spawn_file_actions_adddup2(actions, outputs[1], 2)
            failed = libc.posix_spawn(self._c.byref(pid), _text(program), actions, self._attributes, words, variables)
        finally:
            libc.posix_spawn_file_actions_destroy(actions)
        if failed:
            raise OSError(failed, os.strerror(failed), program)
        return int(pid.value)

    def _array(self, texts: Iterable[bytes]) -> ctypes.Array[ctypes.c_char_p]:
        found = (*texts, None)
        array: ctypes.Array[ctypes.c_char_p] = (self._c.c_char_p * len(found))(*found)
        return array


def _variable(name: str, value: str) -> bytes:
    return _encoded_variable(name, value) if len(value) < _LONG else _encoded_variable.__wrapped__(name, value)


@lru_cache(maxsize=512)  # most variables are those of every start
def _encoded_variable(name: str, value: str) -> bytes:
    if not name or "=" in name:
        raise ValueError("illegal environment variable name")
    return _text(f"{name}={value}")


def _text(text: str) -> bytes:
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


@cache
def _is_cloexec() -> bool:
    """Make inherited descriptors close-on-exec. False where they cannot be listed."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return False
    for fd in map(int, names):
        with contextlib.suppress(OSError):  # the descriptor that listed them
            if fd >= _RESERVED and os.get_inheritable(fd):
                os.set_inheritable(fd, False)
    return True
