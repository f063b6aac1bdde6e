"""State that was damaged, taken, or has no room: it is refused or waited for, never replaced by an empty one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from repeater._lazy_dataclasses import replace
from repeater.errors import LockHeld, StateUnavailable
from repeater.model.reasons import reason as because
from repeater.model.run import Progress, SlotRecord
from repeater.sentences import sentence
from repeater.store import state_dir
from repeater.store.reader import open_reader
from repeater.store.state_dir import state_folder
from repeater.store.store import SqliteStore

START = datetime.now(UTC)


def at_once(call: Callable[[], None]) -> None:
    call()


def row(second: int = 0, job: str = "a") -> SlotRecord:
    nominal = START + timedelta(seconds=second)
    return SlotRecord(job, nominal, nominal, None, None, "claimed", None, f"r{second}", 1)


def claim(store: SqliteStore, record: SlotRecord) -> Exception | None:
    answers: list[Exception | None] = []
    store.claim(record, Progress(record.job, START), answers.append)
    store.flush()
    return answers[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with a history of 300 rows, closed properly."""
    folder = tmp_path / "state"
    store = SqliteStore(folder, at_once)
    for second in range(300):
        store.claim(row(second), Progress("a", START), lambda _: None)
    store.close()
    return folder


def refused(folder: Path) -> StateUnavailable:
    """The error that opening gives; nothing in the folder is changed by it, and the lock is free again."""
    before = contents(folder)
    with pytest.raises(StateUnavailable) as caught:
        SqliteStore(folder, at_once)
    assert contents(folder) == before
    state_dir.Lock(folder).release()
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    """All but the lock, and the index of the WAL, which each reader may build again."""
    passing = ("lock", "history.db-shm")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in passing}


def test_a_zero_byte_history_is_refused_by_name_with_a_way_out(folder: Path) -> None:
    (folder / "history.db").write_bytes(b"")
    error = refused(folder)
    assert error.message == f"cannot use state `{folder}/history.db`: the file is empty, so its history is lost"
    assert error.hint == "to start a new history, move the state directory away or use `--state-dir`"
    assert error.exit_code == 5


