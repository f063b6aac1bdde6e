"""Events of the supervisor, for observers: one frozen class for each kind, in the past tense. Observers change nothing.

Events contain codes and fields (`model.reasons`), no sentences. The inputs of the engine are `engine.facts`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.run import Run, SlotRecord, Verdict


@dataclass(frozen=True, slots=True)
class GenerationApplied:
    """A job file was applied. The numbers count jobs by kind of change."""

    generation: int
    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class ReloadRejected:
    """A changed job file was rejected; generation `generation` remains active."""

    generation: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ReloadRecovered:
    """The job files are valid again after a ReloadRejected; generation `generation` is active, or will be at once."""

    generation: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The supervisor is shutting down and waits for these jobs; `level` is the shutdown mode."""

    level: str
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobAdded:
    """A job is active for the first time. `next` is its next start, None if it has no scheduled start."""

    job: str
    next: datetime | None


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job's definition changed; `reload` is the class of the change (`in_place`, `next_run`, `retime`, …)."""

    job: str
    reload: str


@dataclass(frozen=True, slots=True)
class SlotBlocked:
    """A due slot is blocked; `reason` names the cause and, if known, the end."""

    job: str
    nominal: datetime
    due: datetime
    reason: Reason


@dataclass(frozen=True, slots=True)
class IntervalChanged:
    """An adaptive interval was recalculated; `reason` explains its length."""

    job: str
    pace: timedelta
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobRemoved:
    """A job was removed from the job file."""

    job: str


@dataclass(frozen=True, slots=True)
class JobDone:
    """A stop condition was met, or the schedule has ended."""

    job: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobPaused:
    """A job was paused: its slots are skipped until it is resumed or, if given, `until`."""

    job: str
    reason: Reason
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobResumed:
    """A pause ended; `reason` names the cause."""

    job: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobReady:
    """A service's readiness changed."""

    job: str
    ready: bool
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A process was started. `late` is how long after due, in seconds."""

    run: Run
    pid: int
    late: float


@dataclass(frozen=True, slots=True)
class RunAdopted:
    """A run of an earlier supervisor was adopted."""

    run: Run
    pid: int


@dataclass(frozen=True, slots=True)
class RunFinished:
    """An attempt ended. `retry_at` is the time of the next attempt of the same slot, None if there is none."""

    run: Run
    verdict: Verdict
    exit: int | None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SlotDecided:
    """A slot has its final record. `count` is the number of slots that the record represents."""

    row: SlotRecord
    count: int = 1


@dataclass(frozen=True, slots=True)
class SlotsMissed:
    """Slots were missed while no supervisor was running. `first` and `last` are nominal times.

    Each slot has its own record, except that one record represents the middle of many slots. `at_least`: the schedule
    cannot count them; there were `count` or more.
    """

    job: str
    count: int
    first: datetime
    last: datetime
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class SpawnRejected:
    """A process of a run could not be started. `exit_code` is 126 or 127, as from a shell that cannot start a command.
    `temporary`: the machine lacked a resource, and the start will be retried soon.
    """

    job: str
    reason: Reason
    exit_code: int
    temporary: bool


@dataclass(frozen=True, slots=True)
class RunStopping:
    """A run was sent `signal` to stop it; `reason` names the cause."""

    job: str
    run: str
    signal: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for the user; `job` is empty for the whole supervisor."""

    job: str
    reason: Reason


FaultOwner: TypeAlias = Literal[
    "run", "job", "probe", "hook", "watch", "plugin", "connection", "reload", "limit", "output", "listener", "signal",
    "service",
]  # fmt: skip
"""The kind of object that an unexpected exception affects. `service`: a part of the supervisor that is retried."""


@dataclass(frozen=True, slots=True)
class FaultContained:
    """An unexpected exception was contained in one object. `job` is empty if the object belongs to no job; `name` is
    the callback or object; `error` is the exception; `count` is the number of exceptions of this object.
    """

    owner: FaultOwner
    job: str
    name: str
    error: str
    count: int


Event: TypeAlias = (
    GenerationApplied
    | ReloadRejected
    | ReloadRecovered
    | Draining
    | JobAdded
    | JobChanged
    | IntervalChanged
    | JobRemoved
    | JobDone
    | JobPaused
    | JobResumed
    | JobReady
    | RunBegan
    | RunAdopted
    | RunFinished
    | SlotDecided
    | SlotBlocked
    | SlotsMissed
    | SpawnRejected
    | RunStopping
    | Warned
    | FaultContained
)
