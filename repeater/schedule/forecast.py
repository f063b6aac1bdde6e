"""Future starts, as far as the schedule alone decides them.

A forecast assumes that the job becomes active at the given instant: an interval without a former start begins there. A
start at that instant itself (`once`, `immediate`) is not a future start.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from repeater._lazy_dataclasses import dataclass
from repeater.model.spec import Adaptive, Always, Growing, Jitter, JobSpec, LoadAware, RateLimited
from repeater.model.time import Instant
from repeater.schedule.base import Schedule, Track


@dataclass(frozen=True, slots=True)
class ForecastStart:
    """A future slot. `due` is its nominal time plus stable jitter. Random jitter is unknown, and not added."""

    job: str
    nominal: datetime
    due: datetime


def first_start(job: JobSpec, schedule: Schedule, now: Instant) -> datetime | None:
    """The first start of a job that becomes active now; `now` if it starts at once.

    None if the job is disabled or starts only on request.
    """
    nominal = schedule.next(Track(anchor=now)) if job.enabled else None
    if nominal is None:
        return None
    jitter: Jitter | None = getattr(job.schedule, "jitter", None)
    known = jitter is None or jitter.mode == "stable"
    return nominal.wall + (schedule.delay(job.name, nominal, 0.0) if known else timedelta(0))


def starts(job: JobSpec, schedule: Schedule, after: Instant, count: int) -> Iterator[ForecastStart]:
    """At most `count` starts strictly after an instant, in order; none for a job that is not enabled.

    Of a schedule that waits for the end of its runs only the first is known, of gaps that grow or adapt none.
    """
    if not job.enabled or isinstance(job.schedule, Always | Growing | Adaptive | LoadAware | RateLimited):
        return
    jitter: Jitter | None = getattr(job.schedule, "jitter", None)
    known = jitter is None or jitter.mode == "stable"
    cursor = after
    for _ in range(min(count, 1) if schedule.waits_for_end else count):
        following = schedule.next(Track(anchor=after, cursor=cursor))
        if following is None:
            return
        delay = schedule.delay(job.name, following, 0.0) if known else timedelta(0)
        yield ForecastStart(job.name, following.wall, following.wall + delay)
        cursor = following
