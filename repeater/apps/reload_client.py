"""The supervisor's side of a reload: another process (`apps.reload_worker`) reads the job files.

The result arrives in pieces, which the loop puts together between other work. A job file cannot harm the supervisor: a
reader that hangs, grows or crashes becomes one error message, the same each time.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from repeater._lazy_dataclasses import replace
from repeater.apps.reload_worker import LoadedJobs, LoadRequest, LoadResult, Piece, limits
from repeater.errors import ApplyRefused, RepeaterError
from repeater.model.spec import JobSpec
from repeater.worker.client import Worker
from repeater.worker.protocol import command

if TYPE_CHECKING:
    import asyncio

Answer: TypeAlias = Callable[[LoadedJobs | RepeaterError], None]


class ReloadWorkerClient:
    """Each `read` calls `answer` once, in the loop; one after the other. `in_force` gives the job of a name, None if
    there is none: where what comes is equal to it, it is that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environ: Mapping[str, str],
        in_force: Callable[[str], JobSpec | None] = lambda _: None,
        *,
        salt: str = "",
        project: str | None = None,
        unnamed: str | None = None,
    ) -> None:
        """`salt` is that of marks in place of secrets; `project` and `unnamed` are as for `load_job_files`.

        Raises UsageError for limits that are none.
        """
        self._errand = LoadRequest((), (), (), 0, salt, project, unnamed)
        self._worker = Worker(command("repeater.apps.reload_worker"), loop, limits(environ), ended=self._forget)
        self._loop = loop
        self._in_force = in_force
        self._number = 0
        self._jobs: Sequence[JobSpec] = ()
        self._coming: list[JobSpec] = []

    def warm(self) -> None:
        """Start the process: a read may follow soon."""
        self._worker.prestart()

    def read(
        self,
        files: tuple[str, ...],
        set_vars: tuple[tuple[str, str], ...],
        only: tuple[str, ...],
        answer: Answer,
        *,
        project: str | None = None,
    ) -> None:
        """`project` is the only one that is wanted; None: any."""

        def words() -> bytes:
            self._coming = []
            return pickle.dumps(replace(self._errand, files=files, set_vars=set_vars, only=only, known=self._number))

        def hear(frame: bytes) -> bool:
            told: Piece | LoadResult = pickle.loads(frame)  # noqa: S301 - from our own child
            if isinstance(told, LoadResult):
                if told.leave:
                    self._loop.call_soon(self._worker.recycle)
                answer(self._last(told, project))
                return True
            self._coming.extend(self._jobs[job] if isinstance(job, int) else self._known(job) for job in told)
            return False

        self._worker.submit(words, hear, lambda cause: answer(RepeaterError(f"cannot read the job files: {cause}")))

    def close(self) -> None:
        self._worker.close()

    def _known(self, job: JobSpec) -> JobSpec:
        """Compared here, piece by piece, and one object from then on: it is there once, and never compared again."""
        known = self._in_force(job.name)
        return known if known is not None and known == job else job

    def _last(self, told: LoadResult, project: str | None) -> LoadedJobs | RepeaterError:
        coming, self._coming = self._coming, []
        reading = told.reading
        if isinstance(reading, RepeaterError):
            return reading
        self._jobs, self._number = coming, told.number
        if project not in (None, reading.jobfile.project):
            return ApplyRefused(
                f"cannot apply: the files are of project `{reading.jobfile.project}`, the supervisor of `{project}`"
            )
        return replace(reading, jobfile=replace(reading.jobfile, jobs=tuple(coming)))

    def _forget(self) -> None:
        self._jobs, self._number = (), 0
