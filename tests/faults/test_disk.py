"""P9, P11 and P13: disks that are full, slow, failing or read-only; state that is damaged, taken, moved away.

What cannot be claimed does not start, what was lost is told, and everything goes on by itself when the disk does.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from repeater.control.client import Client
from repeater.model.run import Progress, SlotRecord
from repeater.store.store import SqliteStore
from repeater.wire.unix import connect
from tests.cli.conftest import Rpr
from tests.faults.effects import grid, instant, mark, reconcile
from tests.faults.ground import Ground, wait_for
from tests.faults.preload import Shim

SECOND = timedelta(seconds=1)
EVERY_SECOND = '{ cron = "* * * * * *", seconds = "first" }'
TICK = f"[jobs.tick]\ncommand = '''{mark('start')}'''\nschedule = {EVERY_SECOND}\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (4096, 1):
            try:
                while os.write(fd, b"x" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - it must come, and then it is this
    finally:
        os.close(fd)


def starts(ground: Ground) -> int:
    return len(ground.effects.starts("tick"))


def until_more(ground: Ground, more: int) -> None:
    wanted = starts(ground) + more
    wait_for(lambda: starts(ground) >= wanted, lambda: f"{wanted} starts, there are {starts(ground)}")


def agree(ground: Ground, *where: str) -> None:
    """Effects, rows and the slots that were due tell the same."""
    rows = ground.rows("tick", *where)
    first = min(ground.effects.starts("tick")[0].nominal, instant(rows[0]["nominal"]))
    reconcile(ground.effects, "tick", rows, grid(first, instant(rows[-1]["nominal"]), SECOND))


# --- full, slow, failing ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_a_full_disk_nothing_starts_unclaimed_and_jobs_continue_later(ground: Ground, small_disk: Path) -> None:
    where = ("--state-dir", str(small_disk / "state"))
    supervisor = ground.apply(TICK, "-q", *where)
    until_more(ground, 2)
    stop = threading.Event()
    filler = threading.Thread(target=lambda: fill_until(stop, small_disk / "ballast"))
    filler.start()
    try:
        supervisor.until_err("cannot write the history")
        assert ground("health", "-q", *where).code == 1
        before = starts(ground)
        supervisor.until_err("cannot claim the slot")
        time.sleep(1.5)
        assert starts(ground) <= before + 1  # one may have been claimed just before
    finally:
        stop.set()
        filler.join()
    (small_disk / "ballast").unlink()
    supervisor.until_err("the history can be written again")
    until_more(ground, 2)
    assert ground("health", "-q", *where).code == 0
    supervisor.kill()
    again = ground.apply(None, "-q", *where)
    until_more(ground, 2)
    assert again.down() == 0
    agree(ground, *where)


@pytest.mark.slow
def test_a_disk_of_two_megabytes_holds_a_history_and_recovers(tmp_path: Path) -> None:
    """The WAL alone would grow to 4 MB on a larger disk, and a full disk takes no checkpoint."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        warnings: list[str] = []
        store = SqliteStore(place / "state", lambda call: call(), warn=lambda text: warnings.append(str(text)))
        assert all(claimed(store, number) is None for number in range(1500))
        assert warnings == []
        assert (place / "state" / "history.db-wal").stat().st_size < 1 << 20
        fill(place / "ballast")
        number = 1500
        while claimed(store, number) is None:  # pages that the files have already still take some
            number += 1
        (place / "ballast").unlink()
        wait_for(lambda: claimed(store, number) is None, "a claim can be made again", within=10)
        assert len(warnings) == 2, warnings
        store.close()
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def claimed(store: SqliteStore, number: int) -> Exception | None:
    """The answer to a claim of slot `number`."""
    nominal = datetime.now(UTC) + timedelta(seconds=number)
    answers: list[Exception | None] = []
    record = SlotRecord("a", nominal, nominal, None, None, "claimed", None, f"r{number}-{nominal}", 1)
    store.claim(record, Progress("a", nominal), answers.append)
    store.flush()
    return answers[0]


