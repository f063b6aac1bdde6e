"""`logs`: the stored output of runs, and new output.

Output on disk is read in the order of time (`output.run_reader`). For other runs, memory has the end of the output
(`output.buffer`). A client that follows and is slower than the jobs loses pieces, and gets the number of lost bytes;
jobs do not wait for it. `stored` and `why_nothing` also serve the command where no supervisor runs.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, TypedDict

from repeater.control.context import Args, ControlContext, FindRecords, Send, aside
from repeater.errors import NotFound, UsageError
from repeater.model.json_types import Base64, Code, Count, Detail, Time
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobSpec, Keep
from repeater.model.time import rfc3339
from repeater.output.buffer import Chunk
from repeater.output.run_reader import RunOutput, RunReader
from repeater.sentences import as_item as coded

MOST_WAITING = 1 << 20
"""Bytes that wait for one client that listens."""
_BATCH = 1 << 18  # bytes that are read at once
_PATIENCE = 2.0  # seconds that a disk gets to take what was printed lately


class _OutputKeys(TypedDict):
    time: Time
    job: str
    run: str
    stream: Literal["stdout", "stderr", "rpr"]


class OutputItem(_OutputKeys, total=False):
    """A piece of output. It has `text`, or `base64` if it is not valid UTF-8."""

    text: str
    base64: Base64


class LogsResult(TypedDict):
    """The reason is that of an empty output."""

    pieces: Count
    reason: str | None
    reason_code: Code | None
    detail: Detail


async def logs(desk: ControlContext, args: Args, send: Send) -> LogsResult:
    """An item for each piece: `time`, `job`, `run`, `stream`, and `text`, or `base64` for output that is not UTF-8.

    `tail` is in lines of each job. With `follow` it ends only with the client or the supervisor. If there is nothing,
    the result has the reason.
    """
    if args["failed"] and args["follow"]:
        raise UsageError("cannot follow failed runs: they are over", hint="leave out `failed` or `follow`")
    names = {job.spec.name for job in desk.jobs(args["jobs"])} if args["jobs"] else None
    run = args["run"]
    follower = (
        _Follower(lambda piece: (names is None or piece.job in names) and run in ("", piece.run))
        if args["follow"]
        else None
    )
    deaf = desk.kept.listen(follower.on_chunk) if follower is not None else None
    try:
        count = 0
        pieces = await _past(desk, names, args)
        while batch := await aside(partial(_some, pieces)):
            count += len(batch)
            await send(*map(as_item, batch))
        while follower is not None:
            await send(*await follower.next())
    finally:
        if deaf is not None:
            deaf()
    nothing = None
    if not count and not (args["since"] or args["failed"]):
        specs = [job.spec for job in desk.jobs(args["jobs"])]
        nothing = await aside(partial(why_nothing, args["run"], specs, desk.rows, is_ephemeral=desk.outputs is None))
        if args["run"] and not desk.kept.knows(args["run"]):
            raise unknown_run(args["run"], nothing)
    return {"pieces": count, **coded(nothing)}


async def _past(desk: ControlContext, names: Collection[str] | None, args: Args) -> Iterator[Chunk]:
    """The output until now. A follower gets none of it."""
    memory = desk.kept.pieces(names, run=args["run"], since=args["since"])
    failed = _failed_runs(desk) if args["failed"] else None
    store = desk.outputs
    if store is None:
        return chosen(
            args["tail"], None, [], memory if failed is None else [one for one in memory if one.run in failed]
        )
    totals = store.totals()
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    store.flush(lambda: None if written.done() else written.set_result(None))
    with suppress(TimeoutError):  # a disk that hangs: what is on it already is shown
        await asyncio.wait_for(written, _PATIENCE)
    reader = RunReader(store.folder.parent, desk.engine.jobs)
    found = await aside(partial(reader.outputs, names, run=args["run"], since=args["since"], failed=args["failed"]))
    on_disk = {output.run for output in found}
    rest = [one for one in memory if one.run not in on_disk and (failed is None or one.run in failed)]
    return chosen(args["tail"], reader, found, rest, since=args["since"], until=store.positions(totals))


def _failed_runs(desk: ControlContext) -> set[str]:
    """The last runs that failed, as far as the engine knows them."""
    rows = (row for job in desk.engine.jobs.values() for row in job.recent.values())
    return {row.run for row in rows if row.run and row.outcome in ("failed", "interrupted")}


def chosen(
    tail: int | None, reader: RunReader | None, found: list[RunOutput], memory: list[Chunk], **limits: Any
) -> Iterator[Chunk]:
    """The pieces of these outputs on disk and of those in memory, by time; of each job the last `tail` lines."""
    if reader is None:
        disk: Iterable[Chunk] = ()
    elif tail is None:
        disk = reader.pieces(found, **limits)
    else:
        by_job = groupby(sorted(found, key=attrgetter("job")), attrgetter("job"))
        disk = sorted(
            (one for _, runs in by_job for one in _end(reader, list(runs), tail, limits)), key=attrgetter("at")
        )
    pieces = heapq.merge(disk, memory, key=attrgetter("at")) if memory else iter(disk)
    return pieces if tail is None else iter(last_lines(pieces, tail))


def _end(reader: RunReader, runs: list[RunOutput], tail: int, limits: Mapping[str, Any]) -> list[Chunk]:
    """The outputs of one job that have its last lines, the newest runs first."""
    pieces: list[Chunk] = []
    lines = 0
    for output in reversed(runs):
        if lines >= tail:
            break
        more = list(reader.pieces([output], **limits))
        lines += sum(piece.data.count(b"\n") for piece in more)
        pieces = more + pieces
    return pieces


def _some(pieces: Iterator[Chunk]) -> list[Chunk]:
    """The next pieces, none at the end. Reads files."""
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.data) + 100
        if size >= _BATCH:
            break
    return batch


def why_nothing(run: str, specs: Iterable[JobSpec], rows: FindRecords, *, is_ephemeral: bool = False) -> Reason:
    """Why nothing is kept of a run, or of these jobs. Reads the history."""
    specs = list(specs)
    if is_ephemeral:
        return Reason("output_ephemeral")
    if not run:
        off = [spec for spec in specs if spec.output.keep is None]
        return because("output_off", job=off[0].name) if off and len(off) == len(specs) else Reason("output_empty")
    rule = Keep()
    for spec in specs:
        last = [row.run for row in rows([spec.name], max(1, spec.output.keep.runs if spec.output.keep else 1000))]
        if run in last:
            return (
                because("output_off", job=spec.name) if spec.output.keep is None else because("output_empty", run=run)
            )
        rule = spec.output.keep or rule
    return because("output_gone", run=run, runs=rule.runs, failures=rule.failures)


def unknown_run(run: str, nothing: Reason) -> NotFound:
    """The refusal of a run of which there is no output; it says why."""
    return NotFound(f"cannot show run `{run}`: {coded(nothing)['reason']}", hint="`rpr history` lists runs")


class _Follower:
    """What is new for one client."""

    def __init__(self, is_wanted: Callable[[Chunk], bool]) -> None:
        self._is_wanted = is_wanted
        self._has_ended = False
        self._waiting: deque[Chunk] = deque()
        self._size = 0
        self._lost = 0
        self._came = asyncio.Event()

    def on_chunk(self, piece: Chunk) -> None:
        if not self._is_wanted(piece):
            return
        if self._size + len(piece.data) > MOST_WAITING:
            self._lost += len(piece.data)
        else:
            self._waiting.append(piece)
            self._size += len(piece.data)
        self._came.set()

    async def next(self) -> list[OutputItem | dict[str, int]]:
        """At least one item, or none after the end."""
        if not self._has_ended:
            await self._came.wait()
        self._came.clear()
        items: list[OutputItem | dict[str, int]] = [as_item(piece) for piece in self._waiting]
        if self._lost:
            items.append({"lost": self._lost})
        self._waiting.clear()
        self._size = self._lost = 0
        return items

    def end(self) -> None:
        """Nothing more is wanted."""
        self._has_ended = True
        self._came.set()


class OutputStream:
    """Sends new output to one client, from its construction until `end` or `cancel`."""

    def __init__(self, desk: ControlContext, is_wanted: Callable[[Chunk], bool], send: Send) -> None:
        self._follower = _Follower(is_wanted)
        self._stop_listening = desk.kept.listen(self._follower.on_chunk)
        self._sending = asyncio.get_running_loop().create_task(self._run(send))

    async def _run(self, send: Send) -> None:
        while items := await self._follower.next():
            await send(*items)

    async def end(self) -> None:
        """Return when everything that was printed until now was sent."""
        self._follower.end()
        await self._sending

    def cancel(self) -> None:
        """Send nothing more."""
        self._stop_listening()
        self._sending.cancel()


def as_item(piece: Chunk) -> OutputItem:
    """A piece for JSON."""
    item: OutputItem = {"time": rfc3339(piece.at), "job": piece.job, "run": piece.run, "stream": piece.stream}
    try:
        item["text"] = piece.data.decode("utf-8")
    except UnicodeDecodeError:
        item["base64"] = base64.b64encode(piece.data).decode("ascii")
    return item


def last_lines(pieces: Iterable[Chunk], most: int) -> list[Chunk]:
    """Of each job the pieces with its last `most` lines; the first of them is cut where the lines begin."""
    left: dict[str, int] = {}
    kept: list[Chunk] = []
    for piece in reversed(list(pieces)):
        wanted = left.setdefault(piece.job, most)
        if wanted <= 0:
            continue
        lines = piece.data.splitlines(keepends=True)
        taken = lines[-wanted:]
        left[piece.job] = wanted - len(taken)
        kept.append(
            Chunk(piece.number, piece.at, piece.job, piece.run, piece.stream, b"".join(taken))
            if len(taken) < len(lines)
            else piece
        )
    return kept[::-1]
