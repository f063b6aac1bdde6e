"""All jobs of an engine: active ones, removed ones with a live run, and what is stored of the others."""

from __future__ import annotations

from collections.abc import Collection

from repeater.engine.job import Job
from repeater.model.run import Progress


class JobTable:
    """`active` are the jobs of the generation. `gone` were removed and may have a live run. `remembered` is the
    progress of jobs that are not active.
    """

    __slots__ = ("active", "gone", "remembered")

    def __init__(self) -> None:
        self.active: dict[str, Job] = {}
        self.gone: list[Job] = []
        self.remembered: dict[str, Progress] = {}

    def all(self) -> tuple[Job, ...]:
        """The active jobs, and those that were removed."""
        return (*self.active.values(), *self.gone)

    def find_gone(self, name: str) -> Job | None:
        """The job of this name that was removed while it had a live run that still continues."""
        return next((job for job in self.gone if job.spec.name == name and job.open), None)

    @property
    def removed(self) -> Collection[str]:
        """The names of jobs that are not active but have a progress."""
        return self.remembered.keys() - self.active.keys()

    def drop_ended(self) -> None:
        """Keep only the progress of removed jobs whose last run has ended."""
        for job in [job for job in self.gone if not job.open]:
            self.gone.remove(job)
            if job.spec.name in self.remembered:
                self.remembered[job.spec.name] = job.progress
