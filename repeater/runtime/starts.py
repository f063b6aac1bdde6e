"""The latest starts of jobs whose starts are limited, as the store knows them: a restart is no way around a limit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from repeater.model.spec import JobFile, JobSpec, Rated
from repeater.model.units import Rate
from repeater.ports import Store


def limited_starts(jobfile: JobFile, store: Store, now: datetime) -> dict[str, tuple[datetime, ...]]:
    """By job, those that may still count; nothing for jobs without a limit.

    Of several attempts of a slot only the first is known by its instant; the others count as late as they can be.
    """
    limits = {limit.name: limit.rate for limit in jobfile.limits}
    found = {}
    for job in jobfile.jobs:
        rates = list(_rates(job, limits))
        if rates:
            since = now - max(rate.window for rate in rates)
            rows = store.rows([job.name], most=max(rate.count for rate in rates))
            instants = [
                row.ended or now if number else row.started
                for row in rows
                if row.started is not None
                for number in range(row.attempts)
            ]
            found[job.name] = tuple(instant for instant in instants if instant is not None and instant > since)
    return found


def _rates(job: JobSpec, limits: dict[str, Rate]) -> Iterator[Rate]:
    if job.limit in limits:
        yield limits[job.limit]
    if isinstance(job.schedule, Rated):
        yield job.schedule.rate
