"""Reads the output of runs from disk, beside a supervisor that writes it or without one.

Files are opened in the order in which their runs began and closed at their ends, so the memory that is needed does not
depend on how much is kept. Output that is removed or shortened meanwhile is left out.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.output import run_file
from repeater.output.buffer import Chunk
from repeater.output.run_file import FAILED, FINE, FOLDER, LIVE

_DIGITS_OF_TIME = 11  # of the id of a run: milliseconds since 1970
_LONGEST_RUN_OF_ID = 20


@dataclass(frozen=True, slots=True)
class RunOutput:
    """The output of one run on disk. `began` is the time of its decision, `changed` the last change of its file."""

    job: str
    run: str
    folder: str
    file: str
    began: datetime
    changed: datetime

    @property
    def failed(self) -> bool:
        return self.file.endswith(FAILED)


class RunReader:
    """`state` is a state folder, `jobs` are names that may have outputs there."""

    def __init__(self, state: Path, jobs: Iterable[str] = ()) -> None:
        self._folder = state / FOLDER
        self._jobs = tuple(jobs)

    def outputs(
        self,
        jobs: Collection[str] | None = None,
        *,
        run: str = "",
        since: datetime | None = None,
        failed: bool = False,
    ) -> list[RunOutput]:
        """The stored outputs of these jobs (None: of all), in the order in which the runs began."""
        found: dict[tuple[str, str], RunOutput] = {}
        if run and not run_file.is_run(run):
            return []
        try:
            folders = sorted(os.listdir(self._folder)) if jobs is None else map(run_file.folder_name, sorted(jobs))
            for folder in folders:
                job = run_file.job_name(folder, self._jobs if jobs is None else jobs)
                for output in self._in_folder(job, folder, run):
                    if (since is None or output.changed >= since - _COARSE) and (output.failed or not failed):
                        key = (folder, output.run)
                        if key not in found or output.file.endswith(LIVE):  # the other file is incomplete
                            found[key] = output
        except FileNotFoundError:
            return []
        return sorted(found.values(), key=lambda output: (output.began, output.run))

    def _in_folder(self, job: str, folder: str, run: str) -> Iterator[RunOutput]:
        path = self._folder / folder
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(path) if not run else [run + kind for kind in (LIVE, FINE, FAILED)]
            for name in names:
                id_, kind = run_file.run_of(name)
                if not kind:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    changed = datetime.fromtimestamp(os.lstat(path / name).st_mtime, UTC)
                    yield RunOutput(job, id_, folder, name, _began(id_, changed), changed)

    def pieces(
        self,
        outputs: Iterable[RunOutput],
        *,
        since: datetime | None = None,
        until: Mapping[str, int] | None = None,
    ) -> Iterator[Chunk]:
        """The output of these runs, by time. `until` limits runs to their first bytes, by the id of the run."""
        limits = until or {}
        waiting = iter(sorted(outputs, key=lambda output: output.began))
        following = next(waiting, None)
        open_: list[tuple[datetime, int, Chunk, Iterator[Chunk]]] = []
        number = 0
        while open_ or following is not None:
            if following is not None and (not open_ or following.began <= open_[0][0]):
                pieces = self._pieces_of(following, since, limits.get(following.run))
                number += 1
                if (first := next(pieces, None)) is not None:
                    heapq.heappush(open_, (first.at, number, first, pieces))
                following = next(waiting, None)
                continue
            at, order, piece, pieces = open_[0]
            yield piece
            if (first := next(pieces, None)) is None:
                heapq.heappop(open_)
            else:
                heapq.heapreplace(open_, (max(at, first.at), order, first, pieces))

    def last_lines(self, output: RunOutput, most: int) -> list[str]:
        """The last lines of a run, as text."""
        data = b"".join(piece.data for piece in self._pieces_of(output, None, None))
        return last_lines_of(data, most)

    def _pieces_of(self, output: RunOutput, since: datetime | None, limit: int | None) -> Iterator[Chunk]:
        position = 0
        for at, stream, written in run_file.decoded(self._text(output)):
            data, begin = written, position
            position += int(data) if stream == "rpr" else len(data)
            if limit is not None and position > limit:
                if stream == "rpr" or begin >= limit:
                    return
                data = data[: limit - begin]
            if since is None or at >= since:
                yield run_file.piece_of((at, stream, data), output.job, output.run)
            if limit is not None and position >= limit:
                return

    def _text(self, output: RunOutput) -> bytes:
        """The file may have become another one since it was listed, because its run has ended."""
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                root = run_file.open_folder(self._folder)
                try:
                    folder = run_file.open_folder(output.folder, inside=root)
                finally:
                    os.close(root)
                try:
                    for name in dict.fromkeys((output.file, *(output.run + kind for kind in (FINE, FAILED)))):
                        with contextlib.suppress(FileNotFoundError):
                            return run_file.read_text(name, folder)
                finally:
                    os.close(folder)
        return b""


def last_lines_of(data: bytes, most: int) -> list[str]:
    """The last lines of an output as text, without control characters at their ends."""
    return [line.decode("utf-8", "replace") for line in data.rstrip(b"\n").splitlines()[-most:]] if data else []


def _began(run: str, changed: datetime) -> datetime:
    """The ids of runs begin with a time."""
    if len(run) == _LONGEST_RUN_OF_ID:
        with contextlib.suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(int(run[:_DIGITS_OF_TIME], 16) / 1000, UTC)
    return changed


_COARSE = timedelta(seconds=2)
