"""Whether a path, or the process at the other end of a socket, belongs to this user or to root.

A path is trusted if no other user could replace it. Every directory on the way, and every link that is followed, must
belong to this user or to root. No other user may write in such a directory, unless it is sticky, like `/tmp`, where
only the owner of an entry can replace it. The check takes no lock, because only this user and root can change a path
that has passed it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from repeater.wire.unix import user_of

_MOST_LINKS = 40


class Untrusted(Exception):
    """The text is the cause, with `it` for the path itself: `it belongs to user 65534 (nobody)`."""


def trusted_users() -> frozenset[int]:
    """This user and root. In a user namespace also the overflow id, which stands for all users outside of it."""
    users = {os.geteuid(), 0}
    with contextlib.suppress(OSError, ValueError):
        first, _, length = map(int, Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3])
        if first != 0 or length < 1 << 16:  # root outside has no id here and appears as the overflow id
            users.add(int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")))
    return frozenset(users)


def check_path(path: Path, *, users: Collection[int] | None = None, links: bool = True, of: Path | None = None) -> None:
    """Raises Untrusted if a user outside `users` (default: this one and root) could replace the target of the path.

    Raises FileNotFoundError if the path does not exist. With `links` False, neither the path nor its directory may be
    a link, unless root made it. `of` is the path that the message calls `it`, if that is another one.
    """
    allowed = trusted_users() if users is None else users
    asked = Path(os.path.abspath(of or path))
    remaining = list(Path(os.path.abspath(path)).parts[1:])
    here, followed = Path("/"), 0
    _check_one(here, here.lstat(), allowed, asked)
    depth = len(remaining)
    while remaining:
        here = here / remaining.pop(0)
        found = here.lstat()
        if stat.S_ISLNK(found.st_mode):
            if found.st_uid not in allowed:
                raise Untrusted(f"{_name(here, asked)} is a symbolic link of {shown_user(found.st_uid)}")
            if not links and not followed and found.st_uid != 0 and len(here.parts) - 1 >= depth - 1:
                raise Untrusted(f"{_name(here, asked)} is a link")
            followed += 1
            if followed > _MOST_LINKS:
                raise Untrusted(f"{_name(here, asked)} is part of a chain of too many symbolic links")
            target = here.readlink()
            remaining = [*(part for part in target.parts if part != "/"), *remaining]
            here = Path("/") if target.is_absolute() else here.parent
            # `..` means the same as for the system: the parent of the directory that was reached
        elif here.name == "..":
            here = here.parent.parent
        else:
            _check_one(here, found, allowed, asked)


def _check_one(path: Path, found: os.stat_result, users: Collection[int], asked: Path) -> None:
    if found.st_uid not in users:
        raise Untrusted(f"{_name(path, asked)} belongs to {shown_user(found.st_uid)}")
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise Untrusted(f"every user can write in {'it' if path == asked else f'`{path}`'}")


def _name(path: Path, asked: Path) -> str:
    return "it" if path == asked else f"`{path}`"


def check_peer(sock: socket.socket, users: Collection[int] | None = None) -> None:
    """Raises Untrusted if the peer belongs to a user outside `users` (default: this one and root)."""
    user = user_of(sock)
    if user is not None and user not in (trusted_users() if users is None else users):
        raise Untrusted(f"the process that listens there belongs to {shown_user(user)}")


def shown_user(number: int) -> str:
    """`user 65534 (nobody)`."""
    import pwd

    try:
        return f"user {number} ({pwd.getpwuid(number).pw_name})"
    except KeyError:
        return f"user {number}"
