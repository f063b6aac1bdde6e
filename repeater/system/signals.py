"""Turns the signals that a person or a service manager sends into calls in the loop.

INT and TERM count together: the first asks to drain, the second to stop, the third and all after it to kill. HUP asks
to reload. Used by `app` only. The handlers do nothing but write down what came and wake the loop once, so that ten
thousand signals are as harmless as three; asyncio's own handlers drop signals when their pipe is full.

A handler only runs when the main thread next gets its turn. If a signal comes just before the loop falls asleep, or to
another thread, that may be in half a minute: so the interpreter is told to write to a pipe that the loop reads.
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
    """Ignore the signals in the last moments of the interpreter, which resets each Python handler to SIG_DFL.

    The signals are blocked first. No other thread is left here, so none can arrive during the change to SIG_IGN.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


class Signals:
    """Listens from its making until `close`; both in the main thread.

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
        """Give the signals back the meaning that they had before. With `at_end`, give them no meaning.

        With `at_end` the handler becomes a function that does nothing. It does not become SIG_IGN: CPython writes a
        traceback ("Signal 15 ignored due to race condition") when a signal arrives during that change.
        """
        for number, before in self._before.items():
            signal.signal(number, _ignore if self._at_end else signal.SIG_DFL if before is None else before)
        if self._before and self._at_end:
            atexit.register(_ignore_for_good)
        if self._before:
            self._before = {}
            # A full pipe must not warn: CPython then takes a lock inside the C signal handler, and can block for ever.
            signal.set_wakeup_fd(self._woke, warn_on_full_buffer=False)
            self._loop.remove_reader(self._awake)
            os.close(self._awake)
            os.close(self._waker)

    def _drain(self) -> None:
        """The handlers have run by now."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._awake, 4096):
                pass

    def _on_readable(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        elif len(self._came) < len(_LEVELS):
            # A handler may be interrupted by another one right here, so a few too many may come.
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
