"""What the engine wants done: frozen values, carried out in the order given.

`supervisor.supervisor` carries them out, and `engine.simulate` does so on a virtual clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.model.events import Event
from repeater.model.reasons import Reason
from repeater.model.run import LimitedStart, Progress, Run, SlotRecord
from repeater.model.spec import JobSpec, OnChange, Probe
from repeater.model.units import Rate


@dataclass(frozen=True, slots=True)
class Start:
    """Claim the slot with `row` and `progress` in one transaction, and start the process after that.

    RunStarted or SpawnFailed answers.
    """

    run: Run
    spec: JobSpec
    row: SlotRecord
    progress: Progress


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take over a run of `PlanAccepted.living`: read its output, and report its end."""

    run: str
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal, by name without SIG, to every process of a run's session, and let stopped ones continue."""

    run: str
    signal: str


@dataclass(frozen=True, slots=True)
class KillTree:
    """Kill every process of a run and close its output. RunEnded follows."""

    run: str


@dataclass(frozen=True, slots=True)
class Record:
    """Store the record of a slot and the progress of its job in one transaction."""

    row: SlotRecord
    progress: Progress


@dataclass(frozen=True, slots=True)
class RecordStarted:
    """Store that the process of a claimed slot exists."""

    row: SlotRecord
    pid: int


@dataclass(frozen=True, slots=True)
class KeepStart:
    """Store the start of an attempt that a limit counts. It replaces the stored start of the same run."""

    start: LimitedStart


@dataclass(frozen=True, slots=True)
class DropStart:
    """The attempt of a run did not start: delete what `KeepStart` stored."""

    run: str


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Store the progress of a job. No record has changed."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class RenameJob:
    """Store the records and the progress of job `old` under the name `new`."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class WatchPaths:
    """Report changes of the files of a job with PathsChanged, or stop doing so if `watch` is None."""

    job: str
    watch: OnChange | None
    folder: str = ""


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Run a probe once. ProbeReported answers."""

    job: str
    kind: str
    probe: Probe
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """Read the load of the machine. LoadRead answers."""

    job: str


@dataclass(frozen=True, slots=True)
class RequestSharedStart:
    """Request the next start under a shared limit from the rate-limit daemon.

    SharedLimitGranted answers now or later, perhaps after SharedLimitQueued, or RateLimiterDown answers. `offsets` are
    those of all attempts, in microseconds. With `reservation` the request is for its next attempt.
    """

    id: str
    limit: str
    rate: Rate
    offsets: tuple[int, ...] = (0,)
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class WithdrawQuota:
    """Withdraw a request for a start."""

    id: str


@dataclass(frozen=True, slots=True)
class SpendQuota:
    """Report that an attempt under a shared limit started now, or that a granted attempt did not start.

    `reservation` is None if the daemon was not asked.
    """

    limit: str
    rate: Rate
    reservation: str | None
    started: bool = True


@dataclass(frozen=True, slots=True)
class ReleaseQuota:
    """Give back the rest of a reservation."""

    reservation: str


@dataclass(frozen=True, slots=True)
class PushBackQuota:
    """Report that a server asks all clients of a limit to wait."""

    limit: str
    rate: Rate
    delay: timedelta
    reason: Reason


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run a hook beside the jobs. Nothing waits for it, and a failure is only reported."""

    job: str
    kind: str
    spec: JobSpec
    row: SlotRecord


@dataclass(frozen=True, slots=True)
class Announce:
    """Report an event to the outputs."""

    event: Event


@dataclass(frozen=True, slots=True)
class ExitSupervisor:
    """Exit, because nothing is left to do. `code` is the exit status of `rpr`."""

    code: int


Action: TypeAlias = (
    Start
    | Adopt
    | SendSignal
    | KillTree
    | Record
    | RecordStarted
    | KeepStart
    | DropStart
    | SaveProgress
    | RenameJob
    | WatchPaths
    | StartProbe
    | ReadLoad
    | RequestSharedStart
    | WithdrawQuota
    | SpendQuota
    | ReleaseQuota
    | PushBackQuota
    | RunHook
    | Announce
    | ExitSupervisor
)
