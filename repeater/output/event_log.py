"""The last events in memory, for later queries and for live listeners.

Bounded by `MAX_EVENTS`. The history is the lasting record. All methods are called in the loop's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

from repeater._lazy_dataclasses import dataclass
from repeater.model.events import Event
from repeater.ports import Clock

MAX_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and the time of its report."""

    at: datetime
    event: Event


class EventLog:
    """A listener of events."""

    def __init__(self, clock: Clock, limit: int = MAX_EVENTS) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._listeners: list[Callable[[Entry], None]] = []

    def __call__(self, event: Event) -> None:
        entry = Entry(self._clock.now().wall, event)
        self._entries.append(entry)
        for listener in tuple(self._listeners):
            listener(entry)

    def entries(self) -> list[Entry]:
        """All entries, the oldest first."""
        return list(self._entries)

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Call `listener` with every new event. It must not raise or block. The result removes the listener."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
