"""A copy of a state folder in one file, made while a supervisor uses it; and a state folder made from such a copy.

The file is a tar archive, compressed with gzip: `backup.json` says what it is, then come the database, as the backup
API of SQLite copies it, the origin, the token of the HTTP API, and the output of runs.

A restore holds the lock of the folder. The old files are moved into `restore.old` and are removed when the new ones are
in their place. The marker is replaced last: until then, no supervisor takes a folder without its database.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from repeater import __version__
from repeater._lazy_dataclasses import dataclass
from repeater.errors import ApplyRefused, LockHeld, UsageError
from repeater.store.database import connect, connect_to_read
from repeater.store.history_database import FORMAT as DATABASE_FORMAT
from repeater.store.history_database import check_database, check_format, commits_of
from repeater.store.marker import Marker
from repeater.store.origin import ORIGIN
from repeater.store.state_dir import DATABASE, MARKER, Lock, state_unavailable

FORMAT = 1
"""Of the archive; raised when an older version could not read it."""
ABOUT = "backup.json"
OUTPUT = "output"
_FILES = (ORIGIN, "http-token")
_STATE = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *_FILES, OUTPUT)
_OLD, _NEW = "restore.old", "restore.new"
_MOST_ABOUT = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: the project, when it was made, and how much."""

    project: str
    made: str
    slots: int
    outputs: int


# --- making one -----------------------------------------------------------------------------------------------------


