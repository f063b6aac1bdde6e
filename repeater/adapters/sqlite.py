"""History and progress in SQLite: one writer thread, one connection, commits in groups.

Used by `app` only; the fake with the same contract is `tests/fakes/store.py`. sqlite3 is imported nowhere
else. It must never replace bad state by empty state: a database that is damaged, newer or missing where one
was is refused and left as it is. Reached through two doors: `Store` for the one supervisor, which takes the
lock before it touches anything, and `open_reader` for commands, which needs no lock and creates nothing.

Durability. A claim is told as kept only after a commit with `synchronous=FULL`, so it survives a power cut.
All other writes are committed with NORMAL: they survive the death of this process at once, and a power cut
may take the last of them. A write that comes alone is committed at once; only those that pile up behind a
commit share the next one.

Layout (`user_version` is its number): `runs` has a row for each attempt, `progress` a JSON text for each job,
`meta` the generation. Instants are whole microseconds since 1970 in UTC.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sqlite3
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from repeater.errors import LockHeld, StateUnusable
from repeater.model.run import Progress, RunRecord
from repeater.ports import Remembered

VERSION = sqlite3.sqlite_version
FORMAT = 1
DATABASE = "history.db"
MARKER = "began"  # stands beside the database from the first start on: its absence tells first start from loss
LOCK = "lock"
_GROUP = 64
_GATHER = 0.005  # seconds that a write nobody waits for may wait for others
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

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
_COLUMNS = "job, nominal, due, started, ended, state, reason, run, attempt, exit, trigger, generation"
_INSERT = f"INSERT INTO runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_UPSERT = (
    _INSERT + " ON CONFLICT (job, nominal, attempt) DO UPDATE SET due = excluded.due, started = excluded.started, "
    "ended = excluded.ended, state = excluded.state, reason = excluded.reason, run = excluded.run, "
    "exit = excluded.exit, trigger = excluded.trigger, generation = excluded.generation"
)
_BEGAN = "SELECT 1 FROM runs WHERE job = ? AND nominal = ? AND attempt > 0"
_STARTED = "UPDATE runs SET state = ?, started = ?, pid = ? WHERE job = ? AND nominal = ? AND attempt = ?"
_KEEP_PROGRESS = "INSERT INTO progress VALUES (?, ?) ON CONFLICT (job) DO UPDATE SET data = excluded.data"
_PUT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_SUPERSEDE = (
    "UPDATE runs SET last = 0, state = CASE WHEN state IN ('claimed', 'running') THEN 'interrupted' ELSE state END "
    "WHERE job = ? AND nominal = ? AND attempt < ?"
)

Then: TypeAlias = Callable[[Exception | None], None]
CallSoon: TypeAlias = Callable[[Callable[[], None]], object]


class SlotTakenError(Exception):
    """The attempt was claimed before."""

    taken = True


class NotWrittenError(Exception):
    """A claim that could not be made durable, because of the disk. `temporary`: it may work later."""

    temporary = True


class RemovedError(Exception):
    """The files under our name are not those that we hold open: what is written to these is lost."""


def state_folder(project: str, environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/repeater/<project>`, by default below `~/.local/state`. Nothing is created."""
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # the XDG base directory specification: relative paths are to be ignored
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base) / "repeater" / project


# --- the lock
# ---------------------------------------------------------------------------------------------------


