"""The contents of the history besides records of slots: supervisors, generations, and the progress of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.run import Progress


@dataclass(frozen=True, slots=True)
class SupervisorRun:
    """One supervisor, from its start to its end. `ended` is None if it is running or was killed."""

    began: datetime
    ended: datetime | None
    pid: int


@dataclass(frozen=True, slots=True)
class GenerationStart:
    """A generation, and the time from which it was active."""

    number: int
    began: datetime


@dataclass(frozen=True, slots=True)
class HistoryMeta:
    """Supervisors and generations are in the order in which they were recorded. `progress` has each job with records
    or counters, active or not.
    """

    supervisor_runs: tuple[SupervisorRun, ...] = ()
    generations: tuple[GenerationStart, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
