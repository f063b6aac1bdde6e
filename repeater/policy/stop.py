"""When a job is done. The engine checks after every run and at deadlines.

`for` counts from the instant at which the job became active, as timeout(1) counts from its own start. So a job that
waits for a dependency, or for its first cron time, uses up its time. An edit of the schedule does not start the count
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import Progress
from repeater.model.spec import Plugin, Stop

_RUN_SUCCEEDED = Reason("run_succeeded")
_RUN_FAILED = Reason("run_failed")
_PATTERN = Reason("stop_pattern")


def met(
    stop: Stop,
    progress: Progress,
    *,
    pattern_found: bool,
    last_success: bool | None,
    now: datetime,
    last_exit: int | None = None,
    elapsed: timedelta | None = None,
    plugged: Callable[[Plugin], Reason | None] = lambda _: None,
) -> Reason | None:
    """Why the job is done; None if it is not.

    `last_success` is the verdict of the run that was just decided, None if there is none, as at a deadline. `last_exit`
    is the exit status of the last run as a shell shows it, None if it is unknown. `elapsed` is how long the job has
    been active, by the monotonic clock; it is needed for `for`. `plugged` asks a plugin for its reason. With `all` the
    reason contains those of all conditions, and `on_success` means that the last run was a success.
    """
    if last_success is None and stop.all and progress.streak:
        last_success = progress.streak > 0
    reasons: list[Reason] = []
    for reason in _conditions(stop, progress, pattern_found, last_success, now, last_exit, elapsed, plugged):
        if reason is not None and not stop.all:
            return reason
        if reason is None and stop.all:
            return None
        if reason is not None:
            reasons.append(reason)
    if len(reasons) < 2:
        return reasons[0] if reasons else None
    return because("all_conditions", reasons=reasons)


def _conditions(
    stop: Stop,
    progress: Progress,
    pattern_found: bool,
    last_success: bool | None,
    now: datetime,
    last_exit: int | None,
    elapsed: timedelta | None,
    plugged: Callable[[Plugin], Reason | None],
) -> Iterator[Reason | None]:
    """For every condition of the rule: its reason if it holds, else None."""
    if stop.times is not None:
        yield because("runs_reached", count=progress.runs) if progress.runs >= stop.times else None
    if stop.successes is not None:
        holds = progress.successes >= stop.successes
        yield because("successes_reached", count=progress.successes) if holds else None
    if stop.failures is not None:
        yield because("failures_reached", count=progress.failures) if progress.failures >= stop.failures else None
    if stop.consecutive_failures is not None:
        row = -progress.streak
        yield because("consecutive_failures", count=row) if row >= stop.consecutive_failures else None
    if stop.for_ is not None:
        over = elapsed is not None and elapsed >= stop.for_
        yield because("time_passed", length=stop.for_) if over else None
    if stop.until is not None:
        yield because("instant_reached", until=stop.until) if now >= stop.until else None
    if stop.on_success:
        yield _RUN_SUCCEEDED if last_success is True else None
    if stop.on_failure:
        yield _RUN_FAILED if last_success is False else None
    if stop.on_exit is not None:
        yield because("run_exited", exit=last_exit) if last_exit in stop.on_exit else None
    if stop.except_exit is not None:
        other = last_success is False and last_exit is not None and last_exit not in stop.except_exit
        yield because("run_exited", exit=last_exit) if other else None
    if stop.pattern is not None:
        yield _PATTERN if pattern_found else None
    for plugin in stop.plugins:
        yield plugged(plugin)
