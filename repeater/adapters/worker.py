"""A process of our own that works on questions under limits, and is kept warm between them.

It is a fresh interpreter, not a fork of this one, which has threads; it is started by the first question, or earlier
by `warm`, ends when nobody has asked for a while, and is started again by the next. Questions and answers are frames of
bytes (`send`, `receive`). Nothing here ever waits for the other end: one that hangs is killed when its time is over,
one that died is named in `lost`. If this process dies, the other end reads the end of its pipe, and ends.

Used by `app` only: the parent's side is `Worker`, the child's side `Asker`. What the work is, nobody here knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType

IDLE = 30.0
"""Seconds without a question after which it ends."""
_HEAD = struct.Struct("!I")
_READ = 1 << 18
_GRACE = 3  # seconds of CPU beyond the limit for words about it
_LOOK = 0.02  # seconds between looks at whether an ended process can be buried


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use for one question: bytes beyond what it has when it begins, seconds of CPU, seconds."""

    memory: int
    cpu: int
    wall: float

    @property
    def time_is_over(self) -> str:
        return f"it takes more than {self.cpu}s of CPU time"

    @property
    def memory_is_over(self) -> str:
        return f"it needs more than {self.memory >> 20} MiB of memory"


@dataclass(slots=True)
class _Question:
    """`words` are asked for when it is sent; `hear` returns True for the last frame of the answer."""

    words: Callable[[], bytes]
    hear: Callable[[bytes], bool]
    lost: Callable[[str], None]


