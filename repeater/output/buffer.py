"""Recent output of runs in memory, for later queries and for live listeners.

The last bytes of each run are kept, up to the `capture` of its job. Finished runs together keep at most `MAX_KEPT`
bytes; the runs that ended first are dropped. The output is lost when the supervisor exits. Lasting output is in the
job's `output.file`. Bytes arrive as they were written, with secrets already masked. All methods are called in the
loop's thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import datetime
from operator import attrgetter
from typing import Literal

from repeater._lazy_dataclasses import dataclass, field
from repeater.ports import Clock, Stream

MAX_KEPT = 8 << 20
"""Bytes of all finished runs, including overhead."""
_COST = 256  # bytes of overhead of a chunk or of a run
_SMALL = 4096  # bytes: the continuation of a line is appended to the previous chunk up to this size
_MAX_CHUNKS = 4096  # of one run; beyond it small chunks are joined, even if they begin a line


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that a run wrote at one time, ordered by `number` over all runs. May begin or end within a line."""

    number: int
    at: datetime
    job: str
    run: str
    stream: Stream | Literal["rpr"]
    data: bytes


@dataclass(slots=True)
class _Tail:
    job: str
    max_size: int
    chunks: list[Chunk] = field(default_factory=list)
    size: int = 0

    def add(self, chunk: Chunk) -> None:
        last = self.chunks[-1] if self.chunks else None
        can_join = last is not None and (not last.data.endswith(b"\n") or len(self.chunks) >= _MAX_CHUNKS)
        if last is not None and can_join and last.stream == chunk.stream and len(last.data) < _SMALL:
            self.chunks[-1] = Chunk(last.number, last.at, last.job, last.run, last.stream, last.data + chunk.data)
        else:
            self.chunks.append(chunk)
        self.size += len(chunk.data)
        while len(self.chunks) > 1 and (
            self.size - len(self.chunks[0].data) >= self.max_size or len(self.chunks) > _MAX_CHUNKS
        ):
            self.size -= len(self.chunks.pop(0).data)

    @property
    def cost(self) -> int:
        return self.size + _COST * (len(self.chunks) + 1)

    def bytes(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)[-self.max_size :] if self.max_size else b""


class OutputBuffer:
    """Call `begin`, `add` and `end` for each run. The other methods are for readers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, _Tail] = {}
        self._ended: OrderedDict[str, _Tail] = OrderedDict()
        self._ended_size = 0
        self._number = 0
        self._listeners: list[Callable[[Chunk], None]] = []

    def begin(self, run: str, job: str, max_size: int) -> None:
        """A run begins. Its last `max_size` bytes are kept."""
        self._live[run] = _Tail(job, max_size)

    def add(self, run: str, stream: Stream, data: bytes, at: datetime | None = None) -> None:
        """Add output that was written at `at` (default: now)."""
        tail = self._live.get(run)
        if tail is None or not (tail.max_size or self._listeners):
            return
        self._number += 1
        chunk = Chunk(self._number, at or self._clock.now().wall, tail.job, run, stream, data)
        if tail.max_size:
            tail.add(chunk)
        for listener in self._listeners:
            listener(chunk)

    def end(self, run: str) -> None:
        """The run has ended. Its output may be dropped to make room for later runs."""
        tail = self._live.pop(run, None)
        if tail is None or not tail.size:
            return
        self._ended[run] = tail
        self._ended_size += tail.cost
        while self._ended_size > MAX_KEPT:
            self._ended_size -= self._ended.popitem(last=False)[1].cost

    def tail(self, run: str) -> bytes:
        """The last bytes of a run, both streams in order of arrival. Empty for an unknown run."""
        tail = self._live.get(run) or self._ended.get(run)
        return b"" if tail is None else tail.bytes()

    def knows(self, run: str) -> bool:
        """Whether the run is live, or its output is kept."""
        return run in self._live or run in self._ended

    def pieces(
        self, jobs: Collection[str] | None = None, *, run: str = "", since: datetime | None = None
    ) -> list[Chunk]:
        """The kept output of these jobs (None: of all), of one run, since an instant; in order."""
        found = [
            chunk
            for name, tail in (*self._ended.items(), *self._live.items())
            if (jobs is None or tail.job in jobs) and run in ("", name)
            for chunk in tail.chunks
            if since is None or chunk.at >= since
        ]
        return sorted(found, key=attrgetter("number"))

    def listen(self, listener: Callable[[Chunk], None]) -> Callable[[], None]:
        """Call `listener` with every new chunk. The returned function removes the listener."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
