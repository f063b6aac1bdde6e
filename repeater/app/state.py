"""What the state folder of a project tells, read without its lock."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.model.reasons import Reason
from repeater.model.spec import JobSpec

if TYPE_CHECKING:
    from repeater.adapters.sqlite import Reader
    from repeater.policy.marks import Hiding


def state_folder(project: str, state_dir: str | None) -> Path:
    """Where the state of a project lives."""
    from repeater.adapters import sqlite

    return Path(state_dir).absolute() if state_dir else sqlite.state_folder(project, os.environ)


def hiding(salt: str | None) -> Hiding:
    """What puts marks in the place of secrets, to compare with a stored definition; None for one without a salt."""
    from repeater.policy.marks import UNSALTED, Marks

    return UNSALTED if salt is None else Marks(salt, os.environ)


def in_force(project: str, state_dir: str | None) -> tuple[int, dict[str, JobSpec], dict[str, Reason], Hiding]:
    """The generation that was applied last (0 if none was), its specs, why those of its jobs that are done are, and
    what makes the marks that stand in the specs.
    """
    from repeater.adapters.sqlite import open_reader
    from repeater.jobfile import rebuild
    from repeater.model.spec import Once

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return nothing_applied()
    try:
        generation, document, progress = reader.generation(), reader.document(), reader.progress()
        salt = reader.salt()
    finally:
        reader.close()
    specs = rebuild(json.loads(document)) if document else {}
    done = {
        job: kept.done
        for job, kept in progress.items()
        if kept.done and job in specs and not isinstance(specs[job].schedule, Once)
    }
    return generation, specs, done, hiding(salt)


def nothing_applied() -> tuple[int, dict[str, JobSpec], dict[str, Reason], Hiding]:
    """What `in_force` gives for a project that was never applied."""
    return 0, {}, {}, hiding("")


def known_durations(project: str, state_dir: str | None) -> dict[str, timedelta]:
    """How long the runs of each job used to last, to the millisecond."""
    from repeater.adapters.sqlite import open_reader

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return {}
    try:
        return {job: timedelta(milliseconds=round(length * 1000)) for job, length in reader.durations().items()}
    finally:
        reader.close()


def read_past(reader: Reader) -> dict[str, Any]:
    """What is known of the lives of supervisors, of generations, and of jobs that have a history."""
    return {"lives": reader.lives(), "generations": reader.generations(), "jobs": list(reader.progress())}
