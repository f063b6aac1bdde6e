"""The store of a supervisor: what is written for each request, and what it can read.

The methods only queue what to write. The writer writes it later, in its own thread, in the order of the requests.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repeater._lazy_dataclasses import replace
from repeater.model.reasons import Reason
from repeater.model.run import LimitedStart, Progress, SlotRecord
from repeater.model.time import Instant
from repeater.policy.marks import ALGORITHM
from repeater.ports import StoredState
from repeater.store.database import connect
from repeater.store.history_database import commits_of, create, open_writer
from repeater.store.mapping import (
    BEGAN,
    CLAIM,
    COLUMNS,
    DROP_OLD_STARTS,
    DROP_START,
    KEEP_START,
    PUT_META,
    SET_COMMAND,
    STARTED,
    SUPERSEDE,
    UPSERT,
    as_progress,
    as_record,
    as_values,
    meta_list,
    meta_value,
    put_list,
    start_values,
    to_epoch_us_or_none,
)
from repeater.store.marker import Marker
from repeater.store.reader import Reader, open_reader
from repeater.store.state_dir import DATABASE, MARKER, RECOVERY_HINT, Lock, state_unavailable
from repeater.store.write_queue import Then, WriteRequest
from repeater.store.writer import AlreadyClaimed, CallSoon, Writer

_STARTS = 10_000  # limited starts that are always kept
_OLD_STARTS_AFTER = 1000  # limited starts after which old ones are deleted
_THREADS = "raise the process limit: `ulimit -u`, `TasksMax=` of a service, `pids.max` of a cgroup"


class SqliteStore:
    """`ports.Store`. `folder` None keeps everything in memory (`--ephemeral`).

    Methods are called in the loop's thread. `then`, `warn` and `recorded` are called through `call_soon`
    (`loop.call_soon_threadsafe`), `recorded` with the runs whose end is durable now. `moved` is called with both names
    when the history of a job gets another name. At most `keep_rows` slots of each job, and those of `keep_days`, are
    kept; older ones are deleted a few at a time. Raises LockHeld or StateUnavailable when it cannot be opened.
    """

    def __init__(
        self,
        folder: Path | None,
        call_soon: CallSoon,
        *,
        warn: Callable[[Reason], None] = lambda _: None,
        recorded: Callable[[list[str]], None] | None = None,
        moved: Callable[[str, str], None] = lambda _old, _new: None,
        keep_rows: int = 1000,
        keep_days: int = 30,
    ) -> None:
        self._lock = Lock(folder) if folder is not None else None
        try:
            self._db = self._opened(folder)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._folder = folder
        self._salt = meta_value(self._db, "salt")
        self._reading = threading.Lock()  # only in memory, where reader and writer share a connection
        self._closed = False
        self._moved = moved
        self._kept_starts = 0
        try:
            self._writer = Writer(
                self._db,
                folder,
                call_soon,
                reading=self._reading,
                warn=warn,
                recorded=recorded,
                keep_rows=keep_rows,
                keep_days=keep_days,
            )
        except RuntimeError as error:
            commits = commits_of(self._db)
            self._db.close()
            if folder is not None:
                Marker(folder / MARKER).write("closed", commits)
            if self._lock is not None:
                self._lock.release()
            raise state_unavailable(
                folder or Path(":memory:"), f"no thread can be started for it ({error})", _THREADS
            ) from None
        self._record_heartbeat(is_over=False)

    @staticmethod
    def _opened(folder: Path | None) -> sqlite3.Connection:
        if folder is not None:
            return open_writer(folder)
        db = connect(":memory:")
        create(db)
        return db

    @property
    def is_ephemeral(self) -> bool:
        """Whether nothing of it is left after `close`."""
        return self._folder is None

    @property
    def salt(self) -> str:
        """The salt of marks in the definitions that `begin` is given. Never changes."""
        return self._salt

    def load(self) -> StoredState:
        query = (
            f"SELECT {COLUMNS} FROM runs WHERE last AND state IN ('claimed', 'running', 'retrying') "  # noqa: S608
            "ORDER BY nominal, job"
        )
        self.flush()
        with self.reader() as reader:
            rows = tuple(as_record(values) for values in reader._db.execute(query))
            return StoredState(reader.generation(), reader.progress(), rows)

    def begin(self, generation: int, document: str = "", extras: str = "") -> None:
        values = (
            ("generation", str(generation)),
            ("document", document),
            ("extras", extras),
            ("marks", ALGORITHM),
        )
        now = to_epoch_us_or_none(datetime.now(UTC))

        def apply(db: sqlite3.Connection) -> None:
            db.executemany(PUT_META, values)
            put_list(db, "generations", [*meta_list(db, "generations"), [generation, now]])

        self._ask(apply)

    def _record_heartbeat(self, *, is_over: bool) -> None:
        """Store when this supervisor started, and when it shut down. `rpr why` finds downtimes by that."""
        now = to_epoch_us_or_none(datetime.now(UTC))

        def apply(db: sqlite3.Connection) -> None:
            lives = meta_list(db, "lives")
            if not is_over:
                lives.append([now, None, os.getpid()])
            elif lives:
                lives[-1][1] = now
            put_list(db, "lives", lives)

        self._ask(apply)

    def claim(
        self, row: SlotRecord, progress: Progress, then: Then, command: Callable[[], str | None] = lambda: None
    ) -> None:
        text = command()

        def apply(db: sqlite3.Connection) -> None:
            try:
                db.execute(CLAIM, (*as_values(row), text))
            except sqlite3.IntegrityError:
                raise AlreadyClaimed(
                    f"cannot claim `{row.job}` at {row.nominal.isoformat()}: attempt {row.attempts} is already claimed"
                ) from None
            if row.attempts > 1:
                db.execute(SUPERSEDE, (row.job, to_epoch_us_or_none(row.nominal), row.attempts))
            self._writer.retain(progress, row.job)

        self._writer.put(WriteRequest(apply, then, is_claim=True))

    def set_command(self, row: SlotRecord, command: str | None) -> None:
        values = (command, row.job, to_epoch_us_or_none(row.nominal), row.attempts)
        self._ask(lambda db: db.execute(SET_COMMAND, values))

    def started(self, row: SlotRecord, pid: int) -> None:
        def apply(db: sqlite3.Connection) -> None:
            values = (
                row.state,
                to_epoch_us_or_none(row.started),
                pid,
                row.job,
                to_epoch_us_or_none(row.nominal),
                row.attempts,
            )
            db.execute(STARTED, values)

        self._writer.put(WriteRequest(apply, begins=row.run))

    def record(self, row: SlotRecord, progress: Progress) -> None:
        def apply(db: sqlite3.Connection) -> None:
            if row.attempts or not db.execute(BEGAN, (row.job, to_epoch_us_or_none(row.nominal))).fetchone():
                db.execute(UPSERT, as_values(row))
            if row.attempts > 1:
                db.execute(SUPERSEDE, (row.job, to_epoch_us_or_none(row.nominal), row.attempts))
            self._writer.retain(progress, row.job)

        self._writer.put(WriteRequest(apply, ends=row.run))

    def keep_start(self, start: LimitedStart) -> None:
        self._kept_starts += 1
        is_time = self._kept_starts % _OLD_STARTS_AFTER == 0

        def apply(db: sqlite3.Connection) -> None:
            db.execute(KEEP_START, start_values(start))
            if is_time:
                values = {"most": _STARTS, "boot": start.boot, "mono": start.mono, "at": to_epoch_us_or_none(start.at)}
                db.execute(DROP_OLD_STARTS, values)

        self._ask(apply)

    def drop_start(self, run: str) -> None:
        self._ask(lambda db: db.execute(DROP_START, (run,)))

    def starts(
        self, jobs: Sequence[str], limits: Sequence[str], window: timedelta, now: Instant, boot: str
    ) -> list[LimitedStart]:
        self.flush()
        with self.reader() as reader:
            return reader.starts(jobs, limits, window, now, boot)

    def save(self, progress: Progress) -> None:
        self._ask(lambda _: self._writer.retain(progress, None))

    def clock_set(self, before: datetime, after: datetime) -> None:
        self._ask(lambda db: self._writer.note_clock_set(db, before, after))

    def move(self, old: str, new: str) -> None:
        def apply(db: sqlite3.Connection) -> None:
            self._writer.write_retained(db)
            # a removed job that had the new name makes room
            in_the_way = "DELETE FROM runs WHERE job = ? AND nominal IN (SELECT nominal FROM runs WHERE job = ?)"
            db.execute(in_the_way, (new, old))
            db.execute("UPDATE runs SET job = ? WHERE job = ?", (new, old))
            db.execute("UPDATE starts SET job = ? WHERE job = ?", (new, old))
            found = db.execute("SELECT data FROM progress WHERE job = ?", (old,)).fetchone()
            if found:
                db.execute("DELETE FROM progress WHERE job = ?", (old,))
                self._writer.retain(replace(as_progress(found[0]), job=new), None)

        self._ask(apply)
        self._moved(old, new)

    def forget(self, jobs: Iterable[str]) -> None:
        names = [(job,) for job in jobs]

        def apply(db: sqlite3.Connection) -> None:
            self._writer.write_retained(db)
            db.executemany("DELETE FROM progress WHERE job = ?", names)

        self._ask(apply)

    def find_records(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[SlotRecord]:
        """The newest rows first, one for each slot; what was asked for before is among them."""
        self.flush()
        with self.reader() as reader:
            return reader.rows(jobs, most, since=since, until=until, outcomes=outcomes)

    def recent_durations(self) -> Mapping[str, float]:
        self.flush()
        with self.reader() as reader:
            return reader.durations()

    def flush(self) -> None:
        """Returns when everything asked for so far is durable, or cannot be for now."""
        self._writer.flush()

    @property
    def is_degraded(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._writer.is_failing

    def close(self) -> None:
        """Writes what is left, and frees the lock last."""
        if self._closed:
            return
        self._closed = True
        self._record_heartbeat(is_over=True)
        self._writer.end()
        is_ours = self._writer.has_its_files
        with contextlib.suppress(sqlite3.Error, OSError):
            self._db.close()
            if self._folder is not None and is_ours:
                self._writer.note_closed()
        if self._lock is not None:
            self._lock.release()

    def _ask(self, apply: Callable[[sqlite3.Connection], object]) -> None:
        self._writer.put(WriteRequest(apply))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        if self._folder is None:
            with self._reading:
                yield Reader(self._db)
            return
        reader = open_reader(self._folder)
        if reader is None:
            raise state_unavailable(self._folder / DATABASE, "it was removed while in use", RECOVERY_HINT)
        try:
            yield reader
        finally:
            reader.close()
