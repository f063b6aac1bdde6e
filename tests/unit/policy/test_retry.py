"""Whether a failed attempt is followed by another one."""

from __future__ import annotations

import pytest

from repeater.model.run import Exit
from repeater.model.spec import Retry
from repeater.policy.retry import should_retry


@pytest.mark.parametrize(
    ("retry", "attempt", "exit", "again"),
    [
        (Retry(), 1, Exit(1), False),
        (Retry(3), 1, Exit(1), True),
        (Retry(3), 2, Exit(1), True),
        (Retry(3), 3, Exit(1), False),
        (Retry(3), 4, Exit(1), False),
        (Retry(3), 1, None, True),
        (Retry(3), 1, Exit(signal=9), True),
        (Retry(3), 1, Exit(127), False),
        (Retry(3), 1, Exit(130), False),
        (Retry(3), 1, Exit(signal=2), False),
        (Retry(3), 1, Exit(signal=15), True),
        (Retry(3, on_exit=(127, 130)), 1, Exit(127), True),
        (Retry(3, on_exit=(127, 130)), 1, Exit(signal=2), True),
        (Retry(3, on_exit=(75,)), 1, Exit(75), True),
        (Retry(3, on_exit=(75,)), 1, Exit(1), False),
        (Retry(3, on_exit=(75,)), 1, None, False),
        (Retry(3, on_exit=(75,)), 1, Exit(signal=9), False),
        (Retry(3, on_exit=(137,)), 1, Exit(signal=9), True),
        (Retry(3, on_exit=(0,)), 1, Exit(0), True),
        (Retry(3, on_exit=()), 1, Exit(1), False),
    ],
)
def test_a_failed_attempt_is_retried_as_the_job_declares(retry, attempt, exit, again):  # noqa: A002
    assert should_retry(retry, attempt, exit) is again


def test_a_failed_start_is_retried_unless_the_program_is_missing():
    assert should_retry(Retry(3), 1, None, failed_start=126)
    assert not should_retry(Retry(3), 1, None, failed_start=127)
    assert not should_retry(Retry(3, on_exit=(127,)), 1, None, failed_start=127)
