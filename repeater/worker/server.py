"""Who works: questions in, answers out, limits around the work. Everything here is called by the process itself."""

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
    """The CPU time for this question is over; raised wherever the work is. Who catches it may still answer."""


class HardTimeout(BaseException):
    """It was over a second ago, and the work still goes on."""


class WorkerChannel:
    """The process that asks, from within the process that works.

    Standard input and output are taken away: whatever prints, prints nowhere, and there is nothing to read. A thread
    waits for questions, so that the end of the asker is noticed in the midst of work.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        nowhere = os.open(os.devnull, os.O_RDWR)
        self._in, self._out = os.dup(0), os.dup(1)
        for fd in (0, 1):
            os.dup2(nowhere, fd)
        os.close(nowhere)
        self._questions: SimpleQueue[bytes] = SimpleQueue()
        self._base = 0
        self._times_up = 0
        self._works = False
        _limit("RLIMIT_CORE", 0)
        # If memory is short, this process is to go, not the one that asks.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGXCPU, self._time_is_up)
        threading.Thread(target=self._listen, name="rpr-asker", daemon=True).start()

    @property
    def has_request(self) -> bool:
        """Whether a question waits."""
        return not self._questions.empty()

    def receive(self) -> bytes:
        """The next one. The limits begin anew with it. The process ends when there is none any more."""
        found = self._questions.get()
        self._base = self._base or _size()
        self._times_up, self._works = 0, True
        if self._base:
            _limit("RLIMIT_AS", self._base + self._limits.memory)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + 1 + ceil(self._limits.cpu))
        signal.setitimer(
            signal.ITIMER_PROF, self._limits.cpu + self._limits.grace
        )  # its signal ends what is deaf to the other
        return found

    def wait_idle(self) -> None:
        """The work is done, or given up: what is left to be said is not limited."""
        self._works = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        _limit("RLIMIT_AS", None)
        _limit("RLIMIT_CPU", None)

    @property
    def memory_grew(self) -> bool:
        """Whether so much memory stayed with the process that the next question had better go to another one."""
        return _size() - self._base > self._limits.memory // 2

    def send(self, frame: bytes) -> None:
        data = memoryview(HEAD.pack(len(frame)) + frame)
        while data:
            data = data[os.write(self._out, data) :]

    def _time_is_up(self, _number: int, _frame: FrameType | None) -> None:
        if not self._works:
            return
        self._times_up += 1
        if self._times_up == 1:
            raise CpuTimeExceeded(self._limits.time_exceeded_message)
        raise HardTimeout(self._limits.time_exceeded_message)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (head := self._take(HEAD.size)) is not None:
                if (words := self._take(HEAD.unpack(head)[0])) is None:
                    break
                self._questions.put(words)
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
    """Bytes of address space that this process has; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit(name: str, value: int | None) -> None:
    """The soft limit alone, so that it can be set anew. None: none but the hard one."""
    number = getattr(resource, name, None)
    if number is not None:
        with contextlib.suppress(OSError, ValueError):  # macOS has no limit of memory that it would enforce
            hard = resource.getrlimit(number)[1]
            resource.setrlimit(number, (hard if value is None else value if hard < 0 else min(value, hard), hard))
