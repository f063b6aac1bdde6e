"""The protocol between the shim and its client: frames and messages. Sans-IO.

A *frame* is a head of six bytes (length of the body, number of descriptors that belong to it, both big-endian) and a
body: a JSON list of messages, each an object whose `op` is its kind. Many messages share a frame, so that a burst
costs few system calls. Descriptors travel beside the bytes, in the order in which the messages of a frame name them;
a frame whose descriptors did not all arrive (the receiver has no room for more) is delivered with none, and the
client asks for them again with `attach`.

The protocol has no hosts, clocks or jobs: a run is its `run` id and `attempt`,
times are seconds since 1970, lengths seconds. Bytes are text as `os.fsdecode` makes it.

    client -> shim
    hello     version, on_death ("kill" or "keep"),  first; again to change what happens when the client exits; whether
              use_cgroups? (bool)                    the client will ask for cgroups
    env_base  base (a number), env                   variables that `spawn` refers to by the number, so that what most
                                                     runs inherit is sent once
    spawn     run, attempt, argv, cwd, env, and if not the default: base (these variables, and `env` over them), stdin,
              user, group, umask, nice, rlimits,
              timeout, stop_signal, stop_timeout,    the shim uses these three only without a client
              cgroup (bool)                          in its own cgroup, if that is possible
    signal    run, signal (a name without SIG)       to every process of the session, then CONT
    kill_tree run                                    kill what is left of it; the answer is `tree_killed`
    attach    run                                    send its output (again), and report its exit
    spool_ack run, and stdout, stderr                offsets up to which the spooled output is no longer needed
    ack       runs                                   their exits are recorded: forget them
    ping                                             the answer is `pong`
    shutdown  kill (bool)                            the client disconnects on purpose: kill every run, or keep them

    shim -> client
    hello     version, pid, runs: [run, attempt, pid, began, ended]       the runs of an earlier client; also
              began_mono                             `began` in microseconds of the monotonic clock
              no_cgroup_reason?                      why there will be no cgroups
              pongs (bool)                           whether it answers `ping`; 0.1.0 does not
    pong                                             it works
    started   run, pid, at, no_cgroup_reason?        2 descriptors: the ends of its output to read from; why it has no
                                                     cgroup, if one was asked for; `at` is when, in microseconds of the
                                                     monotonic clock, because the message may be sent some milliseconds
                                                     later, together with the next ones
    attached  run, pid, spooled: {stdout, stderr}    2 descriptors, then one for each spool that is there: a file, with
                                                     the offset to begin at
    spawn_failed  run, code, detail, exit_code, temporary        it could not be started
    exited    run, status, at, mono, empty, timed_out?, memory?, cpu?
                                                     its first process has exited; `status` is that of waitpid(2),
                                                     `mono` is `at` in microseconds of the monotonic clock, `empty`
                                                     says that nothing is left in its group, `timed_out` that the shim
                                                     stopped it while it had no client; `memory` is its peak in bytes,
                                                     `cpu` in microseconds; 0.1.0 sends neither
    group_empty   run                                nothing is left in its group and cgroup
    tree_killed   run                                no process of it is alive

Version 2, of 0.1.0, has other words; the client translates them (`processes.shim_protocol_v2`).
"""

from __future__ import annotations

import json
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, TypeAlias

    Message: TypeAlias = dict[str, Any]

VERSION = 3
LONGEST_FRAME = 64 << 20
MOST_FDS = 250
"""Descriptors that one frame can carry: the kernel takes 253 with one message."""
_HEAD = struct.Struct(">IH")
_dumps = json.JSONEncoder(separators=(",", ":")).encode
_loads = json.JSONDecoder().decode


class ProtocolError(Exception):
    """The bytes do not follow the protocol."""


def frame(messages: Sequence[Message], fds: int = 0) -> bytes:
    """The bytes of one frame that is sent with `fds` descriptors."""
    body = _dumps(messages).encode()
    if len(body) > LONGEST_FRAME or fds > MOST_FDS:
        raise ProtocolError("the frame is too big")
    return _HEAD.pack(len(body), fds) + body


class Frames:
    """Joins received bytes to frames, and returns their messages with the descriptors that belong to them."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._fds: deque[int] = deque()
        self._lost = False

    def feed(
        self, data: bytes | memoryview, fds: Sequence[int] = (), *, lost: bool = False
    ) -> Iterator[tuple[list[Message], list[int]]]:
        """`lost`: some descriptors that belong to these bytes did not arrive. Raises ProtocolError.

        The kernel never joins bytes of two messages that carry descriptors, so what was lost belongs to the frame
        that these bytes begin.
        """
        self._held += data
        self._fds.extend(fds)
        self._lost = self._lost or lost
        start, held = 0, self._held
        while len(held) - start >= _HEAD.size:
            length, count = _HEAD.unpack_from(held, start)
            if length > LONGEST_FRAME:
                raise ProtocolError("the frame is too big")
            begin = start + _HEAD.size
            if len(held) - begin < length:
                break
            start = begin + length
            yield self._decoded(bytes(held[begin:start])), self._taken(count)
        del held[:start]

    @staticmethod
    def _decoded(body: bytes) -> list[Message]:
        try:
            messages = _loads(body.decode())
        except ValueError as error:
            raise ProtocolError(f"no JSON: {error}") from None
        if not isinstance(messages, list) or not all(isinstance(one, dict) and "op" in one for one in messages):
            raise ProtocolError("no list of messages")
        return messages

    def _taken(self, count: int) -> list[int]:
        if count and self._lost:
            self._lost = False
            for fd in self._fds:
                _close(fd)
            self._fds.clear()
        if len(self._fds) < count:
            return []
        return [self._fds.popleft() for _ in range(count)]

    def drop(self) -> list[int]:
        """The descriptors that belong to no frame. The caller closes them."""
        fds = list(self._fds)
        self._fds.clear()
        return fds


def _close(fd: int) -> None:
    import os

    os.close(fd)