class Lock:
    """Who holds it owns the state folder. The kernel frees it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Take it, creating the folder (0700) if needed. Raises LockHeld, or StateUnusable if that cannot be."""
        import fcntl

        make_folder(folder)
        path = folder / LOCK
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._fd) if isinstance(error, BlockingIOError) else None
            os.close(self._fd)
            if isinstance(error, BlockingIOError):
                raise LockHeld(str(folder), holder) from None
            raise _unusable(path, error) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its words
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {_boot_id()}\n".encode(), 0)

    def release(self) -> None:
        """The file stays: unlinking it would let two owners in."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _holder(fd: int) -> int | None:
    """Who holds a lock that is held; None if it does not say. One that has just taken it gets time to say so."""
    for _ in range(50):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(os.pread(fd, 100, 0).split()[0])
            with contextlib.suppress(PermissionError):
                os.kill(pid, 0)  # the words of one that is gone are older than the lock
            return pid
        time.sleep(0.01)
    return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "-"


def make_folder(folder: Path) -> None:
    """Make a state folder that only we can enter, if it is not there. Raises StateUnusable."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found, around = folder.stat(), folder.parent.stat()
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise _unusable(folder, error) from error
    # Root may keep state with others, but not where anybody could have laid the folder for it.
    if found.st_uid != os.geteuid() and (os.geteuid() != 0 or around.st_mode & stat.S_ISVTX):
        raise _unusable(folder, f"it belongs to user {found.st_uid}")


def _unusable(path: Path, why: object, hint: str | None = None) -> StateUnusable:
    cause = os.strerror(why.errno) if isinstance(why, OSError) and why.errno else str(why)
    return StateUnusable(
        f"cannot use state `{path}`: {cause}",
        hint=hint or "give another folder with `--state-dir`, or run without history with `--ephemeral`",
    )


# --- opening
# ----------------------------------------------------------------------------------------------------


def _connect(target: str) -> sqlite3.Connection:
    return sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=5
    )


def _open(folder: Path) -> sqlite3.Connection:
    """The database of a locked folder, checked; created only on the first start. Raises StateUnusable."""
    path, marker = folder / DATABASE, folder / MARKER
    _check_present(path, marker)
    db = None
    try:
        if not path.exists():
            _create_file(path)
        _check_wal(path, marker)
        db = _connect(str(path))
        _check_format(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        _migrate(db)
        db.executescript("BEGIN IMMEDIATE; COMMIT;")  # from here on there is a WAL
        _mark(marker, "open")
    except (OSError, sqlite3.Error, StateUnusable) as error:
        if db is not None:
            db.close()
        if isinstance(error, StateUnusable):
            raise
        raise _unusable(path, error, _REPAIR if isinstance(error, sqlite3.DatabaseError) else None) from error
    return db


_REPAIR = "to begin a new history move the whole folder aside, or give another one with `--state-dir`"


def _check_present(path: Path, marker: Path) -> None:
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), marker):
        if name.is_symlink():
            raise _unusable(name, "it is a link")
    try:
        size = path.stat().st_size if path.exists() else None
    except OSError as error:
        raise _unusable(path, error) from error
    if size is None and marker.exists():
        raise _unusable(path, "the history was here before and is gone", _REPAIR)
    if size == 0:
        raise _unusable(path, "the file is empty, its history is lost", _REPAIR)


def _check_wal(path: Path, marker: Path) -> None:
    """After a death there is a WAL with the newest rows. Without it claims are forgotten and jobs would run twice."""
    was_open = marker.exists() and marker.read_text(encoding="ascii").strip() == "open"
    wal = Path(f"{path}-wal")
    if was_open and not wal.exists():
        raise _unusable(wal, "the newest part of the history is gone", _REPAIR)


def _identities(folder: Path | None) -> list[tuple[int, int] | None]:
    """Which files have the names of the lock, the database and its newest part now."""
    found: list[tuple[int, int] | None] = []
    for name in (LOCK, DATABASE, f"{DATABASE}-wal") if folder is not None else ():
        try:
            there = os.stat(f"{folder}/{name}")
        except OSError:
            found.append(None)
        else:
            found.append((there.st_dev, there.st_ino))
    return found


def _mark(marker: Path, text: str) -> None:
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
        with contextlib.closing(_connect(str(unborn))) as db:
            _create(db)
        unborn.rename(path)
    except BaseException:
        unborn.unlink(missing_ok=True)
        raise


