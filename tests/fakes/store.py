"""A store in memory, with the same rules as `store`: what is unique there is unique here.

`failing` is the error that every claim meets while it is set, `NotWrittenError()` for a full disk. `reopened()` is the same history
in a new store, as after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from statistics import median
from typing import TypeAlias

from repeater._lazy_dataclasses import replace
from repeater.model.run import INTERIM, LimitedStart, Progress, SlotRecord
from repeater.model.time import Instant, Mono, to_us
from repeater.ports import StoredState

Key: TypeAlias = tuple[str, datetime, int]


class SlotTakenError(Exception):
    """The attempt was claimed before."""

    taken = True


class NotWrittenError(Exception):
    """A claim met a full disk."""

    temporary = True


class FakeStore:
    """`ports.Store` in memory. `call_soon` is the clock's; without one, `then` is called at once."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], None] | None = None) -> None:
        self.failing: Exception | None = None
        self.pids: dict[str, int] = {}
        self.generation = 0
        self.document = ""
        self.extras = ""
        self.progress: dict[str, Progress] = {}
        self.table: dict[Key, SlotRecord] = {}
        self.kept_starts: dict[str, LimitedStart] = {}
        self.closed = False
        self._call_soon = call_soon

    def reopened(self, call_soon: Callable[[Callable[[], None]], None] | None = None) -> FakeStore:
        """A new store that remembers what this one holds."""
        other = FakeStore(call_soon)
        other.generation, other.document, other.extras = self.generation, self.document, self.extras
        other.progress = deepcopy(self.progress)
        other.table = deepcopy(self.table)
        other.kept_starts = dict(self.kept_starts)
        return other

    def load(self) -> StoredState:
        unfinished = sorted(
            (row for row in self._last_rows() if row.state in INTERIM), key=lambda row: (row.nominal, row.job)
        )
        return StoredState(self.generation, dict(self.progress), tuple(unfinished))

    def begin(self, generation: int, document: str = "", extras: str = "") -> None:
        self.generation = generation
        self.document = document
        self.extras = extras

    def claim(
        self,
        row: SlotRecord,
        progress: Progress,
        then: Callable[[Exception | None], None],
        command: Callable[[], str | None] = lambda: None,
    ) -> None:
        key = (row.job, row.nominal, row.attempts)
        error: Exception | None = self.failing
        if error is None and key in self.table:
            error = SlotTakenError(f"cannot claim `{row.job}` at {row.nominal}: it has already been claimed")
        if error is None:
            for (job, nominal, attempt), earlier in list(self.table.items()):
                is_earlier = (job, nominal) == key[:2] and attempt < row.attempts
                if is_earlier and earlier.state in ("claimed", "running"):
                    self.table[job, nominal, attempt] = replace(earlier, state="interrupted")
            self.table[key] = replace(row, command=command())
            self.progress[progress.job] = progress
        if self._call_soon is None:
            then(error)
        else:
            self._call_soon(lambda: then(error))

    def set_command(self, row: SlotRecord, command: str | None) -> None:
        key = (row.job, row.nominal, row.attempts)
        self.table[key] = replace(self.table[key], command=command)

    def _keep(self, row: SlotRecord) -> None:
        key = (row.job, row.nominal, row.attempts)
        before = self.table.get(key)
        self.table[key] = replace(row, command=None if before is None else before.command)

    def started(self, row: SlotRecord, pid: int) -> None:
        self._keep(row)
        if row.run:
            self.pids[row.run] = pid

    def record(self, row: SlotRecord, progress: Progress) -> None:
        if row.attempts or (row.job, row.nominal, 1) not in self.table:
            self._keep(row)
        self.progress[progress.job] = progress

    def keep_start(self, start: LimitedStart) -> None:
        kept = self.kept_starts.get(start.run, start)
        self.kept_starts[start.run] = replace(start, job=kept.job, limit=kept.limit)

    def drop_start(self, run: str) -> None:
        self.kept_starts.pop(run, None)

    def starts(
        self, jobs: Sequence[str], limits: Sequence[str], window: timedelta, now: Instant, boot: str
    ) -> list[LimitedStart]:
        found = [
            start
            for start in self.kept_starts.values()
            if (start.job in jobs or start.limit in limits)
            and (not start.is_known or _age(start, now, boot) < to_us(window))
        ]
        for row in self.table.values():
            if row.job in jobs and row.attempts and row.state != "spawn_failed" and row.run not in self.kept_starts:
                began = (row.started if row.attempts == 1 else None) or row.ended or now.wall
                if began > now.wall - window:
                    found.append(LimitedStart(row.run or "", row.job, None, began, Mono(0)))
        return found

    def save(self, progress: Progress) -> None:
        self.progress[progress.job] = progress

    def clock_set(self, before: datetime, after: datetime) -> None:
        """Nothing is ever too old here."""

    def move(self, old: str, new: str) -> None:
        moved = {key: row for key, row in self.table.items() if key[0] == old}
        in_the_way = {(new, nominal) for _, nominal, _ in moved}
        rest = {key: row for key, row in self.table.items() if key not in moved and key[:2] not in in_the_way}
        self.table = rest | {(new, *key[1:]): replace(row, job=new) for key, row in moved.items()}
        for run, start in self.kept_starts.items():
            if start.job == old:
                self.kept_starts[run] = replace(start, job=new)
        if old in self.progress:
            self.progress[new] = replace(self.progress.pop(old), job=new)

    def forget(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            self.progress.pop(job, None)

    def find_records(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[SlotRecord]:
        found = [
            row
            for row in self._last_rows()
            if (jobs is None or row.job in jobs)
            and (since is None or row.nominal >= since)
            and (until is None or row.nominal < until)
            and (not outcomes or row.outcome in outcomes)
        ]
        found.sort(key=lambda row: (row.nominal, row.job), reverse=True)
        return iter(found[:most])

    def recent_durations(self) -> Mapping[str, float]:
        lengths: dict[str, list[float]] = {}
        for row in self.find_records(most=1_000_000):
            if row.state in ("succeeded", "failed") and row.started and row.ended:
                lengths.setdefault(row.job, []).append((row.ended - row.started).total_seconds())
        return {job: median(found[:20]) for job, found in lengths.items()}

    def flush(self) -> None:
        """Nothing is ever pending here but calls."""

    def close(self) -> None:
        self.closed = True

    def _last_rows(self) -> list[SlotRecord]:
        last: dict[tuple[str, datetime], SlotRecord] = {}
        for (job, nominal, _), row in sorted(self.table.items()):
            last[job, nominal] = row
        return list(last.values())


def _age(start: LimitedStart, now: Instant, boot: str) -> int:
    """Microseconds, by the monotonic clock in the same boot."""
    if boot and start.boot == boot:
        return now.mono - start.mono
    return to_us(now.wall - start.at)
