"""Which files the opener of databases refuses, for both kinds of database. A refused file is not changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from repeater.errors import StateUnavailable
from repeater.store import history_database, rate_limits, state_dir
from repeater.store.database import DatabaseKind
from repeater.store.marker import Marker


def open_history(folder: Path) -> None:
    history_database.open_writer(folder).close()
    Marker(folder / state_dir.MARKER).write("closed", 0)


def open_rate_limits(folder: Path) -> None:
    rate_limits.RateLimitStore(folder).close()


KINDS = [
    pytest.param(open_history, state_dir.DATABASE, history_database.HISTORY, id="history"),
    pytest.param(open_rate_limits, rate_limits.DATABASE, rate_limits.RATE_LIMITS, id="rate-limits"),
]
Opener = Callable[[Path], None]


def write(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
def test_a_new_file_is_opened_again(open_it: Opener, name: str, kind: DatabaseKind, tmp_path: Path) -> None:
    open_it(tmp_path)
    open_it(tmp_path)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / name)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (kind.format,)


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("CREATE TABLE t (a); PRAGMA application_id = 7; PRAGMA user_version = 1", "it is not {kind.name}"),
        ("CREATE TABLE t (a)", "it is not {kind.name}"),
        ("CREATE TABLE t (a); PRAGMA user_version = 1", "it is not {kind.name}"),
        ("CREATE TABLE t (a); PRAGMA user_version = 99", "it has format 99, but this rpr supports formats up to"),
    ],
    ids=["other application", "no format", "no tables", "newer"],
)
def test_a_foreign_file_is_refused(
    open_it: Opener, name: str, kind: DatabaseKind, script: str, cause: str, tmp_path: Path
) -> None:
    write(tmp_path / name, script)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(StateUnavailable) as refused:
        open_it(tmp_path)
    assert cause.format(kind=kind) in str(refused.value)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
def test_an_empty_file_is_refused(open_it: Opener, name: str, kind: DatabaseKind, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(StateUnavailable, match=f"the file is empty, so its {kind.contents} is lost"):
        open_it(tmp_path)
    assert (tmp_path / name).stat().st_size == 0


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_link_is_refused(open_it: Opener, name: str, kind: DatabaseKind, suffix: str, tmp_path: Path) -> None:
    open_it(tmp_path)
    for other in tmp_path.glob(f"{name}-*"):
        other.unlink()
    path = tmp_path / f"{name}{suffix}"
    target = tmp_path / "elsewhere"
    path.rename(target) if path.exists() else target.touch()
    path.symlink_to(target)
    with pytest.raises(StateUnavailable, match=f"`{path}`: it is a symbolic link"):
        open_it(tmp_path)


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
def test_a_damaged_file_is_refused(open_it: Opener, name: str, kind: DatabaseKind, tmp_path: Path) -> None:
    open_it(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    with pytest.raises(StateUnavailable, match=r"malformed|damaged"):
        open_it(tmp_path)
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize(("open_it", "name", "kind"), KINDS)
def test_a_start_that_was_interrupted_is_repeated(
    open_it: Opener, name: str, kind: DatabaseKind, tmp_path: Path
) -> None:
    (tmp_path / name).with_suffix(".new").write_bytes(b"half of a file")
    open_it(tmp_path)
    assert [path.name for path in tmp_path.glob("*.new")] == []


def test_a_rate_limit_directory_is_below_the_state_root(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    first = state_dir.rate_limit_folder(Path("/run/a"), environ)
    assert first.parent == tmp_path / "repeater-daemon"
    assert first != state_dir.rate_limit_folder(Path("/run/b"), environ)
    assert state_dir.state_folder("p", {"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path(
        "/h/.local/state/repeater/p"
    )
