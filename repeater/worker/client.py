"""The client side of a worker. It never blocks: a worker that hangs is killed after its time limit, and a worker that
exits is reported through `on_lost`. If the client exits, the worker reads end of file and exits.

The worker is started by the first request, or earlier by `prestart`. It exits after an idle time; the next request
starts another one.
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
"""Seconds without a request after which the worker exits."""
_READ_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20  # size of the pipe for responses; the maximum for unprivileged users on Linux
_REAP_INTERVAL_S = 0.02  # seconds between attempts to reap an exited process


@dataclass(slots=True)
class _Request:
    """`encode` is called when the request is sent. `on_frame` returns True for the last frame of the response."""

    encode: Callable[[], bytes]
    on_frame: Callable[[bytes], bool]
    on_lost: Callable[[str], None]


class Worker:
    """Starts worker processes and sends requests to them. Methods and callbacks run in the loop's thread.

    `ended` is called when a process is dropped, so that state shared with it can be reset.
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
        self._queue: deque[_Request] = deque()
        self._process: _Process | None = None
        self._leaving: set[_Process] = set()
        self._current: _Request | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The pid of the current process; None if there is no process."""
        return None if self._process is None else self._process.pid

    def prestart(self) -> None:
        """Start the process before a request. Does nothing if it runs already or cannot be started."""
        if self._process is None and not self._closed:
            with contextlib.suppress(OSError):
                self._start()
                self._arm(self._idle, self.recycle)

    def submit(
        self, encode: Callable[[], bytes], on_frame: Callable[[bytes], bool], on_lost: Callable[[str], None]
    ) -> None:
        """Send `encode()` when the earlier requests are answered. `on_frame` receives the frames of the response until
        it returns True. If the response cannot be completed, `on_lost` is called once with the cause.
        """
        self._queue.append(_Request(encode, on_frame, on_lost))
        self._next()

    def recycle(self) -> None:
        """Drop the process if it is idle; the next request starts another one."""
        if self._current is None:
            self._drop(lambda _: None, kill=False)

    def close(self) -> None:
        """Kill the process. No callback is called after this."""
        self._closed = True
        self._queue.clear()
        self._current = None
        self._drop(lambda _: None, kill=True)
        for process in self._leaving:
            process.wait()
        self._leaving.clear()

    def _start(self) -> None:
        self._process = _Process(self._argv, self._loop, self._on_readable, self._on_lost)

    def _next(self) -> None:
        if self._current is not None or not self._queue or self._closed:
            return
        request = self._queue.popleft()
        try:
            if self._process is None:
                self._start()
        except OSError as error:
            self._loop.call_soon(
                self._fail_current, request, f"cannot start a process for it: {os.strerror(error.errno or 0)}"
            )
            return
        assert self._process is not None
        self._current = request
        self._arm(self._limits.wall, self._on_timeout)
        try:
            self._process.send(request.encode())
        except Exception as error:
            self._current = None
            self._drop(lambda _: None, kill=True)  # a part of the request may have been sent
            self._loop.call_soon(self._fail_current, request, f"the request was not sent: {error!r}")
            raise

    def _fail_current(self, request: _Request, cause: str) -> None:
        if not self._closed:
            request.on_lost(cause)
            self._next()

    def _on_readable(self, frame: bytes) -> None:
        if self._current is None:
            return
        try:
            is_last = self._current.on_frame(frame)
        except Exception as error:
            request, self._current = self._current, None
            self._drop(lambda _: None, kill=True)  # later frames cannot be interpreted
            self._loop.call_soon(self._fail_current, request, f"its answer is not valid: {error!r}")
            raise
        if is_last:
            self._current = None
            self._arm(self._idle, self.recycle)
            self._next()

    def _on_lost(self) -> None:
        """The process has exited on its own. The cause is known after it is reaped; meanwhile another one can start."""
        request, self._current = self._current, None

        def on_exit(code: int) -> None:
            if request is not None and not self._closed:
                request.on_lost(_cause(code, self._limits))

        self._drop(on_exit, kill=False)
        self._next()

    def _on_timeout(self) -> None:
        request, self._current = self._current, None
        self._drop(lambda _: None, kill=True)
        if request is not None:
            request.on_lost(f"it took longer than {self._limits.wall:g}s")
        self._next()

    def _drop(self, on_exit: Callable[[int], None], *, kill: bool) -> None:
        """Drop the process without waiting for its exit, because it may hang in a system call."""
        self._disarm()
        process, self._process = self._process, None
        if process is None:
            return

        def on_process_exit(code: int) -> None:
            self._leaving.discard(process)
            on_exit(code)

        self._leaving.add(process)
        self._ended()
        process.dismiss(on_process_exit, kill=kill)

    def _arm(self, seconds: float, call: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, call)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Process:
    """One process, from its start until it is reaped. Raises OSError if it cannot be started.

    `on_lost` is called if the process exits on its own; then `dismiss` must be called.
    """

    def __init__(
        self,
        argv: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_exit: Callable[[int], None] = lambda _: None
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C at the terminal must not reach it
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(OSError, AttributeError):  # without a larger pipe it only blocks more often
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._received, self._unsent = bytearray(), bytearray()
        loop.add_reader(self._stdout.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, frame: bytes) -> None:
        self._unsent += HEAD.pack(len(frame)) + frame
        self._write()

    def dismiss(self, on_exit: Callable[[int], None], *, kill: bool) -> None:
        """Close the pipes, so that the process reads end of file and exits. `on_exit` receives its exit code."""
        self._on_exit = on_exit
        self._close_pipes()
        if kill:
            self._popen.kill()
        self._reap(50)

    def wait(self) -> None:
        """Kill the process and wait at most a second for its exit."""
        self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)

    def _write(self) -> None:
        """Write until the pipe is full; continue when it is writable."""
        fd = self._stdin.fileno()
        try:
            while self._unsent:
                del self._unsent[: os.write(fd, self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(fd, self._write)
            return
        except OSError:  # it has exited; reading reports this
            self._unsent.clear()
        self._loop.remove_writer(fd)

    def _read(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        self._received += data
        if not data:
            self._on_lost()
        elif self._has_frame():
            self._loop.remove_reader(self._stdout.fileno())
            self._frame()

    def _has_frame(self) -> bool:
        return (
            len(self._received) >= HEAD.size and len(self._received) >= HEAD.size + HEAD.unpack_from(self._received)[0]
        )

    def _frame(self) -> None:
        """Handle one frame per loop iteration, so that other callbacks run in between."""
        if self._is_closed():
            return
        end = HEAD.size + HEAD.unpack_from(self._received)[0]
        frame = bytes(self._received[HEAD.size : end])
        del self._received[:end]
        self._on_frame(frame)
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
        """Poll for the exit status. A process that ignores end of file is killed after `tries` polls."""
        code = self._popen.poll()
        if code is None:
            if tries == 1:
                self._popen.kill()
            self._loop.call_later(_REAP_INTERVAL_S if tries > 0 else 10 * _REAP_INTERVAL_S, self._reap, tries - 1)
            return
        self._on_exit(code)


def _cause(code: int, limits: Limits) -> str:
    if code >= 0:
        return f"its process exited with {code}"
    if -code in (signal.SIGXCPU, signal.SIGPROF):
        return limits.time_exceeded_message
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    return f"its process was ended by {name}" + (", perhaps because of a memory limit" if name == "SIGKILL" else "")
