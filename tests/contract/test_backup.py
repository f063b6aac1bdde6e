"""A copy of a state folder while it is used, and the way back."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater.errors import ApplyRefused, RepeaterError, UsageError
from repeater.model.run import Progress, SlotRecord
from repeater.store import backup
from repeater.store.backup import restore_backup, write_backup
from repeater.store.origin import Origin, read_origin, write_origin
from repeater.store.reader import open_reader
from repeater.store.store import SqliteStore

NOW = datetime.now(UTC) - timedelta(hours=1)  # the store deletes old rows


def at_once(call: Callable[[], None]) -> None:
    call()


def fill(store: SqliteStore, count: int) -> None:
    for number in range(count):
        at = NOW + timedelta(seconds=number)
        row = SlotRecord("a", at, at, at, at, "succeeded", None, f"r{number}", 1)
        store.record(row, Progress("a", NOW, runs=number + 1))
    store.flush()


def rows_of(folder: Path) -> list[str | None]:
    reader = open_reader(folder)
    assert reader is not None
    found = [row.run for row in reader.rows(["a"], 1000)]
    reader.close()
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A closed state folder with ten rows, an output and an origin."""
    folder = tmp_path / "state"
    store = SqliteStore(folder, at_once)
    fill(store, 10)
    store.close()
    (folder / "output/a").mkdir(parents=True)
    (folder / "output/a/r1.gz").write_bytes(b"one")
    write_origin(folder, Origin("shop", "/jobs.toml"))
    return folder


@pytest.fixture
def made(state: Path, tmp_path: Path) -> Path:
    write_backup(state, "shop", tmp_path / "b.tgz", "2026-01-01T00:00:00Z")
    return tmp_path / "b.tgz"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_made_while_it_is_written_has_what_was_durable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state", at_once)
    fill(store, 5)
    found = write_backup(tmp_path / "state", "shop", tmp_path / "b.tgz", "")
    fill(store, 8)
    store.close()
    assert (found.slots, found.outputs) == (5, 0)
    restore_backup(tmp_path / "b.tgz", tmp_path / "other")
    assert rows_of(tmp_path / "other") == ["r4", "r3", "r2", "r1", "r0"]
    assert names(tmp_path) == ["b.tgz", "other", "state"]
    assert (tmp_path / "b.tgz").stat().st_mode & 0o777 == 0o600


def test_a_restored_folder_can_be_used_and_continued(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    found = restore_backup(made, folder)
    assert (found.project, found.slots, found.outputs) == ("shop", 10, 1)
    assert (folder / "output/a/r1.gz").read_bytes() == b"one"
    assert read_origin(folder) == Origin("shop", "/jobs.toml")
    for path in (folder / "output/a/r1.gz", folder / "history.db", folder / "origin"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (folder / "output").stat().st_mode & 0o777 == 0o700
    store = SqliteStore(folder, at_once)
    assert store.load().progress["a"].runs == 10
    fill(store, 12)
    store.close()
    assert len(rows_of(folder)) == 12


def test_an_older_state_may_replace_a_newer_one(made: Path, state: Path) -> None:
    store = SqliteStore(state, at_once)
    fill(store, 50)
    store.close()
    restore_backup(made, state)
    assert len(rows_of(state)) == 10
    SqliteStore(state, at_once).close()  # the marker is that of the restored database
    assert "restore.old" not in names(state)


def test_a_restore_stops_while_a_supervisor_runs(made: Path, state: Path) -> None:
    store = SqliteStore(state, at_once)
    before = rows_of(state)
    with pytest.raises(ApplyRefused, match="uses the state in"):
        restore_backup(made, state)
    assert rows_of(state) == before
    store.close()


def changed(made: Path, about: dict[str, Any] | None = None, database: bytes | None = None) -> None:
    """Replace parts of a backup."""
    parts: dict[str, bytes] = {}
    with tarfile.open(made) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            parts[entry.name] = file.read()
    if about is not None:
        parts["backup.json"] = json.dumps(json.loads(parts["backup.json"]) | about).encode()
    if database is not None:
        parts["history.db"] = database
    with tarfile.open(made, "w:gz") as archive:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda made: changed(made, about={"format": 2}), "newer than this rpr"),
        (lambda made: changed(made, about={"database": 99}), "newer than this rpr"),
        (lambda made: changed(made, database=b"no database" * 100), "cannot use state"),
        (lambda made: made.write_bytes(made.read_bytes()[:-200]), "damaged|not a backup"),
        (lambda made: made.write_bytes(b"text"), "not a backup of rpr"),
        (lambda made: made.unlink(), "no such file"),
    ],
)
def test_a_bad_backup_changes_nothing(spoil: Callable[[Path], object], message: str, made: Path, state: Path) -> None:
    before = {name: (state / name).read_bytes() for name in ("history.db", "began", "origin")}
    spoil(made)
    with pytest.raises(RepeaterError, match=message):
        restore_backup(made, state)
    assert {name: (state / name).read_bytes() for name in before} == before
    assert {"restore.old", "restore.new"}.isdisjoint(names(state))


