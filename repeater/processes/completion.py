"""How a run ends. Both spawners read the output of a run, and report its exit and its end, through this module.

Three things happen in any order: the first process exits, the output reaches end of file, and the process group becomes
empty. `RunEnded` is reported once, when all three have happened. If the first process exits before the others,
`RunExited` is reported once.

The spawner may kill the process tree when that takes too long. It always kills the tree of a run that was signalled,
because a process may have left the session and closed its output. The end is reported after the kill, even if a process
outside of the tree holds the output open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial

from repeater._lazy_dataclasses import dataclass
from repeater.engine.facts import RunEnded, RunExited
from repeater.model.run import Exit, RunKind, Usage
from repeater.ports import EmitFact, Loop, RunSink, Stream
from repeater.processes.fd_poller import NestedPoller

CHUNK = 65_536
"""Bytes that a pipe holds by default."""


@dataclass(slots=True)
class RunPorts:
    """What the runs of one spawner share. `on_end` removes a run from the table of the spawner."""

    emit: EmitFact
    sink: RunSink
    loop: Loop
    poller: NestedPoller
    on_end: Callable[[str], object]


class RunCompletion:
    """One run, from the call of `start` to RunEnded. Used in the loop's thread only.

    A subclass implements `_group_is_empty` and `_start_tree_kill`. `open` has the pipes that are not at end of file.
    """

    __slots__ = ("_is_exit_reported", "_ports", "exit", "is_over", "is_paused", "is_signalled", "kind", "open", "run",
                 "tree_kill", "usage")  # fmt: skip

    def __init__(self, ports: RunPorts, run: str, kind: RunKind) -> None:
        self._ports = ports
        self.run = run
        self.kind = kind
        self.open: dict[Stream, int] = {}
        self.exit: Exit | None = None
        self.usage = Usage()
        self.is_paused = False
        self.is_signalled = False
        self.is_over = False
        self.tree_kill = ""  # "running" or "done" after a kill was requested
        self._is_exit_reported = False

    def _group_is_empty(self) -> bool:
        """Whether the process group is empty. If not, `check` is called again when it may be."""
        raise NotImplementedError

    def _start_tree_kill(self) -> None:
        """Start to kill the process tree. `on_tree_killed` is called when that is done."""
        raise NotImplementedError

    def _output_is_over(self) -> bool:
        return not self.open

    def _ended(self, exit_: Exit, matches: frozenset[str]) -> RunEnded:
        return RunEnded(self.run, exit_, matches, kind=self.kind, usage=self.usage)

    def listen(self) -> None:
        """Read the pipes whenever they have data."""
        for stream, fd in self.open.items():
            self._ports.poller.add(fd, partial(self.read, stream, fd))

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self.listen()

    def read(self, stream: Stream, fd: int) -> bool:
        """Read one chunk of a pipe. Returns whether the pipe may have more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_pipe(stream)
            if not self.open:
                self.check()
            return False
        if len(data) == CHUNK:
            self._on_full_chunk(fd)
        if not self._ports.sink.write(self.run, stream, data) and not self.is_paused:
            self.is_paused = True
            for other in self.open.values():
                self._ports.poller.remove(other)
        return not self.is_paused

    def _on_full_chunk(self, fd: int) -> None:
        """A subclass may enlarge the pipe."""

    def read_at_exit(self, chunks: int) -> None:
        """Read what the first process has written, at most `chunks` of each pipe, and check."""
        for stream, fd in list(self.open.items()):
            for _ in range(chunks):
                if self.is_paused or not self.read(stream, fd):
                    break
        if not self._is_exit_reported:
            self.check()

    def check(self) -> None:
        """Report the exit or the end, if there is something to report."""
        if self.is_over or self.exit is None or self.tree_kill == "running":
            return
        if self.tree_kill == "done":
            self._end(self.exit)
        elif not self._output_is_over() or not self._group_is_empty():
            if not self._is_exit_reported:
                self._is_exit_reported = True
                self._ports.emit(RunExited(self.run, self.exit, self.kind))
        elif self.is_signalled:
            self.kill_tree()
        else:
            self._end(self.exit)

    def kill_tree(self) -> None:
        """Kill the process tree, once."""
        if not self.tree_kill:
            self.tree_kill = "running"
            self._start_tree_kill()

    def on_tree_killed(self) -> None:
        self.tree_kill = "done"
        self.check()

    def _end(self, exit_: Exit) -> None:
        self._read_rest()
        self.close()
        self._ports.on_end(self.run)
        self._ports.emit(self._ended(exit_, self._ports.sink.finish(self.run)))

    def _read_rest(self) -> None:
        """Read one chunk more of each pipe that is still open."""
        for stream, fd in self.open.items():
            self._read_last(stream, fd)

    def _read_last(self, stream: Stream, fd: int) -> bool:
        with contextlib.suppress(OSError):
            if data := os.read(fd, CHUNK):
                self._ports.sink.write(self.run, stream, data)
                return True
        return False

    def close(self) -> None:
        """Close the pipes. The run reports nothing more."""
        self.is_over = True
        for stream in list(self.open):
            self._close_pipe(stream)

    def _close_pipe(self, stream: Stream) -> None:
        fd = self.open.pop(stream)
        self._ports.poller.remove(fd)
        os.close(fd)