def test_a_truncated_history_is_refused(folder: Path) -> None:
    path = folder / "history.db"
    os.truncate(path, path.stat().st_size // 2)
    assert "history.db" in refused(folder).message


def test_a_history_of_garbage_is_refused(folder: Path) -> None:
    (folder / "history.db").write_bytes(os.urandom(50_000))
    assert "file is not a database" in refused(folder).message


def test_a_history_with_a_damaged_page_is_refused(folder: Path) -> None:
    path = folder / "history.db"
    data = bytearray(path.read_bytes())
    for offset in range(4096 * 3, len(data), 4096):
        data[offset : offset + 200] = os.urandom(200)
    path.write_bytes(data)
    assert "damaged" in refused(folder).message or "malformed" in refused(folder).message


def test_a_history_of_a_newer_rpr_is_refused(folder: Path) -> None:
    db = sqlite3.connect(folder / "history.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    error = refused(folder)
    assert "it has format 99, but this rpr supports formats up to" in error.message


def test_a_database_of_another_program_is_refused(folder: Path) -> None:
    (folder / "history.db").unlink()
    db = sqlite3.connect(folder / "history.db")
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    assert "not a history of repeater" in refused(folder).message


def test_a_history_that_disappeared_is_not_a_first_start(folder: Path) -> None:
    (folder / "history.db").unlink()
    assert "the database has been deleted" in refused(folder).message


def test_the_loss_of_the_newest_part_after_a_crash_is_noticed(tmp_path: Path) -> None:
    killed_supervisor(tmp_path / "state")
    (tmp_path / "state" / "history.db-wal").unlink()
    (tmp_path / "state" / "history.db-shm").unlink(missing_ok=True)
    assert "the WAL file is missing, so recent history is lost" in refused(tmp_path / "state").message


def test_a_truncated_wal_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    killed_supervisor(folder)
    wal = folder / "history.db-wal"
    os.truncate(wal, wal.stat().st_size * 2 // 3)
    error = refused(folder)
    assert f"cannot use state `{folder}/history.db`: it has " in error.message
    assert f"but `{folder}/began` records" in error.message
    (folder / "began").unlink()  # the way out that the hint names
    SqliteStore(folder, at_once).close()


@pytest.mark.parametrize("place", [0, 17, 25, 0.5, 0.75], ids=["magic", "salt", "checksum", "middle", "later"])
def test_a_wal_with_one_flipped_bit_is_refused(tmp_path: Path, place: float) -> None:
    folder = tmp_path / "state"
    killed_supervisor(folder)
    wal = folder / "history.db-wal"
    data = bytearray(wal.read_bytes())
    data[int(place * len(data)) if 0 < place < 1 else int(place)] ^= 4
    wal.write_bytes(data)
    assert "records" in refused(folder).message


def test_a_database_put_back_from_an_older_copy_is_refused(folder: Path) -> None:
    older = (folder / "history.db").read_bytes()
    store = SqliteStore(folder, at_once)
    claim(store, row(1000))
    store.close()
    (folder / "history.db").write_bytes(older)
    assert "an older copy" in refused(folder).message


def test_the_marker_is_never_ahead_of_the_database(folder: Path) -> None:
    store = SqliteStore(folder, at_once)
    for second in range(1000, 1010):
        claim(store, row(second))
        store.save(Progress("b", START))
    store.flush()
    word, count = (folder / "began").read_text().split()
    with sqlite3.connect(f"file:{folder}/history.db?mode=ro", uri=True) as db:
        (commits,) = db.execute("SELECT value FROM meta WHERE key = 'commits'").fetchone()
    db.close()
    store.close()
    assert word == "open"
    assert 10 <= int(count) <= int(commits)


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_no_flipped_byte_of_the_header_makes_jobs_new(folder: Path, mask: int) -> None:
    path = folder / "history.db"
    whole = path.read_bytes()
    wanted = progress_of(folder)
    for place in range(100):
        data = bytearray(whole)
        data[place] ^= mask
        path.write_bytes(data)
        with contextlib.suppress(StateUnavailable):
            assert progress_of(folder) == wanted, f"byte {place}"
        with contextlib.suppress(FileNotFoundError):
            (folder / "history.db-wal").unlink()
            (folder / "history.db-shm").unlink()
        (folder / "began").write_text("closed\n")


def progress_of(folder: Path) -> tuple[int, list[str]]:
    """What a supervisor would know of the jobs. Raises StateUnusable."""
    store = SqliteStore(folder, at_once)
    try:
        return len(store.load().open_rows), sorted(map(repr, store.load().progress.values()))
    finally:
        store.close()


@pytest.mark.parametrize(
    "data",
    ["", "no json", "[]", "null", "{}", '{"job":"a"}', '{"job":"a","anchor":"soon"}', '{"job":"a","anchor":1,"runs":"2"}',
     '{"job":"a","anchor":1,"runs":2,"cursor":99999999999999999999}', '{"job":7,"anchor":1}'],
)  # fmt: skip
def test_a_damaged_progress_row_is_an_error_that_names_the_job(folder: Path, data: str) -> None:
    with sqlite3.connect(folder / "history.db") as db:
        db.execute("UPDATE progress SET data = ? WHERE job = 'a'", (data,))
    db.close()
    store = SqliteStore(folder, at_once)
    try:
        with pytest.raises(StateUnavailable, match="the progress of job `a` is damaged") as caught:
            store.load()
    finally:
        store.close()
    assert str(folder / "history.db") in caught.value.message


def test_a_second_supervisor_is_refused_at_once_with_the_holder(folder: Path) -> None:
    first = SqliteStore(folder, at_once)
    began = time.monotonic()
    try:
        with pytest.raises(LockHeld) as caught:
            SqliteStore(folder, at_once)
    finally:
        first.close()
    assert time.monotonic() - began < 1
    assert caught.value.pid == os.getpid()
    assert f"process {os.getpid()} is using it" in caught.value.message


def test_a_lock_without_its_text_still_holds(folder: Path) -> None:
    first = SqliteStore(folder, at_once)
    try:
        (folder / "lock").write_bytes(b"")
        with pytest.raises(LockHeld) as caught:
            SqliteStore(folder, at_once)
    finally:
        first.close()
    assert caught.value.pid is None


def test_the_lock_is_not_inherited_by_processes_of_jobs(folder: Path) -> None:
    store = SqliteStore(folder, at_once)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        store.close()
        SqliteStore(folder, at_once).close()
    finally:
        child.kill()
        child.wait()


def test_files_are_for_the_owner_alone(folder: Path) -> None:
    store = SqliteStore(folder, at_once)
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    finally:
        store.close()


def test_a_folder_open_to_others_is_closed_to_them(folder: Path) -> None:
    folder.chmod(0o755)
    SqliteStore(folder, at_once).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StateUnavailable, match="Permission denied"):
        SqliteStore(tmp_path / "closed" / "state", at_once)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateUnavailable, match=r"File exists|Not a directory"):
        SqliteStore(tmp_path / "state", at_once)


def test_the_folder_follows_the_xdg_specification() -> None:
    assert state_folder("shop", {"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/repeater/shop")
    assert state_folder("shop", {"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/repeater/shop")
    assert state_folder("shop", {"HOME": "/h"}) == Path("/h/.local/state/repeater/shop")


def test_a_reader_needs_no_lock_and_creates_nothing(tmp_path: Path) -> None:
    assert open_reader(tmp_path / "nowhere") is None
    assert list(tmp_path.iterdir()) == []
    store = SqliteStore(tmp_path / "state", at_once)
    claim(store, row())
    reader = open_reader(tmp_path / "state")
    assert reader is not None
    assert list(reader.rows()) == [row()]
    claim(store, row(1))
    assert len(list(reader.rows())) == 2
    reader.close()
    store.close()


def test_a_reader_of_a_closed_history_does_not_change_the_folder(folder: Path) -> None:
    before = contents(folder)
    reader = open_reader(folder)
    assert reader is not None
    assert len(list(reader.rows(most=1000))) == 300
    reader.close()
    assert contents(folder) == before


def test_a_reader_of_a_crashed_history_sees_its_rows_and_removes_nothing(tmp_path: Path) -> None:
    last = killed_supervisor(tmp_path / "state")
    reader = open_reader(tmp_path / "state")
    assert reader is not None
    newest = int((next(reader.rows()).run or "").removeprefix("r"))
    assert newest >= last  # one more may have been kept just before the kill, and not been told
    reader.close()
    store = SqliteStore(tmp_path / "state", at_once)
    assert len(store.load().open_rows) == newest + 1
    store.close()


def test_sessions_and_generations_are_stored_and_a_killed_one_has_no_end(tmp_path: Path) -> None:
    killed_supervisor(tmp_path / "state")
    for generation in (7, 8):
        store = SqliteStore(tmp_path / "state", at_once)
        store.begin(generation)
        store.close()
    reader = open_reader(tmp_path / "state")
    assert reader is not None
    meta = reader.history_meta()
    runs = meta.supervisor_runs
    reader.close()
    ends = [run.ended for run in runs]
    assert ends[0] is None
    assert runs[1].began <= ends[1] <= runs[2].began <= ends[2]  # type: ignore[operator]
    assert [generation.number for generation in meta.generations][-2:] == [7, 8]


def test_a_damaged_history_is_refused_to_readers_too(folder: Path) -> None:
    (folder / "history.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StateUnavailable, match=r"history\.db"):
        open_reader(folder)


def test_every_claim_that_was_answered_survives_kill_nine(tmp_path: Path) -> None:
    for _ in range(3):
        last = killed_supervisor(tmp_path / "state")
        store = SqliteStore(tmp_path / "state", at_once)
        rows = {found.run for found in store.load().open_rows}
        assert rows >= {f"r{second}" for second in range(last + 1)}
        store.close()
        shutil.rmtree(tmp_path / "state")


CLAIMS_FOR_EVER = """
import sys
from pathlib import Path
from tests.faults.test_state import *
store = SqliteStore(Path(sys.argv[1]), at_once)
for second in range(1_000_000):
    assert claim(store, row(second)) is None
    print(second, flush=True)
"""


def killed_supervisor(folder: Path) -> int:
    """Claims until it is killed; the number of the last claim that it was told is kept."""
    child = subprocess.Popen(
        [sys.executable, "-c", CLAIMS_FOR_EVER, str(folder)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert child.stdout is not None
    with child.stdout as output:
        for line in output:
            if int(line) >= 40:
                child.send_signal(signal.SIGKILL)
                break
        rest = output.read().split(b"\n")[:-1]
    child.wait()
    return int(rest[-1] if rest else line)


def test_an_ephemeral_store_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(None, at_once)
    assert claim(store, row()) is None
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_old_rows_are_removed_and_new_ones_stay(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state", at_once, keep_rows=50, keep_days=1)
    ancient = START - timedelta(days=2)
    for second in range(500):
        done = replace(row(second), state="succeeded")
        store.record(done, Progress("a", START))
        store.record(replace(done, job="b", nominal=ancient + timedelta(seconds=second)), Progress("b", START))
    store.claim(replace(row(0, "b"), nominal=ancient), Progress("b", START), lambda _: None)
    end = time.monotonic() + 5
    while True:
        store.flush()
        kept = [found.nominal for found in store.find_records(["a"], most=1000)]
        old = list(store.find_records(["b"], most=1000))
        if (len(kept) < 160 and len(old) < 110) or time.monotonic() > end:
            break
        store.save(Progress("c", START))
        time.sleep(0.01)
    assert 50 <= len(kept) < 160
    assert kept[0] == row(499).nominal
    assert len(old) < 110
    store.close()


def test_rows_too_old_are_removed_also_if_their_job_never_runs_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state", at_once)
    for second in range(900):
        store.record(
            replace(row(second, "gone"), state="succeeded", nominal=START - timedelta(days=2, seconds=second)),
            _of("gone"),
        )
    store.claim(replace(row(0, "open"), nominal=START - timedelta(days=2)), _of("open"), lambda _: None)
    store.record(replace(row(0, "new"), state="succeeded", nominal=datetime.now(UTC)), _of("new"))
    store.close()
    store = SqliteStore(tmp_path / "state", at_once, keep_days=1)
    end = time.monotonic() + 5
    while list(store.find_records(["gone"])) and time.monotonic() < end:
        time.sleep(0.01)
    assert {found.job for found in store.find_records(most=1000)} == {"open", "new"}
    store.close()


@pytest.mark.parametrize(
    ("wrong", "days_later", "kept"),
    [
        (datetime(1972, 1, 1, tzinfo=UTC), 1, True),  # a board without a clock of its own, at the first boot
        (datetime(1972, 1, 1, tzinfo=UTC), 40, False),
        (START + timedelta(days=4000), 1, True),
        (START + timedelta(days=4000), 40, False),
    ],
)
def test_rows_of_a_wrong_clock_stay_for_the_whole_time(
    tmp_path: Path, wrong: datetime, days_later: int, kept: bool
) -> None:
    hour = timedelta(hours=1)
    with time_machine.travel(wrong) as clock:
        store = SqliteStore(tmp_path / "state", at_once)
        store.record(replace(row(), state="succeeded", nominal=wrong), Progress("a", wrong))
        store.flush()
        clock.move_to(START)
        store.clock_set(wrong + hour, START)
        store.close()
        clock.move_to(START + timedelta(days=days_later))
        store = SqliteStore(tmp_path / "state", at_once)
        for second in range(150):  # so many that old rows are looked at
            store.record(replace(row(second), state="succeeded", nominal=START + second * hour), Progress("a", START))
        for count in range(500):
            rows = {found.nominal for found in store.find_records(["a"], most=1000)}
            if count > 20 and (wrong in rows) == kept:
                break
            store.save(Progress("c", START))
            time.sleep(0.01)
        store.close()
    assert (wrong in rows) == kept


def test_the_newest_rows_stay_after_the_clock_was_set_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state", at_once, keep_rows=20)
    for second in range(100):
        ahead = START + timedelta(days=4000, seconds=second)
        store.record(replace(row(), state="succeeded", nominal=ahead), Progress("a", START))
    newest = [START + timedelta(seconds=second) for second in range(100)]
    for nominal in newest:
        store.record(replace(row(), state="succeeded", nominal=nominal), Progress("a", START))
    end = time.monotonic() + 5
    while (
        len(rows := {found.nominal for found in store.find_records(["a"], most=1000)}) > 100 and time.monotonic() < end
    ):
        store.save(Progress("c", START))
        time.sleep(0.01)
    store.close()
    assert rows >= set(newest[-20:])
    assert len(rows) <= 100


def test_a_claim_survives_a_power_cut_also_after_old_rows_were_deleted(tmp_path: Path) -> None:
    said: list[str] = []
    store = SqliteStore(tmp_path / "state", at_once, keep_rows=5)
    store.flush()
    store._db.set_trace_callback(said.append)
    for second in range(40):
        assert claim(store, row(second)) is None
    store.close()
    assert any(words.startswith("DELETE") for words in said)
    level, levels = "", []
    for words in said:
        if words.startswith("PRAGMA synchronous"):
            level = words.rpartition(" ")[2]
        if words.startswith("INSERT INTO runs") and "'claimed'" in words:
            levels.append(level)
    assert levels == ["FULL"] * 40


def _of(job: str) -> Progress:
    return Progress(job, START)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - it must come, and then it is this
    finally:
        os.close(fd)


def test_a_read_only_file_system_is_refused_and_can_be_read(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "state", at_once)
    claim(store, row())
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StateUnavailable, match="Read-only file system"):
        SqliteStore(small_disk / "state", at_once)
    reader = open_reader(small_disk / "state")
    assert reader is not None
    assert list(reader.rows()) == [row()]
    reader.close()


def test_on_a_full_disk_claims_fail_results_wait_and_both_recover(small_disk: Path) -> None:
    warnings: list[str] = []
    store = SqliteStore(small_disk / "state", at_once, warn=lambda reason: warnings.append(sentence(reason)))
    assert claim(store, row(0)) is None
    fill(small_disk / "ballast")
    second, refusals = 0, 0
    while refusals < 2:  # after the first one the WAL is folded in, which may make room for some more
        second += 1
        failed = claim(store, replace(row(second), reason=because("text", text="y" * 3000)))
        refusals = refusals + 1 if failed else 0
        fill(small_disk / "ballast")
    assert getattr(failed, "temporary", False)
    store.record(replace(row(0), state="succeeded"), Progress("a", START, runs=1))
    assert isinstance(claim(store, row(20_001)), Exception)
    del warnings[:-1]
    (small_disk / "ballast").unlink()
    assert claim(store, row(20_002)) is None
    assert next(found for found in store.find_records(most=100_000) if found.run == "r0").state == "succeeded"
    assert warnings[0].startswith("cannot write the history")
    assert warnings[1:] == ["the history can be written again"]
    store.close()


@pytest.mark.parametrize("lost", ["folder", "history.db", "history.db-wal", "lock"])
def test_nothing_is_claimed_in_a_history_that_was_removed_while_in_use(folder: Path, lost: str) -> None:
    warnings: list[str] = []
    store = SqliteStore(folder, at_once, warn=lambda reason: warnings.append(sentence(reason)))
    assert claim(store, row(300)) is None
    aside = folder.with_name("aside")
    path = folder if lost == "folder" else folder / lost
    path.rename(aside)
    assert getattr(claim(store, row(301)), "temporary", False)
    store.record(replace(row(300), state="succeeded"), Progress("a", START, runs=1))
    assert store.is_degraded
    aside.rename(path)
    assert claim(store, row(302)) is None
    assert not store.is_degraded
    rows = {found.run: found.state for found in store.find_records(most=3)}
    assert rows == {"r302": "claimed", "r300": "succeeded", "r299": "claimed"}
    trouble, recovery = warnings
    assert trouble.startswith(f"cannot write the history: `{folder}` was removed or replaced while in use; ")
    assert recovery == "the history can be written again"
    store.close()


def test_a_supervisor_whose_folder_was_replaced_does_not_touch_the_new_one(folder: Path) -> None:
    first = SqliteStore(folder, at_once)
    folder.rename(folder.with_name("aside"))
    second = SqliteStore(folder, at_once)
    assert claim(second, row()) is None
    first.close()
    assert claim(second, row(1)) is None
    assert (folder / "began").read_text().split()[0] == "open"
    assert (folder / "history.db-wal").exists()
    second.close()
    again = SqliteStore(folder, at_once)
    assert [found.run for found in again.load().open_rows] == ["r0", "r1"]
    again.close()


def test_a_full_disk_at_the_first_start_is_refused_without_half_a_history(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    with pytest.raises(StateUnavailable):
        SqliteStore(small_disk / "state", at_once)
    (small_disk / "ballast").unlink()
    store = SqliteStore(small_disk / "state", at_once)
    assert claim(store, row()) is None
    store.close()


def test_claims_do_not_wait_for_company() -> None:
    """A lone claim is answered at once, not at the end of a group's time."""

    async def answers(folder: Path | None) -> float:
        loop = asyncio.get_running_loop()
        store = SqliteStore(folder, loop.call_soon_threadsafe)
        best = 9.0
        for second in range(50):
            answered = loop.create_future()
            began = time.perf_counter()
            store.claim(row(second), Progress("a", START), answered.set_result)
            assert await answered is None
            best = min(best, time.perf_counter() - began)
        store.close()
        return best

    assert asyncio.run(answers(None)) < 0.002
