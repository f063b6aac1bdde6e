"""What the engine asks for: imperative, frozen. Whoever drives the engine carries them out in the order given.

Who does: `supervisor.supervisor` for real, `engine.simulate` on a virtual clock.
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
    """Claim the slot with `row` and `progress` in one transaction, and only then start the process.

    Answered by RunStarted or SpawnFailed.
    """

    run: Run
    spec: JobSpec
    row: SlotRecord
    progress: Progress


@dataclass(frozen=True, slots=True)
class Adopt:
    """Go on with a run of `PlanAccepted.living`: take its output, and tell what becomes of it."""

    run: str
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send a signal, by name without SIG, to every process of a run's session, and let stopped ones continue."""

    run: str
    signal: str


@dataclass(frozen=True, slots=True)
class KillTree:
    """Kill whatever is left of a run and close its output. RunEnded follows."""

    run: str


@dataclass(frozen=True, slots=True)
class Record:
    """Keep the row of a slot, and the job's progress, in one transaction."""

    row: SlotRecord
    progress: Progress


@dataclass(frozen=True, slots=True)
class RecordStarted:
    """Keep that the process of a claimed row exists."""

    row: SlotRecord
    pid: int


@dataclass(frozen=True, slots=True)
class KeepStart:
    """Keep the start of an attempt that a limit counts. It replaces what was kept for the same run."""

    start: LimitedStart


@dataclass(frozen=True, slots=True)
class DropStart:
    """The attempt of a run did not start: forget what `KeepStart` kept."""

    run: str


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Keep a job's progress; no row changed."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class RenameJob:
    """Rows and progress of job `old` belong to job `new` from now on."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class WatchPaths:
    """Report changes of a job's files with PathsChanged, from now on; `watch` None: no longer."""

    job: str
    watch: OnChange | None
    folder: str = ""


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Ask a probe once; answered by ProbeReported."""

    job: str
    kind: str
    probe: Probe
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """Read how busy the machine is; answered by LoadRead."""

    job: str


@dataclass(frozen=True, slots=True)
class RequestSharedStart:
    """Ask the rate-limit daemon for the next start under a shared limit.

    Answered by QuotaGranted, now or later, perhaps QuotaWaits before it, or QuotaLost. `offsets` are those of all
    attempts that are wanted, in microseconds; `reservation`: the next attempt of that one.
    """

    id: str
    limit: str
    rate: Rate
    offsets: tuple[int, ...] = (0,)
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class WithdrawQuota:
    """A request for a start is not wanted any more."""

    id: str


@dataclass(frozen=True, slots=True)
class SpendQuota:
    """An attempt under a shared limit happened now; or, not `started`, what was granted came to nothing.

    `reservation` None: nobody was asked.
    """

    limit: str
    rate: Rate
    reservation: str | None
    started: bool = True


@dataclass(frozen=True, slots=True)
class ReleaseQuota:
    """Nothing more of a reservation will happen."""

    reservation: str


@dataclass(frozen=True, slots=True)
class PushBackQuota:
    """A server asks all who share a limit to wait."""

    limit: str
    rate: Rate
    delay: timedelta
    reason: Reason


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run a command beside the jobs; nobody waits for it, its failure is only told."""

    job: str
    kind: str
    spec: JobSpec
    row: SlotRecord


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the observers."""

    event: Event


@dataclass(frozen=True, slots=True)
class ExitSupervisor:
    """Nothing is left to do. `code` is the exit status of `rpr`."""

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
