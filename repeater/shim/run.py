"""One run in the shim, from the request to start it until the client has acknowledged its end."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repeater.shim.cgroup import RunCgroup
    from repeater.shim.protocol import Message
    from repeater.shim.spool import Spool

STREAMS = ("stdout", "stderr")


class ManagedRun:
    """`fds` are the read ends of its output. `files` has its spooled output by stream: name, descriptor and size.
    `status` is that of waitpid(2), `memory` is in bytes and `cpu` in microseconds, all None while its first process
    runs. `empty` says that its group and its cgroup `fence` are empty.
    """

    __slots__ = (
        "attempt", "began", "began_mono", "cpu", "empty", "ended", "ended_mono", "fds", "fence", "files", "memory",
        "pid", "run", "settled", "status", "stop_signal",
        "stop_timeout", "timed_out", "timeout", "took_until",
    )  # fmt: skip

    def __init__(self, message: Message, pid: int, fds: tuple[int, int], fence: RunCgroup | None = None) -> None:
        self.run: str = message["run"]
        self.attempt: int = message.get("attempt", 1)
        self.timeout: float | None = message.get("timeout")
        self.stop_signal: str = message.get("stop_signal", "TERM")
        self.stop_timeout: float = message.get("stop_timeout", 10.0)
        self.pid = pid
        self.fds = fds
        self.fence = fence
        self.files: dict[str, tuple[str, int, int]] = {}
        self.took_until: dict[str, int] = {}
        self.began, self.began_mono = time.time(), time.monotonic_ns() // 1000
        self.ended_mono: int | None = None
        self.status: int | None = None
        self.ended: float | None = None
        self.memory: int | None = None
        self.cpu: int | None = None
        self.empty = False
        self.timed_out = False
        self.settled = False

    def as_message(self) -> Message:
        """The run in the `hello` to a new client."""
        return {
            "run": self.run,
            "attempt": self.attempt,
            "pid": self.pid,
            "began": self.began,
            "began_mono": self.began_mono,
            "ended": self.ended,
        }

    @property
    def cgroup_is_populated(self) -> bool:
        """Whether a process in its cgroup is alive."""
        return self.fence is not None and self.fence.is_populated()

    def as_exit_message(self) -> Message:
        """The exit of its first process."""
        end = {
            "run": self.run,
            "status": self.status,
            "at": self.ended,
            "mono": self.ended_mono,
            "empty": self.empty,
            "memory": self.memory,
            "cpu": self.cpu,
        }
        return {**end, "timed_out": True} if self.timed_out else end

    def as_exit_record(self) -> Message:
        """The record for a client that finds no shim."""
        return {
            **self.as_message(),
            **self.as_exit_message(),
            **{stream: name for stream, (name, _, _) in self.files.items()},
        }

    def spooled(self) -> tuple[dict[str, int], list[int]]:
        """The offsets where a client reads the spooled output, and the files."""
        offsets = {stream: self.took_until.get(stream, 0) for stream in STREAMS if stream in self.files}
        return offsets, [self.files[stream][1] for stream in offsets]

    def acknowledge_spool(self, offsets: Mapping[str, int], spool: Spool) -> None:
        """A client has read the spooled output up to these offsets."""
        for stream, offset in offsets.items():
            if stream in self.files:
                name, fd, size = self.files[stream]
                self.took_until[stream] = offset
                if offset >= size:
                    del self.files[stream], self.took_until[stream]
                    os.close(fd)
                    spool.remove(name)

    def close(self, spool: Spool | None) -> None:
        """Close and remove its files."""
        for fd in self.fds:
            os.close(fd)
        for name, fd, _ in self.files.values():
            os.close(fd)
            if spool is not None:
                spool.remove(name)