def fill_until(stop: threading.Event, path: Path) -> None:
    """Whatever becomes free is taken at once."""
    while not stop.is_set():
        fill(path)
        stop.wait(0.01)


@pytest.mark.slow
def test_output_that_a_full_disk_does_not_take_is_counted_and_marked(ground: Ground, small_disk: Path) -> None:
    says = "n=0; while [ $n -lt 30000 ]; do echo 0123456789012345678901234567890123456789012345678; n=$((n + 1)); done"
    output = f'{{ mode = "suppress", file = "{small_disk}/job.log", max_size = "100MB" }}'
    wait = "while [ ! -e go ]; do sleep 0.05; done"
    script = f"{says}; {mark('full')}; {wait}; echo again; sleep 300"
    ground.apply(f"[jobs.says]\ncommand = '''{script}'''\noutput = {output}\nschedule = \"always\"\n", "-q")
    wait_for(lambda: ground.effects.all("says", "full"), "more was said than fits")
    log = small_disk / "job.log"
    wait_for(lambda: log.stat().st_size > 900_000, "the disk is full")
    time.sleep(0.3)
    kept = log.read_bytes()
    assert set(kept.split(b"\n")[:-1]) == {b"0123456789012345678901234567890123456789012345678"}
    os.truncate(log, 0)
    (ground.folder / "go").touch()
    wait_for(lambda: b"again\n" in log.read_bytes(), "it goes on")
    (lost,) = re.findall(rb"\[rpr: (\d+) bytes could not be written here\]", log.read_bytes())
    assert len(kept) + int(lost) == 30_000 * 50
    assert not log.read_bytes().startswith(b"\0"), "a hole where the file was cut"
    assert ground("down").code == 0


@pytest.mark.slow
def test_a_slow_disk_delays_starts_and_nothing_else(ground: Ground, shim: Shim) -> None:
    ground.apply(TICK, "-q", env=shim.env)
    until_more(ground, 1)
    shim.set_sync(delay=timedelta(seconds=3))
    until_more(ground, 1)
    took = []
    with Client(connect(ground.socket, 30), ground.socket) as client:
        while sum(took) < 4 and len(took) < 40:
            began = time.monotonic()
            client.call("health")
            took.append(time.monotonic() - began)
            time.sleep(0.1)
    assert max(took) < 2.5, "the loop waits for the disk"
    shim.set_sync()
    until_more(ground, 2)
    assert ground.down() == 0
    agree(ground)


@pytest.mark.slow
def test_nothing_starts_while_syncing_fails(ground: Ground, shim: Shim) -> None:
    supervisor = ground.apply(TICK, "-q", env=shim.env)
    until_more(ground, 1)
    shim.set_sync(error=errno.EIO)
    supervisor.until_err("cannot write the history")
    before = starts(ground)
    supervisor.until_err("cannot claim the slot")
    assert starts(ground) <= before + 1
    shim.set_sync()
    supervisor.until_err("the history can be written again")
    until_more(ground, 2)
    assert supervisor.down() == 0
    agree(ground)


# --- taken away ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_state_folder_moved_away_is_reported_and_stops_starts(ground: Ground) -> None:
    supervisor = ground.apply(TICK, "-q")
    until_more(ground, 2)
    aside = ground.state.with_name("aside")
    ground.state.rename(aside)
    supervisor.until_err("was removed or replaced while in use")
    before = starts(ground)
    supervisor.until_err("cannot claim the slot")
    assert starts(ground) <= before + 1
    assert not ground.state.exists()
    assert ground("health", "-q").code == 1
    aside.rename(ground.state)
    supervisor.until_err("the history can be written again")
    until_more(ground, 2)
    assert supervisor.down() == 0
    agree(ground)


