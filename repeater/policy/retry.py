"""Whether a failed attempt is followed by another one in the same slot. `schedule.backoff` has the delays."""

from __future__ import annotations

from repeater.model.run import Exit
from repeater.model.spec import Retry

HOPELESS = (127, 130)
"""Exit codes after which another attempt cannot help: no such program, and an interrupt by the user (SIGINT)."""


def should_retry(retry: Retry, attempt: int, exit: Exit | None, *, failed_start: int | None = None) -> bool:  # noqa: A002
    """Whether `attempt`, which failed and counts from 1, is followed by another one.

    With `on_exit` only these exit codes are tried again, else all but the `HOPELESS` ones; a signal counts as 128 and
    its number, as in sh(1), so `on_exit = [137]` means a kill. `exit` is None when no process came to exist, which is
    not tried again with `on_exit`; `failed_start` is the exit code that a shell would give then.
    """
    if attempt >= retry.attempts:
        return False
    if retry.on_exit is not None:
        return exit is not None and status(exit) in retry.on_exit
    return (failed_start if exit is None else status(exit)) not in HOPELESS


def status(exit: Exit) -> int:  # noqa: A002
    """The exit status as a shell shows it."""
    if exit.signal is not None:
        return 128 + exit.signal
    return exit.code or 0
