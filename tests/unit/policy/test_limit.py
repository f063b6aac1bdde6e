"""The ledger against a brute force that counts every window, and against the clock on the wall of a late starter."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from itertools import pairwise

import pytest

from repeater.policy.limit import Permit, SlidingWindow, check_pattern, share_used

CASES = int(os.environ.get("LIMIT_CASES", "100000"))
"""Requests compared with the brute force."""


def admissible(attempts: list[int], at: int, pattern: tuple[int, ...], count: int, window: int) -> bool:
    """By counting: no window that holds an attempt of the request holds more than `count`."""
    new = [at + offset for offset in pattern]
    together = attempts + new
    return all(
        sum(start <= one < start + window for one in together) <= count
        for start in together
        if any(start <= one < start + window for one in new)
    )


def quickly_admissible(attempts: list[int], at: int, pattern: tuple[int, ...], count: int, window: int) -> bool:
    """The same by sorting: no `count` + 1 of them, one of the request among them, are less than `window` apart."""
    new = {at + offset for offset in pattern}
    together = sorted([*attempts, *(at + offset for offset in pattern)])
    return not any(
        last - early < window and any(early <= one < early + window for one in new)
        for early, last in zip(together, together[count:], strict=False)
    )


def brute_earliest(attempts: list[int], now: int, pattern: tuple[int, ...], count: int, window: int) -> int:
    at = now
    while not quickly_admissible(attempts, at, pattern, count, window):
        at += 1
    return at


def breaks(starts: list[int], count: int, window: int) -> bool:
    ordered = sorted(starts)
    return any(later - early < window for early, later in zip(ordered, ordered[count:], strict=False))


def some_pattern(rng: random.Random, count: int, window: int) -> tuple[int, ...]:
    while True:
        pattern = (0, *sorted(rng.randrange(0, 3 * window) for _ in range(rng.randrange(5))))
        if not breaks(list(pattern), count, window):
            return pattern


def test_the_earliest_instant_is_that_of_a_brute_force_over_small_integers() -> None:
    rng = random.Random(4)
    compared = 0
    while compared < CASES:
        count, window, now = rng.randrange(1, 5), rng.randrange(1, 16), 0
        ledger, attempts, overfilled = SlidingWindow(count, window), [], False
        for _ in range(rng.randrange(1, 14)):
            now += rng.choice((0, 0, 1, 2, rng.randrange(0, 2 * window)))
            pattern = some_pattern(rng, count, window)
            at = ledger.earliest(now, pattern)
            assert at == brute_earliest(attempts, now, pattern, count, window), (count, window, attempts, now, pattern)
            if compared % 20 == 0:  # the quick way of counting, by the definition
                for near in (at - 1, at):
                    assert admissible(attempts, near, pattern, count, window) == (
                        quickly_admissible(attempts, near, pattern, count, window)
                    )
            compared += 1
            if rng.random() < 0.8:
                ledger.reserve(now, pattern)
                attempts += [at + offset for offset in pattern]
                assert overfilled or not breaks(attempts, count, window)
            elif rng.random() < 0.3:  # a start that nobody asked for may overfill a window
                late = now + rng.randrange(0, window)
                ledger.record(late)
                attempts.append(late)
                overfilled = True


def test_no_window_holds_too_many_starts_however_late_they_are() -> None:
    rng = random.Random(5)
    for _ in range(400):
        count, window = rng.randrange(1, 5), rng.randrange(2, 20)
        ledger, starts, now = SlidingWindow(count, window), [], 0
        granted: list[tuple[int, Permit]] = []
        waiting: list[Permit] = []
        for _ in range(80):
            now += rng.randrange(0, 4)
            for at, ticket in sorted(granted, key=lambda one: one[0]):
                if at <= now:
                    granted.remove((at, ticket))
                    if rng.random() < 0.1:
                        ledger.failed(ticket)
                    else:
                        starts.append(at)
                        ledger.started(ticket, at)
                    if rng.random() < 0.7:
                        waiting.append(ticket)
                    else:
                        ledger.release(ticket)
            late = now + rng.randrange(0, 2 * window)
            if waiting and rng.random() < 0.5:
                ticket = waiting.pop(0)
                if ledger.readmit(ticket, now) is None:
                    granted.append((late, ticket))
                else:
                    waiting.append(ticket)
            elif not isinstance(answer := ledger.admit(now, some_pattern(rng, count, window)), int):
                granted.append((late, answer))
            assert not breaks(starts, count, window), (count, window, sorted(starts))


def test_a_full_limit_is_used_to_the_last_start() -> None:
    ledger, now, starts = SlidingWindow(3, 10), 0, []
    while now < 100:
        answer = ledger.admit(now)
        if isinstance(answer, int):
            now = answer
        else:
            ledger.started(answer, now)
            starts.append(now)
    assert starts == [ten for ten in range(0, 100, 10) for _ in range(3)]


def test_later_attempts_of_the_request_itself_share_windows_too() -> None:
    ledger = SlidingWindow(1, 10)
    ledger.reserve(0, (0, 10, 34))
    assert ledger.earliest(20, (0, 10, 34)) == 44  # at 20 its second attempt, 30, would share a window with 34


def test_a_window_is_half_open() -> None:
    ledger = SlidingWindow(1, 10)
    ledger.record(0)
    assert ledger.earliest(9) == 10


def test_a_grant_without_a_report_holds_others_back_until_it_is_reported() -> None:
    ledger = SlidingWindow(1, 10)
    ticket = ledger.admit(0)
    assert isinstance(ticket, Permit)
    assert ledger.earliest(50) == 60
    ledger.started(ticket, 3)
    assert ledger.earliest(50) == 50


def test_the_next_start_is_counted_from_the_late_one() -> None:
    ledger = SlidingWindow(1, 10)
    ticket = ledger.admit(0)
    assert isinstance(ticket, Permit)
    ledger.started(ticket, 4)
    assert ledger.admit(10) == 14


def test_failed_starts_and_released_places_are_refunded() -> None:
    ledger = SlidingWindow(1, 10)
    ticket = ledger.admit(0, (0, 20))
    assert isinstance(ticket, Permit)
    ledger.failed(ticket)
    assert ledger.earliest(0) == 0
    assert ledger.earliest(15) == 30
    ledger.release(ticket)
    ledger.release(ticket)
    assert ledger.earliest(15) == 15
    assert len(ledger) == 0


def test_a_reserved_retry_has_its_place_and_an_unreserved_one_has_not() -> None:
    ledger = SlidingWindow(2, 10)
    ticket = ledger.admit(0, (0, 5))
    assert isinstance(ticket, Permit)
    ledger.started(ticket, 0)
    assert ledger.admit(4) == 10
    assert ledger.readmit(ticket, 6) is None
    ledger.started(ticket, 6)
    assert ledger.readmit(ticket, 7) == 10


def test_a_retry_that_is_put_off_keeps_its_new_place() -> None:
    ledger = SlidingWindow(1, 10)
    ticket = ledger.admit(0, (0, 10))
    assert isinstance(ticket, Permit)
    ledger.started(ticket, 3)
    assert ledger.readmit(ticket, 10) == 13
    assert ledger.admit(12) == 23
    assert ledger.readmit(ticket, 13) is None


def test_a_push_back_holds_every_grant() -> None:
    ledger = SlidingWindow(5, 10)
    ledger.push_back(40)
    ledger.push_back(30)
    assert ledger.admit(35) == 40
    assert isinstance(ledger.admit(40), Permit)


def test_an_edited_limit_counts_what_is_known() -> None:
    ledger = SlidingWindow(4, 10)
    for at in range(4):
        ledger.record(at)
    ledger.change(2, 10)
    assert ledger.earliest(4) == 12
    ledger.change(5, 10)
    assert ledger.earliest(4) == 4


@pytest.mark.parametrize(
    ("pattern", "cause"),
    [((0, 3, 6), "3 of its attempts share one window"), ((0, 5, 4), "ascending"), ((-1, 0), "ascending"), ((), "asc")],
)
def test_a_pattern_that_never_fits_is_refused(pattern: tuple[int, ...], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        check_pattern(pattern, 2, 10)
    with pytest.raises(ValueError, match=cause):
        SlidingWindow(2, 10).admit(0, pattern)


@pytest.mark.parametrize(("count", "window"), [(0, 10), (1, 0), (-1, 10)])
def test_a_limit_of_nothing_is_refused(count: int, window: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        SlidingWindow(count, window)


def test_a_ledger_restored_from_its_entries_behaves_the_same() -> None:
    rng = random.Random(6)
    first = SlidingWindow(3, 50)
    now = 0
    for _ in range(200):
        now += rng.randrange(0, 30)
        first.reserve(now, (0, 40))
    second = SlidingWindow(3, 50)
    for at in first.recent(now):
        second.record(at)
    assert second.earliest(now, (0, 40)) == first.earliest(now, (0, 40))
    assert second.recent(now) == first.recent(now)


def test_memory_is_bounded_by_what_can_still_matter() -> None:
    ledger, now, most = SlidingWindow(100, 1000), 0, 0
    for _ in range(20_000):
        now = ledger.earliest(now)
        ticket = ledger.admit(now)
        assert isinstance(ticket, Permit)
        ledger.started(ticket, now)
        most = max(most, len(ledger))
    assert most <= 201


def test_usage_counts_the_window_that_ends_now() -> None:
    ledger = SlidingWindow(5, 10)
    for at in (0, 5, 10):
        ledger.record(at)
    ledger.admit(10)
    assert ledger.used(10) == 3  # the start at 0 has left, the granted one counts


def test_rates_that_fill_a_limit_to_the_brim_can_be_held_and_no_more() -> None:
    hourly = 3600
    brim = [Fraction(1, 60), Fraction(40, hourly)]
    assert share_used(brim, 100, hourly) == 1
    assert share_used([*brim, Fraction(1, 10**9)], 100, hourly) > 1
    assert share_used([], 100, hourly) == 0


def test_grants_never_go_back() -> None:
    rng = random.Random(7)
    ledger, now, grants = SlidingWindow(2, 10), 0, []
    for _ in range(500):
        now += rng.randrange(0, 4)
        grants.append(ledger.reserve(now).planned[0])
    assert all(one <= two for one, two in pairwise(grants))


def test_when_takes_nothing_and_gives_no_place_away() -> None:
    ledger = SlidingWindow(1, 10)
    ledger.reserve(0)
    waiting = ledger.reserve(0)
    assert waiting.planned == [10]
    assert ledger.earliest_for(waiting, 3) == 10
    assert ledger.earliest(3) == 20  # for anybody else
    assert ledger.earliest_for(waiting, 3) == 10