def write_backup(folder: Path, project: str, target: Path, made: str) -> Backup:
    """Copy the state in `folder` into the new file `target`. Raises RepeaterError, and then leaves no file."""
    if not (folder / DATABASE).exists():
        raise UsageError(f"cannot back up project `{project}`: there is no state in `{folder}`")
    part = target.with_name(f"{target.name}.part")
    copy = target.with_name(f"{target.name}.db")
    with contextlib.ExitStack() as undo:
        try:
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            undo.callback(part.unlink, missing_ok=True)
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            undo.callback(copy.unlink, missing_ok=True)
            with os.fdopen(fd, "wb") as file:
                format_, slots = _copy_database(folder / DATABASE, copy)
                outputs = _pack(folder, copy, file, {"project": project, "made": made, "database": format_})
                file.flush()
                os.fsync(fd)
            part.rename(target)
        except OSError as error:
            raise ApplyRefused(f"cannot write `{target}`: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise state_unavailable(folder / DATABASE, error) from error
    return Backup(project, made, slots, outputs)


def _copy_database(path: Path, copy: Path) -> tuple[int, int]:
    """The format of the database, and how many slots it has."""
    with contextlib.closing(connect_to_read(path)) as source, contextlib.closing(connect(str(copy))) as there:
        format_ = check_format(source, path)
        source.backup(there)
        there.execute("PRAGMA journal_mode = DELETE")
        (slots,) = there.execute("SELECT count(*) FROM runs WHERE last").fetchone()
        return format_, int(slots)


def _pack(folder: Path, database: Path, file: Any, about: dict[str, Any]) -> int:
    outputs = 0
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
        text = json.dumps({"format": FORMAT, "version": __version__, **about}).encode()
        _add(archive, ABOUT, text)
        archive.add(database, DATABASE, filter=_plain)
        for name in _FILES:
            with contextlib.suppress(FileNotFoundError):
                _add(archive, name, _content(folder / name))
        for path in _outputs(folder):
            with contextlib.suppress(FileNotFoundError):  # it was removed, or completed under another name
                changed = path.lstat().st_mtime  # how old it is decides how long it stays
                _add(archive, str(path.relative_to(folder)), _content(path), changed)
                outputs += 1
    return outputs


def _outputs(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for job in sorted(os.scandir(folder / OUTPUT), key=lambda entry: entry.name):
            if job.is_dir(follow_symlinks=False):
                yield from sorted(Path(one.path) for one in os.scandir(job.path) if one.is_file(follow_symlinks=False))


def _content(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _add(archive: tarfile.TarFile, name: str, data: bytes, changed: float = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(changed)
    archive.addfile(entry, io.BytesIO(data))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names of users of this machine."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


# --- taking one -----------------------------------------------------------------------------------------------------


def read_about(source: Path) -> dict[str, Any]:
    """What a backup is. Raises UsageError for another file, or for one of a newer version."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            entry = archive.next()
            file = None if entry is None or entry.name != ABOUT else archive.extractfile(entry)
            about = json.loads(file.read(_MOST_ABOUT)) if file is not None else None
    except FileNotFoundError:
        raise UsageError(f"cannot read `{source}`: there is no such file") from None
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise UsageError(f"cannot read `{source}`: it is not a backup of rpr ({error})") from None
    if not isinstance(about, dict) or not isinstance(about.get("format"), int) or "project" not in about:
        raise UsageError(f"cannot read `{source}`: it is not a backup of rpr")
    if about["format"] > FORMAT or about.get("database", 0) > DATABASE_FORMAT:
        raise UsageError(
            f"cannot restore `{source}`: it was written by rpr {about.get('version')}, which is newer than this "
            f"rpr {__version__}",
            hint="use that version of rpr, or a newer one",
        )
    return about


def restore_backup(source: Path, folder: Path, *, keeps_origin: bool = True) -> Backup:
    """Replace the state in `folder` by that of a backup. Raises RepeaterError; then the old state is there."""
    about = read_about(source)
    try:
        lock = Lock(folder)
    except LockHeld as held:
        who = f"process {held.pid}" if held.pid else "a process"
        raise ApplyRefused(
            f"cannot restore `{source}`: {who} uses the state in `{folder}`", hint="`rpr down` ends the supervisor"
        ) from None
    old, new = folder / _OLD, folder / _NEW
    try:
        _move_back(folder)
        shutil.rmtree(new, ignore_errors=True)
        outputs = _unpack(source, new, keeps_origin=keeps_origin)
        slots, commits = _checked(new / DATABASE)
        old.mkdir(0o700)
        try:
            _move(folder, old)
            _move(new, folder)
        except BaseException:
            _move_back(folder)
            raise
        Marker(folder / MARKER).write("closed", commits)
        shutil.rmtree(old)
    except OSError as error:
        raise ApplyRefused(f"cannot restore `{source}`: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        lock.release()
    return Backup(about["project"], str(about.get("made", "")), slots, outputs)


def _move_back(folder: Path) -> None:
    """Undo a restore that did not come to its end. The database of the old state was moved last: if it was, what is in
    the folder now is from the backup.
    """
    old = folder / _OLD
    if not old.is_dir():
        return
    if os.path.lexists(old / DATABASE):
        for name in _STATE:
            _delete(folder / name)
    for name in _STATE:
        if os.path.lexists(old / name):
            _delete(folder / name)
            (old / name).rename(folder / name)
    old.rmdir()


def _move(source: Path, target: Path) -> None:
    """The database last: a folder that has one has the rest."""
    for name in reversed(_STATE):
        if os.path.lexists(source / name):
            (source / name).rename(target / name)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unpack(source: Path, new: Path, *, keeps_origin: bool) -> int:
    """Write the files of a backup, and no others. How many outputs there are."""
    new.mkdir(0o700)
    (new / OUTPUT).mkdir(0o700)
    outputs = 0
    try:
        with tarfile.open(source, "r:gz") as archive:
            for entry in archive:
                parts = PurePosixPath(entry.name).parts
                is_output = len(parts) == 3 and parts[0] == OUTPUT and ".." not in parts
                if not entry.isfile() or not (is_output or entry.name in (DATABASE, *_FILES)):
                    continue
                if entry.name == ORIGIN and not keeps_origin:
                    continue
                path = new / entry.name
                if is_output:
                    outputs += 1
                    path.parent.mkdir(0o700, exist_ok=True)
                file = archive.extractfile(entry)
                assert file is not None
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                with os.fdopen(fd, "wb") as there:
                    shutil.copyfileobj(file, there)
                    if entry.name == DATABASE:
                        there.flush()
                        os.fsync(fd)
                os.utime(path, (entry.mtime, entry.mtime))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UsageError(f"cannot restore `{source}`: it is damaged ({error})") from None
    return outputs


def _checked(path: Path) -> tuple[int, int]:
    """How many slots and commits the database has. Raises StateUnavailable for one that cannot be used."""
    if not path.exists():
        raise UsageError("cannot restore: the backup has no history")
    try:
        with contextlib.closing(connect_to_read(path)) as db:
            check_database(db, path, Marker(path.with_name(MARKER)))
            (slots,) = db.execute("SELECT count(*) FROM runs WHERE last").fetchone()
            return int(slots), commits_of(db)
    except sqlite3.Error as error:
        raise state_unavailable(path, error) from error
