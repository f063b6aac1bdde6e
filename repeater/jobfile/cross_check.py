"""Checks that need all jobs: needs, conditions, pools, limits, names, cycles.

Also sets the default condition of each need, which depends on the needed job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from math import gcd
from typing import Protocol

from repeater._lazy_dataclasses import replace
from repeater.errors import Severity
from repeater.jobfile.build import OPEN
from repeater.jobfile.document import Path, quote_value
from repeater.jobfile.expand import nearest
from repeater.model.spec import Condition, Every, JobSpec, Need, cell_key, former_names
from repeater.model.time import to_us


class Report(Protocol):
    """Reports a problem with the value at `path` of a job."""

    def __call__(
        self, job: JobSpec, path: Path, message: str, hint: str | None, severity: Severity = "error", /
    ) -> None: ...


def check_jobs(
    jobs: list[JobSpec],
    pools: Mapping[str, object],
    report: Report,
    known: Mapping[str, object],
    limits: Mapping[str, object],
) -> list[JobSpec]:
    """The jobs with complete needs. `known` are all names in the file, including those of broken jobs."""
    targets: dict[str, JobSpec] = {job.name: job for job in jobs}
    for job in jobs:
        targets.setdefault(job.group, job)
    done = []
    for job in jobs:
        if job.pool is not None and job.pool not in pools:
            report(job, ("pool",), f"unknown pool `{quote_value(job.pool)}`", nearest(job.pool, pools))
        if job.limit is not None and job.limit not in limits:
            report(job, ("limit",), f"unknown limit `{quote_value(job.limit)}`", nearest(job.limit, limits))
        done.append(replace(job, needs=tuple(_needs(job, targets, report, known))) if job.needs else job)
    _check_moves(jobs, targets, report)
    _warn_of_slots(done, report)
    for circle in _cycles(done):
        names = " -> ".join([*circle, circle[0]])
        report(targets[circle[0]], ("needs",), f"dependency cycle: {names}", None)
    return done


def _needs(job: JobSpec, targets: Mapping[str, JobSpec], report: Report, known: Mapping[str, object]) -> Iterator[Need]:
    for need in job.needs:
        at: Path = ("needs", need.job)
        target = targets.get(need.job)
        if target is None and need.job[-1:] == "]":
            target = next((one for one in targets.values() if cell_key(one.name) == cell_key(need.job)), None)
            need = need if target is None else replace(need, job=target.name)  # noqa: PLW2901
        if target is None:
            if need.job not in known:
                report(job, at, f"unknown job `{quote_value(need.job)}`", nearest(need.job, targets))
        elif need.job in (job.name, job.group):
            report(job, at, "a job cannot depend on itself", None)
        elif need.condition == OPEN:
            need = replace(need, condition=_default_condition(target))  # noqa: PLW2901
        elif need.condition == "healthy" and target.ready is None:
            report(job, at, f"found `healthy`, but `{quote_value(need.job)}` has no `ready` probe", None)
        elif need.condition in ("succeeded", "completed") and target.is_service and target.restart == "always":
            cause = (
                f"found `{need.condition}`, but `{quote_value(need.job)}` is a service, which does not end by itself"
            )
            report(job, at, cause, "use `started`, or `healthy` with a `ready` probe", "warning")
        if target is not None and need.required and job.enabled and not target.enabled:
            cause = f"`{quote_value(need.job)}` is disabled, so this job waits until it is triggered or enabled"
            report(job, at, cause, "with `required = false` the job starts without it", "warning")
        yield need


def _warn_of_slots(jobs: Iterable[JobSpec], report: Report) -> None:
    """A warning for each `same_slot` need on schedules that never have a nominal time in common."""
    dependents = [job for job in jobs if job.enabled and any(need.within == "same_slot" for need in job.needs)]
    if not dependents:
        return
    members: dict[str, list[JobSpec]] = defaultdict(list)
    for job in jobs:
        if job.enabled:
            for name in {job.name, job.group}:
                members[name].append(job)
    for job in dependents:
        needs = [need for need in job.needs if need.within == "same_slot" and need.condition != "healthy"]
        grids: dict[tuple[int, int], str] = {}
        if (own := _grid(job)) is not None and not any(need.trigger for need in needs):
            grids[own] = "this job"
        for need in needs:
            if (pair := _apart(grids, members[need.job])) is not None:
                cause = (
                    f"found `same_slot`, but the schedules of {pair[0]} and {pair[1]} never have the same nominal time"
                )
                hint = 'use a duration, as in `within = "1h"`, or one schedule without `stagger`'
                report(job, ("needs", need.job), cause, hint, "warning")


def _apart(grids: dict[tuple[int, int], str], jobs: Iterable[JobSpec]) -> tuple[str, str] | None:
    """Two that never share a nominal time: one of `grids` or `jobs`, and one of `jobs`. Adds `jobs` to `grids`."""
    found = None
    for job in jobs:
        grid = _grid(job)
        if grid is None or grid in grids:
            continue
        name = f"`{quote_value(job.name)}`"
        if found is None:
            found = next(((other, name) for one, other in grids.items() if not _meet(one, grid)), None)
        grids[grid] = name
    return found


def _grid(job: JobSpec) -> tuple[int, int] | None:
    """The distance and the offset of the nominal times, in microseconds; None if they are not evenly spaced."""
    schedule = job.schedule
    if not isinstance(schedule, Every) or schedule.after_end:
        return None
    return to_us(schedule.every), to_us(schedule.offset)


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two grids from one anchor have a point in common."""
    return (one[1] - other[1]) % gcd(one[0], other[0]) == 0


