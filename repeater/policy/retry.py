"""Whether a failed attempt is followed by another one in the same slot. How long it waits is `schedule.backoff`'s."""

from __future__ import annotations

from repeater.model.run import Exit
from repeater.model.spec import Retry


def wants_retry(retry: Retry, attempt: int, exit: Exit | None) -> bool:  # noqa: A002
    """`attempt`, which failed, counts from 1. `exit` is None when no process came to exist.

    With `on_exit` only these exit codes are tried again; a signal counts as 128 and its number, as in sh(1), so
    `on_exit = [137]` means a kill. What never started has no exit code and is not tried again then.
    """
    if attempt >= retry.attempts:
        return False
    if retry.on_exit is None:
        return True
    return exit is not None and status(exit) in retry.on_exit


def status(exit: Exit) -> int:  # noqa: A002
    """The exit status as a shell shows it."""
    if exit.signal is not None:
        return 128 + exit.signal
    return exit.code or 0
