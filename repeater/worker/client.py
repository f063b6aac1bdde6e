"""Who asks. Nothing here ever waits for the other end: one that hangs is killed when its time is over, one that died is
named in `lost`. If this process dies, the other reads the end of its pipe, and ends.

The process is started by the first question, or earlier by `warm`, goes when nobody has asked for a while, and is
started again by the next question.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from repeater._lazy_dataclasses import dataclass
from repeater.worker.protocol import HEAD, Limits

IDLE = 30.0
"""Seconds without a question after which it goes."""
_READ = 1 << 18
_WIDE = 1 << 20  # bytes that the other end can be ahead; as much as Linux gives to everybody
_LOOK = 0.02  # seconds between looks at whether an ended process can be buried


@dataclass(slots=True)
class _Request:
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
        self._questions: deque[_Request] = deque()
        self._process: _Process | None = None
        self._leaving: set[_Process] = set()
        self._asked: _Request | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that is there now; None if there is none."""
        return None if self._process is None else self._process.pid

    def prestart(self) -> None:
        """A question may come soon. Nothing happens if the process is there, or cannot be started."""
        if self._process is None and not self._closed:
            with contextlib.suppress(OSError):
                self._start()
                self._arm(self._idle, self.recycle)

    def submit(self, words: Callable[[], bytes], hear: Callable[[bytes], bool], lost: Callable[[str], None]) -> None:
        """Send `words()` when the questions before are answered. `hear` gets the frames of the answer until it
        returns True; or `lost` is told, once, why there will be no more.
        """
        self._questions.append(_Request(words, hear, lost))
        self._next()

    def recycle(self) -> None:
        """Let the process go, whose answers are all there; the next question starts another one."""
        if self._asked is None:
            self._on_chunk(lambda _: None, kill=False)

    def close(self) -> None:
        """Ends it. Nobody is told anything any more."""
        self._closed = True
        self._questions.clear()
        self._asked = None
        self._on_chunk(lambda _: None, kill=True)
        for process in self._leaving:
            process.wait()
        self._leaving.clear()

    def _start(self) -> None:
        self._process = _Process(self._argv, self._loop, self._on_readable, self._lost)

    def _next(self) -> None:
        if self._asked is not None or not self._questions or self._closed:
            return
        question = self._questions.popleft()
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            self._loop.call_soon(
                self._fail_current, question, f"cannot start a process for it: {os.strerror(error.errno or 0)}"
            )
            return
        assert self._process is not None
        self._asked = question
        self._arm(self._limits.wall, self._on_timeout)
        try:
            self._process.send(question.words())
        except Exception as error:
            self._asked = None
            self._on_chunk(lambda _: None, kill=True)  # it may have got a part of the question
            self._loop.call_soon(self._fail_current, question, f"the request was not sent: {error!r}")
            raise

    def _fail_current(self, question: _Request, cause: str) -> None:
        if not self._closed:
            question.lost(cause)
            self._next()

    def _on_readable(self, frame: bytes) -> None:
        if self._asked is None:
            return
        try:
            is_last = self._asked.hear(frame)
        except Exception as error:
            question, self._asked = self._asked, None
            self._on_chunk(lambda _: None, kill=True)  # what comes after this frame has no meaning
            self._loop.call_soon(self._fail_current, question, f"its answer is not valid: {error!r}")
            raise
        if is_last:
            self._asked = None
            self._arm(self._idle, self.recycle)
            self._next()

    def _lost(self) -> None:
        """The process has ended by itself. Why is known when it is buried; until then another one may be asked."""
        question, self._asked = self._asked, None

        def buried(code: int) -> None:
            if question is not None and not self._closed:
                question.lost(_cause(code, self._limits))

        self._on_chunk(buried, kill=False)
        self._next()

    def _on_timeout(self) -> None:
        question, self._asked = self._asked, None
        self._on_chunk(lambda _: None, kill=True)
        if question is not None:
            question.lost(f"it took longer than {self._limits.wall:g}s")
        self._next()

    def _on_chunk(self, buried: Callable[[int], None], *, kill: bool) -> None:
        """Have nothing to do with the process any more. Not waited for: one that hangs in a system call may stay."""
        self._disarm()
        process, self._process = self._process, None
        if process is None:
            return

        def gone(code: int) -> None:
            self._leaving.discard(process)
            buried(code)

        self._leaving.add(process)
        self._ended()
        process.dismiss(gone, kill=kill)

    def _arm(self, seconds: float, call: Callable[[], None]) -> None:
        self._disarm()
        self._alarm = self._loop.call_later(seconds, call)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class _Process:
    """One process from its start to its burial. Raises OSError when it cannot be started.

    `lost` is called when it has ended without having been dismissed; then it wants to be.
    """

    def __init__(
        self,
        argv: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._lost = lost
        self._gone: Callable[[int], None] = lambda _: None
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
        with contextlib.suppress(OSError, AttributeError):  # where pipes cannot be widened, it waits for us more often
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _WIDE)
        self._came, self._unsent = bytearray(), bytearray()
        loop.add_reader(self._stdout.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, frame: bytes) -> None:
        self._unsent += HEAD.pack(len(frame)) + frame
        self._write()

    def dismiss(self, gone: Callable[[int], None], *, kill: bool) -> None:
        """It reads the end of its questions, and goes. `gone` is told its exit code."""
        self._gone = gone
        self._close_pipes()
        if kill:
            self._popen.kill()
        self._reap(50)

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
            self._lost()
        elif self._has_frame():
            self._loop.remove_reader(self._stdout.fileno())
            self._frame()

    def _has_frame(self) -> bool:
        return len(self._came) >= HEAD.size and len(self._came) >= HEAD.size + HEAD.unpack_from(self._came)[0]

    def _frame(self) -> None:
        """One frame, then whatever else waits in the loop."""
        if self._is_closed():
            return
        end = HEAD.size + HEAD.unpack_from(self._came)[0]
        frame = bytes(self._came[HEAD.size : end])
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

    def _reap(self, tries: int) -> None:
        """Take its status when it is there. One that outlives its pipes is killed, and buried when it can be."""
        code = self._popen.poll()
        if code is None:
            if tries == 1:
                self._popen.kill()
            self._loop.call_later(_LOOK if tries > 0 else 10 * _LOOK, self._reap, tries - 1)
            return
        self._gone(code)


def _cause(code: int, limits: Limits) -> str:
    if code >= 0:
        return f"its process exited with {code}"
    if -code in (signal.SIGXCPU, signal.SIGPROF):
        return limits.time_exceeded_message
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    return f"its process was ended by {name}" + (", perhaps because of a memory limit" if name == "SIGKILL" else "")
