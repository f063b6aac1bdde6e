"""When a job is done. Asked at once after every run and at deadlines, never only at the next tick.

`for` counts from when the job came into force, as timeout(1) counts from its own start and not from the first thing its
command does: a job that waits (for a dependency, for its first cron time) uses up its time. A changed schedule moves
the anchor of its grid, but not this beginning: the earlier of anchor and first start counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from repeater.model.run import Progress
from repeater.model.spec import Plugin, Stop
from repeater.model.time import rfc3339
from repeater.model.units import format_duration


def met(
    stop: Stop,
    progress: Progress,
    *,
    pattern_found: bool,
    last_success: bool | None,
    now: datetime,
    elapsed: timedelta | None = None,
    plugged: Callable[[Plugin], str | None] = lambda _: None,
) -> str | None:
    """Why the job is done, as a person reads it (`10 runs`); None if it is not.

    `last_success` is the verdict of the run that was just decided, None when there is none, as at a deadline. `elapsed`
    is how long the job is in force by a clock that is never set; None: by the wall clock. `plugged` asks a plugin for
    its reason. With `all` the reason names
    all conditions, and `on_success` means that the last run so far was one.
    """
    if last_success is None and stop.all and progress.streak:
        last_success = progress.streak > 0
    reasons = []
    for reason in _conditions(stop, progress, pattern_found, last_success, now, elapsed, plugged):
        if reason is not None and not stop.all:
            return reason
        if reason is None and stop.all:
            return None
        if reason is not None:
            reasons.append(reason)
    return ", ".join(reasons) or None


def deadline(stop: Stop, progress: Progress) -> datetime | None:
    """The instant at which time alone may make the job done; it may lie in the past. None without `for` and `until`.

    With `all` that is the later of both, and the other conditions may still keep the job going then.
    """
    instants = [] if stop.until is None else [stop.until]
    if stop.for_ is not None:
        instants.append(began(progress) + stop.for_)
    if not instants:
        return None
    return max(instants) if stop.all else min(instants)


def began(progress: Progress) -> datetime:
    """Where `for` counts from."""
    if progress.first_start is None:
        return progress.anchor
    return min(progress.anchor, progress.first_start)


def _conditions(
    stop: Stop,
    progress: Progress,
    pattern_found: bool,
    last_success: bool | None,
    now: datetime,
    elapsed: timedelta | None,
    plugged: Callable[[Plugin], str | None],
) -> Iterator[str | None]:
    """Every condition that is given: what it says if it holds, None if it does not."""
    if stop.times is not None:
        yield _counted(progress.runs, "run") if progress.runs >= stop.times else None
    if stop.successes is not None:
        holds = progress.successes >= stop.successes
        yield _counted(progress.successes, "success", "successes") if holds else None
    if stop.failures is not None:
        yield _counted(progress.failures, "failure") if progress.failures >= stop.failures else None
    if stop.consecutive_failures is not None:
        row = -progress.streak
        yield _counted(row, "failure") + " in a row" if row >= stop.consecutive_failures else None
    if stop.for_ is not None:
        passed = now - began(progress) if elapsed is None else elapsed
        yield f"{format_duration(stop.for_)} passed" if passed >= stop.for_ else None
    if stop.until is not None:
        yield f"{rfc3339(stop.until)} reached" if now >= stop.until else None
    if stop.on_success:
        yield "a run succeeded" if last_success is True else None
    if stop.on_failure:
        yield "a run failed" if last_success is False else None
    if stop.pattern is not None:
        yield "output matched the stop pattern" if pattern_found else None
    for plugin in stop.plugins:
        yield plugged(plugin)


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"
