"""What every store must do: in SQLite on disk, in SQLite in memory, and in the fake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from repeater._lazy_dataclasses import replace
from repeater.model.reasons import OVERLAP, SUCCESS
from repeater.model.reasons import reason as because
from repeater.model.run import LimitedStart, Progress, SlotRecord, SlotState
from repeater.model.time import Instant, Mono
from repeater.ports import Store
from repeater.store.store import SqliteStore
from tests.fakes.store import FakeStore

START = datetime.now(UTC).replace(microsecond=250_000)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def row(job: str = "a", second: float = 0, attempt: int = 1, state: SlotState = "claimed") -> SlotRecord:
    ran = state == "succeeded"
    return SlotRecord(
        job,
        at(second),
        at(second + 0.5),
        started=at(second + 1) if ran else None,
        ended=at(second + 3) if ran else None,
        state=state,
        reason=SUCCESS if ran else None,
        run=f"{job}-{second}-{attempt}" if attempt else None,
        attempts=attempt,
        exit=0 if ran else None,
        trigger="manual",
        generation=7,
    )


def progress(job: str = "a", runs: int = 0) -> Progress:
    return Progress(job, at(0), cursor=at(1), runs=runs, done=because("runs_reached", count=6) if runs > 5 else None)


class Kept:
    """A store, the calls that wait for its loop, and a way to open it again."""

    def __init__(self, make: Callable[[Callable[[Callable[[], None]], object]], Store]) -> None:
        self._make = make
        self._calls: list[Callable[[], None]] = []
        self._threads: set[int] = set()
        self.store = make(self._soon)

    def _soon(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def claim(self, record: SlotRecord, kept: Progress | None = None) -> Exception | None:
        """Claim and wait for the answer, as the loop would."""
        answers: list[Exception | None] = []
        self.store.claim(record, kept or progress(record.job), answers.append)
        assert answers == [], "the answer came inside the call"
        end = time.monotonic() + 5
        while not answers:
            assert time.monotonic() < end, "no answer"
            if self._calls:
                self._calls.pop(0)()
            else:
                time.sleep(0.001)
        return answers[0]

    def reopen(self) -> Store:
        if isinstance(self.store, FakeStore):
            self.store = self.store.reopened(self._soon)
        else:
            self.store.close()
            self.store = self._make(self._soon)
        return self.store


@pytest.fixture(params=["disk", "memory", "fake"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    makers: dict[str, Callable[[Callable[[Callable[[], None]], object]], Store]] = {
        "disk": lambda soon: SqliteStore(tmp_path / "state", soon),
        "memory": lambda soon: SqliteStore(None, soon),
        "fake": FakeStore,
    }
    made = Kept(makers[request.param])
    yield made
    made.store.close()


def test_a_new_store_remembers_nothing(kept: Kept) -> None:
    remembered = kept.store.load()
    assert (remembered.generation, dict(remembered.progress), remembered.open_rows) == (0, {}, ())
    assert list(kept.store.find_records()) == []


def test_a_claim_is_answered_once_it_is_kept(kept: Kept) -> None:
    assert kept.claim(row()) is None
    assert list(kept.store.find_records()) == [row()]
    assert kept.store.load().open_rows == (row(),)


def test_an_attempt_can_be_claimed_once_only(kept: Kept) -> None:
    assert kept.claim(row()) is None
    refusal = kept.claim(replace(row(), run="other"), progress(runs=9))
    assert refusal is not None
    assert not getattr(refusal, "temporary", False)
    assert list(kept.store.find_records()) == [row()]
    assert kept.store.load().progress["a"].runs == 0


def test_an_attempt_stays_taken_after_it_was_decided(kept: Kept) -> None:
    kept.claim(row())
    kept.store.record(row(state="succeeded"), progress(runs=1))
    assert kept.claim(row()) is not None
    assert list(kept.store.find_records()) == [row(state="succeeded")]


def test_a_later_attempt_takes_the_place_of_the_earlier_ones(kept: Kept) -> None:
    kept.claim(row(attempt=1))
    kept.store.record(row(attempt=1, state="retrying"), progress())
    assert kept.claim(row(attempt=2)) is None
    assert list(kept.store.find_records()) == [row(attempt=2)]
    assert kept.store.load().open_rows == (row(attempt=2),)


def test_a_recorded_row_closes_the_claimed_one(kept: Kept) -> None:
    kept.claim(row())
    kept.store.record(row(state="succeeded"), progress(runs=1))
    assert list(kept.store.find_records()) == [row(state="succeeded")]
    assert kept.store.load().open_rows == ()
    assert kept.store.load().progress == {"a": progress(runs=1)}


def test_a_run_stays_on_record_when_its_slot_is_skipped_later(kept: Kept) -> None:
    kept.claim(row())
    kept.store.record(row(state="succeeded"), progress(runs=1))
    kept.store.record(row(state="skipped", attempt=0), progress(runs=2))
    assert list(kept.store.find_records()) == [row(state="succeeded")]
    assert kept.store.load().progress == {"a": progress(runs=2)}


def test_a_slot_that_was_never_claimed_can_be_recorded(kept: Kept) -> None:
    skipped = replace(row(attempt=0, state="skipped"), reason=OVERLAP)
    kept.store.record(skipped, progress())
    assert list(kept.store.find_records()) == [skipped]


def test_a_started_run_is_open_with_its_start(kept: Kept) -> None:
    kept.claim(row())
    running = replace(row(state="running"), started=at(0.7))
    kept.store.started(running, pid=123)
    assert kept.store.load().open_rows == (running,)


def test_rows_are_returned_newest_first_up_to_the_limit(kept: Kept) -> None:
    for second in (3, 1, 2):
        kept.store.record(row(second=second, state="succeeded"), progress())
    kept.store.record(row("b", second=9, state="succeeded"), progress("b"))
    assert [found.nominal for found in kept.store.find_records(["a"])] == [at(3), at(2), at(1)]
    assert [found.job for found in kept.store.find_records(most=2)] == ["b", "a"]
    assert [found.job for found in kept.store.find_records(["b", "nobody"])] == ["b"]
    assert list(kept.store.find_records([])) == []


def test_rows_are_chosen_by_time_and_outcome(kept: Kept) -> None:
    failed = replace(row("a", 1, state="failed"), reason=because("exit", exit=1), exit=1)
    skipped = replace(row("a", 2, attempt=0, state="skipped"), reason=OVERLAP, run=None)
    for one in (row("a", 0, state="succeeded"), failed, skipped, row("b", 3, state="spawn_failed")):
        kept.store.record(one, progress(one.job))
    assert kept.claim(row("b", 4)) is None

    def chosen(**filters: Any) -> list[float]:
        return [(one.nominal - START).total_seconds() for one in kept.store.find_records(**filters)]

    assert chosen(since=at(1), until=at(3)) == [2, 1]
    assert chosen(outcomes=["failed"]) == [3, 1]
    assert chosen(outcomes=["success", "skipped"]) == [2, 0]
    assert chosen(outcomes=["running"]) == [4]
    assert chosen(jobs=["a"], outcomes=["failed"], most=1) == [1]
    assert [one.outcome for one in kept.store.find_records()] == ["running", "failed", "skipped", "failed", "success"]


def test_everything_of_a_row_is_kept_to_the_microsecond(kept: Kept) -> None:
    written = SlotRecord(
        "job[region=eu]", at(0.000_001), at(0.000_002), at(0.000_003), at(4.999_999), "succeeded",
        because("launch_failed", error="`ünïcode`\n\0"), "r", 3, -9, "catch_up", 41,
    )  # fmt: skip
    kept.store.record(written, progress("job[region=eu]"))
    assert list(kept.store.find_records()) == [written]


def test_progress_can_be_saved_alone(kept: Kept) -> None:
    kept.store.save(progress(runs=3))
    kept.store.save(progress(runs=6))
    kept.store.flush()
    assert kept.store.load().progress == {"a": progress(runs=6)}


def test_the_last_generation_is_remembered(kept: Kept) -> None:
    kept.store.begin(4, "jobs")
    kept.store.begin(5, "jobs")
    kept.store.flush()
    assert kept.store.load().generation == 5


def test_a_moved_job_takes_rows_and_progress_along(kept: Kept) -> None:
    kept.store.record(row("old", state="succeeded"), progress("old", runs=2))
    kept.store.move("old", "new")
    kept.store.flush()
    assert [found.job for found in kept.store.find_records()] == ["new"]
    assert kept.store.load().progress == {"new": progress("new", runs=2)}
    assert kept.claim(row("new")) is not None


def test_a_moved_job_replaces_the_slots_of_a_removed_one_of_that_name(kept: Kept) -> None:
    for attempt in (1, 2):
        kept.claim(row("new", attempt=attempt), progress("new"))
    kept.store.record(row("new", second=9, state="succeeded"), progress("new", runs=7))
    kept.store.record(replace(row("old", state="failed"), run="r"), progress("old", runs=1))
    kept.store.move("old", "new")
    kept.store.flush()
    moved = replace(row("new", state="failed"), run="r")
    assert list(kept.store.find_records()) == [row("new", second=9, state="succeeded"), moved]
    assert kept.store.load().progress == {"new": progress("new", runs=1)}
    assert kept.store.load().open_rows == ()


def test_a_forgotten_job_keeps_its_rows(kept: Kept) -> None:
    kept.store.record(row(state="succeeded"), progress())
    kept.store.forget(["a", "nobody"])
    kept.store.flush()
    assert kept.store.load().progress == {}
    assert list(kept.store.find_records()) == [row(state="succeeded")]


def test_durations_are_the_medians_of_runs(kept: Kept) -> None:
    for second in range(3):
        kept.store.record(row(second=second, state="succeeded"), progress())
    kept.store.record(replace(row(second=9, state="succeeded"), ended=at(1000)), progress())
    kept.store.record(row("b", attempt=0, state="skipped"), progress("b"))
    assert dict(kept.store.recent_durations()) == {"a": 2.0}


def test_stored_state_is_read_after_a_restart(kept: Kept) -> None:
    if isinstance(kept.store, SqliteStore) and kept.store.is_ephemeral:
        pytest.skip("it keeps nothing on purpose")
    kept.store.begin(2)
    kept.claim(row(second=1), progress(runs=1))
    kept.store.record(row(second=0, state="succeeded"), progress(runs=2))
    store = kept.reopen()
    remembered = store.load()
    assert remembered.generation == 2
    assert remembered.progress == {"a": progress(runs=2)}
    assert remembered.open_rows == (row(second=1),)
    assert list(store.find_records()) == [row(second=1), row(second=0, state="succeeded")]


def test_a_record_that_cannot_be_written_is_reported_and_others_are_kept(tmp_path: Path) -> None:
    warnings: list[str] = []
    store = SqliteStore(tmp_path / "state", lambda call: call(), warn=lambda reason: warnings.append(reason.code))
    errors: list[Exception | None] = []
    store.claim(replace(row(), run="\udc80"), progress(), errors.append)
    store.claim(row(second=1), progress(), errors.append)
    store.flush()
    store.close()
    assert [type(error) for error in errors] == [UnicodeEncodeError, type(None)]
    assert warnings == ["history_row_unwritable"]


def test_answers_are_delivered_in_the_order_of_the_requests(kept: Kept) -> None:
    answers: list[int] = []
    for number in range(300):
        kept.store.claim(row(second=number), progress(), lambda _, number=number: answers.append(number))  # type: ignore[misc]
    kept.store.flush()
    end = time.monotonic() + 5
    while len(answers) < 300 and time.monotonic() < end:
        while kept._calls:
            kept._calls.pop(0)()
        time.sleep(0.001)
    assert answers == list(range(300))


def test_answers_are_delivered_by_the_loop_not_by_another_thread(kept: Kept) -> None:
    threads: list[int] = []
    kept.store.claim(row(), progress(), lambda _: threads.append(threading.get_ident()))
    kept.store.flush()
    end = time.monotonic() + 5
    while not threads and time.monotonic() < end:
        while kept._calls:
            kept._calls.pop(0)()
        time.sleep(0.001)
    assert threads == [threading.get_ident()]


def test_a_row_keeps_the_command_it_was_claimed_with(kept: Kept) -> None:
    answers: list[Exception | None] = []
    kept.store.claim(row(), progress(), answers.append, lambda: "echo a")
    kept.store.started(row(state="running"), 7)
    kept.store.record(row(state="succeeded"), progress())
    assert [found.command for found in kept.store.find_records()] == ["echo a"]
    again = list(kept.reopen().find_records())  # a store in memory forgets
    assert [found.command for found in again] == ["echo a"] * len(again)


def test_the_command_of_an_attempt_can_be_set_once_it_is_rendered(kept: Kept) -> None:
    kept.store.claim(row(), progress(), lambda _: None, lambda: "echo {{ run.id }}")
    kept.store.set_command(row(), "echo 1")
    kept.store.record(row(state="failed"), progress())
    assert [found.command for found in kept.store.find_records()] == ["echo 1"]


def test_a_slot_without_a_run_has_no_command(kept: Kept) -> None:
    kept.store.record(row(state="skipped", attempt=0), progress())
    assert [found.command for found in kept.store.find_records()] == [None]


NOW = Instant(at(100), Mono(5_000_000_000))
MINUTE = timedelta(minutes=1)


def start(run: str, age: float, job: str = "a", limit: str | None = "g", **keys: Any) -> LimitedStart:
    """A start `age` seconds before `NOW`."""
    wall, mono = NOW.wall - timedelta(seconds=age), Mono(NOW.mono - int(age * 1e6))
    return LimitedStart(run, job, limit, **{"at": wall, "mono": mono, "boot": "this", "window": 1_000_000, **keys})


def found(kept: Kept, jobs: tuple[str, ...] = ("a",), limits: tuple[str, ...] = ()) -> list[str]:
    return sorted(one.run for one in kept.store.starts(jobs, limits, MINUTE, NOW, "this"))


def test_starts_are_found_by_job_and_by_limit_within_the_window(kept: Kept) -> None:
    for one in (start("1", 59), start("2", 61), start("3", 1, job="b"), start("4", 1, job="c", limit=None)):
        kept.store.keep_start(one)
    assert found(kept) == ["1"]
    assert found(kept, ("a",), ("g",)) == ["1", "3"]
    assert found(kept, ("c",), ("h",)) == ["4"]


def test_starts_of_the_same_boot_are_compared_by_the_monotonic_clock(kept: Kept) -> None:
    long_ago = NOW.wall - timedelta(hours=1)
    for one in (start("1", 10, at=long_ago), start("2", 10, at=long_ago, boot="other"), start("3", 70, boot="other")):
        kept.store.keep_start(one)
    kept.store.keep_start(start("4", 70, at=NOW.wall, boot="other"))
    assert found(kept) == ["1", "4"]


def test_a_claimed_start_is_found_whatever_its_age_until_it_is_known(kept: Kept) -> None:
    kept.store.keep_start(start("1", 300, is_known=False))
    assert found(kept) == ["1"]
    kept.store.keep_start(start("1", 299))
    assert found(kept) == []
    kept.store.keep_start(start("2", 0, is_known=False))
    kept.store.drop_start("2")
    assert found(kept) == []


def test_starts_follow_a_rename(kept: Kept) -> None:
    kept.store.keep_start(start("1", 1))
    kept.store.move("a", "b")
    assert (found(kept), found(kept, ("b",))) == ([], ["1"])


def test_rows_give_the_starts_of_runs_that_no_limit_counted(kept: Kept) -> None:
    kept.store.keep_start(start("a-90-1", 5))
    for one in (
        row(second=90, state="succeeded"),
        row(second=95, state="succeeded"),
        row(second=20, state="succeeded"),
    ):
        kept.store.record(one, progress())
    kept.store.record(row(second=96, attempt=0, state="skipped"), progress())
    kept.store.record(row(second=97, state="spawn_failed"), progress())
    assert found(kept) == ["a-90-1", "a-95-1"]


def test_starts_stay_although_many_skipped_slots_follow(kept: Kept) -> None:
    if isinstance(kept.store, SqliteStore):
        kept.store._writer._keep_rows = 5
    kept.store.keep_start(start("1", 1))
    for number in range(300):
        kept.store.record(row(second=number, attempt=0, state="skipped"), progress())
    assert found(kept) == ["1"]


def test_old_starts_are_deleted_only_when_no_window_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repeater.store.store._STARTS", 10)
    monkeypatch.setattr("repeater.store.store._OLD_STARTS_AFTER", 50)
    store = SqliteStore(tmp_path / "state", lambda call: call())
    try:
        for number in range(50):
            window = 1_000_000_000 if number < 5 else 1_000_000
            store.keep_start(start(str(number), 59 - number, window=window))
        left = sorted(int(one.run) for one in store.starts(("a",), (), MINUTE, NOW, "this"))
    finally:
        store.close()
    assert left == [*range(5), *range(40, 50)]
