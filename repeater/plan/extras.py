"""The parts of a generation other than job definitions: pools, limits, and marks of env-file contents.

Stored with the definitions, so that a later plan can compare without the supervisor that applied them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from repeater._lazy_dataclasses import dataclass, replace
from repeater.model.dump import dump_limit, dump_pool
from repeater.model.spec import JobFile, JobSpec
from repeater.plan.diff import SharedChange, diff_tables
from repeater.policy.marks import Hiding


@dataclass(frozen=True, slots=True)
class Extras:
    """`pools` and `limits` are tables by name. `env_marks` are by job, only of jobs that get values from env files."""

    pools: Mapping[str, Any]
    limits: Mapping[str, Any]
    env_marks: Mapping[str, str]


def extras_of(jobfile: JobFile, marks: Hiding) -> Extras:
    """The extras of a job file; `marks` has the salt of the store."""
    found = ((job.name, marks.env_mark(job)) for job in jobfile.jobs if job.process.env_from_files)
    return Extras(
        {pool.name: dump_pool(pool) for pool in jobfile.pools},
        {limit.name: dump_limit(limit) for limit in jobfile.limits},
        {name: mark for name, mark in found if mark is not None},
    )


def dump_extras(extras: Extras) -> str:
    """The extras as JSON."""
    return json.dumps({"pools": extras.pools, "limits": extras.limits, "env_marks": extras.env_marks})


def load_extras(text: str) -> Extras | None:
    """The extras from what `dump_extras` gave; None if the text is empty or another version wrote it."""
    try:
        found = json.loads(text)
        parts = [found["pools"], found["limits"], found["env_marks"]]
    except (ValueError, TypeError, KeyError):
        return None
    return Extras(*parts) if all(isinstance(part, dict) for part in parts) else None


def diff_extras(old: Extras, new: Extras) -> tuple[SharedChange, ...]:
    """The changes of pools and limits."""
    return diff_tables(old.pools, new.pools, old.limits, new.limits)


def aligned(stored: JobSpec, wanted: JobSpec | None, old: Extras | None, new: Extras) -> JobSpec:
    """A stored definition with what is not stored taken from `wanted`, so that only what differs is found different.

    The contents of env files differ if their marks do. Without stored marks (`old` is None) they count as equal.
    """
    if wanted is None:
        return stored
    is_same = old is None or old.env_marks.get(stored.name) == new.env_marks.get(wanted.name)
    env = wanted.process.env_from_files if is_same else (("", ""),)
    process = replace(stored.process, env_from_files=env)
    return replace(stored, group=wanted.group, cell=wanted.cell, process=process)
