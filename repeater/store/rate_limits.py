"""The state of the rate-limit daemon in SQLite: `ratelimitd.persistence.LimitStore`. The fake is `NullLimitStore`.

The caller holds the lock of the directory. The file is checked and opened as the history is (docs/adr/0005). Commits
are NORMAL: what was reported to a client survives `kill -9` of the daemon. A power cut may lose the last commits, but
it also ends the runs that they were about.

Instants are stored with both clocks: the monotonic clock continues over a restart of the daemon, the wall clock over a
restart of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from repeater.model.time import Mono
from repeater.ratelimitd.persistence import AttemptDeleted, AttemptRecord, AttemptsPruned, Change, ResourceRecord
from repeater.ratelimitd.protocol import Rate
from repeater.store.database import DatabaseKind, check_content, errors_reported, open_database
from repeater.store.state_dir import boot_id

DATABASE = "ledgers.db"
_HINT = "to start with an empty database, move the file away or use `--state-dir`"
RATE_LIMITS = DatabaseKind(
    name="a repeater rate-limit database",
    contents="data",
    application_id=int.from_bytes(b"rptl"),
    format=1,
    unstamped=frozenset({1}),
    tables=frozenset({"meta", "resources", "attempts"}),
    hint=_HINT,
    io_hint=_HINT,
)
_SCHEMA = f"""
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE resources (
    name TEXT PRIMARY KEY,
    starts INTEGER NOT NULL,
    window INTEGER NOT NULL,
    not_before_mono INTEGER,
    not_before_wall INTEGER
) WITHOUT ROWID;
CREATE TABLE attempts (
    row INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    mono INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reservation TEXT NOT NULL
);
CREATE INDEX attempts_by_age ON attempts (resource, mono);
{RATE_LIMITS.stamp}
COMMIT;
"""


class RateLimitStore:
    """The database of a directory that exists and is locked."""

    def __init__(self, folder: Path) -> None:
        """Raises StateUnavailable."""
        path = folder / DATABASE
        check = partial(check_content, path=path, kind=RATE_LIMITS)
        self._db = open_database(path, RATE_LIMITS, lambda db: db.executescript(_SCHEMA), check)
        with errors_reported(path, RATE_LIMITS):
            self._db.execute("PRAGMA synchronous = NORMAL")

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        """What an earlier life left. After a restart of the machine the wall clock says when it was."""
        boot = self._db.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
        same = boot is not None and boot[0] == boot_id()
        shift = time.time_ns() // 1000 - time.monotonic_ns() // 1000

        def instant(mono: int | None, wall: int | None) -> Mono | None:
            if mono is None or wall is None:
                return None
            return Mono(mono if same else wall - shift)

        known = [
            ResourceRecord(name, Rate(starts, window), instant(mono, wall))
            for name, starts, window, mono, wall in self._db.execute("SELECT * FROM resources")
        ]
        kept = [
            AttemptRecord(row, resource, instant(mono, wall) or Mono(0), kind, reservation)
            for row, resource, mono, wall, kind, reservation in self._db.execute("SELECT * FROM attempts")
        ]
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot_id(),))
            if not same:
                for one in kept:
                    self._upsert(one, shift)
                for this in known:
                    self._load_resources(this, shift)
        return known, kept

    def apply(self, changes: Iterable[Change]) -> None:
        """In one transaction. Raises OSError."""
        shift = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        with self._transaction():
            for change in changes:
                match change:
                    case AttemptRecord():
                        self._upsert(change, shift)
                    case AttemptDeleted(row):
                        self._db.execute("DELETE FROM attempts WHERE row = ?", (row,))
                    case ResourceRecord():
                        self._load_resources(change, shift)
                    case AttemptsPruned(resource, until, gone):
                        self._db.execute("DELETE FROM attempts WHERE resource = ? AND mono <= ?", (resource, until))
                        if gone:
                            self._db.execute("DELETE FROM resources WHERE name = ?", (resource,))

    def close(self) -> None:
        self._db.close()

    def _upsert(self, one: AttemptRecord, shift: int) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
            (one.row, one.resource, one.at, one.at + shift, one.kind, one.reservation),
        )

    def _load_resources(self, one: ResourceRecord, shift: int) -> None:
        wall = None if one.not_before is None else one.not_before + shift
        self._db.execute(
            "INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?, ?)",
            (one.resource, one.rate.count, one.rate.window, one.not_before, wall),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(
                error, sqlite3.Error | OverflowError | UnicodeError
            ):  # the latter two: a value that no row holds
                raise OSError(errno.EIO, str(error)) from error
            raise
