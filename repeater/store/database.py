"""Opens SQLite files. A file is checked before the first write, and created on the first start only.

Bad state is never replaced by empty state: a file that is damaged, foreign, newer or empty is refused, and is not
changed. `DatabaseKind` says what a file must have; `history_database` and `rate_limits` define the two kinds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from repeater._lazy_dataclasses import dataclass
from repeater.store.state_dir import state_unavailable

VERSION = sqlite3.sqlite_version


@dataclass(frozen=True, slots=True)
class DatabaseKind:
    """`name` and `contents` are for messages: "it is not {name}", "its {contents} is lost". `unstamped` are formats
    that have no application id. `hint` says what to do about a bad file, `io_hint` about an error of the disk.
    """

    name: str
    contents: str
    application_id: int
    format: int
    unstamped: frozenset[int]
    tables: frozenset[str]
    hint: str
    io_hint: str | None = None

    @property
    def stamp(self) -> str:
        """The statements that mark a file as one of this kind and format."""
        application = 0 if self.format in self.unstamped else self.application_id
        return f"PRAGMA application_id = {application}; PRAGMA user_version = {self.format};"


def connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=5
    )


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes no file. It creates none, except the index of an existing WAL."""
    # Without a WAL no process has it open. `immutable` keeps SQLite from making one.
    frozen = not Path(f"{path}-wal").exists()
    return connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if frozen else ''}")


def open_database(
    path: Path,
    kind: DatabaseKind,
    create: Callable[[sqlite3.Connection], object],
    check: Callable[[sqlite3.Connection], object],
) -> sqlite3.Connection:
    """A connection to a checked file, in WAL mode. The caller holds the lock of the directory.

    `create` makes the tables of a new file, `check` raises StateUnavailable. Raises StateUnavailable.
    """
    check_file(path, kind)
    with errors_reported(path, kind):
        if not path.exists():
            _create_file(path, create)
        with contextlib.closing(connect_to_read(path)) as reader:  # closing a writer would write the WAL back
            check(reader)
        db = connect(str(path))
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            db.close()
            raise
        return db


@contextlib.contextmanager
def errors_reported(path: Path, kind: DatabaseKind) -> Iterator[None]:
    """Raises StateUnavailable for errors of SQLite and of the disk."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise state_unavailable(path, error, kind.hint) from error
    except (OSError, sqlite3.Error) as error:
        raise state_unavailable(path, error, kind.io_hint) from error


def check_file(path: Path, kind: DatabaseKind) -> int | None:
    """The size of the file, None if there is none. Raises StateUnavailable for a link or an empty file."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if name.is_symlink():
            raise state_unavailable(name, "it is a symbolic link")
    try:
        size = path.stat().st_size if path.exists() else None
    except OSError as error:
        raise state_unavailable(path, error, kind.io_hint) from error
    if size == 0:
        raise state_unavailable(path, f"the file is empty, so its {kind.contents} is lost", kind.hint)
    return size


def check_format(db: sqlite3.Connection, path: Path, kind: DatabaseKind) -> int:
    """The format of the file, if this version can read it. Raises StateUnavailable."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application not in (0, kind.application_id) or version == 0:
        raise state_unavailable(path, f"it is not {kind.name}", kind.hint)
    if version > kind.format:
        raise state_unavailable(
            path,
            f"it has format {version}, but this rpr supports formats up to {kind.format}",
            "use the newer rpr, or another directory with `--state-dir`",
        )
    if application != (0 if version in kind.unstamped else kind.application_id):
        raise state_unavailable(path, "it is damaged (its header is wrong)", kind.hint)
    return int(version)


def check_content(db: sqlite3.Connection, path: Path, kind: DatabaseKind) -> int:
    """The format of the file, if its pages are in order and it has its tables. Raises StateUnavailable."""
    version = check_format(db, path, kind)
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise state_unavailable(path, f"it is damaged ({str(verdict).splitlines()[-1]})", kind.hint)
    (encoding,) = db.execute("PRAGMA encoding").fetchone()
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if encoding != "UTF-8" or not kind.tables <= tables:
        raise state_unavailable(path, f"it is not {kind.name}", kind.hint)
    return version


def _create_file(path: Path, create: Callable[[sqlite3.Connection], object]) -> None:
    """Under another name first, so that no file with the final name is incomplete."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(connect(str(new))) as db:
            create(db)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