def test_entries_that_lead_elsewhere_are_omitted(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made) as archive:
        parts = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    with tarfile.open(made, "w:gz") as archive:
        for name, data in {**parts, "../evil": b"x", "output/../../evil": b"x", "output/../evil": b"x"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("output/a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    restore_backup(made, tmp_path / "other")
    assert names(tmp_path) == ["b.tgz", "other", "state"]
    assert sorted(path.name for path in (tmp_path / "other").rglob("*") if path.is_file()) == [
        "began", "history.db", "lock", "origin", "r1.gz",
    ]  # fmt: skip


@pytest.mark.parametrize("step", range(1, 9))
def test_the_old_state_is_back_after_a_restore_that_failed(
    step: int, made: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(state, at_once)
    fill(store, 20)
    store.close()
    token = tarfile.TarInfo("http-token")
    with tarfile.open(made) as archive:
        packed = [(entry, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
    with tarfile.open(made, "w:gz") as archive:
        for entry, data in [*packed, (token, b"")]:
            archive.addfile(entry, io.BytesIO(data))
    moves = 0
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == step:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        try:
            restore_backup(made, state)
        except ApplyRefused:
            assert len(rows_of(state)) == 20
            assert "http-token" not in names(state)
        else:
            assert len(rows_of(state)) == 10
    assert {"restore.old", "restore.new"}.isdisjoint(names(state))
    SqliteStore(state, at_once).close()


def test_a_restore_that_was_killed_is_undone_by_the_next(made: Path, state: Path) -> None:
    (state / "restore.old").mkdir()
    (state / "history.db").rename(state / "restore.old/history.db")
    with pytest.raises(RepeaterError, match="history"):
        SqliteStore(state, at_once)
    changed(made, about={"format": 2})
    with pytest.raises(UsageError):
        restore_backup(made, state)
    changed(made, about={"format": 1})
    restore_backup(made, state)
    assert len(rows_of(state)) == 10
    SqliteStore(state, at_once).close()


def test_a_backup_overwrites_no_file(made: Path, state: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(ApplyRefused, match="File exists"):
        write_backup(state, "shop", made, "")
    assert made.read_bytes() == before
    assert names(made.parent) == ["b.tgz", "state"]


def test_a_project_without_a_state_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no state"):
        write_backup(tmp_path / "none", "shop", tmp_path / "b.tgz", "")
    assert names(tmp_path) == []


def test_output_that_is_removed_meanwhile_is_omitted(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = backup._content

    def vanishing(path: Path) -> bytes:
        if path.name == "r1.gz":
            shutil.rmtree(path.parent)
        return content(path)

    monkeypatch.setattr(backup, "_content", vanishing)
    assert write_backup(state, "shop", tmp_path / "b.tgz", "").outputs == 0
    assert restore_backup(tmp_path / "b.tgz", tmp_path / "other").slots == 10
