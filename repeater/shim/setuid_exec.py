"""Starts a process of another user with limits: a short Python program sets the limits, then the user, then executes.

From outside that needs CAP_SYS_RESOURCE, which root does not have in most containers. It takes some ten milliseconds,
so it is only for jobs that have both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

_PROGRAM = """
import os, resource, sys, warnings  # the last for execvp: another user may not be able to read modules
report, uid, gid, groups, nice, limits, *argv = sys.argv[1:]
os.set_inheritable(int(report), False)
try:
    os.nice(int(nice))
    for number, soft, hard in (limit.split(":") for limit in limits.split()):
        resource.setrlimit(int(number), (int(soft), int(hard)))
    os.setgroups([int(group) for group in groups.split()])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.execvp(argv[0], argv)
except BaseException as error:
    os.write(int(report), f"{getattr(error, 'errno', None) or 0} {error}".encode())
    os._exit(126)
"""


def spawn_as_user(
    argv: Sequence[str],
    who: tuple[int, int, Sequence[int]],
    limits: Sequence[tuple[int, tuple[int, int]]],
    nice: int,
    **popen: Any,
) -> subprocess.Popen[bytes]:
    """The process, after the command has started. `who` is user, group and further groups. Raises OSError, as if the
    command had been executed here, and ValueError for limits that are not allowed.
    """
    user, group, groups = who
    read, write = os.pipe()
    try:
        limits_text = " ".join(f"{number}:{soft}:{hard}" for number, (soft, hard) in limits)
        arguments = [str(write), str(user), str(group), " ".join(map(str, groups)), str(nice), limits_text]
        # -I: the environment of the job must not affect this Python
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", _PROGRAM, *arguments, *argv], pass_fds=[write], **popen
        )
        os.close(write)
        write = -1
        refusal = b"".join(iter(partial(os.read, read, 4096), b""))  # the pipe closes when the command starts
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    if refusal:
        process.wait()
        code, _, text = refusal.decode(errors="replace").partition(" ")
        if int(code):
            raise OSError(int(code), os.strerror(int(code)), argv[0])
        raise ValueError(f"cannot set limits: {text}")
    return process