def _create(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise _unusable(
            path,
            f"it has format {version}, this rpr knows formats up to {FORMAT}",
            "use the newer rpr again, or give this one its own `--state-dir`",
        )
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _unusable(path, f"it is damaged ({str(verdict).splitlines()[-1]})", _REPAIR)
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 or not {"meta", "progress", "runs"} <= tables:
        raise _unusable(path, "it is no history of repeater", _REPAIR)


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for step in range(version, FORMAT):
        db.executescript(f"BEGIN; {_MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")


# --- rows
# -------------------------------------------------------------------------------------------------------


def _number(instant: datetime | None) -> int | None:
    return None if instant is None else (instant - _EPOCH) // _MICROSECOND


def _instant(number: int | None) -> datetime | None:
    return None if number is None else _EPOCH + number * _MICROSECOND


def _values(row: RunRecord) -> tuple[Any, ...]:
    return (
        row.job,
        _number(row.nominal),
        _number(row.due),
        _number(row.started),
        _number(row.ended),
        row.state,
        None if row.reason is None else _storable(row.reason),
        row.run,
        row.attempts,
        row.exit,
        row.trigger,
        row.generation,
    )


def _storable(text: str) -> str:
    """SQLite holds UTF-8; a reason may quote a path that is none."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _row(values: Sequence[Any]) -> RunRecord:
    job, nominal, due, started, ended, state, reason, run, attempt, exit_, trigger, generation = values
    return RunRecord(
        job=job,
        nominal=_EPOCH + nominal * _MICROSECOND,
        due=_EPOCH + due * _MICROSECOND,
        started=_instant(started),
        ended=_instant(ended),
        state=state,
        reason=reason,
        run=run,
        attempts=attempt,
        exit=exit_,
        trigger=trigger,
        generation=generation,
    )


def _moment(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND


def _meta_list(db: sqlite3.Connection, key: str) -> list[list[Any]]:
    """A short list that is kept as JSON; empty if it is not there or not what we wrote."""
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    try:
        value = json.loads(found[0]) if found else []
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def _put_list(db: sqlite3.Connection, key: str, value: list[list[Any]]) -> None:
    db.execute(_PUT_META, (key, json.dumps(value[-200:])))


class Reader:
    """What commands may ask, and the supervisor too: it only reads, on a connection of its own."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[RunRecord]:
        """The newest rows first, one for each slot; at most `most` of them."""
        where, values = ["last"], list[Any](jobs or ())
        if jobs is not None:
            where.append(f"job IN ({', '.join('?' * len(values))})")
        if since is not None:
            where.append("nominal >= ?")
            values.append(_number(since))
        if until is not None:
            where.append("nominal < ?")
            values.append(_number(until))
        if outcomes:
            where.append("(" + " OR ".join(_OUTCOMES[outcome] for outcome in outcomes) + ")")
        query = (
            f"SELECT {_COLUMNS} FROM runs WHERE {' AND '.join(where)} "  # noqa: S608 - constants
            "ORDER BY nominal DESC, job DESC LIMIT ?"
        )
        return iter([_row(found) for found in self._db.execute(query, (*values, most))])

    def lives(self) -> list[tuple[datetime, datetime | None, int]]:
        """The last supervisors: since when, until when (None: not known, or still there), and the pid."""
        return [(_moment(began), _moment(ended) if ended else None, pid) for began, ended, pid in self._list("lives")]

    def generations(self) -> list[tuple[int, datetime]]:
        """The last generations, and since when each was in force."""
        return [(number, _moment(began)) for number, began in self._list("generations")]

    def _list(self, key: str) -> list[list[Any]]:
        return _meta_list(self._db, key)

    def progress(self) -> dict[str, Progress]:
        return {job: _progress(data) for job, data in self._db.execute("SELECT job, data FROM progress")}

    def generation(self) -> int:
        found = self._db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(found[0]) if found else 0

    def document(self) -> str:
        """What `begin` was given with the last generation; empty if there is none."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'document'").fetchone()
        return str(found[0]) if found else ""

    def durations(self) -> dict[str, float]:
        """Median seconds of the last twenty runs of each job."""
        query = (
            "SELECT job, ended - started FROM (SELECT job, started, ended, row_number() OVER "
            "(PARTITION BY job ORDER BY nominal DESC) AS place FROM runs WHERE last AND state = 'ran' "
            "AND started IS NOT NULL AND ended IS NOT NULL) WHERE place <= 20"
        )
        found: dict[str, list[int]] = {}
        for job, length in self._db.execute(query):
            found.setdefault(job, []).append(length)
        return {job: median(lengths) / 1e6 for job, lengths in found.items()}

    def close(self) -> None:
        self._db.close()


_OUTCOMES = {  # as `RunRecord.outcome` says it
    "success": "(state = 'ran' AND reason = 'success')",
    "failed": "((state = 'ran' AND reason IS NOT 'success') OR state = 'spawn_failed')",
    "running": "state IN ('claimed', 'running', 'retrying')",
    **{state: f"state = '{state}'" for state in ("skipped", "expired", "replaced", "cancelled", "interrupted")},
}


def _progress(data: str) -> Progress:
    return Progress.from_json(json.loads(data))


def open_reader(folder: Path) -> Reader | None:
    """A reader of the history in a folder, while a supervisor writes or not; None if there is no history yet.

    Takes no lock and creates nothing. Raises StateUnusable for a database that cannot be read.
    """
    path = folder / DATABASE
    if not path.exists():
        return None
    _check_present(path, folder / MARKER)
    try:
        # Without a WAL nobody has it open; saying that it will not change keeps SQLite from making one.
        frozen = not Path(f"{path}-wal").exists()
        db = _connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if frozen else ''}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            db.close()
            raise _unusable(path, f"it has format {version}, this rpr reads format {FORMAT}", _REPAIR)
    except sqlite3.Error as error:
        raise _unusable(path, error, _REPAIR) from error
    return Reader(db)


# --- writing
# ----------------------------------------------------------------------------------------------------


class _Write:
    """One thing to write. `then` is told what became of it, `done` is set after it. `begins` and `ends` name the run
    whose beginning or end is written: a beginning whose end is in the same group need not be written at all.
    """

    __slots__ = ("apply", "begins", "done", "ends", "is_claim", "is_urgent", "then")

    def __init__(
        self,
        apply: Callable[[sqlite3.Connection], object],
        then: Then | None = None,
        *,
        is_claim: bool = False,
        done: threading.Event | None = None,
        begins: str | None = None,
        ends: str | None = None,
    ) -> None:
        self.apply = apply
        self.then = then
        self.is_claim = is_claim
        self.is_urgent = is_claim or done is not None
        self.done = done
        self.begins = begins
        self.ends = ends


class _Inbox:
    """What waits to be written, between the loop's thread and the writer's.

    A write that somebody waits for goes at once, with all that came before it. Results wait a moment for others, as one
    commit for many costs little more than one for one, and only the first of them wakes the writer.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Write | None] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps = True
        self._urgent = self._urgent_taken = 0  # each is counted by one thread only

    def put(self, write: _Write | None) -> None:
        """None: nothing more will come."""
        is_urgent = write is None or write.is_urgent
        self._urgent += is_urgent
        self._waiting.append(write)
        if is_urgent or self._sleeps:
            self._sleeps = False
            self._bell.put(None)

    def group(self, patience: float | None) -> tuple[list[_Write], bool]:
        """What waits, at most a group of it; whether more may come. Blocks until there is something, or `patience`
        seconds.
        """
        with contextlib.suppress(queue.Empty):
            while not self._waiting:
                self._sleeps = True  # before a last look, so that no write is missed
                if not self._waiting:
                    self._bell.get(timeout=patience)
            self._sleeps = False
            gathered_at = time.monotonic() + _GATHER
            while self._urgent == self._urgent_taken and len(self._waiting) < _GROUP:
                if (left := gathered_at - time.monotonic()) <= 0:
                    break
                self._bell.get(timeout=left)
        group: list[_Write] = []
        while self._waiting and len(group) < _GROUP:
            write = self._waiting.popleft()
            self._urgent_taken += write is None or write.is_urgent
            if write is None:
                return group, False
            group.append(write)
        return group, True

    @property
    def is_empty(self) -> bool:
        return not self._waiting


