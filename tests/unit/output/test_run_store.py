"""Output on disk: real files, virtual time for the loop."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from repeater.model.spec import JobSpec, Keep, Output, ProcessSpec
from repeater.output import run_file, run_store
from repeater.output.run_reader import RunReader
from repeater.output.run_store import RunStore
from repeater.sentences import sentence
from tests.fakes.clock import FakeClock

SECOND = timedelta(seconds=1)
KEEP = Keep()


class Place:
    """A store in `folder`, and what it says."""

    def __init__(self, folder: Path, *, total: int = 1 << 28, living: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.warned: list[str] = []
        self.calls: list[Callable[[], None]] = []
        self.store = RunStore(
            folder, self.clock, self.calls.append, warn=lambda reason: self.warned.append(sentence(reason)), total=total
        )  # fmt: skip
        self.store.open(living)

    def run(
        self, run: str, *data: bytes, job: str = "a", keep: Keep | None = KEEP, failed: bool | None = False
    ) -> None:
        """A whole run, or with `failed` None the beginning of one."""
        self.store.begin(run, job, keep)
        for one in data:
            self.store.add(run, "stdout", one, self.clock.now().wall)
        if failed is not None:
            self.store.end(run)
            self.store.decide(run, failed=failed)

    def written(self) -> None:
        """Return when everything is on disk."""
        done = threading.Event()
        self.store.flush(done.set)
        while not done.is_set():
            self.loop()

    def loop(self) -> None:
        while self.calls:
            self.calls.pop(0)()

    def text(self, run: str) -> str:
        reader = RunReader(self.folder)
        return b"".join(piece.data for piece in reader.pieces(reader.outputs(run=run))).decode()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("output/*/*"))


Build: TypeAlias = Callable[..., Place]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    made: list[Place] = []

    def build(**more: Any) -> Place:
        made.append(Place(tmp_path, **more))
        return made[-1]

    yield build
    for one in made:
        one.store.close()


@pytest.fixture
def place(build: Build) -> Place:
    return build()


def test_the_output_of_a_run_is_one_compressed_file_after_a_second(place: Place) -> None:
    place.run("r1", b"one\n", b"two")
    place.run("r2", b"bad\n", failed=True)
    place.run("r3")
    place.clock.advance(SECOND)
    place.store.close()
    assert place.files() == ["r1.gz", "r2.failed.gz"]
    assert (place.text("r1"), place.text("r2")) == ("one\ntwo", "bad\n")
    assert (place.folder / "output/a/r1.gz").stat().st_mode & 0o777 == 0o600
    assert (place.folder / "output/a").stat().st_mode & 0o777 == 0o700


def test_the_output_of_a_live_run_is_on_disk_within_a_second(place: Place) -> None:
    place.run("r1", b"one\n", failed=None)
    place.clock.advance(SECOND)
    place.written()
    assert place.files() == ["r1.log"]
    assert place.text("r1") == "one\n"
    place.store.add("r1", "stderr", b"two\n", place.clock.now().wall)
    place.store.end("r1")
    place.store.decide("r1", failed=False)
    place.written()
    assert place.files() == ["r1.gz"]
    assert place.text("r1") == "one\ntwo\n"


def test_a_run_without_a_verdict_counts_as_failed(place: Place) -> None:
    place.run("r1", b"one\n", failed=None)
    place.store.end("r1")
    place.clock.advance(8 * SECOND)
    place.written()
    assert place.files() == ["r1.failed.gz"]


def test_a_job_that_keeps_nothing_has_no_file(place: Place) -> None:
    place.run("r1", b"one\n", keep=None)
    place.run("r2", b"one\n", keep=Keep(runs=0, failures=timedelta(0)))
    place.written()
    assert place.files() == []


@pytest.mark.parametrize("at_once", [True, False])
def test_of_a_long_output_the_beginning_and_the_end_stay(place: Place, at_once: bool) -> None:
    keep = Keep(size=40_000)
    place.store.begin("r1", "a", keep)
    for number in range(20_000):
        place.store.add("r1", "stdout", b"%d\n" % number, place.clock.now().wall)
        if not at_once and number % 100 == 0:
            place.written()
            assert sum(path.stat().st_size for path in place.folder.glob("output/a/*")) <= 41_000
    place.store.end("r1")
    place.store.decide("r1", failed=False)
    place.written()
    lines = place.text("r1").splitlines()
    assert lines[:2] == ["0", "1"]
    assert lines[-1] == "19999"
    (missing,) = [line for line in lines if "missing" in line]
    kept = sum(len(line) + 1 for line in lines if "missing" not in line)
    total = sum(len(str(number)) + 1 for number in range(20_000))
    assert missing == f"[rpr: {total - kept} bytes are missing here]"


def test_open_runs_of_a_killed_supervisor_failed_unless_they_run_on(place: Place, build: Build, tmp_path: Path) -> None:
    place.run("r1", b"one\n", failed=None)
    place.run("r2", b"two\n", failed=None)
    place.written()
    with (tmp_path / "output/a/r2.log").open("ab") as file:
        file.write(b"2026-01-01T00:00:00.0000")  # it was killed while it wrote
    later = build(living=("r2",))
    later.run("r2", b"three\n", failed=None)
    later.written()
    assert later.files() == ["r1.failed.gz", "r2.log"]
    assert (later.text("r1"), later.text("r2")) == ("one\n", "two\nthree\n")
    assert later.store.positions(later.store.totals()) == {"r2": len("two\nthree\n")}


def test_a_file_that_was_half_written_is_written_again(place: Place, build: Build, tmp_path: Path) -> None:
    place.run("r1", b"one\n", failed=None)
    place.written()
    (tmp_path / "output/a/r1.failed.gz").write_bytes(b"\x1f\x8b half")
    later = build()
    later.written()
    assert later.files() == ["r1.failed.gz"]
    assert later.text("r1") == "one\n"


def test_the_bounds_hold_after_a_restart(place: Place, build: Build, tmp_path: Path) -> None:
    for number in range(5):
        place.run(f"r{number}", b"x\n", keep=Keep(runs=5))
        place.written()
        os.utime(tmp_path / f"output/a/r{number}.gz", (number, number))
    later = build()
    later.store.limit([JobSpec("a", ProcessSpec("true"), output=Output(keep=Keep(runs=2)))])
    later.written()
    assert later.files() == ["r3.gz", "r4.gz"]


def test_of_many_runs_in_one_second_only_those_that_stay_are_written(place: Place) -> None:
    rule = Keep(runs=3)
    place.store.limit([JobSpec("a", ProcessSpec("true"), output=Output(keep=rule))])
    for number in range(10):
        place.run(f"r{number}", b"x\n", keep=rule, failed=number == 1)
    place.clock.advance(SECOND)
    place.written()
    assert place.files() == ["r1.failed.gz", "r7.gz", "r8.gz", "r9.gz"]


def test_all_outputs_together_have_a_bound(build: Build) -> None:
    place = build(total=3 * 4096)
    for number in range(6):
        place.run(f"r{number}", b"x\n", job=f"job{number}")
        place.written()
    assert place.files() == ["r3.gz", "r4.gz", "r5.gz"]


def test_a_reader_stops_at_the_position_that_it_is_given(place: Place) -> None:
    place.run("r1", b"one\n", failed=None)
    totals = place.store.totals()
    place.store.add("r1", "stderr", b"two\n", place.clock.now().wall)
    place.written()
    reader = RunReader(place.folder)
    pieces = list(reader.pieces(reader.outputs(), until=place.store.positions(totals)))
    assert [piece.data for piece in pieces] == [b"one\n"]


@pytest.mark.parametrize("run", ["../a/r1", "0" * 5000, "r1.gz", "\0", "ä"])
def test_an_invalid_id_of_a_run_finds_nothing(place: Place, run: str) -> None:
    place.run("r1", b"one\n")
    place.written()
    assert RunReader(place.folder).outputs(run=run) == []
    assert len(RunReader(place.folder).outputs(run="r1")) == 1


def test_outputs_follow_a_renamed_job(place: Place) -> None:
    place.run("r1", b"one\n", job="old")
    place.run("r2", b"two\n", job="old", failed=None)
    place.written()
    place.store.move("old", "new")
    place.store.decide("r2", failed=False)
    place.written()
    assert [(one.job, one.run) for one in RunReader(place.folder).outputs()] == [("new", "r1"), ("new", "r2")]


def test_a_full_disk_loses_output_and_is_reported_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.run("live", b"zero\n", failed=None)
    place.written()
    with monkeypatch.context() as patch:
        patch.setattr(run_store.os, "write", full)
        for number in range(3):
            place.run(f"r{number}", b"one\n")
            place.store.add("live", "stdout", b"lost\n", place.clock.now().wall)
            place.written()
        assert place.store.is_failing
    assert place.warned == [
        "cannot keep the output of runs: [Errno 28] No space left on device; runs go on, and their output is lost"
    ]
    place.store.add("live", "stdout", b"there\n", place.clock.now().wall)
    place.run("r9", b"nine\n")
    place.written()
    assert not place.store.is_failing
    assert place.warned[1:] == ["the output of runs is kept again"]
    assert place.text("live") == "zero\n[rpr: 15 bytes are missing here]\nthere\n"
    assert place.files() == ["live.log", "r9.gz"]


def test_links_are_not_followed(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "output").mkdir()
    (tmp_path / "output/a").symlink_to(outside)
    place.run("r1", b"one\n")
    place.run("r2", b"two\n", job="b")
    place.written()
    assert list(outside.iterdir()) == []
    assert place.files() == ["r2.gz"]
    assert len(place.warned) == 1


def test_a_disk_that_hangs_loses_output_and_no_run_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    write = os.write
    monkeypatch.setattr(run_store.os, "write", lambda fd, data: (hangs.wait(), write(fd, data))[1])
    monkeypatch.setattr(run_store, "_MOST_WAITING", 3000)
    place.store.begin("r1", "a", Keep())
    for number in range(100):
        place.store.add("r1", "stdout", b"%099d\n" % number, place.clock.now().wall)
        place.clock.advance(SECOND)
    hangs.set()
    place.store.end("r1")
    place.store.decide("r1", failed=False)
    place.written()
    lines = place.text("r1").splitlines(keepends=True)
    assert any("missing" in line for line in lines)
    text = (place.folder / "output/a/r1.gz").read_bytes()
    assert run_file.raw_size(run_file.uncompressed(text)) == 10_000
