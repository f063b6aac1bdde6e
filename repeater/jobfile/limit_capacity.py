"""Compares the sum of the mean rates of schedules with the limit that they share.

A limit below this sum is a warning, not an error: the limit is enforced, but some slots of the jobs will never run.
Retries, manual runs and schedules that wait for the end of a run are not counted, so each warning is certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from repeater.errors import Problem
from repeater.jobfile.document import Path, dotted
from repeater.model.spec import Cron, Every, JobFile, JobSpec
from repeater.model.time import to_us
from repeater.model.units import format_duration
from repeater.policy.limit import share_used

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded

_DAY = 86_400_000_000  # microseconds
_NAMED = 5


def overfull_warnings(loaded: Loaded) -> Iterator[Problem]:
    """A warning for each limit that is too low for its jobs, with the position of its rate."""
    for name, message in overcommitted_limits(loaded.jobfile):
        path: Path = ("limits", name, "rate")
        if loaded.expansion is None:
            yield Problem(loaded.name, 0, 0, dotted(path), message, severity="warning")
        else:
            yield loaded.expansion.limits[name][0].problem(path, message, severity="warning")


def overcommitted_limits(jobfile: JobFile) -> Iterator[tuple[str, str]]:
    """The name and a message for each limit that is too low for its jobs. It names the jobs with the highest rates."""
    for limit in jobfile.limits:
        rates = {job.name: mean_rate(job) for job in jobfile.jobs if job.limit == limit.name and job.enabled}
        count, window = limit.rate.count, to_us(limit.rate.window)
        if share_used(rates.values(), count, window) <= 1:
            continue
        asked = sorted(((rate * window, name) for name, rate in rates.items() if rate), key=lambda one: -one[0])
        shown = ", ".join(f"`{name}` {float(starts):.3g}" for starts, name in asked[:_NAMED])
        more = f" and {len(asked) - _NAMED} more" if len(asked) > _NAMED else ""
        total = float(sum(starts for starts, _ in asked))
        allowed = f"limit `{limit.name}` allows {count} starts in {format_duration(limit.rate.window)}"
        yield limit.name, f"{allowed}, its jobs ask for {total:.3g}: {shown}{more}"


def mean_rate(job: JobSpec) -> Fraction:
    """The mean number of starts per microsecond of the schedule, independent of the runs."""
    schedule = job.schedule
    if isinstance(schedule, Every) and not schedule.after_end:
        return Fraction(1, to_us(schedule.every))
    if isinstance(schedule, Cron):
        from repeater.schedule.cron import mean_rate as starts_a_day

        return starts_a_day(schedule, job.name) / _DAY
    return Fraction(0)