class SqliteStore:
    """`ports.Store`. `folder` None keeps everything in memory and nothing after it (`--ephemeral`).

    Methods are called in the loop's thread; `call_soon` brings `then` and `warn` back there
    (`loop.call_soon_threadsafe`). `recorded` is told, there too, the runs whose end is in the
    database now. At most `keep_rows` slots of each job and `keep_days` of all are kept,
    older ones are deleted a few at a time. Raises LockHeld or StateUnusable when it cannot be opened.
    """

    def __init__(
        self,
        folder: Path | None,
        call_soon: CallSoon,
        *,
        warn: Callable[[str], None] = lambda _: None,
        recorded: Callable[[list[str]], None] | None = None,
        keep_rows: int = 1000,
        keep_days: int = 30,
    ) -> None:
        self._call_soon = call_soon
        self._warn = warn
        self._recorded = recorded
        self._keep_rows = keep_rows
        self._keep_age = timedelta(days=keep_days)
        self._lock = Lock(folder) if folder is not None else None
        try:
            self._db = self._opened(folder)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._folder = folder
        self._files = _identities(folder)
        self._reading = threading.Lock()  # only in memory, where reader and writer share a connection
        self._asked = _Inbox()
        self._backlog: list[_Write] = []
        self._kept: dict[str, Progress] = {}
        self._inserted: dict[str, int] = {}
        self._to_prune: list[str] = []
        self._is_failing = False
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="rpr-store", daemon=True)
        self._writer.start()
        self._note_life(is_over=False)

    @staticmethod
    def _opened(folder: Path | None) -> sqlite3.Connection:
        if folder is not None:
            return _open(folder)
        db = _connect(":memory:")
        _create(db)
        return db

    @property
    def is_ephemeral(self) -> bool:
        """Whether nothing of it is left after `close`."""
        return self._folder is None

    def load(self) -> Remembered:
        query = (
            f"SELECT {_COLUMNS} FROM runs WHERE last AND state IN ('claimed', 'running', 'retrying') "  # noqa: S608
            "ORDER BY nominal, job"
        )
        self.flush()
        with self.reader() as reader:
            rows = tuple(_row(values) for values in reader._db.execute(query))
            return Remembered(reader.generation(), reader.progress(), rows)

    def begin(self, generation: int, document: str = "") -> None:
        values = (("generation", str(generation)), ("document", document))
        now = _number(datetime.now(UTC))

        def apply(db: sqlite3.Connection) -> None:
            db.executemany(_PUT_META, values)
            _put_list(db, "generations", [*_meta_list(db, "generations"), [generation, now]])

        self._ask(apply)

    def _note_life(self, *, is_over: bool) -> None:
        """When this supervisor began, and when it ended in good order: `rpr why` tells downtimes by it."""
        now = _number(datetime.now(UTC))

        def apply(db: sqlite3.Connection) -> None:
            lives = _meta_list(db, "lives")
            if not is_over:
                lives.append([now, None, os.getpid()])
            elif lives:
                lives[-1][1] = now
            _put_list(db, "lives", lives)

        self._ask(apply)

    def claim(self, row: RunRecord, progress: Progress, then: Then) -> None:
        def apply(db: sqlite3.Connection) -> None:
            try:
                db.execute(_INSERT, _values(row))
            except sqlite3.IntegrityError:
                raise SlotTakenError(
                    f"cannot claim `{row.job}` at {row.nominal.isoformat()}: attempt {row.attempts} was claimed before"
                ) from None
            if row.attempts > 1:
                db.execute(_SUPERSEDE, (row.job, _number(row.nominal), row.attempts))
            self._keep(progress, row.job)

        self._asked.put(_Write(apply, then, is_claim=True))

    def started(self, row: RunRecord, pid: int) -> None:
        def apply(db: sqlite3.Connection) -> None:
            values = (row.state, _number(row.started), pid, row.job, _number(row.nominal), row.attempts)
            db.execute(_STARTED, values)

        self._asked.put(_Write(apply, begins=row.run))

    def record(self, row: RunRecord, progress: Progress) -> None:
        def apply(db: sqlite3.Connection) -> None:
            if row.attempts or not db.execute(_BEGAN, (row.job, _number(row.nominal))).fetchone():
                db.execute(_UPSERT, _values(row))
            if row.attempts > 1:
                db.execute(_SUPERSEDE, (row.job, _number(row.nominal), row.attempts))
            self._keep(progress, row.job)

        self._asked.put(_Write(apply, ends=row.run))

    def save(self, progress: Progress) -> None:
        self._ask(lambda _: self._keep(progress, None))

    def move(self, old: str, new: str) -> None:
        def apply(db: sqlite3.Connection) -> None:
            self._write_kept(db)
            db.execute("UPDATE OR IGNORE runs SET job = ? WHERE job = ?", (new, old))
            db.execute("DELETE FROM runs WHERE job = ?", (old,))  # slots that the new name has decided itself
            found = db.execute("SELECT data FROM progress WHERE job = ?", (old,)).fetchone()
            if found:
                db.execute("DELETE FROM progress WHERE job = ?", (old,))
                self._keep(replace(_progress(found[0]), job=new), None)

        self._ask(apply)

    def forget(self, jobs: Iterable[str]) -> None:
        names = [(job,) for job in jobs]

        def apply(db: sqlite3.Connection) -> None:
            self._write_kept(db)
            db.executemany("DELETE FROM progress WHERE job = ?", names)

        self._ask(apply)

    def rows(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[RunRecord]:
        """The newest rows first, one for each slot; what was asked for before is among them."""
        self.flush()
        with self.reader() as reader:
            return reader.rows(jobs, most, since=since, until=until, outcomes=outcomes)

    def durations(self) -> Mapping[str, float]:
        self.flush()
        with self.reader() as reader:
            return reader.durations()

    def flush(self) -> None:
        """Returns when everything asked for so far is durable, or cannot be for now."""
        done = threading.Event()
        self._asked.put(_Write(lambda _: None, done=done))
        while not done.wait(0.1):
            if not self._writer.is_alive():
                return

    def close(self) -> None:
        """Writes what is left, and frees the lock last."""
        if self._closed:
            return
        self._closed = True
        self._note_life(is_over=True)
        self._asked.put(None)
        self._writer.join()
        is_ours = _identities(self._folder) == self._files
        with contextlib.suppress(sqlite3.Error, OSError):
            self._db.close()
            if self._folder is not None and is_ours:
                _mark(self._folder / MARKER, "closed")
        if self._lock is not None:
            self._lock.release()

    def _ask(self, apply: Callable[[sqlite3.Connection], object]) -> None:
        self._asked.put(_Write(apply))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        if self._folder is None:
            with self._reading:
                yield Reader(self._db)
            return
        reader = open_reader(self._folder)
        if reader is None:
            raise _unusable(self._folder / DATABASE, "it was removed while in use", _REPAIR)
        try:
            yield reader
        finally:
            reader.close()

    # --- in the writer's thread ---

    def _write_all(self) -> None:
        is_open, next_prune = True, 0
        while is_open:
            group, is_open = self._asked.group(1 if self._backlog else None)
            self._commit(group)
            next_prune += 1
            if is_open and (self._asked.is_empty or next_prune >= 100):
                next_prune = 0
                self._prune()

    def _commit(self, group: list[_Write]) -> None:
        """All of a group become durable at once, or none. Writes that nobody waits for are kept for the next try."""
        writes = self._backlog + group
        outcomes: list[tuple[Then, Exception | None]] = []
        try:
            with self._reading:
                self._transact(writes, outcomes)
        except Exception as error:  # noqa: BLE001 - a dead writer would leave every later claim without an answer
            told = NotWrittenError(f"cannot write the history: {error}")
            outcomes = [(write.then, told) for write in group if write.then is not None]
            self._hold([write for write in writes if write.then is None and write.done is None], error)
        else:
            self._backlog = []
            self._tell_recorded(writes)
            if self._is_failing and writes:
                self._is_failing = False
                self._tell("the history can be written again")
        if outcomes:
            self._later(lambda: _deliver(outcomes))
        for write in group:
            if write.done is not None:
                write.done.set()

    def _tell_recorded(self, writes: list[_Write]) -> None:
        if self._recorded is not None:
            recorded, runs = self._recorded, [write.ends for write in writes if write.ends is not None]
            if runs:
                self._later(lambda: recorded(runs))

    def _transact(self, writes: list[_Write], outcomes: list[tuple[Then, Exception | None]]) -> None:
        if not writes:
            return
        if self._folder is not None and _identities(self._folder) != self._files:
            raise RemovedError(f"`{self._folder}` was removed or replaced while in use")
        has_claim = any(write.is_claim for write in writes)
        self._db.execute(f"PRAGMA synchronous = {'FULL' if has_claim else 'NORMAL'}")
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
                except SlotTakenError as taken:
                    error = taken
                except (TypeError, ValueError, sqlite3.IntegrityError, sqlite3.ProgrammingError) as mistake:
                    error = mistake  # this one would fail for ever, and hold up all others
                    self._tell(f"cannot write a row of the history: {mistake!r}")
                if write.then is not None:
                    outcomes.append((write.then, error))
            self._write_kept(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def _keep(self, progress: Progress, decided: str | None) -> None:
        """Write the progress with this group, once for each job; `decided` is the job of a new row."""
        self._kept[progress.job] = progress
        if decided is not None:
            self._inserted[decided] = count = self._inserted.get(decided, 0) + 1
            if count == min(100, self._keep_rows):
                self._to_prune.append(decided)

    def _write_kept(self, db: sqlite3.Connection) -> None:
        if self._kept:
            db.executemany(_KEEP_PROGRESS, [(job, _dumped(progress)) for job, progress in self._kept.items()])
            self._kept.clear()

    def _hold(self, writes: list[_Write], error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._tell(f"cannot write the history: {error}; a job whose slot cannot be claimed does not start")
        lost = max(0, len(writes) - _MOST_HELD)
        if lost and len(self._backlog) < _MOST_HELD:
            self._tell(f"cannot hold more than {_MOST_HELD} unwritten results, the oldest are lost")
        self._backlog = writes[lost:]

    def _prune(self) -> None:
        """Delete a few old rows of jobs that got many new ones."""
        if not self._to_prune:
            return
        job = self._to_prune.pop(0)
        self._inserted[job] = 0
        before = _number(datetime.now(UTC) - self._keep_age)
        delete = (
            "DELETE FROM runs WHERE rowid IN (SELECT rowid FROM runs WHERE job = :job AND nominal < max(:before, "
            "coalesce((SELECT nominal FROM runs WHERE job = :job AND last ORDER BY nominal DESC LIMIT 1 "
            "OFFSET :most), :before)) AND state NOT IN ('claimed', 'running', 'retrying') LIMIT 500)"
        )
        values = {"job": job, "before": before, "most": self._keep_rows - 1}
        with contextlib.suppress(sqlite3.Error), self._reading:
            if self._db.execute(delete, values).rowcount >= 500:
                self._to_prune.append(job)

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_failing

    def _tell(self, message: str) -> None:
        self._later(lambda: self._warn(message))

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody listens any more
            self._call_soon(call)


_MOST_HELD = 100_000


_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _dumped(progress: Progress) -> str:
    return _encoded(progress.as_json())


def _deliver(outcomes: list[tuple[Then, Exception | None]]) -> None:
    for then, error in outcomes:
        then(error)
