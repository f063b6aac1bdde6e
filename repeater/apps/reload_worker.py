"""The process that reads job files for a supervisor: the whole pipeline, under limits, with results in small pieces.

`main` runs in a separate process, started through `worker`. Templates, patterns and aliases can need any time and
memory; here they cost this process, not the supervisor. The process remembers the last result, so that an unchanged job
crosses the pipe as a number. It must not write to the state of the project, nor start processes. The supervisor
unpickles the result, because this is its own child.
"""

from __future__ import annotations

import copyreg
import gc
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from repeater._lazy_dataclasses import dataclass, fields, replace
from repeater.apps.job_files import reading_time
from repeater.errors import Problem, RepeaterError, UsageError
from repeater.model.plugins import Description
from repeater.model.spec import Cron, Every, JobFile, JobSpec, ProcessSpec, Termination
from repeater.model.units import parse_size

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded
    from repeater.worker.protocol import Limits

PIECE = 100
"""Jobs in one frame: about two milliseconds of the supervisor's loop."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to read: arguments of `load_selected`. `known` is the number of the answer that the asker still has, `salt`
    that of the marks in place of secrets. `project` and `unnamed` are as for `load_job_files`.
    """

    files: tuple[str, ...]
    set_vars: tuple[tuple[str, str], ...]
    only: tuple[str, ...]
    known: int
    salt: str
    project: str | None = None
    unnamed: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedJobs:
    """What was read, without what only a look at the sources needs. `document` is the jobs as text, secrets hidden;
    `extras` is as in `plan.extras`.
    """

    jobfile: JobFile
    files: Mapping[str, str]
    folder: str
    globs: tuple[str, ...]
    document: str
    extras: str
    plugins: tuple[Description, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The frame that ends an answer: a reading whose jobs came before it, or why there is none.

    `number` is that of the answer. `leave`: another process should be asked the next time.
    """

    reading: LoadedJobs | RepeaterError
    number: int = 0
    leave: bool = False


Piece: TypeAlias = tuple[JobSpec | int, ...]
"""Jobs in their order; a number is the place of the same job in the answer before."""


def load_selected(
    files: Sequence[str],
    set_vars: Sequence[tuple[str, str]] = (),
    only: Sequence[str] = (),
    *,
    project: str | None = None,
    unnamed: str | None = None,
) -> Loaded:
    """The job files of an apply, less what `--only` leaves out, and less what they were expanded from: that is half of
    their memory, and a supervisor lives long.
    """
    from repeater.apps.job_files import load_job_files
    from repeater.model.spec import LoadAware
    from repeater.plan.select import select

    loaded = load_job_files(files, set_vars=dict(set_vars), project=project, unnamed=unnamed)
    loaded = replace(loaded, expansion=None)
    if any(isinstance(job.schedule, LoadAware) for job in loaded.jobfile.jobs):
        from repeater.system.system_load import SystemLoad

        SystemLoad().prepare()
    if not only:
        return loaded
    return replace(loaded, jobfile=replace(loaded.jobfile, jobs=select(loaded.jobfile.jobs, only)))


def reading_of(loaded: Loaded, salt: str) -> LoadedJobs:
    """The reading of files that were loaded in this process."""
    lines = list(map(_writer(salt), loaded.jobfile.jobs))
    return _reading(loaded, loaded.jobfile, _document(lines), salt)


def _reading(loaded: Loaded, jobfile: JobFile, document: str, salt: str) -> LoadedJobs:
    from repeater.plan.extras import dump_extras, extras_of
    from repeater.policy.marks import Marks

    extras = dump_extras(extras_of(loaded.jobfile, Marks(salt, {})))
    files, globs = loaded.files, loaded.globs
    return LoadedJobs(jobfile, files, loaded.folder, globs, document, extras, loaded.plugins, loaded.warnings)


def _writer(salt: str) -> Callable[[JobSpec], str]:
    """Gives the line of a job in the document."""
    from repeater.model.dump import dump_json
    from repeater.policy.marks import Marks

    hide = Marks(salt, os.environ).hide
    return lambda job: f"{_encoded(job.name)}: {dump_json(hide(job))}"


_encoded = json.JSONEncoder(ensure_ascii=False).encode


def _document(lines: Sequence[str]) -> str:
    return "{" + ", ".join(lines) + "}"


def limits(environ: Mapping[str, str]) -> Limits:
    """How much a reading may use: `RPR_MAX_RELOAD_MEMORY`, and `RPR_MAX_RELOAD_TIME` of the CPU.

    By the clock it may take six times as long, and half a minute at least, because others use the machine too. Raises
    UsageError.
    """
    from repeater.worker.protocol import Limits

    memory = environ.get("RPR_MAX_RELOAD_MEMORY") or "512MiB"
    try:
        size = parse_size(memory)
    except ValueError as error:
        raise UsageError(f"cannot use `RPR_MAX_RELOAD_MEMORY={memory}`: {error}") from None
    seconds = reading_time(environ)
    return Limits(size, seconds, max(30.0, 6.0 * seconds))


class _SentCache:
    """The last result: the jobs, their places, their lines of the document."""

    def __init__(self) -> None:
        self.number = 0
        self._jobs: dict[str, tuple[JobSpec, int, str]] = {}

    def pieces(self, jobs: Sequence[JobSpec], known: int, salt: str) -> Iterator[Piece]:
        """The jobs in pieces. At the end they are the last result."""
        before = self._jobs if known == self.number and known else {}
        told: dict[str, tuple[JobSpec, int, str]] = {}
        line = _writer(salt)
        for start in range(0, len(jobs), PIECE):
            piece: list[JobSpec | int] = []
            for place, job in enumerate(jobs[start : start + PIECE], start):
                same = before.get(job.name)
                if same is not None and same[0] == job:
                    piece.append(same[1])
                    told[job.name] = (same[0], place, same[2])
                else:
                    piece.append(job)
                    told[job.name] = (job, place, line(job))
            yield tuple(piece)
        self._jobs = told
        self.number += 1

    def document(self) -> str:
        return _document([line for _, _, line in self._jobs.values()])


def main() -> None:
    """Answer requests until the pipe is closed."""
    from repeater.worker.server import CpuTimeExceeded, HardTimeout, WorkerChannel

    bounds = limits(os.environ)
    asker = WorkerChannel(bounds)
    _prepare(lambda: asker.has_request)
    memory = _SentCache()
    while True:
        errand: LoadRequest = pickle.loads(asker.receive())  # noqa: S301 - from the process that started this one
        gc.disable()
        cause = ""
        try:
            last = _answer(errand, memory, asker.send)
        except MemoryError:
            cause = bounds.memory_exceeded_message
        except (CpuTimeExceeded, HardTimeout):
            cause = bounds.time_exceeded_message
        except RepeaterError as error:
            last = LoadResult(error.with_traceback(None))
        except Exception as error:  # noqa: BLE001 - the supervisor continues after any error here
            cause = f"{type(error).__name__}: {error}"
        asker.lift_limits()
        if cause:
            last = LoadResult(RepeaterError(f"cannot read the job files: {cause}"))
        asker.send(_frame(replace(last, leave=bool(cause) or asker.memory_grew)))
        del errand, last
        gc.enable()
        gc.collect()


def _answer(errand: LoadRequest, memory: _SentCache, send: Callable[[bytes], None]) -> LoadResult:
    """Send the jobs, and return the last frame."""
    loaded = load_selected(errand.files, errand.set_vars, errand.only, project=errand.project, unnamed=errand.unnamed)
    for piece in memory.pieces(loaded.jobfile.jobs, errand.known, errand.salt):
        send(_frame(piece))
    rest = replace(loaded.jobfile, jobs=())
    return LoadResult(_reading(loaded, rest, memory.document(), errand.salt), memory.number)


def _frame(told: Piece | LoadResult) -> bytes:
    frame = io.BytesIO()
    pickler = pickle.Pickler(frame, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _CALLS
    pickler.dump(told)
    return frame.getvalue()


def _as_call(part: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[Any, ...]]]:
    values = attrgetter(*[one.name for one in fields(part)])
    return lambda value: (part, values(value))


# What each job has crosses as calls of its class: half of the time, on both sides, of what dataclasses do.
_CALLS = copyreg.dispatch_table | {part: _as_call(part) for part in (JobSpec, ProcessSpec, Cron, Every, Termination)}


def _prepare(is_asked: Callable[[], bool]) -> None:
    """Import the modules that a read may need, before a request arrives: read small samples, the most usual first."""
    from repeater.jobfile.load import load
    from repeater.system.filesystem import Filesystem

    for sample in _SAMPLES:
        if is_asked():
            return
        with suppress(RepeaterError):
            load(["-"], files=Filesystem(), folder="/", stdin=sample)


_SAMPLES = (
    b"""
[jobs.a]
command = "true"
schedule = { cron = "0 3 * * *", timezone = "Europe/Berlin" }
[jobs.b]
command = ["true"]
schedule = { every = "1h", jitter = "10%" }
success = { pattern = "done" }
""",
    b"""
vars = { list = ["a", "b"] }
[jobs.a]
matrix = { it = "{{ vars.list }}" }
command = "echo {{ matrix.it | upper }} {{ run.id }}"
""",
    b"jobs: { a: { comand: x } }",
)
