"""State folders of released versions, as `tests/corpus/state` has them, opened by this one."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from repeater.apps.job_files import load_job_files
from repeater.apps.recovery import changed_services
from repeater.store.format1 import upgraded
from repeater.store.reader import open_reader
from repeater.store.store import SqliteStore

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
    assert ARCHIVES == [
        "format-2-killed.tar.gz",
        "format-2.tar.gz",
        "v0.1.0-killed.tar.gz",
        "v0.1.0.tar.gz",
    ]


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


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_store_migrates_once_and_keeps_each_row(archive: str, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "state")
    wanted = sentences(folder)
    reader = open_reader(folder)
    assert reader is not None
    before = list(reader.rows(most=10_000))
    reader.close()
    for _ in range(2):
        store = SqliteStore(folder, at_once)
        remembered = store.load()
        assert list(store.find_records(most=10_000)) == before
        store.close()
        assert sentences(folder) == wanted
    assert remembered.generation == (4 if "killed" in archive else 3)
    assert [row.job for row in remembered.open_rows] == (["web", "worker"] if "killed" in archive else [])


@pytest.mark.parametrize("archive", ARCHIVES)
def test_outcomes_of_old_rows_are_found_by_filters(archive: str, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "state")
    for _ in range(2):  # as 0.1.0 left it, then migrated
        reader = open_reader(folder)
        assert reader is not None
        rows = list(reader.rows(most=10_000))
        for outcome in ("success", "failed", "skipped", "expired", "replaced", "cancelled", "running"):
            found = list(reader.rows(most=10_000, outcomes=[outcome]))
            assert found == [row for row in rows if row.outcome == outcome], outcome
        assert any(row.outcome == "failed" for row in rows)
        reader.close()
        SqliteStore(folder, at_once).close()


def test_a_secret_service_of_an_old_definition_is_not_changed(tmp_path: Path) -> None:
    folder = unpacked("v0.1.0-killed.tar.gz", tmp_path / "state")
    text = (CORPUS / "jobs.toml").read_text()
    store = SqliteStore(folder, at_once)
    try:
        for changed, expected in ((text, set()), (text.replace("correct-horse", "other-horse"), {"web"})):
            (tmp_path / "jobs.toml").write_text(changed)
            jobfile = load_job_files([str(tmp_path / "jobs.toml")]).jobfile
            assert changed_services(store, jobfile) == expected
    finally:
        store.close()


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("1 run", {"code": "runs_reached", "detail": {"count": 1}}),
        ("12 runs", {"code": "runs_reached", "detail": {"count": 12}}),
        ("1 success", {"code": "successes_reached", "detail": {"count": 1}}),
        ("3 successes", {"code": "successes_reached", "detail": {"count": 3}}),
        ("2 failures", {"code": "failures_reached", "detail": {"count": 2}}),
        ("2 failures in a row", {"code": "consecutive_failures", "detail": {"count": 2}}),
        ("1h30m passed", {"code": "time_passed", "detail": {"length": 5_400_000_000}}),
        ("2026-01-01T00:00:00Z reached", {"code": "instant_reached", "detail": {"until": 1767225600000000}}),
        ("a run succeeded", {"code": "run_succeeded"}),
        ("a run failed", {"code": "run_failed"}),
        ("output matched the stop pattern", {"code": "stop_pattern"}),
        ("its schedule has ended", {"code": "schedule_ended"}),
        ("it ended and `restart` is `on-failure`", {"code": "service_ended", "detail": {"restart": "on-failure"}}),
        ("the budget is spent", {"code": "stop_plugin", "detail": {"text": "the budget is spent"}}),
        (
            "2 runs, a run failed",
            {
                "code": "all_conditions",
                "detail": {"reasons": [{"code": "runs_reached", "detail": {"count": 2}}, {"code": "run_failed"}]},
            },
        ),
    ],
)
def test_each_sentence_of_a_done_job_has_its_code(sentence: str, kept: dict[str, object]) -> None:
    assert json.loads(upgraded(json.dumps({"job": "a", "done": sentence})))["done"] == kept


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [("paused", {"code": "paused"}), ("the disk moves", {"code": "paused", "detail": {"text": "the disk moves"}})],
)
def test_the_reason_of_an_old_pause_is_kept(sentence: str, kept: dict[str, object]) -> None:
    assert json.loads(upgraded(json.dumps({"job": "a", "paused": sentence})))["paused"] == kept


@pytest.mark.parametrize("data", ["", "nothing", "[]", "7", '{"done": null}', '{"done": {"code": "run_failed"}}'])
def test_a_text_that_is_not_progress_of_format_1_stays(data: str) -> None:
    try:
        assert json.loads(upgraded(data)) == json.loads(data)
    except ValueError:
        assert upgraded(data) == data
