"""The database of the history: its tables, how it is opened, and its migrations.

Tables: `runs` has a row for each attempt, `starts` a row for each start that a limit may count, `progress` a JSON text
for each job. `meta` has the generation, its definitions, the last supervisors and generations, the salt of marks, and
`commits`, which each commit raises. `user_version` is the number of the format, raised with each change of meaning.

The marker has the number of commits that are certainly on disk. A database with a lower number has lost commits,
because its WAL was cut, damaged or replaced; it is refused.
"""

from __future__ import annotations

import secrets
import sqlite3
from functools import partial
from pathlib import Path

from repeater.store import format1, format2
from repeater.store.database import (
    DatabaseKind,
    check_content,
    check_file,
    errors_reported,
    open_database,
)
from repeater.store.database import check_format as check_format_of
from repeater.store.mapping import PUT_META, meta_value
from repeater.store.marker import Marker
from repeater.store.state_dir import DATABASE, MARKER, RECOVERY_HINT, state_unavailable

FORMAT = 3
OLDEST_READ = 1
HISTORY = DatabaseKind(
    name="a history of repeater",
    contents="history",
    application_id=int.from_bytes(b"rptr"),
    format=FORMAT,
    unstamped=frozenset({1}),
    tables=frozenset({"meta", "progress", "runs"}),
    hint=RECOVERY_HINT,
)

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE progress (job TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    job TEXT NOT NULL,
    nominal INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    due INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    state TEXT NOT NULL,
    reason TEXT,
    run TEXT,
    exit INTEGER,
    trigger TEXT NOT NULL,
    generation INTEGER NOT NULL,
    pid INTEGER,
    last INTEGER NOT NULL DEFAULT 1,
    reason_code TEXT,
    detail TEXT,
    command TEXT,
    memory INTEGER,
    cpu INTEGER,
    UNIQUE (job, nominal, attempt)
);
CREATE INDEX runs_by_time ON runs (nominal DESC) WHERE last;
CREATE INDEX runs_open ON runs (state) WHERE last AND state IN ('claimed', 'running', 'retrying');
"""
_STARTS = """
CREATE TABLE IF NOT EXISTS starts (
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    job TEXT NOT NULL,
    "limit" TEXT,
    at INTEGER NOT NULL,
    mono INTEGER NOT NULL,
    boot TEXT NOT NULL,
    "window" INTEGER NOT NULL,
    known INTEGER NOT NULL
);
"""
_SCHEMA += _STARTS
"""Format 3. `reason` is the sentence of a row that format 1 wrote, NULL in all others."""


def open_writer(folder: Path) -> sqlite3.Connection:
    """The database of a locked directory, checked; created on the first start only. Raises StateUnavailable."""
    path, marker = folder / DATABASE, Marker(folder / MARKER)
    check_present(path, marker.path)
    with errors_reported(path, HISTORY):
        _check_wal(path, marker)
    db = open_database(path, HISTORY, create, partial(check_database, path=path, marker=marker))
    try:
        with errors_reported(path, HISTORY):
            _migrate(db)
            db.executescript("BEGIN IMMEDIATE; COMMIT;")  # creates the WAL
            marker.write("open", commits_of(db))
    except BaseException:
        db.close()
        raise
    return db


def check_present(path: Path, marker: Path) -> None:
    """Raises StateUnavailable if the database is a link, is empty, or was deleted."""
    if marker.is_symlink():
        raise state_unavailable(marker, "it is a symbolic link")
    if check_file(path, HISTORY) is None and marker.exists():
        raise state_unavailable(path, "the database has been deleted", RECOVERY_HINT)


def _check_wal(path: Path, marker: Marker) -> None:
    """After a crash the WAL has the newest rows. Without them claims are forgotten, and jobs would run twice."""
    wal = Path(f"{path}-wal")
    if marker.read()[0] == "open" and not wal.exists():
        raise state_unavailable(wal, "the WAL file is missing, so recent history is lost", RECOVERY_HINT)


def create(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN; {_SCHEMA} {HISTORY.stamp}")
    db.execute(PUT_META, ("salt", secrets.token_hex(16)))
    db.execute("COMMIT")


def check_database(db: sqlite3.Connection, path: Path, marker: Marker) -> None:
    """Raises StateUnavailable for a database that is foreign, newer, damaged, or behind the marker."""
    version = check_content(db, path, HISTORY)
    durable = marker.read()[1]
    if version > 1 and durable is not None and commits_of(db) < durable:
        raise state_unavailable(
            path,
            f"it has {commits_of(db)} commits, but `{marker.path}` records {durable}, so the newest part is lost or "
            "the file is an older copy",
            "restore the whole directory from one copy; if jobs may start twice, remove "
            f"`{marker.path.name}` to use this database",
        )


def check_format(db: sqlite3.Connection, path: Path) -> int:
    """The format of the history, if this version can read it. Raises StateUnavailable."""
    return check_format_of(db, path, HISTORY)


def commits_of(db: sqlite3.Connection) -> int:
    """The number of commits. 0 in a new database."""
    value = meta_value(db, "commits")
    return int(value) if value.isdigit() else 0


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == FORMAT:
        db.execute(_STARTS)
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 1:
            format1.migrate(db)
            db.execute(PUT_META, ("salt", secrets.token_hex(16)))
        format2.migrate(db)
        db.execute(_STARTS)
        for statement in HISTORY.stamp.split(";"):
            db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