def _default_condition(target: JobSpec) -> Condition:
    if target.is_service:
        return "healthy" if target.ready else "started"
    return "succeeded"


def _check_moves(jobs: list[JobSpec], targets: Mapping[str, JobSpec], report: Report) -> None:
    taken: dict[str, str] = {}
    active = {cell_key(name): job for name, job in targets.items()}
    still_there: dict[tuple[str, str], tuple[JobSpec, str, JobSpec]] = {}  # one for all cells of two matrices
    for job in jobs:
        for former in former_names(job):
            key = cell_key(former)
            if key in taken:
                report(job, ("moved_from",), f"found `{quote_value(former)}`, as in `{taken[key]}`", None)
            taken.setdefault(key, job.name)
            if key in active and not (job.cell and former == job.group):
                other = active[key]
                name = other.group if job.cell and other.cell and other.group != job.group else former
                still_there.setdefault((job.group, name), (job, name, other))
    sources: dict[str, list[str]] = {}
    for job, _, other in still_there.values():
        sources.setdefault(job.group, []).append(other.group)
    for job, name, other in still_there.values():
        report(job, ("moved_from",), *_still_there(job, name, other, sources))


def _still_there(job: JobSpec, former: str, other: JobSpec, sources: Mapping[str, list[str]]) -> tuple[str, str]:
    """The cause and the hint for a former name that another job of the file has, or this one."""
    if cell_key(former) == cell_key(job.name):
        return f"found `{quote_value(former)}`, which is the name of this job", "remove `moved_from`"
    if job.group != other.group and (ring := _ring(job.group, other.group, sources)):
        names = ", ".join(f"`{quote_value(name)}`" for name in ring[:-1]) + f" and `{quote_value(ring[-1])}`"
        cause = f"found `{quote_value(former)}`, but {names} exchange their names, which cannot be done in one step"
        return cause, "rename one of them to a new name first, and apply that"
    return f"found `{quote_value(former)}`, which is still a job of this file", "apply the rename of that job first"


def _ring(name: str, source: str, sources: Mapping[str, list[str]]) -> list[str]:
    """The cycle of former names that starts at a job; empty if there is none."""
    ways = [[name, source]]
    seen = {source}
    while ways:
        way = ways.pop()
        for following in sources.get(way[-1], ()):
            if following == name:
                return way
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def _cycles(jobs: list[JobSpec]) -> Iterator[tuple[str, ...]]:
    """One cycle for each strongly connected group of jobs, in the order of the needs.

    A matrix job is a separate node that needs all its cells.
    """
    edges: dict[str, list[str]] = {}
    names = {job.name for job in jobs}
    for job in jobs:
        if job.needs:
            edges[job.name] = [need.job for need in job.needs]
        if job.group not in names:
            edges.setdefault(job.group, []).append(job.name)
    state: dict[str, int] = {}  # 1: on the current path, 2: finished
    for start, first in edges.items():
        if state.get(start):
            continue
        way: list[tuple[str, Iterator[str]]] = [(start, iter(first))]
        state[start] = 1
        while way:
            name, rest = way[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                way.pop()
            elif state.get(following) == 1:
                on_way = [one for one, _ in way]
                circle = tuple(one for one in on_way[on_way.index(following) :] if one in names)
                if len(circle) > 1:
                    yield circle
                    state.update((one, 2) for one in on_way)  # report one cycle per group
                    way.clear()
            elif following not in state and following in edges:
                state[following] = 1
                way.append((following, iter(edges[following])))
