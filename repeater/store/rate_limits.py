"""The ledgers of the rate-limit daemon in SQLite: `ratelimitd.persistence.LimitStore` for real. The fake is
`kept.Forgetful`.

Used by `app` only, for whoever holds the lock of the folder (`store.Lock`, which app takes). The rules are
those of the history (docs/adr/0005): WAL, a check before use, and a database that is damaged, newer or empty is refused
and left as it is, never replaced. Commits are NORMAL: what was told to a client survives `kill -9` of the daemon, and a
power cut may take the last of it, for after a power cut nothing runs that it was told to.

Instants are kept on both clocks: the monotonic one goes on over a restart of the daemon, the wall clock over one of the
machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repeater.errors import StateUnavailable
from repeater.model.time import Mono
from repeater.ratelimitd.persistence import AttemptDeleted, AttemptRecord, AttemptsPruned, Change, ResourceRecord
from repeater.ratelimitd.protocol import Rate

FORMAT = 1
DATABASE = "ledgers.db"
_HINT = "to start with an empty database, move the file away or use `--state-dir`"
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
PRAGMA user_version = {FORMAT};
COMMIT;
"""


class RateLimitStore:
    """The database of a folder that is there and locked."""

    def __init__(self, folder: Path) -> None:
        """Raises StateUnusable."""
        path = folder / DATABASE
        try:
            is_new = not path.exists()
            if is_new:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            elif path.stat().st_size == 0 and not Path(f"{path}-wal").exists():
                raise _unusable(path, "the file is empty, so its data is lost")
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
        except OSError as error:
            raise _unusable(path, os.strerror(error.errno or 0)) from error
        try:
            if is_new:
                self._db.executescript(_SCHEMA)
            self._check(path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            self._db.close()
            raise _unusable(path, str(error)) from error
        except StateUnavailable:
            self._db.close()
            raise

    def _check(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise _unusable(path, f"it has format {version}, but this rpr supports formats up to {FORMAT}")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _unusable(path, f"it is damaged ({str(verdict).splitlines()[-1]})")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version == 0 or not {"meta", "resources", "attempts"} <= tables:
            raise _unusable(path, "it is not a repeater rate-limit database")

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        """What an earlier life left. After a restart of the machine the wall clock says when it was."""
        boot = self._db.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
        same = boot is not None and boot[0] == _boot()
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
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (_boot(),))
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


def _boot() -> str:
    """Which life of the machine this is; the monotonic clock has no meaning beyond it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # elsewhere: when it began, to the minute
        return str(round((time.time() - time.monotonic()) / 60))


def _unusable(path: Path, cause: str) -> StateUnavailable:
    return StateUnavailable(f"cannot use state `{path}`: {cause}", hint=_HINT)
