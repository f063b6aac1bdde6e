"""The parts of a supervisor that verbs read, and the requests that they make to it.

All of it is used in the thread of the loop, except `rows` and `meta`, which read the history and are called in another
thread. Verbs do not change the engine: they pass facts to it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from repeater._lazy_dataclasses import dataclass, field
from repeater.engine.engine import Engine
from repeater.engine.facts import Fact
from repeater.engine.job import Job
from repeater.errors import ApplyRefused, RepeaterError, Unreachable, UsageError
from repeater.model.history_meta import HistoryMeta
from repeater.model.reasons import Reason
from repeater.model.run import SlotRecord
from repeater.model.time import Instant
from repeater.output.buffer import OutputBuffer
from repeater.output.event_log import EventLog
from repeater.output.run_store import RunStore
from repeater.plan.select import select
from repeater.ports import Clock
from repeater.supervisor.faults import FaultRecord
from repeater.supervisor.reload import Applied, Foreseen

Send: TypeAlias = Callable[..., Awaitable[None]]
"""Sends items to the client, and waits until the client can take more."""
Args: TypeAlias = Mapping[str, Any]
Result = TypeVar("Result")
Level: TypeAlias = Literal["drain", "stop", "kill"]


class FindRecords(Protocol):
    """The history, newest first. Blocks; not to be called in the loop's thread."""

    def __call__(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> list[SlotRecord]: ...


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """Job files to apply, and the options to read them."""

    files: tuple[str, ...]
    set_vars: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()


class ApplyCallback(Protocol):
    """Reads job files (None: the active ones) and applies them. Raises RepeaterError; then nothing changed."""

    async def __call__(
        self, request: ApplyRequest | None, *, allow_removals: bool = False, dry_run: bool = False
    ) -> Applied: ...


class Foresee(Protocol):
    """Reads job files (None: the active ones) and returns what an apply would do. Raises RepeaterError."""

    async def __call__(self, request: ApplyRequest | None, *, allow_removals: bool = False) -> Foreseen: ...


async def _foresees_nothing(request: ApplyRequest | None, *, allow_removals: bool = False) -> Foreseen:  # noqa: ARG001
    raise ApplyRefused("cannot plan: this supervisor has no job files")


@dataclass(frozen=True, slots=True)
class SupervisorInfo:
    """One supervisor. `state` is its directory, empty if it stores no state."""

    project: str
    pid: int
    began: Instant
    state: str = ""


@dataclass(slots=True)
class ControlContext:
    """`leave` shuts down the supervisor, as a signal does. `troubles` returns the problems of a health check, `faults`
    the recent unexpected exceptions, of one job if it is given. `rejected` returns why the job files were rejected.
    `at_hand` are requests in flight, except streams. `outputs` stores the output of runs on disk; None: no output
    is stored. `earlier` has the last runs of jobs from before the start of this supervisor, as far as they were read;
    None: the history has no run of the job. `is_working` returns whether the effects of a fact are still in progress,
    over many turns of the loop.
    """

    life: SupervisorInfo
    engine: Engine
    clock: Clock
    tell: Callable[[Fact], None]
    leave: Callable[[Level], None]
    apply: ApplyCallback
    rows: FindRecords
    meta: Callable[[], HistoryMeta]
    kept: OutputBuffer
    journal: EventLog
    troubles: Callable[[], list[Reason]]
    rejected: Callable[[], Reason | None]
    files: Callable[[], tuple[str, ...]]
    at_hand: set[asyncio.Task[Any]] = field(default_factory=set)
    faults: Callable[[str | None], list[FaultRecord]] = lambda _: []
    foresee: Foresee = _foresees_nothing
    outputs: RunStore | None = None
    is_working: Callable[[], bool] = lambda: False
    earlier: dict[str, SlotRecord | None] = field(default_factory=dict)

    def now(self) -> datetime:
        return self.clock.now().wall

    def jobs(self, patterns: Iterable[str]) -> list[Job]:
        """The active jobs that the patterns select, in the order of the file; no pattern: all. Raises UsageError."""
        patterns = tuple(patterns)
        jobs = self.engine.jobs
        if len(patterns) == 1 and patterns[0] in jobs:
            return [jobs[patterns[0]]]
        if not patterns:
            return list(jobs.values())
        return [jobs[spec.name] for spec in select([job.spec for job in jobs.values()], patterns)]

    def require_jobs(self, patterns: Iterable[str]) -> list[Job]:
        """The selected jobs. A pattern is required: a command without jobs must not change all jobs."""
        patterns = tuple(patterns)
        if not patterns:
            raise UsageError("cannot choose a job: no job given", hint="name jobs, or `'*'` for all")
        return self.jobs(patterns)

    async def submit(self, *facts: Fact) -> None:
        """Pass facts to the engine, and return when they were handled."""
        for fact in facts:
            self.tell(fact)
        await asyncio.sleep(0)
        while self.is_working():  # noqa: ASYNC110 - it takes many turns, one after the other
            await asyncio.sleep(0)

    async def settled(self) -> None:
        """Return when no generation is half taken. What is read of the engine before the next `await` is of one."""
        while self.engine.is_changing:  # noqa: ASYNC110 - it takes many turns, one after the other
            await asyncio.sleep(0)

    async def in_flight_done(self) -> None:
        """Return when every request that has an end was answered."""
        while self.at_hand:
            await asyncio.wait(tuple(self.at_hand))

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; it is looked at again whenever something happened."""
        while not condition():
            happened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            deaf = self.journal.listen(lambda _, told=happened: None if told.done() else told.set_result(None))  # type: ignore[misc]
            try:
                await asyncio.wait_for(happened, 1.0)
            except TimeoutError:
                pass  # some changes cause no event
            finally:
                deaf()


async def aside(call: Callable[[], Result]) -> Result:
    """The result of a call that blocks, made in a thread. Raises Busy if this process may start no thread or open no
    file.
    """
    try:
        try:
            calling = asyncio.get_running_loop().run_in_executor(None, call)
        except RuntimeError:
            raise Busy(
                "cannot answer: the supervisor has reached its limit of processes",
                hint="raise its process limit: `ulimit -u`, `TasksMax=` of its service, `pids.max` of its cgroup",
            ) from None
        return await calling
    except OSError as error:  # also of an import of asyncio
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise Busy(
            "cannot answer: the supervisor has reached its limit of open files",
            hint="raise its limit: `ulimit -n`, `LimitNOFILE=` of its service",
        ) from None


class Busy(RepeaterError):
    """The supervisor lacks what an answer needs; it may have it later."""

    exit_code = Unreachable.exit_code


def to_seconds(length: timedelta | None) -> float | None:
    """For JSON."""
    return None if length is None else round(length.total_seconds(), 6)
