"""What happened, for whoever listens: one frozen class each, past tense. Observers read events and never steer.

Events carry codes and fields (`model.reasons`) for people and metrics, no sentences. What the engine itself needs are
`engine.facts`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.run import Run, SlotRecord, Verdict


@dataclass(frozen=True, slots=True)
class GenerationApplied:
    """A job file came into force. The numbers count jobs by what happened to them."""

    generation: int
    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class ReloadRejected:
    """A changed job file was refused as a whole; generation `generation` stays in force."""

    generation: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ReloadRecovered:
    """The job files are valid again after a ReloadRejected; generation `generation` is active, or will be at once."""

    generation: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The supervisor was asked to leave and waits for these jobs; `level` is how hard it was asked."""

    level: str
    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobAdded:
    """A job is in force for the first time. `next` is its next start, None if it has none of its own."""

    job: str
    next: datetime | None


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job's definition changed; `reload` is the class of the change (`in_place`, `next_run`, `retime`, …)."""

    job: str
    reload: str


@dataclass(frozen=True, slots=True)
class SlotBlocked:
    """A slot that is due may not start yet; `reason` says what holds it, and until when if that is known."""

    job: str
    nominal: datetime
    due: datetime
    reason: Reason


@dataclass(frozen=True, slots=True)
class IntervalChanged:
    """An interval that adapts was decided anew; `reason` says why it is so long."""

    job: str
    pace: timedelta
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobRemoved:
    """A job is no longer in the file."""

    job: str


@dataclass(frozen=True, slots=True)
class JobDone:
    """A stop condition was met, or the schedule has ended."""

    job: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class JobPaused:
    """Slots of the job are skipped from now on, until somebody resumes it or, if given, `until`."""

    job: str
    reason: Reason
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobResumed:
    """A pause ended; `reason` says how."""

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
    """A run that a supervisor before this one began goes on."""

    run: Run
    pid: int


@dataclass(frozen=True, slots=True)
class RunFinished:
    """An attempt ended. `retry_at` is when the next attempt of the same slot comes, None if there is none."""

    run: Run
    verdict: Verdict
    exit: int | None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SlotDecided:
    """A slot has its final row. `count` is the number of slots for which the row stands."""

    row: SlotRecord
    count: int = 1


@dataclass(frozen=True, slots=True)
class SlotsMissed:
    """Slots passed while nobody could start them. `first` and `last` are nominal times.

    Each has its own row, but where there are many, one row stands for those in the middle. `at_least`: the schedule
    cannot count them, there were `count` or more.
    """

    job: str
    count: int
    first: datetime
    last: datetime
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class SpawnRejected:
    """A process of a run could not be started. `exit_code` is that of a shell that cannot start the command, 126 or
    127; `temporary`: the machine lacked a resource, and the start is tried again soon.
    """

    job: str
    reason: Reason
    exit_code: int
    temporary: bool


@dataclass(frozen=True, slots=True)
class RunStopping:
    """A run was asked to end; `reason` says why, `signal` how."""

    job: str
    run: str
    signal: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a person should know; `job` is empty for the whole supervisor."""

    job: str
    reason: Reason


FaultOwner: TypeAlias = Literal[
    "run", "job", "probe", "hook", "watch", "plugin", "connection", "reload", "limit", "output", "listener", "signal",
    "service",
]  # fmt: skip
"""What an unexpected exception belongs to. `service`: a part of the supervisor that is tried again."""


@dataclass(frozen=True, slots=True)
class FaultContained:
    """An unexpected exception cost its owner only. `job` is empty if it belongs to no job; `name` is the callback or
    object; `error` is the exception; `count` says how often this owner had it.
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
