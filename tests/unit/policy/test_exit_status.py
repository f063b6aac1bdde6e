"""The exit status of a one-off command, from the results of its runs."""

from __future__ import annotations

import pytest

from repeater.policy.exit_status import Goal, Tally, exit_status


def tally(*runs: int | str) -> Tally:
    """0 is a success, `timeout` a run that timed out, `missing` a command that was not found; others are exit codes."""
    found = Tally()
    for run in runs:
        code = run if isinstance(run, int) else None if run == "missing" else -15
        refusal = 127 if run == "missing" else 0
        found.count(success=run == 0, exit_code=code, refusal=refusal, timed_out=run == "timeout")
    return found


@pytest.mark.parametrize(("run", "status"), [(3, 3), (-9, 137), ("timeout", 124), ("missing", 127), (0, 0)])
def test_the_last_status_is_that_of_timeout_and_the_shells(run: int | str, status: int) -> None:
    assert tally(run).last_status == status


def test_a_pattern_that_makes_a_failure_of_exit_code_0_gives_1() -> None:
    found = Tally()
    found.count(success=False, exit_code=0, refusal=0, timed_out=False)
    assert found.last_status == 1


@pytest.mark.parametrize(
    ("goal", "runs", "passes_code", "status"),
    [
        ("no failure", (), False, 0),
        ("no failure", (0, 0), False, 0),
        ("no failure", (0, 7), False, 1),
        ("no failure", ("missing", "missing"), False, 127),
        ("no failure", ("missing", 0), False, 1),
        ("a success", (7, 0), True, 0),
        ("a success", (), True, 3),
        ("a success", (7,), True, 7),
        ("a success", (7,), False, 3),
        ("a success", ("missing",), False, 127),
        ("a failure", (0, 0), False, 3),
        ("a failure", (0, 7), False, 0),
        ("a failure", ("missing",), False, 127),
    ],
)
def test_the_exit_status_shows_whether_the_goal_was_met(
    goal: Goal, runs: tuple[int | str, ...], passes_code: bool, status: int
) -> None:
    assert exit_status(tally(*runs), goal, passes_code=passes_code) == status
