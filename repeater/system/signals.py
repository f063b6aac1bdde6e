"""Turns the signals of a person or a service manager into calls in the loop.

INT and TERM count together: the first requests to drain, the second to stop, the third and all later ones to kill. HUP
requests a reload. The handlers only record the signal and wake the loop once, so ten thousand signals cost as little as
three. The handlers of asyncio drop signals when their pipe is full.

A handler runs when the main thread executes Python code again. If a signal arrives just before the loop waits, or in
another thread, that may take half a minute. So the interpreter also writes to a pipe that the loop reads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Literal

from repeater.ports import Loop

Level = Literal["drain", "stop", "kill"]
_LEVELS: tuple[Level, ...] = ("drain", "stop", "kill")
_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing with a signal that arrives at the end of the process."""


def _ignore_for_good() -> None:
    """Ignore the signals at the end of the interpreter, which resets each Python handler to SIG_DFL.

    The signals are blocked first. No other thread is left here, so none can arrive during the change to SIG_IGN.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


class Signals:
    """Handles signals until `close`. Create and close it in the main thread.

    `stop(level, name)` gets the level and the signal's name (`INT`, `TERM`), once for each level and in order;
    `reload()` comes once for any number of HUPs that arrive together. Both are called in the loop. `at_end`: this
    process only tidies up and ends after `close`; a signal must not interrupt that, so signals have no effect then.
    """

    def __init__(
        self, loop: Loop, stop: Callable[[Level, str], None], reload: Callable[[], None], *, at_end: bool = False
    ) -> None:
        self._loop = loop
        self._at_end = at_end
        self._stop = stop
        self._reload = reload
        self._came: list[str] = []  # at most one name for each level
        self._told = 0
        self._reload_asked = False
        self._woken = False
        self._awake, self._waker = os.pipe()
        for fd in (self._awake, self._waker):
            os.set_blocking(fd, False)
        loop.add_reader(self._awake, self._drain)
        self._woke = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._on_readable) for number in _HEARD}

    def close(self) -> None:
        """Restore the former handlers. With `at_end`, ignore the signals.

        With `at_end` the handler becomes a function that does nothing. It does not become SIG_IGN: CPython writes a
        traceback ("Signal 15 ignored due to race condition") when a signal arrives during that change.
        """
        for number, before in self._before.items():
            signal.signal(number, _ignore if self._at_end else signal.SIG_DFL if before is None else before)
        if self._before and self._at_end:
            atexit.register(_ignore_for_good)
        if self._before:
            self._before = {}
            # A full pipe must not warn: CPython then takes a lock inside the C signal handler, and can block.
            signal.set_wakeup_fd(self._woke, warn_on_full_buffer=False)
            self._loop.remove_reader(self._awake)
            os.close(self._awake)
            os.close(self._waker)

    def _drain(self) -> None:
        """Empty the pipe. The handlers have already run."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._awake, 4096):
                pass

    def _on_readable(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        elif len(self._came) < len(_LEVELS):
            # Another handler may interrupt this one here, so the list may get a few names more.
            self._came.append(signal.Signals(number).name.removeprefix("SIG"))
        else:
            return
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        if self._reload_asked:
            self._reload_asked = False
            self._reload()
        while self._told < min(len(self._came), len(_LEVELS)):
            level = self._told
            self._told += 1
            self._stop(_LEVELS[level], self._came[level])
