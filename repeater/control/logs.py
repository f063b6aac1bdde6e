"""`logs`: what runs printed, as far as it is kept, and what they print from now on.

What is kept is said in `observe.kept`. A client that listens and is slower than the jobs loses pieces and is told how
many bytes; no job ever waits for it.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from repeater.control.desk import Args, Desk, Send
from repeater.errors import NotThere
from repeater.model.time import rfc3339
from repeater.observe.kept import Piece

MOST_WAITING = 1 << 20
"""Bytes that wait for one client that listens."""


async def logs(desk: Desk, args: Args, send: Send) -> Mapping[str, Any]:
    """An item for each piece: `time`, `job`, `run`, `stream`, and `text`, or `base64` for what is no UTF-8.

    `tail` is in lines of each job. With `follow` it ends only with the client or the supervisor.
    """
    names = {job.spec.name for job in desk.jobs(args["jobs"])} if args["jobs"] else None
    run = args["run"]
    past = desk.kept.pieces(names, run=run, since=args["since"])
    if args["tail"] is not None:
        past = last_lines(past, args["tail"])
    if run and not past and not args["follow"] and not desk.kept.knows(run):
        raise NotThere(f"cannot show run `{run}`: nothing is kept of it", hint="`rpr history` lists runs")
    follower = _Follower(names, run) if args["follow"] else None
    deaf = desk.kept.listen(follower.take) if follower is not None else None
    try:
        for piece in past:
            await send(as_item(piece))
        while follower is not None:
            await send(*await follower.next())
    finally:
        if deaf is not None:
            deaf()
    return {"pieces": len(past)}


class _Follower:
    """What is new for one client."""

    def __init__(self, names: set[str] | None, run: str) -> None:
        self._names = names
        self._run = run
        self._waiting: deque[Piece] = deque()
        self._size = 0
        self._lost = 0
        self._came = asyncio.Event()

    def take(self, piece: Piece) -> None:
        if (self._names is not None and piece.job not in self._names) or self._run not in ("", piece.run):
            return
        if self._size + len(piece.data) > MOST_WAITING:
            self._lost += len(piece.data)
        else:
            self._waiting.append(piece)
            self._size += len(piece.data)
        self._came.set()

    async def next(self) -> list[dict[str, Any]]:
        """At least one item."""
        await self._came.wait()
        self._came.clear()
        items = [as_item(piece) for piece in self._waiting]
        if self._lost:
            items.append({"lost": self._lost})
        self._waiting.clear()
        self._size = self._lost = 0
        return items


def as_item(piece: Piece) -> dict[str, Any]:
    """A piece for JSON."""
    item = {"time": rfc3339(piece.at), "job": piece.job, "run": piece.run, "stream": piece.stream}
    try:
        return item | {"text": piece.data.decode("utf-8")}
    except UnicodeDecodeError:
        return item | {"base64": base64.b64encode(piece.data).decode("ascii")}


def last_lines(pieces: Iterable[Piece], most: int) -> list[Piece]:
    """Of each job the pieces with its last `most` lines; the first of them is cut where the lines begin."""
    left: dict[str, int] = {}
    kept: list[Piece] = []
    for piece in reversed(list(pieces)):
        wanted = left.setdefault(piece.job, most)
        if wanted <= 0:
            continue
        lines = piece.data.splitlines(keepends=True)
        taken = lines[-wanted:]
        left[piece.job] = wanted - len(taken)
        kept.append(
            Piece(piece.number, piece.at, piece.job, piece.run, piece.stream, b"".join(taken))
            if len(taken) < len(lines)
            else piece
        )
    return kept[::-1]
