"""State folders of released versions, as `tests/corpus/state` has them, opened by this one."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from repeater.adapters.sqlite import open_reader

CORPUS = Path(__file__).parent.parent / "corpus" / "state"
ARCHIVES = sorted(path.name for path in CORPUS.glob("*.tar.gz"))


def unpacked(archive: str, folder: Path) -> Path:
    folder.mkdir(parents=True, mode=0o700)
    with tarfile.open(CORPUS / archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


def at_once(call: Callable[[], None]) -> None:
    call()


def sentences(folder: Path) -> list[tuple[str, str | None]]:
    """What the database itself says of each last attempt, newest first."""
    with sqlite3.connect(f"file:{folder}/history.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT job, reason FROM runs WHERE last ORDER BY nominal DESC, job DESC").fetchall()
    db.close()
    return found


def test_there_is_an_archive_of_each_kind() -> None:
    assert ARCHIVES == ["v0.1.0-killed.tar.gz", "v0.1.0.tar.gz"]


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_reader_reads_the_format_before_and_changes_nothing(archive: str, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "state")
    before = {name: (folder / name).read_bytes() for name in ("history.db", "began")}
    reader = open_reader(folder)
    assert reader is not None
    rows = list(reader.rows(most=10_000))
    progress = reader.progress()
    reader.close()
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert [row.job for row in rows] == [job for job, _ in sentences(folder)]
    assert progress["pausable"].runs > 0
