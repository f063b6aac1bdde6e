"""The contents of the state directory of a project, read without its lock."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.run import Progress
from repeater.model.spec import JobSpec

if TYPE_CHECKING:
    from repeater.plan.extras import Extras
    from repeater.policy.marks import Hiding


def state_folder(project: str, state_dir: str | None) -> Path:
    """Where the state of a project lives."""
    from repeater.store import state_dir as folders

    return Path(state_dir).absolute() if state_dir else folders.state_folder(project, os.environ)


def hiding(salt: str | None) -> Hiding:
    """What puts marks in the place of secrets, to compare with a stored definition; None for one without a salt."""
    from repeater.policy.marks import UNSALTED, Marks

    return UNSALTED if salt is None else Marks(salt, os.environ)


@dataclass(frozen=True, slots=True)
class Stored:
    """The last apply, from the state directory. `generation` is 0 if there was none. `done` has the reasons of jobs
    that are done. `marks` makes the marks that stand in `specs` and `extras`. `extras` is None if they were
    not stored. `removed` are names that have a state, but no job in `specs`.
    """

    generation: int
    specs: Mapping[str, JobSpec]
    done: Mapping[str, Reason]
    marks: Hiding
    extras: Extras | None = None
    removed: frozenset[str] = frozenset()


def in_force(project: str, state_dir: str | None) -> Stored:
    """What was applied last."""
    from repeater.store.reader import open_reader

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return nothing_applied()
    try:
        kept = reader.generation(), reader.document(), reader.extras(), reader.progress(), reader.salt()
    finally:
        reader.close()
    return stored_from(*kept)


def stored_from(
    generation: int, document: str, extras: str, progress: Mapping[str, Progress], salt: str | None
) -> Stored:
    """The last apply, from the parts that a store keeps of it."""
    from repeater.jobfile.load import rebuild
    from repeater.model.spec import Once
    from repeater.plan.extras import load_extras

    tables = json.loads(document) if document else {}
    specs = rebuild(tables)
    done = {
        job: kept.done
        for job, kept in progress.items()
        if kept.done and job in specs and not isinstance(specs[job].schedule, Once)
    }
    removed = frozenset(progress.keys() - tables.keys())
    return Stored(generation, specs, done, hiding(salt), load_extras(extras), removed)


def nothing_applied() -> Stored:
    """What `in_force` gives for a project that was never applied."""
    return Stored(0, {}, {}, hiding(""))


def known_durations(project: str, state_dir: str | None) -> dict[str, timedelta]:
    """How long the runs of each job used to last, to the millisecond."""
    from repeater.store.reader import open_reader

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return {}
    try:
        return {job: timedelta(milliseconds=round(length * 1000)) for job, length in reader.durations().items()}
    finally:
        reader.close()
