"""Turns the signals that a person or a service manager sends into calls in the loop.

INT and TERM count together: the first asks to drain, the second to stop, the third and all after it to kill. HUP asks
to reload. Used by `app` only. The handlers do nothing but write down what came and wake the loop once, so that ten
thousand signals are as harmless as three; asyncio's own handlers drop signals when their pipe is full.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Literal

from repeater.ports import Loop

Level = Literal["drain", "stop", "kill"]
_LEVELS: tuple[Level, ...] = ("drain", "stop", "kill")
_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Listens from its making until `close`; both in the main thread.

    `stop(level, name)` gets the level and the signal's name (`INT`, `TERM`), once for each level and in order;
    `reload()` comes once for any number of HUPs that arrive together. Both are called in the loop.
    """

    def __init__(self, loop: Loop, stop: Callable[[Level, str], None], reload: Callable[[], None]) -> None:
        self._loop = loop
        self._stop = stop
        self._reload = reload
        self._came: list[str] = []  # at most one name for each level
        self._told = 0
        self._reload_asked = False
        self._woken = False
        self._before = {number: signal.signal(number, self._heard) for number in _HEARD}

    def close(self) -> None:
        """Signals mean again what they meant before."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before = {}

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        elif len(self._came) < len(_LEVELS):
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
        while self._told < len(self._came):
            level = self._told
            self._told += 1
            self._stop(_LEVELS[level], self._came[level])
