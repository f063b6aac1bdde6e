"""Unix sockets: connecting, paths that are too long for the system, and the user and process of the peer."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_PATH = 107 if sys.platform == "linux" else 103
"""Bytes that `sun_path` holds without the trailing zero byte."""


def connect(path: Path, timeout: float) -> socket.socket:
    """A connected socket. Raises OSError; FileNotFoundError and ConnectionRefusedError mean that no process listens."""
    deadline = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_CLOEXEC", 0))
    try:
        sock.settimeout(timeout)
        with proc_fd_path(path) as name:
            while True:
                try:
                    sock.connect(name)
                    break
                except BlockingIOError:  # the queue of pending connections is full
                    if not timeout:
                        raise
                    if time.monotonic() > deadline:
                        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
                    time.sleep(0.01)
    except BaseException:
        sock.close()
        raise
    return sock


def user_of(sock: socket.socket) -> int | None:
    """The user id of the peer, or None if the system does not provide it."""
    if hasattr(socket, "SO_PEERCRED"):
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)
    if sys.platform == "darwin":  # LOCAL_PEERCRED of unix(4): struct xucred begins with version and uid
        _, uid = struct.unpack_from("2I", sock.getsockopt(0, 1, 76))
        return int(uid)
    return None


def pid_of(sock: socket.socket) -> int | None:
    """The pid of the peer (for a client: of the listening process), or None if the system does not provide it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid) or None


@contextlib.contextmanager
def proc_fd_path(path: Path) -> Iterator[str]:
    """A name of the path that fits into `sun_path`. A long path is reached through a descriptor of its directory."""
    name = os.fspath(path)
    if len(os.fsencode(name)) <= LONGEST_PATH:
        yield name
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(errno.ENAMETOOLONG, f"its path has more than {LONGEST_PATH} bytes")
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    fd = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{fd}/{real.name}"
        if len(os.fsencode(short)) > LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, f"its name has more than {LONGEST_PATH} bytes")
        yield short
    finally:
        os.close(fd)


def cause_of(error: OSError) -> str:
    """The cause as text without the error number and file names."""
    if error.errno == errno.ENAMETOOLONG and error.strerror:
        return error.strerror
    return os.strerror(error.errno) if error.errno else str(error)
