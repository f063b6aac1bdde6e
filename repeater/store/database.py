"""Opening the database: it is checked first, and made only on the first start.

Bad state is never replaced by empty state: a database that is damaged, newer, older than its marker or missing is
refused, and its files are not changed.

Tables (`user_version` is the number of their format, raised with each change of meaning): `runs` has a row for each
attempt, `starts` one for each start that a limit may
count, `progress` a JSON text for each job, `meta` the generation, its definitions, the last lives and generations,
the salt of marks, and `commits`, which each commit raises. The marker says which count a commit had that is certainly
on disk. A database that has a lower one has lost commits: its WAL was cut, damaged or exchanged.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path

from repeater.errors import StateUnavailable
from repeater.store import format1, format2
from repeater.store.mapping import PUT_META, meta_value
from repeater.store.marker import Marker
from repeater.store.state_dir import DATABASE, MARKER, RECOVERY_HINT, state_unavailable

VERSION = sqlite3.sqlite_version
FORMAT = 3
OLDEST_READ = 1
APPLICATION_ID = int.from_bytes(b"rptr")

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


def connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=5
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes no file and makes none beside the database, but for the index of an existing WAL."""
    # Without a WAL no process has it open. `immutable` keeps SQLite from making one.
    frozen = not Path(f"{path}-wal").exists()
    return connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if frozen else ''}")


def open_writer(folder: Path) -> sqlite3.Connection:
    """The database of a locked folder, checked; created only on the first start. Raises StateUnusable."""
    path, marker = folder / DATABASE, Marker(folder / MARKER)
    check_present(path, marker.path)
    db = None
    try:
        if not path.exists():
            _create_file(path)
        _check_wal(path, marker)
        with contextlib.closing(connect_to_read(path)) as reader:  # closing a writer would fold the WAL in
            check_database(reader, path, marker)
        db = connect(str(path))
        db.execute("PRAGMA journal_mode = WAL")
        _migrate(db)
        db.executescript("BEGIN IMMEDIATE; COMMIT;")  # from here on there is a WAL
        marker.write("open", commits_of(db))
    except (OSError, sqlite3.Error, StateUnavailable) as error:
        if db is not None:
            db.close()
        if isinstance(error, StateUnavailable):
            raise
        raise state_unavailable(
            path, error, RECOVERY_HINT if isinstance(error, sqlite3.DatabaseError) else None
        ) from error
    return db


def check_present(path: Path, marker: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), marker):
        if name.is_symlink():
            raise state_unavailable(name, "it is a symbolic link")
    try:
        size = path.stat().st_size if path.exists() else None
    except OSError as error:
        raise state_unavailable(path, error) from error
    if size is None and marker.exists():
        raise state_unavailable(path, "the database has been deleted", RECOVERY_HINT)
    if size == 0:
        raise state_unavailable(path, "the file is empty, so its history is lost", RECOVERY_HINT)


def _check_wal(path: Path, marker: Marker) -> None:
    """After a death there is a WAL with the newest rows. Without it claims are forgotten and jobs would run twice."""
    wal = Path(f"{path}-wal")
    if marker.read()[0] == "open" and not wal.exists():
        raise state_unavailable(wal, "the WAL file is missing, so recent history is lost", RECOVERY_HINT)


def _create_file(path: Path) -> None:
    """Under another name first, so that a database under its own name is never half made."""
    unborn = path.with_suffix(".new")
    unborn.unlink(missing_ok=True)
    os.close(os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(connect(str(unborn))) as db:
            create(db)
        unborn.rename(path)
    except BaseException:
        unborn.unlink(missing_ok=True)
        raise


def create(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN; {_SCHEMA} {_STAMP}")
    db.execute(PUT_META, ("salt", secrets.token_hex(16)))
    db.execute("COMMIT")


_STAMP = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"


def check_database(db: sqlite3.Connection, path: Path, marker: Marker) -> None:
    """Raises StateUnusable for a database that is not ours, not known, damaged, or behind the marker."""
    version = check_format(db, path)
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise state_unavailable(path, f"it is damaged ({str(verdict).splitlines()[-1]})", RECOVERY_HINT)
    (encoding,) = db.execute("PRAGMA encoding").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if encoding != "UTF-8" or not {"meta", "progress", "runs"} <= tables:
        raise state_unavailable(path, "it is not a history of repeater", RECOVERY_HINT)
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
    """The format of a database, if this version can read it. Raises StateUnusable."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application not in (0, APPLICATION_ID) or version == 0:
        raise state_unavailable(path, "it is not a history of repeater", RECOVERY_HINT)
    if version > FORMAT:
        raise state_unavailable(
            path,
            f"it has format {version}, but this rpr supports formats up to {FORMAT}",
            "use the newer rpr, or another directory with `--state-dir`",
        )
    if application != (APPLICATION_ID if version > 1 else 0):
        raise state_unavailable(path, "it is damaged (its header is wrong)", RECOVERY_HINT)
    return int(version)


def commits_of(db: sqlite3.Connection) -> int:
    """How many commits there were; 0 in a database that was made just now."""
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
        for statement in _STAMP.split(";"):
            db.execute(statement)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
