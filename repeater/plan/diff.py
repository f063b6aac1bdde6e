"""What changes between two sets of specs, and with which effect: the pure half of hot reload.

`rpr plan` prints a `Plan`, the engine carries it out; both see the same object. Law, tested as a property: the old
specs with the plan applied are the new specs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from repeater.dataclass import dataclass
from repeater.model.dump import dump_job
from repeater.model.spec import JobSpec

ReloadClass: TypeAlias = Literal["add", "keep", "in_place", "next_run", "retime", "restart", "remove", "move"]

# The strongest class of any changed key decides. Keys not named here change what the next run does.
_IN_PLACE = frozenset({
    "description", "labels", "overlap", "queue_max", "max_instances", "catch_up", "catch_up_window", "catch_up_max",
    "start_deadline", "stop", "output", "hooks", "restart", "slowdown", "retry", "delivery", "limit", "pool",
    "needs", "http_aware", "matrix", "moved_from",
})  # fmt: skip
_RETIME = frozenset({"schedule", "enabled"})
_SERVICE_RESTART = frozenset({"ready", "live"})
_WATCH_ONLY = frozenset({"watch", "watch_ignore"})
_STRENGTH: dict[str, int] = {"keep": 0, "in_place": 1, "next_run": 2, "retime": 3, "restart": 4}


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a job: its value before and after, as the job file would spell it; None when it was not given."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What happens to one job. `moved_from` is its old name if its state follows it."""

    job: str
    reload: ReloadClass
    changes: tuple[Change, ...] = ()
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One entry for each job of either side: first those of the new file, in its order, then the removed ones."""

    jobs: tuple[JobPlan, ...]

    def of(self, *classes: ReloadClass) -> tuple[JobPlan, ...]:
        """The entries of these classes."""
        return tuple(job for job in self.jobs if job.reload in classes)

    @property
    def changes_anything(self) -> bool:
        return any(job.reload != "keep" for job in self.jobs)


def diff(old: Mapping[str, JobSpec], new: Iterable[JobSpec]) -> Plan:
    """The plan that leads from the specs in force to the wanted ones. Linear in the number of jobs."""
    entries = []
    wanted = {job.name: job for job in new}
    taken = set()
    for name, spec in wanted.items():
        before = old.get(name)
        source = spec.moved_from
        if before is None and source and source in old and source not in wanted and source not in taken:
            taken.add(source)
            entries.append(JobPlan(name, "move", _changes(old[source], spec), source))
        elif before is None:
            entries.append(JobPlan(name, "add"))
        elif before is spec or before == spec:
            entries.append(JobPlan(name, "keep"))
        else:
            changes = _changes(before, spec)
            entries.append(JobPlan(name, reload_class(spec, changes), changes))  # "keep" if nothing that acts differs
    entries += [JobPlan(name, "remove") for name in old if name not in wanted and name not in taken]
    return Plan(tuple(entries))


def reload_class(spec: JobSpec, changes: Iterable[Change]) -> ReloadClass:
    """The class of a set of changes: that of the strongest."""
    found: ReloadClass = "keep"
    for change in changes:
        one = _class_of(spec, change.key.partition(".")[0])
        if _STRENGTH[one] > _STRENGTH[found]:
            found = one
    return found


def _class_of(spec: JobSpec, key: str) -> ReloadClass:
    if key in _IN_PLACE:
        return "in_place"
    if key in _RETIME:
        return "retime"
    if key in _WATCH_ONLY:
        return "in_place"
    if key in _SERVICE_RESTART or spec.is_service:
        return "restart"
    return "next_run"


def _changes(old: JobSpec, new: JobSpec) -> tuple[Change, ...]:
    before, after = dump_job(old), dump_job(new)
    keys = list(after) + [key for key in before if key not in after]
    changes = [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    if old.process.env_from_files != new.process.env_from_files and before.get("env_file") == after.get("env_file"):
        changes.append(Change("env_file", "(its former content)", "(its new content)"))
    return tuple(changes)
