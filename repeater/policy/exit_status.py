"""The exit status of `rpr` after a one-off command, from the counted results of its runs.

The statuses are those of timeout(1) and the shells: 124 timed out, 126 cannot be executed, 127 not found, 128 + n for
signal n.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass

Goal: TypeAlias = Literal["no failure", "a success", "a failure"]


@dataclass(slots=True)
class Tally:
    """Decided runs. `refused` are the failures that no process came of; `last_status` that of the last failure."""

    successes: int = 0
    failures: int = 0
    refused: int = 0
    last_status: int = 0

    def count(self, *, success: bool, exit_code: int | None, refusal: int, timed_out: bool) -> None:
        """One more run. `exit_code` is negative for a signal, None for a refusal, which `refusal` then stands for."""
        if success:
            self.successes += 1
            return
        self.failures += 1
        self.refused += exit_code is None
        if exit_code is None:
            self.last_status = refusal
        elif timed_out:
            self.last_status = 124
        elif exit_code < 0:
            self.last_status = 128 - exit_code
        else:
            self.last_status = exit_code or 1  # a pattern made a failure of it


def exit_status(tally: Tally, goal: Goal, *, passes_code: bool) -> int:
    """0 if the goal was met. Else 1 if a run failed, 3 if the end came before the goal.

    With `passes_code` (retrying until a success) the status of the last run stands for the whole. A command that could
    never be started at all gives 126 or 127 in any case.
    """
    never = tally.failures > 0 and tally.refused == tally.failures + tally.successes
    if goal == "a failure":
        return tally.last_status if never else 0 if tally.failures else 3
    if goal == "a success":
        if tally.successes:
            return 0
        return tally.last_status if tally.failures and (passes_code or never) else 3
    if never:
        return tally.last_status
    return 1 if tally.failures else 0