@pytest.mark.slow
def test_a_database_locked_by_another_process_delays_starts(ground: Ground) -> None:
    supervisor = ground.apply(TICK, "-q")
    until_more(ground, 2)
    other = sqlite3.connect(ground.state / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    time.sleep(1.2)
    before = starts(ground)
    time.sleep(1.2)
    assert starts(ground) <= before + 1
    other.execute("ROLLBACK")
    other.close()
    until_more(ground, 2)
    assert supervisor.down() == 0
    agree(ground)


@pytest.mark.slow
def test_logs_moved_removed_or_truncated_continue_under_their_name(ground: Ground) -> None:
    jobs = '[jobs.says]\ncommand = \'echo line\'\nschedule = "every 50ms"\noutput = { file = "job.log" }\n'
    ground.write(jobs)
    assert ground("apply", "-d", "-q", "jobs.toml").code == 0
    for log in (ground.folder / "job.log", ground.state / "supervisor.log"):
        wait_for(lambda log=log: log.exists() and log.stat().st_size > 0, "it is written")  # type: ignore[misc]
        log.rename(log.with_suffix(".old"))
        wait_for(lambda log=log: log.exists() and log.stat().st_size > 0, "it is there again")  # type: ignore[misc]
        log.unlink()
        wait_for(lambda log=log: log.exists() and log.stat().st_size > 0, "it is there again")  # type: ignore[misc]
        os.truncate(log, 0)
        wait_for(lambda log=log: log.stat().st_size > 0, "it goes on")  # type: ignore[misc]
        assert b"\0" not in log.read_bytes(), "a hole where the file was cut"
    ground.down()


# --- not accepted at all --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a supervisor left that ended in good order."""
    ground = Ground(Rpr(tmp_path_factory.mktemp("old")))
    ground.write("[jobs.tick]\ncommand = 'true'\nschedule = \"every 10ms\"\nstop = { times = 100 }\n")
    assert ground("apply", "-q", "jobs.toml").code == 0
    return ground.state


def cut(state: Path) -> None:
    os.truncate(state / "history.db", 5000)


def empty(state: Path) -> None:
    (state / "history.db").write_bytes(b"")


def remove(state: Path) -> None:
    (state / "history.db").unlink()


def damage(state: Path) -> None:
    data = bytearray((state / "history.db").read_bytes())
    for offset in range(4096, len(data), 4096):
        data[offset : offset + 100] = os.urandom(100)
    (state / "history.db").write_bytes(data)


def age(state: Path) -> None:
    with sqlite3.connect(state / "history.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def lose_the_newest(state: Path) -> None:
    """As after a crash whose WAL somebody tidied away."""
    (state / "began").write_text("open\n")


def take(state: Path) -> None:
    (state / "lock").unlink()
    (state / "lock").mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [cut, empty, remove, damage, age, lose_the_newest, take])
def test_bad_state_is_refused_by_name_and_not_changed_and_nothing_starts(
    ground: Ground, old_state: Path, spoil: Callable[[Path], None]
) -> None:
    shutil.copytree(old_state, ground.state, symlinks=True)
    ground.write(TICK)
    spoil(ground.state)
    before = {path.name: path.read_bytes() for path in ground.state.iterdir() if path.is_file()}
    refused = ground("apply", "-q", "jobs.toml")
    assert refused.code == 5, refused
    assert str(ground.state) in refused.err
    assert "hint: " in refused.err
    assert len(refused.err.splitlines()) == 2
    after = {path.name: path.read_bytes() for path in ground.state.iterdir() if path.is_file()}
    before.pop("lock", None)
    after.pop("lock", None)
    assert after == before
    assert ground.effects.starts() == []
    assert ground.living() == []


@pytest.mark.slow
def test_a_read_only_disk_is_refused_and_ephemeral_is_the_way_around(ground: Ground, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ground.write(f"[jobs.once]\ncommand = '''{mark('start')}'''\n")
    refused = ground("apply", "-q", "jobs.toml", "--state-dir", str(small_disk / "state"))
    assert refused.code == 5
    assert "Read-only file system" in refused.err
    assert "--ephemeral" in refused.err
    assert ground.effects.starts() == []
    assert ground("apply", "-q", "jobs.toml", "--ephemeral").code == 0
    assert len(ground.effects.starts()) == 1
