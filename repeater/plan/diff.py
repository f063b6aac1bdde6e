"""What changes between two job files, and with which effect.

`rpr plan` prints a `Plan`, the engine carries it out; both see the same object. Law, tested as a property: the old
specs with the plan applied are the new specs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, replace
from repeater.model.dump import dump_job, dump_limit, dump_pool
from repeater.model.spec import JobSpec, Limit, Pool, cell_key, former_names

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
    """What happens to one job. `moved_from` is its old name if its state follows it: that of an active job (class
    `move`), or of one that was removed in an earlier generation (class `add`). `like` is a removed job that is equal to
    this new one: perhaps it was renamed.
    """

    job: str
    reload: ReloadClass
    changes: tuple[Change, ...] = ()
    moved_from: str | None = None
    like: str | None = None


@dataclass(frozen=True, slots=True)
class SharedChange:
    """A pool or a limit that is new, changed or removed: its table before and after, None if it does not exist."""

    kind: Literal["pool", "limit"]
    name: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One entry for each job of either side: first those of the new file, in its order, then the removed ones."""

    jobs: tuple[JobPlan, ...]
    shared: tuple[SharedChange, ...] = ()

    def of(self, *classes: ReloadClass) -> tuple[JobPlan, ...]:
        """The entries of these classes."""
        return tuple(job for job in self.jobs if job.reload in classes)

    @property
    def changes_anything(self) -> bool:
        return bool(self.shared) or any(job.reload != "keep" for job in self.jobs)


def diff(old: Mapping[str, JobSpec], new: Iterable[JobSpec], removed: Collection[str] = ()) -> Plan:
    """The plan that leads from the active specs to the wanted ones. Linear in the number of jobs.

    `removed` are names that have a state, but no active job.
    """
    return Plan(tuple(entries(old, new, removed)))


def entries(old: Mapping[str, JobSpec], new: Iterable[JobSpec], removed: Collection[str] = ()) -> Iterator[JobPlan]:
    """The entries of `diff`, one after the other. A caller that must not work for long at once takes some at a time."""
    wanted = {job.name: job for job in new}
    moved = moves(old, wanted, removed)
    taken = set(moved.values())
    gone = [name for name in old if name not in wanted and name not in taken]
    like = _finder({name: old[name] for name in gone})
    for name, spec in wanted.items():
        before = old.get(name)
        source = moved.get(name)
        if source is not None and source in old:
            yield JobPlan(name, "move", changes_between(old[source], spec), source)
        elif source is not None:
            yield JobPlan(name, "add", moved_from=source)
        elif before is None:
            yield JobPlan(name, "add", like=like(spec))
        elif before is spec or before == spec:
            yield JobPlan(name, "keep")
        else:
            changes = changes_between(before, spec)
            yield JobPlan(name, reload_class(spec, changes), changes)  # "keep" if nothing with an effect differs
    for name in gone:
        yield JobPlan(name, "remove")


def moves(known: Collection[str], wanted: Mapping[str, JobSpec], removed: Collection[str] = ()) -> dict[str, str]:
    """The old name of each wanted job whose state follows a rename. `known` are the names that have a state.

    `removed` are further names that have one. A job takes such a state only if it finds none in `known`.

    A cell is the same cell in any order of its axes. Otherwise a job takes the state of the first of its former
    names that is known and not wanted. The only cell of a matrix may take that of the plain job of the former name.
    """
    found = _moves(known, wanted, wanted)
    if removed:
        rest = {name: spec for name, spec in wanted.items() if name not in known and name not in found}
        if rest:
            found |= _moves(removed, rest, wanted)
    return found


def _moves(known: Collection[str], names: Mapping[str, JobSpec], wanted: Mapping[str, JobSpec]) -> dict[str, str]:
    """The moves to `names`, which are some of the wanted jobs."""
    found: dict[str, str] = {}
    free: dict[str, str] | None = None
    for name, spec in names.items():
        if name in known or (spec.moved_from is None and name[-1:] != "]"):
            continue
        if free is None:
            free = {cell_key(one): one for one in known if one not in wanted}
            cells = Counter(one.group for one in wanted.values())
        for former in (name, *former_names(spec)):
            source = free.pop(cell_key(former), None)
            if source is None and former != name and cells[spec.group] == 1:
                source = free.pop(former.partition("[")[0], None)
            if source is not None:
                found[name] = source
                break
    return found


def _finder(gone: Mapping[str, JobSpec]) -> Callable[[JobSpec], str | None]:
    """Finds a removed job that is equal to a new one. Each is found once."""
    if not gone:
        return lambda _: None

    def nameless(spec: JobSpec) -> JobSpec:
        return replace(spec, name="", group="", cell=(), moved_from=None)

    by_meaning: dict[JobSpec, str] = {}
    for name, spec in gone.items():
        by_meaning.setdefault(nameless(spec), name)
    return lambda spec: by_meaning.pop(nameless(spec), None)


def diff_shared(
    old_pools: Iterable[Pool], new_pools: Iterable[Pool], old_limits: Iterable[Limit], new_limits: Iterable[Limit]
) -> tuple[SharedChange, ...]:
    """The changes of pools and limits."""
    pools = [{pool.name: dump_pool(pool) for pool in side} for side in (old_pools, new_pools)]
    limits = [{limit.name: dump_limit(limit) for limit in side} for side in (old_limits, new_limits)]
    return diff_tables(*pools, *limits)


def diff_tables(
    old_pools: Mapping[str, Any],
    new_pools: Mapping[str, Any],
    old_limits: Mapping[str, Any],
    new_limits: Mapping[str, Any],
) -> tuple[SharedChange, ...]:
    """The same for tables by name."""
    return (*_shared("pool", old_pools, new_pools), *_shared("limit", old_limits, new_limits))


def _shared(
    kind: Literal["pool", "limit"], old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> Iterator[SharedChange]:
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            yield SharedChange(kind, name, old.get(name), new.get(name))


def reload_class(spec: JobSpec, changes: Iterable[Change]) -> ReloadClass:
    """The class of a set of changes: that of the strongest."""
    found: ReloadClass = "keep"
    for change in changes:
        one = "restart" if changes_kind(change) else _reload_class(spec, change.key.partition(".")[0])
        if _STRENGTH[one] > _STRENGTH[found]:
            found = one
    return found


def effects(entry: JobPlan, spec: JobSpec) -> tuple[bool, bool]:
    """Whether the job's schedule is computed again, and whether a live service is restarted."""
    reload = entry.reload
    if reload == "move":
        reload = reload_class(spec, entry.changes)
    return reload in ("retime", "restart"), reload == "restart"


def changes_kind(change: Change) -> bool:
    """Whether a service becomes a timed job, or the other way round: the live run is stopped then."""
    return change.key == "schedule" and (change.old == "always") != (change.new == "always")


def _reload_class(spec: JobSpec, key: str) -> ReloadClass:
    if key in _IN_PLACE:
        return "in_place"
    if key in _RETIME:
        return "retime"
    if key in _WATCH_ONLY:
        return "in_place"
    if key in _SERVICE_RESTART or spec.is_service:
        return "restart"
    return "next_run"


def changes_between(old: JobSpec, new: JobSpec) -> tuple[Change, ...]:
    """The keys that differ, in the order of the new job."""
    before, after = dump_job(old), dump_job(new)
    keys = list(after) + [key for key in before if key not in after]
    changes = [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    if old.process.env_from_files != new.process.env_from_files and before.get("env_file") == after.get("env_file"):
        changes.append(Change("env_file", "(its former content)", "(its new content)"))
    return tuple(changes)
