"""The starts of limited jobs that the store knows. A restart or a reload does not free a place of a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from repeater._lazy_dataclasses import replace
from repeater.model.run import LimitedStart
from repeater.model.spec import JobSpec, Limit, RateLimited
from repeater.model.time import Instant
from repeater.model.units import Rate
from repeater.ports import Store

_NONE: Mapping[str, str] = MappingProxyType({})


def recent_limited_starts(
    jobs: Iterable[JobSpec],
    limits: Iterable[Limit],
    store: Store,
    now: Instant,
    boot: str,
    former: Mapping[str, str] = _NONE,
) -> tuple[LimitedStart, ...]:
    """The starts that the limits of these jobs may still count; none if no job has a limit.

    `former` maps jobs to the names under which the store still knows them.
    """
    rates = dict(_rates(jobs, limits))
    if not rates:
        return ()
    names = {former.get(job, job): job for job, _ in rates}
    window = max(rate.window for rate in rates.values())
    found = store.starts([*names], sorted({limit for _, limit in rates if limit}), window, now, boot)
    return tuple(replace(start, job=names.get(start.job, start.job)) if former else start for start in found)


def needs_starts(
    before: Iterable[JobSpec], limits_before: Iterable[Limit], jobs: Iterable[JobSpec], limits: Iterable[Limit]
) -> bool:
    """Whether a reload limits a job that was not limited so, or makes a window longer."""
    known = dict(_rates(before, limits_before))
    return any(key not in known or known[key].window < rate.window for key, rate in _rates(jobs, limits))


def _rates(jobs: Iterable[JobSpec], limits: Iterable[Limit]) -> Iterator[tuple[tuple[str, str], Rate]]:
    """By job and limit. The rate of a job's own schedule has an empty name."""
    by_name = {limit.name: limit.rate for limit in limits}
    for job in jobs:
        if job.limit in by_name:
            yield (job.name, job.limit), by_name[job.limit]
        if isinstance(job.schedule, RateLimited):
            yield (job.name, ""), job.schedule.rate
