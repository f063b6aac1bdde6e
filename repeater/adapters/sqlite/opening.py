"""Opening the database: it is checked first, and made only on the first start.

Bad state is never replaced by empty state: what is damaged, newer or missing is refused and left as it is.

Layout (`user_version` is its number): `runs` has a row for each attempt, `progress` a JSON text for each job,
`meta` the generation, and the last lives and generations.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from repeater.adapters.sqlite.folder import DATABASE, MARKER, REPAIR, unusable
from repeater.errors import StateUnusable

VERSION = sqlite3.sqlite_version
FORMAT = 1

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
    UNIQUE (job, nominal, attempt)
);
CREATE INDEX runs_by_time ON runs (nominal DESC) WHERE last;
CREATE INDEX runs_open ON runs (state) WHERE last AND state IN ('claimed', 'running', 'retrying');
"""
_MIGRATIONS: dict[int, str] = {}  # from format N to N + 1


def connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=5
    )


def open_writer(folder: Path) -> sqlite3.Connection:
    """The database of a locked folder, checked; created only on the first start. Raises StateUnusable."""
    path, marker = folder / DATABASE, folder / MARKER
    check_present(path, marker)
    db = None
    try:
        if not path.exists():
            _create_file(path)
        _check_wal(path, marker)
        db = connect(str(path))
        _check_format(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        _migrate(db)
        db.executescript("BEGIN IMMEDIATE; COMMIT;")  # from here on there is a WAL
        mark(marker, "open")
    except (OSError, sqlite3.Error, StateUnusable) as error:
        if db is not None:
            db.close()
        if isinstance(error, StateUnusable):
            raise
        raise unusable(path, error, REPAIR if isinstance(error, sqlite3.DatabaseError) else None) from error
    return db


def check_present(path: Path, marker: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), marker):
        if name.is_symlink():
            raise unusable(name, "it is a link")
    try:
        size = path.stat().st_size if path.exists() else None
    except OSError as error:
        raise unusable(path, error) from error
    if size is None and marker.exists():
        raise unusable(path, "the history was here before and is gone", REPAIR)
    if size == 0:
        raise unusable(path, "the file is empty, its history is lost", REPAIR)


def _check_wal(path: Path, marker: Path) -> None:
    """After a death there is a WAL with the newest rows. Without it claims are forgotten and jobs would run twice."""
    was_open = marker.exists() and marker.read_text(encoding="ascii").strip() == "open"
    wal = Path(f"{path}-wal")
    if was_open and not wal.exists():
        raise unusable(wal, "the newest part of the history is gone", REPAIR)


def mark(marker: Path, text: str) -> None:
    """Say durably whether the database is in use."""
    fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    folder = os.open(marker.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise unusable(
            path,
            f"it has format {version}, this rpr knows formats up to {FORMAT}",
            "use the newer rpr again, or give this one its own `--state-dir`",
        )
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise unusable(path, f"it is damaged ({str(verdict).splitlines()[-1]})", REPAIR)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 or not {"meta", "progress", "runs"} <= tables:
        raise unusable(path, "it is no history of repeater", REPAIR)


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for step in range(version, FORMAT):
        db.executescript(f"BEGIN; {_MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")
