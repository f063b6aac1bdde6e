"""The last events, for those who ask later, and each new one for those who listen now. Reads events, never steers.

In memory and bounded (`MOST`): what has to last is the history. Called in the loop's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

from repeater._lazy_dataclasses import dataclass
from repeater.model.events import Event
from repeater.ports import Clock

MOST = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and when it was told."""

    at: datetime
    event: Event


class EventLog:
    """A listener of events."""

    def __init__(self, clock: Clock, most: int = MOST) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=most)
        self._listeners: list[Callable[[Entry], None]] = []

    def __call__(self, event: Event) -> None:
        entry = Entry(self._clock.now().wall, event)
        self._entries.append(entry)
        for listener in tuple(self._listeners):
            listener(entry)

    def entries(self) -> list[Entry]:
        """The oldest first."""
        return list(self._entries)

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Every event from now on; what is returned ends it. A listener must not raise, and not take long."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
