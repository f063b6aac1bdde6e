"""Writes the history: one thread, one connection, commits in groups. Old rows are deleted between commits.

Durability. A claim is reported as durable only after a commit with `synchronous=FULL`, so it survives a power cut. All
other writes are committed with NORMAL: they survive a crash of this process, and a power cut may lose the last ones. A
single write is committed immediately; writes that arrive during a commit share the next one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Progress
from repeater.model.time import to_epoch_us
from repeater.store.history_database import commits_of
from repeater.store.mapping import KEEP_PROGRESS, PUT_META, dumped, meta_list, put_list, to_epoch_us_or_none
from repeater.store.marker import Marker
from repeater.store.state_dir import MARKER, file_identities
from repeater.store.write_queue import Then, WriteQueue, WriteRequest

CallSoon: TypeAlias = Callable[[Callable[[], None]], object]
_MOST_HELD = 100_000
_REST = 0.05  # seconds between steps when nothing else is to be written
_SURPLUS = (
    "DELETE FROM runs WHERE rowid IN (SELECT rowid FROM runs WHERE job = :job AND (rowid < "
    "coalesce((SELECT rowid FROM runs WHERE job = :job AND last ORDER BY rowid DESC LIMIT 1 "
    "OFFSET :most), 0) OR {too_old}) AND state NOT IN ('claimed', 'running', 'retrying') LIMIT :step)"
)
_TOO_OLD = (
    "DELETE FROM runs WHERE (job, nominal) IN (SELECT job, nominal FROM runs WHERE last AND {too_old} "
    "AND state NOT IN ('claimed', 'running', 'retrying') LIMIT :step)"
)
_LONG_STEP = timedelta(days=1)
"""A step of the wall clock that matters for retention."""
_MOST_PERIODS = 20
_PAGE = 4096  # bytes of a page of the WAL
_LONGEST_LOG, _SHORTEST_LOG = 1000, 16  # pages in the WAL after which it is folded in
_FIT = 1.0  # seconds between looks at the free space
_OFTEN = 100  # new rows of a job after which its old ones are looked at
_STEP = 200  # old rows that are deleted at once: a claim that comes meanwhile waits some two milliseconds


class AlreadyClaimed(Exception):
    """The attempt was claimed before."""

    taken = True


class WriteFailed(Exception):
    """A claim that could not be made durable, because of the disk. `temporary`: it may work later."""

    temporary = True


class DatabaseRemoved(Exception):
    """The files were removed or replaced while they are open: what is written to them is lost."""


class Writer:
    """Carries out what is put to it, in order. `folder` None: the database is in memory, `reading` is held while it
    is written to.

    `then` of a write, `warn` and `recorded` (the runs whose end is in the database now) are called through `call_soon`.
    At most `keep_rows` slots of each job, and those of `keep_days`, are kept; older ones are deleted a few at a time.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        folder: Path | None,
        call_soon: CallSoon,
        *,
        reading: threading.Lock,
        warn: Callable[[Reason], None],
        recorded: Callable[[list[str]], None] | None,
        keep_rows: int,
        keep_days: int,
    ) -> None:
        self._db = db
        self._folder = folder
        self._files = file_identities(folder)
        self._marker = None if folder is None else Marker(folder / MARKER)
        self._commits = self._durable = commits_of(db)
        self._call_soon = call_soon
        self._reading = reading
        self._warn = warn
        self._recorded = recorded
        self._keep_rows = keep_rows
        self._keep_age = timedelta(days=keep_days)
        self._asked = WriteQueue()
        self._backlog: list[WriteRequest] = []
        self._kept: dict[str, Progress] = {}
        self._inserted: dict[str, int] = {}
        self._to_prune: list[str] = []
        self._next_sweep = datetime.min.replace(tzinfo=UTC)
        self._since = datetime.now(UTC)  # since the last step of the wall clock
        self._sweeps = False
        self._is_failing = False
        self._log_pages = 0
        self._next_fit = 0.0
        self._survives = ""
        self._thread = threading.Thread(target=self._write_all, name="rpr-store", daemon=True)
        self._thread.start()

    def put(self, write: WriteRequest) -> None:
        self._asked.put(write)

    def flush(self) -> None:
        """Return when all earlier writes are durable, or have failed for now."""
        done = threading.Event()
        self.put(WriteRequest(lambda _: None, done=done))
        while not done.wait(0.1):
            if not self._thread.is_alive():
                return

    def end(self) -> None:
        """Return when all writes are durable or have failed. Nothing may be put after this call."""
        self._asked.put(None)
        self._thread.join()
        if self._marker is not None:
            self._marker.close()

    def note_closed(self) -> None:
        """Store in the marker that the database was closed. Raises OSError."""
        if self._marker is not None:
            self._marker.write("closed", self._durable)

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_failing

    @property
    def has_its_files(self) -> bool:
        """Whether the files with our names are the open ones."""
        return file_identities(self._folder) == self._files

    # --- in the writer's thread; the first three for what a write applies ---

    def note_clock_set(self, db: sqlite3.Connection, before: datetime, after: datetime) -> None:
        """The wall clock was set from `before` to `after`.

        Rows keep the nominal times that they were written with. After a long step these say nothing about the age of a
        row, so the period that the clock showed wrongly is kept in `meta`: its rows become too old together.
        """
        low, self._since = self._since, after
        if abs(after - before) >= _LONG_STEP:
            period = [
                to_epoch_us_or_none(min(low, before)),
                to_epoch_us_or_none(before),
                to_epoch_us_or_none(after + self._keep_age),
            ]
            put_list(db, "wrong_clock", [*meta_list(db, "wrong_clock"), period][-_MOST_PERIODS:])
            self._next_sweep = min(self._next_sweep, after)

    def retain(self, progress: Progress, decided: str | None) -> None:
        """Write the progress with this group, once for each job; `decided` is the job of a new row."""
        self._kept[progress.job] = progress
        if decided is not None:
            self._inserted[decided] = count = self._inserted.get(decided, 0) + 1
            if count == min(_OFTEN, self._keep_rows):
                self._to_prune.append(decided)

    def write_retained(self, db: sqlite3.Connection) -> None:
        if self._kept:
            db.executemany(KEEP_PROGRESS, [(job, dumped(progress)) for job, progress in self._kept.items()])
            self._kept.clear()

    def _write_all(self) -> None:
        is_open, next_prune = True, 0
        while is_open:
            group, is_open = self._asked.next_batch(1 if self._backlog else _REST if self._sweeps else None)
            self._commit(group)
            next_prune += 1
            if is_open and (self._asked.is_empty or next_prune >= 100):
                next_prune = 0
                self._prune()

    def _commit(self, group: list[WriteRequest]) -> None:
        """All of a group become durable at once, or none. Writes without a waiting caller are kept for the next try."""
        writes = self._backlog + group
        outcomes: list[tuple[Then, Exception | None]] = []
        ended: list[str] = []
        try:
            with self._reading:
                self._transact(writes, outcomes)
        except Exception as error:  # noqa: BLE001 - without the thread no later claim would get a result
            told = WriteFailed(f"cannot write the history: {error}")
            outcomes = [(write.then, told) for write in group if write.then is not None]
            self._retain([write for write in writes if write.then is None and write.done is None], error)
        else:
            self._backlog = []
            ended = [write.ends for write in writes if write.ends is not None]
            if self._is_failing and writes:
                self._is_failing = False
                self._fold_log()
                self._notify(Reason("history_recovered"))
        if outcomes or (ended and self._recorded is not None):
            self._later(lambda: self._deliver(outcomes, ended))
        for write in group:
            if write.done is not None:
                write.done.set()

    def _transact(self, writes: list[WriteRequest], outcomes: list[tuple[Then, Exception | None]]) -> None:
        if not writes:
            return
        if self._is_failing:
            self._fold_log()
        if time.monotonic() >= self._next_fit:
            self._fit_log()
        if not self.has_its_files:
            raise DatabaseRemoved(f"`{self._folder}` was removed or replaced while in use")
        self._on_write_error("power cuts" if any(write.is_claim for write in writes) else "deaths")
        self._db.execute("BEGIN IMMEDIATE")
        self._kept.clear()
        try:
            ended = {write.ends for write in writes if write.ends is not None}
            for write in writes:
                if write.begins is not None and write.begins in ended:
                    continue
                error: Exception | None = None
                try:
                    write.apply(self._db)
                except AlreadyClaimed as taken:
                    error = taken
                except (TypeError, ValueError, sqlite3.IntegrityError, sqlite3.ProgrammingError) as mistake:
                    error = mistake  # this write would fail each time, and block all others
                    self._notify(because("history_row_unwritable", error=repr(mistake)))
                if write.then is not None:
                    outcomes.append((write.then, error))
            self.write_retained(self._db)
            self._commit_counted()
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise
        if self._survives == "power cuts":
            self._durable = self._commits
            if self._marker is not None:
                self._marker.note(self._commits)

    def _commit_counted(self) -> None:
        """Commit, and raise the counter that shows a loss of commits."""
        self._db.execute(PUT_META, ("commits", str(self._commits + 1)))
        self._db.execute("COMMIT")
        self._commits += 1

    def _on_write_error(self, what: Literal["power cuts", "deaths"]) -> None:
        """Choose what the next commit survives."""
        if what != self._survives:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if what == 'power cuts' else 'NORMAL'}")
            self._survives = what

    def _fit_log(self) -> None:
        """Let the WAL grow to a quarter of the free space at most: a full disk takes no checkpoint, so the WAL would
        never become shorter.
        """
        self._next_fit = time.monotonic() + _FIT
        if self._folder is None:
            return
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return
        free = disk.f_bavail * disk.f_frsize
        pages = min(_LONGEST_LOG, max(_SHORTEST_LOG, free // 4 // _PAGE // 16 * 16))
        if pages != self._log_pages:
            self._log_pages = pages
            with contextlib.suppress(sqlite3.Error):
                self._db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                self._db.execute(f"PRAGMA journal_size_limit = {pages * _PAGE if pages < _LONGEST_LOG else -1}")

    def _fold_log(self) -> None:
        """Write the WAL into the database and make it empty, as far as the disk and readers let that be now."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA busy_timeout = 0")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA busy_timeout = 5000")

    def _retain(self, writes: list[WriteRequest], error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._notify(because("history_unwritable", error=str(error)))
        lost = max(0, len(writes) - _MOST_HELD)
        if lost and len(self._backlog) < _MOST_HELD:
            self._notify(because("history_lost", most=_MOST_HELD))
        self._backlog = writes[lost:]

    def _prune(self) -> None:
        """Delete a few old rows: of a job that got many new ones, or, once a day, of any job."""
        now = datetime.now(UTC)
        if not self._to_prune and now < self._next_sweep:
            return
        values: dict[str, Any] = {
            "before": to_epoch_us_or_none(now - self._keep_age),
            "most": self._keep_rows - 1,
            "step": _STEP,
        }
        too_old = self._too_old(now)
        if self._to_prune:
            job = self._to_prune.pop(0)
            self._inserted[job] = 0
            if self._delete(_SURPLUS.format(too_old=too_old), {**values, "job": job}):
                self._to_prune.append(job)
        else:
            self._sweeps = self._delete(_TOO_OLD.format(too_old=too_old), values)
            if not self._sweeps:
                self._next_sweep = now + timedelta(days=1)

    def _too_old(self, now: datetime) -> str:
        """The condition of SQL for rows that are older than `keep_days`."""
        with contextlib.suppress(sqlite3.Error), self._reading:
            number = to_epoch_us(now)
            periods = [
                (int(low), int(high), number >= until) for low, high, until in meta_list(self._db, "wrong_clock")
            ]
            young = "".join(f" AND NOT nominal BETWEEN {low} AND {high}" for low, high, is_old in periods if not is_old)
            old = "".join(f" OR nominal BETWEEN {low} AND {high}" for low, high, is_old in periods if is_old)
            return f"((nominal < :before{young}){old})"
        return "nominal < :before"

    def _delete(self, words: str, values: dict[str, Any]) -> bool:
        """Whether there may be more."""
        with contextlib.suppress(sqlite3.Error), self._reading:
            self._on_write_error("deaths")  # what a power cut brings back is deleted again
            self._db.execute("BEGIN IMMEDIATE")
            try:
                deleted = self._db.execute(words, values).rowcount
                self._commit_counted()
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            return deleted >= _STEP
        return False

    def _notify(self, reason: Reason) -> None:
        self._later(lambda: self._warn(reason))

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(call)

    # --- in the loop ---

    def _deliver(self, outcomes: list[tuple[Then, Exception | None]], ended: list[str]) -> None:
        for then, error in outcomes:
            then(error)
        if ended and self._recorded is not None:
            self._recorded(ended)
