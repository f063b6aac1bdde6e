"""The server side of a worker, which runs in the worker process: receives requests and limits the work on them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from math import ceil
from queue import SimpleQueue
from types import FrameType

from repeater.worker.protocol import HEAD, Limits


class CpuTimeExceeded(Exception):
    """The CPU time of this request is used up. A signal handler raises it; a response can still be sent."""


class HardTimeout(BaseException):
    """The work still runs a second after CpuTimeExceeded was raised."""


class WorkerChannel:
    """The connection to the client.

    Standard input and output are redirected to /dev/null, so output of the work cannot corrupt the frames. A thread
    reads requests, so that an exit of the client is noticed during work.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        null = os.open(os.devnull, os.O_RDWR)
        self._in, self._out = os.dup(0), os.dup(1)
        for fd in (0, 1):
            os.dup2(null, fd)
        os.close(null)
        self._requests: SimpleQueue[bytes] = SimpleQueue()
        self._base = 0
        self._limit_signals = 0
        self._works = False
        _limit("RLIMIT_CORE", 0)
        # If memory is low, the kernel kills this process, not its client.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGXCPU, self._on_cpu_limit)
        threading.Thread(target=self._listen, name="rpr-requests", daemon=True).start()

    @property
    def has_request(self) -> bool:
        """Whether a request is queued."""
        return not self._requests.empty()

    def receive(self) -> bytes:
        """Wait for the next request and reset the limits. When the client closes the pipe, the process exits."""
        request = self._requests.get()
        self._base = self._base or _size()
        self._limit_signals, self._works = 0, True
        if self._base:
            _limit("RLIMIT_AS", self._base + self._limits.memory)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + 1 + ceil(self._limits.cpu))
        # SIGPROF kills the process if the work ignores SIGXCPU
        signal.setitimer(signal.ITIMER_PROF, self._limits.cpu + self._limits.grace)
        return request

    def lift_limits(self) -> None:
        """Remove the limits after the work has ended or failed, before the response is sent."""
        self._works = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        _limit("RLIMIT_AS", None)
        _limit("RLIMIT_CPU", None)

    @property
    def memory_grew(self) -> bool:
        """Whether this process retains so much memory that another one should handle the next request."""
        return _size() - self._base > self._limits.memory // 2

    def send(self, frame: bytes) -> None:
        data = memoryview(HEAD.pack(len(frame)) + frame)
        while data:
            data = data[os.write(self._out, data) :]

    def _on_cpu_limit(self, _number: int, _frame: FrameType | None) -> None:
        if not self._works:
            return
        self._limit_signals += 1
        if self._limit_signals == 1:
            raise CpuTimeExceeded(self._limits.time_exceeded_message)
        raise HardTimeout(self._limits.time_exceeded_message)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (head := self._take(HEAD.size)) is not None:
                if (frame := self._take(HEAD.unpack(head)[0])) is None:
                    break
                self._requests.put(frame)
        os._exit(0)

    def _take(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            data = os.read(self._in, count - len(parts))
            if not data:
                return None
            parts += data
        return bytes(parts)


def _size() -> int:
    """Bytes of the address space of this process; 0 if the system does not provide this."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit(name: str, value: int | None) -> None:
    """Set only the soft limit, so that it can be changed again. None: as high as the hard limit."""
    number = getattr(resource, name, None)
    if number is not None:
        with contextlib.suppress(OSError, ValueError):  # macOS does not enforce a memory limit
            hard = resource.getrlimit(number)[1]
            resource.setrlimit(number, (hard if value is None else value if hard < 0 else min(value, hard), hard))