class Worker:
    """The parent's side. Every method is called in the loop's thread, and so is everything that it calls.

    `ended` is called when a process is gone: what was agreed with it is void.
    """

    def __init__(
        self,
        argv: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        idle: float = IDLE,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._argv = argv
        self._loop = loop
        self._limits = limits
        self._idle = idle
        self._ended = ended
        self._questions: deque[_Question] = deque()
        self._process: _Process | None = None
        self._leaving: set[_Process] = set()
        self._asked: _Question | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that is there now; None if there is none."""
        return None if self._process is None else self._process.pid

    def warm(self) -> None:
        """A question may come soon. Nothing happens if the process is there, or cannot be started."""
        if self._process is None and not self._closed:
            with contextlib.suppress(OSError):
                self._start()
                self._arm(self._idle, self.renew)

    def ask(self, words: Callable[[], bytes], hear: Callable[[bytes], bool], lost: Callable[[str], None]) -> None:
        """Send `words()` when the questions before are answered. `hear` gets the frames of the answer until it
        returns True; or `lost` is told, once, why there will be no more.
        """
        self._questions.append(_Question(words, hear, lost))
        self._next()

    def renew(self) -> None:
        """Let the process go, whose answers are all there; the next question starts another one."""
        if self._process is not None and self._asked is None:
            self._disarm()
            self._dismiss("")

    def close(self) -> None:
        """Ends it. Nobody is told anything any more."""
        self._closed = True
        self._questions.clear()
        self._asked = None
        self._disarm()
        self._dismiss("closed")
        for process in self._leaving:
            process.wait()
        self._leaving.clear()

    def _start(self) -> None:
        self._process = _Process(self._argv, self._loop, self._hear, self._lost)

    def _next(self) -> None:
        if self._asked is not None or not self._questions or self._closed:
            return
        question = self._questions.popleft()
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            self._loop.call_soon(self._give_up, question, f"no process for it: {os.strerror(error.errno or 0)}")
            return
        assert self._process is not None
        self._asked = question
        self._arm(self._limits.wall, self._too_long)
        self._process.send(question.words())

    def _give_up(self, question: _Question, cause: str) -> None:
        if not self._closed:
            question.lost(cause)
            self._next()

    def _hear(self, frame: bytes) -> None:
        if self._asked is not None and self._asked.hear(frame):
            self._asked = None
            self._arm(self._idle, self.renew)
            self._next()

    def _lost(self, code: int | None) -> None:
        """The process has ended by itself."""
        self._process = None
        self._tell_loss(_cause(code, self._limits))

    def _too_long(self) -> None:
        self._dismiss("late")
        self._tell_loss(f"it took longer than {self._limits.wall:g}s")

    def _tell_loss(self, cause: str) -> None:
        self._disarm()
        self._ended()
        question, self._asked = self._asked, None
        if question is not None:
            question.lost(cause)
        self._next()

    def _dismiss(self, why: str) -> None:
        """Not waited for: a process that hangs in a system call may stay for as long as that takes."""
        process, self._process = self._process, None
        if process is not None:
            self._leaving.add(process)
            process.dismiss(self._leaving.discard, kill=bool(why))
            if not why:
                self._ended()

    def _arm(self, seconds: float, call: Callable[[], None]) -> None:
        self._disarm()
        self._alarm = self._loop.call_later(seconds, call)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class _Process:
    """One process from its start to its burial. Raises OSError when it cannot be started.

    `lost` is told its exit code when it ends without having been dismissed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[bytes], None],
        lost: Callable[[int | None], None],
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._gone: Callable[[int | None], object] = lost
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)
        self._came, self._unsent = bytearray(), bytearray()
        loop.add_reader(self._stdout.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, frame: bytes) -> None:
        self._unsent += _HEAD.pack(len(frame)) + frame
        self._write()

    def dismiss(self, gone: Callable[[_Process], object], *, kill: bool) -> None:
        """It reads the end of its questions, and goes."""
        self._gone = lambda _: gone(self)
        self._close_pipes()
        if kill:
            self._popen.kill()
        self._bury(50)

    def wait(self) -> None:
        """A second at most."""
        self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)

    def _write(self) -> None:
        """As much as the pipe takes; the rest when it takes more."""
        fd = self._stdin.fileno()
        try:
            while self._unsent:
                del self._unsent[: os.write(fd, self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(fd, self._write)
            return
        except OSError:  # it is gone: reading will tell
            self._unsent.clear()
        self._loop.remove_writer(fd)

    def _read(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), _READ)
        except BlockingIOError:
            return
        self._came += data
        if not data:
            self._close_pipes()
            self._bury(50)
        elif self._has_frame():
            self._loop.remove_reader(self._stdout.fileno())
            self._frame()

    def _has_frame(self) -> bool:
        return len(self._came) >= _HEAD.size and len(self._came) >= _HEAD.size + _HEAD.unpack_from(self._came)[0]

    def _frame(self) -> None:
        """One frame, then whatever else waits in the loop."""
        if self._is_closed():
            return
        end = _HEAD.size + _HEAD.unpack_from(self._came)[0]
        frame = bytes(self._came[_HEAD.size : end])
        del self._came[:end]
        self._hear(frame)
        if self._is_closed():
            return
        if self._has_frame():
            self._loop.call_soon(self._frame)
        else:
            self._loop.add_reader(self._stdout.fileno(), self._read)

    def _is_closed(self) -> bool:
        return self._stdout.closed

    def _close_pipes(self) -> None:
        if not self._stdin.closed:
            self._loop.remove_writer(self._stdin.fileno())
            self._stdin.close()
        if not self._stdout.closed:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()

    def _bury(self, tries: int) -> None:
        """Take its status when it is there. One that outlives its pipes is killed, and buried when it can be."""
        code = self._popen.poll()
        if code is None:
            if tries == 1:
                self._popen.kill()
            self._loop.call_later(_LOOK if tries > 0 else 10 * _LOOK, self._bury, tries - 1)
            return
        self._gone(code)


def _cause(code: int | None, limits: Limits) -> str:
    if code is None or code >= 0:
        return f"the process for it ended, exit {code}"
    if -code in (signal.SIGXCPU, signal.SIGPROF):
        return limits.time_is_over
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    return f"the process for it was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


# --- the child's side -----------------------------------------------------------------------------------------------


class OutOfTime(Exception):
    """The CPU time for this question is over; raised wherever the work is. Who catches it may still answer."""


class OutOfPatience(BaseException):
    """It was over a second ago, and the work still goes on."""


class Asker:
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

    def question(self) -> bytes:
        """The next one. The limits begin anew with it. The process ends when there is none any more."""
        found = self._questions.get()
        self._base = self._base or _size()
        self._times_up, self._works = 0, True
        if self._base:
            _limit("RLIMIT_AS", self._base + self._limits.memory)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + 1 + self._limits.cpu)
        signal.setitimer(signal.ITIMER_PROF, self._limits.cpu + _GRACE)  # its signal ends what is deaf to the other
        return found

    def rest(self) -> None:
        """The work is done, or given up: what is left to be said is not limited."""
        self._works = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        _limit("RLIMIT_AS", None)
        _limit("RLIMIT_CPU", None)

    @property
    def has_grown(self) -> bool:
        """Whether so much memory stayed with the process that the next question had better go to another one."""
        return _size() - self._base > self._limits.memory // 2

    def answer(self, frame: bytes) -> None:
        data = memoryview(_HEAD.pack(len(frame)) + frame)
        while data:
            data = data[os.write(self._out, data) :]

    def _time_is_up(self, _number: int, _frame: FrameType | None) -> None:
        if not self._works:
            return
        self._times_up += 1
        if self._times_up == 1:
            raise OutOfTime(self._limits.time_is_over)
        raise OutOfPatience(self._limits.time_is_over)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (head := self._take(_HEAD.size)) is not None:
                if (words := self._take(_HEAD.unpack(head)[0])) is None:
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


def command(module: str) -> list[str]:
    """The words that start `main` of a module of repeater, in this interpreter.

    The folder it is started in is no place for modules: there may be a `yaml.py` in it.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({home!r}); from {module} import main; main()"]
