"""Whether a path, or the process at the other end of a socket, belongs to this user or to root.

A path is trusted if no other user could put something else in its place: every folder on the way, and every link that
is followed, belongs to this user or to root, and no other user may write in such a folder, unless it is sticky, like
`/tmp`, where only the owner of an entry can replace it. The check takes no lock: only this user and root can change a
path that has passed it.
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
    """This user and root; in a user namespace also the number that stands for all users outside of it."""
    users = {os.geteuid(), 0}
    with contextlib.suppress(OSError, ValueError):
        first, _, length = map(int, Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3])
        if first != 0 or length < 1 << 16:  # root outside has no number here, and shows as this one
            users.add(int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")))
    return frozenset(users)


def check_path(path: Path, *, users: Collection[int] | None = None, links: bool = True, of: Path | None = None) -> None:
    """Raises Untrusted if another user than `users` (this one and root) could replace what the path leads to, and
    FileNotFoundError if nothing is there. `links` False: neither the path nor the folder that it is in may be a link,
    unless root made it. `of` is what the message calls `it`, if that is not the path.
    """
    known = trusted_users() if users is None else users
    asked = Path(os.path.abspath(of or path))
    rest = list(Path(os.path.abspath(path)).parts[1:])
    here, followed = Path("/"), 0
    _check_one(here, here.lstat(), known, asked)
    depth = len(rest)
    while rest:
        here = here / rest.pop(0)
        found = here.lstat()
        if stat.S_ISLNK(found.st_mode):
            if found.st_uid not in known:
                raise Untrusted(f"{_name(here, asked)} is a symbolic link of {shown_user(found.st_uid)}")
            if not links and not followed and found.st_uid != 0 and len(here.parts) - 1 >= depth - 1:
                raise Untrusted(f"{_name(here, asked)} is a link")
            followed += 1
            if followed > _MOST_LINKS:
                raise Untrusted(f"{_name(here, asked)} is part of a chain of too many symbolic links")
            target = here.readlink()
            rest = [*(part for part in target.parts if part != "/"), *rest]
            here = Path("/") if target.is_absolute() else here.parent
            # `..` is taken by its meaning for the system: the folder that holds the one that was reached
        elif here.name == "..":
            here = here.parent.parent
        else:
            _check_one(here, found, known, asked)


def _check_one(path: Path, found: os.stat_result, users: Collection[int], asked: Path) -> None:
    if found.st_uid not in users:
        raise Untrusted(f"{_name(path, asked)} belongs to {shown_user(found.st_uid)}")
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise Untrusted(f"every user can write in {'it' if path == asked else f'`{path}`'}")


def _name(path: Path, asked: Path) -> str:
    return "it" if path == asked else f"`{path}`"


def check_peer(sock: socket.socket, users: Collection[int] | None = None) -> None:
    """Raises Untrusted if the process at the other end belongs to another user than `users` (this one and root)."""
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
