"""What is kept of the output of runs, for those who ask later, and handed on to those who listen now.

The end of each run is kept, as much as its job's `capture` says; of runs that are over only as much as fits into
`MOST_KEPT` bytes, the runs that ended last. All of it is in memory and gone with the supervisor: what has to last goes
to the job's `output.file`. Bytes come in as they were written, with secrets hidden already. Called in the loop's thread
by `output.router`; read by `control.commands.logs`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import datetime
from operator import attrgetter
from typing import Literal

from repeater._lazy_dataclasses import dataclass, field
from repeater.ports import Clock, Stream

MOST_KEPT = 8 << 20
"""Bytes over all runs that are over, with what it costs to keep them."""
_COST = 256  # bytes that a piece takes beside its data, or a run beside its pieces
_SMALL = 4096  # bytes: what continues a line is added to the piece before it up to this size
_MOST_PIECES = 4096  # of one run; beyond it small pieces are joined, whatever they are


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes that a run wrote at one time, in the order of `number` over all runs. May begin or end within a line."""

    number: int
    at: datetime
    job: str
    run: str
    stream: Stream | Literal["rpr"]
    data: bytes


@dataclass(slots=True)
class _Tail:
    job: str
    most: int
    pieces: list[Chunk] = field(default_factory=list)
    size: int = 0

    def add(self, piece: Chunk) -> None:
        last = self.pieces[-1] if self.pieces else None
        goes_on = last is not None and (not last.data.endswith(b"\n") or len(self.pieces) >= _MOST_PIECES)
        if last is not None and goes_on and last.stream == piece.stream and len(last.data) < _SMALL:
            self.pieces[-1] = Chunk(last.number, last.at, last.job, last.run, last.stream, last.data + piece.data)
        else:
            self.pieces.append(piece)
        self.size += len(piece.data)
        while len(self.pieces) > 1 and (
            self.size - len(self.pieces[0].data) >= self.most or len(self.pieces) > _MOST_PIECES
        ):
            self.size -= len(self.pieces.pop(0).data)

    @property
    def cost(self) -> int:
        return self.size + _COST * (len(self.pieces) + 1)

    def bytes(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)[-self.most :] if self.most else b""


class OutputBuffer:
    """`begin`, `add`, `end` for each run; the rest is for readers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, _Tail] = {}
        self._over: OrderedDict[str, _Tail] = OrderedDict()
        self._over_size = 0
        self._number = 0
        self._listeners: list[Callable[[Chunk], None]] = []

    def begin(self, run: str, job: str, most: int) -> None:
        """A run begins, of which `most` bytes are kept."""
        self._live[run] = _Tail(job, most)

    def add(self, run: str, stream: Stream, data: bytes, at: datetime | None = None) -> None:
        """`at` is when it was written; None: now."""
        tail = self._live.get(run)
        if tail is None or not (tail.most or self._listeners):
            return
        self._number += 1
        piece = Chunk(self._number, at or self._clock.now().wall, tail.job, run, stream, data)
        if tail.most:
            tail.add(piece)
        for listener in self._listeners:
            listener(piece)

    def end(self, run: str) -> None:
        """The run is over: what is kept of it makes room for others in time."""
        tail = self._live.pop(run, None)
        if tail is None or not tail.size:
            return
        self._over[run] = tail
        self._over_size += tail.cost
        while self._over_size > MOST_KEPT:
            self._over_size -= self._over.popitem(last=False)[1].cost

    def tail(self, run: str) -> bytes:
        """The last bytes of a run, both streams as they came; empty for one that is not known (any more)."""
        tail = self._live.get(run) or self._over.get(run)
        return b"" if tail is None else tail.bytes()

    def knows(self, run: str) -> bool:
        """Whether the run goes on, or something is kept of it."""
        return run in self._live or run in self._over

    def pieces(
        self, jobs: Collection[str] | None = None, *, run: str = "", since: datetime | None = None
    ) -> list[Chunk]:
        """Everything that is kept of these jobs (None: of all), of one run, from an instant on; in order."""
        found = [
            piece
            for name, tail in (*self._over.items(), *self._live.items())
            if (jobs is None or tail.job in jobs) and run in ("", name)
            for piece in tail.pieces
            if since is None or piece.at >= since
        ]
        return sorted(found, key=attrgetter("number"))

    def listen(self, listener: Callable[[Chunk], None]) -> Callable[[], None]:
        """Every piece from now on, as it comes; what is returned ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
