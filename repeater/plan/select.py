"""Which jobs a pattern selects: by name, cell, name of a matrix, glob, or label.

One grammar wherever a JOB is taken: `poll`, `poll[region=eu]`, `db-*`, `tier=web`. Only `*` and `?` are special; the
brackets of cells mean themselves. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from repeater.errors import NotFound
from repeater.model.spec import JobSpec, cell_key


def select(jobs: Sequence[JobSpec], patterns: Iterable[str]) -> tuple[JobSpec, ...]:
    """The jobs that any of the patterns means, in the given order; all if there is no pattern.

    Raises NotThere for a pattern that means none, with the nearest name.
    """
    patterns = tuple(patterns)
    for pattern in patterns:
        if not any(matches(pattern, job) for job in jobs):
            raise NotFound(f"cannot find job `{pattern}`: {_nearest(pattern, jobs)}")
    return tuple(job for job in jobs if not patterns or any(matches(pattern, job) for pattern in patterns))


def matches(pattern: str, job: JobSpec) -> bool:
    """Whether a pattern selects a job."""
    if pattern in (job.name, job.group) or (pattern[-1:] == "]" and cell_key(pattern) == cell_key(job.name)):
        return True
    key, equals, value = pattern.partition("=")
    if equals and "[" not in key:
        return any(name == key and _fits(value, text) for name, text in job.labels)
    return _fits(pattern, job.name) or _fits(pattern, job.group)


def _fits(glob: str, text: str) -> bool:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in glob)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _nearest(pattern: str, jobs: Sequence[JobSpec]) -> str:
    names = list(dict.fromkeys(name for job in jobs for name in (job.name, job.group)))
    near = difflib.get_close_matches(pattern, names, 1, 0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    shown = ", ".join(f"`{name}`" for name in names[:8])
    return f"there is {shown}" + (" …" if len(names) > 8 else "") if names else "there are no jobs"
