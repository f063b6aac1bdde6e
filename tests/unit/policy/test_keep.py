"""Which outputs stay on disk, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from repeater.model.spec import Keep
from repeater.policy.keep import Retention, Stored

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def stored(job: str, number: int, *, failed: bool = False, at: datetime = NOW, size: int = 10) -> Stored:
    return Stored(job, f"{job}{number}", f"{job}{number}.gz", at, failed, size)


def names(gone: list[Stored]) -> list[str]:
    return [one.run for one in gone]


def test_the_last_runs_of_each_job_stay() -> None:
    shelf = Retention()
    shelf.limit({"a": Keep(runs=2), "b": Keep(runs=1)}, NOW)
    assert (
        names([*shelf.add(stored("a", 1), NOW), *shelf.add(stored("b", 1), NOW), *shelf.add(stored("a", 2), NOW)]) == []
    )
    assert names(shelf.add(stored("a", 3), NOW)) == ["a1"]
    assert names(shelf.add(stored("b", 2), NOW)) == ["b1"]


def test_a_failed_run_stays_for_its_days_beside_the_last_runs() -> None:
    shelf = Retention()
    shelf.limit({"a": Keep(runs=1, failures=7 * DAY)}, NOW)
    shelf.add(stored("a", 1, failed=True), NOW)
    assert names(shelf.add(stored("a", 2), NOW)) == []
    assert names(shelf.add(stored("a", 3), NOW)) == ["a2"]
    assert names(shelf.expired(NOW + 7 * DAY - timedelta(seconds=1))) == []
    assert names(shelf.expired(NOW + 7 * DAY)) == ["a1"]


def test_the_last_run_stays_whatever_its_age() -> None:
    shelf = Retention()
    shelf.add(stored("a", 1, failed=True), NOW)
    assert shelf.expired(NOW + 1000 * DAY) == []


def test_a_rule_that_keeps_nothing_removes_all() -> None:
    shelf = Retention()
    shelf.add(stored("a", 1), NOW)
    shelf.add(stored("a", 2, failed=True), NOW)
    assert sorted(names(shelf.limit({"a": None}, NOW))) == ["a1", "a2"]
    assert shelf.size == 0


def test_above_the_total_successes_are_removed_before_failures() -> None:
    shelf = Retention(total=30)
    for number, failed in ((1, True), (2, False), (3, False)):
        assert shelf.add(stored("a", number, failed=failed), NOW) == []
    assert names(shelf.add(stored("b", 1), NOW)) == ["a2"]
    assert names(shelf.add(stored("b", 2, size=20), NOW)) == ["a3", "b1"]
    assert names(shelf.add(stored("b", 3, size=20), NOW)) == ["b2"]
    assert names(shelf.add(stored("b", 4, size=30), NOW)) == ["b3", "a1"]
    assert names(shelf.add(stored("b", 5, size=31), NOW)) == ["b4", "b5"]


def test_live_output_counts_and_is_never_removed() -> None:
    shelf = Retention(total=30)
    shelf.add(stored("a", 1), NOW)
    assert names(shelf.grow("live", 25)) == ["a1"]
    assert shelf.grow("live", 100) == []


def test_outputs_follow_a_job_to_its_new_name() -> None:
    shelf = Retention()
    shelf.add(stored("a", 1), NOW)
    shelf.add(stored("b", 1), NOW)
    shelf.move("a", "b")
    assert [(one.job, one.run) for one in shelf.limit({"b": Keep(runs=0)}, NOW)] == [("b", "a1"), ("b", "b1")]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 40), st.integers(0, 100_000)), max_size=60
    ),
    st.integers(0, 5),
    st.integers(40, 400),
)
def test_the_bounds_hold_after_each_run(runs: list[tuple[str, bool, int, int]], most: int, total: int) -> None:
    shelf, there, now = Retention(total), {}, NOW
    shelf.limit(dict.fromkeys("abc", Keep(runs=most, failures=DAY)), now)
    for number, (job, failed, size, seconds) in enumerate(runs):
        now += timedelta(seconds=seconds)
        one = stored(job, number, failed=failed, at=now, size=size)
        there[one.run] = one
        for gone in shelf.add(one, now):
            assert there.pop(gone.run) is gone
        for gone in shelf.expired(now):
            assert there.pop(gone.run) is gone
        assert shelf.size == sum(one.size for one in there.values()) <= total
        for name in "abc":
            of_job = [one for one in there.values() if one.job == name]
            older = of_job[: max(0, len(of_job) - most)]
            assert all(one.failed and now - one.ended < DAY for one in older)
