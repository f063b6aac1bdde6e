"""A run whose first process is a child of the shim. The shim reports the exit and the empty group, and kills the tree.

The output that the shim spooled while it had no supervisor is read before the pipes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from repeater.engine.facts import RunEnded
from repeater.model.run import Exit, RunKind
from repeater.model.time import Mono
from repeater.ports import Stream
from repeater.processes.completion import CHUNK, RunCompletion, RunPorts

if TYPE_CHECKING:
    from repeater.shim.protocol import Message

_ENLARGED_PIPE = 1 << 20  # bytes of a pipe that was full once: both sides are woken less often
_READS_AT_EXIT = 4  # more is read like the output of a running process


class ShimRun(RunCompletion):
    """`waits_for_output`: the shim has not handed over the pipes yet. `spools` has, for each spooled stream, the
    descriptor of the file and the offset to read from. `ended_at`, `ended_mono` and `timed_out` are set if the run
    ended while the shim had no supervisor.
    """

    __slots__ = ("_enlarged", "_send", "ended_at", "ended_mono", "is_group_empty", "pid", "spools", "timed_out",
                 "waits_for_output")  # fmt: skip

    def __init__(
        self, ports: RunPorts, send: Callable[[Message], None], run: str, kind: RunKind = "run", pid: int | None = None
    ) -> None:
        super().__init__(ports, run, kind)
        self._send = send
        self.pid = pid
        self.waits_for_output = True
        self.spools: dict[Stream, tuple[int, int]] = {}
        self.is_group_empty = False
        self.ended_at: datetime | None = None
        self.ended_mono: Mono | None = None
        self.timed_out = False
        self._enlarged: list[int] = []

    def _group_is_empty(self) -> bool:
        return self.is_group_empty

    def _start_tree_kill(self) -> None:
        self._send({"op": "kill_tree", "run": self.run})

    def _output_is_over(self) -> bool:
        return not (self.open or self.spools or self.waits_for_output)

    def _ended(self, exit_: Exit, matches: frozenset[str]) -> RunEnded:
        ended_at, ended_mono = self.ended_at, self.ended_mono
        return RunEnded(self.run, exit_, matches, ended_at, self.timed_out, self.kind, ended_mono, self.usage)

    def on_exited(self) -> None:
        """`exit` is known now. Spooled output is read before the end is reported."""
        if not self.spools:
            self.read_at_exit(_READS_AT_EXIT)

    def listen(self) -> None:
        if self.spools:
            self._ports.loop.call_soon(self._read_spool)
        else:
            super().listen()

    def listen_again(self) -> None:
        """After `listen` failed."""
        if not self.is_paused and not self.is_over:
            for fd in self.open.values():
                self._ports.poller.remove(fd)
            self.listen()

    def _read_spool(self) -> None:
        """Read one chunk of spooled output."""
        if not self.spools or self.is_paused or self.is_over:
            return
        stream, (fd, offset) = next(iter(self.spools.items()))
        if data := os.pread(fd, CHUNK, offset):
            self.spools[stream] = (fd, offset + len(data))
            self.is_paused = not self._ports.sink.write(self.run, stream, data)
        else:
            del self.spools[stream]
            os.close(fd)
            self._send({"op": "spool_ack", "run": self.run, stream: offset})
        if not self.is_paused:
            self.listen()
            if not self.spools:
                self.check()

    def _on_full_chunk(self, fd: int) -> None:
        if fd not in self._enlarged:
            self._enlarged.append(fd)
            with contextlib.suppress(OSError):  # the kernel limits the pipes of a user together
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _ENLARGED_PIPE)

    def _read_rest(self) -> None:
        for stream, (fd, offset) in self.spools.items():
            while data := os.pread(fd, CHUNK, offset):
                self._ports.sink.write(self.run, stream, data)
                offset += len(data)  # noqa: PLW2901
        super()._read_rest()

    def read_all_and_close(self) -> None:
        """The shim has exited, so the end of this run is unknown: read what the pipes have."""
        for stream, fd in self.open.items():
            while self._read_last(stream, fd):
                pass
        self.close()

    def close(self) -> None:
        for fd, _ in self.spools.values():
            os.close(fd)
        self.spools.clear()
        super().close()
