"""What the engine is told: past tense, frozen, one class for each thing that can happen.

A fact carries no time of its own; the reading of the clocks that comes with it in `Engine.handle` is its time.
The engine gets facts of kind `run` only; hooks and probes are the supervisor's.
Facts about a run come in the order RunStarted, RunExited, RunEnded, or SpawnFailed alone; RunExited may be left out
when nothing of the run is left at its exit. RunLost may come in the place of any of them, as the last.
Who tells them: `supervisor.supervisor`, from the ports; `engine.simulate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.reasons import Reason
from repeater.model.run import Exit, LimitedStart, Progress, RunKind, SlotRecord, Usage
from repeater.model.time import Mono
from repeater.plan.diff import Plan
from repeater.plan.graph import Graph

if TYPE_CHECKING:
    from repeater.policy.http_aware import PushBack, Unreadable
    from repeater.schedule.load_aware import LoadReadings


@dataclass(frozen=True, slots=True)
class SurvivingRun:
    """A run that an earlier supervisor began and that somebody still looks after: alive, or its end is known.

    `mono` is the reading of the monotonic clock at `began`, None if it is not known.
    """

    pid: int
    began: datetime
    mono: Mono | None = None


@dataclass(frozen=True, slots=True)
class PlanAccepted:
    """A new generation is in force. `progress` is what the store remembers about its jobs; `open_rows` are the rows
    that a supervisor before this one left unfinished; `living` are those of their runs that go on, with nothing of the
    others alive any more; `stale` are jobs whose definition changed since those began, in a way that services are
    restarted for; `starts` are the starts that limits may still count, as far as the store
    knows them; a reload that changes no limit has none.
    """

    generation: int
    plan: Plan
    graph: Graph
    progress: Mapping[str, Progress] = field(default_factory=dict)
    open_rows: tuple[SlotRecord, ...] = ()
    starts: tuple[LimitedStart, ...] = ()
    living: Mapping[str, SurvivingRun] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TimePassed:
    """What the engine waits for has come, or may have."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The process of a run exists, since `at` if that was some moments before it was told."""

    run: str
    pid: int
    at: Mono | None = None
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process of a run could not be started, or its slot could not be claimed. `temporary`: the machine lacked
    a resource (EAGAIN, EMFILE, ENOMEM, ENOSPC), the command is not to blame. `taken`: the slot was decided before, when
    the clock had not yet been set back; what became of it then stands. `exit_code` is that of a shell that cannot start
    the command: 126 or 127.
    """

    run: str
    reason: Reason
    temporary: bool = False
    taken: bool = False
    exit_code: int = 126
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class RunExited:
    """The first process of a run is gone, but others of its tree live or its output is still open."""

    run: str
    exit: Exit
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing of a run is alive and its output is complete. `matched` names the patterns that its output held:
    `success`, `failure`, `stop`. `at` is when its first process ended, if that was while nobody listened, `mono` the
    same by the monotonic clock, None if it is not known, and `timed_out` whether it was ended then because its time
    was over. `usage` is what it needed.
    """

    run: str
    exit: Exit
    matched: frozenset[str] = frozenset()
    at: datetime | None = None
    timed_out: bool = False
    kind: RunKind = "run"
    mono: Mono | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class RunLost:
    """Nothing of a run is alive, and nobody knows how it ended, nor whether it began at all if it was not told so."""

    run: str
    reason: Reason
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class ProbeReported:
    """An answer of a probe; `reason` says why not, None if it is well."""

    job: str
    probe: Literal["ready", "live"]
    ok: bool
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """Files that a job watches changed."""

    job: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PushedBack:
    """The output of a run holds a server's push-back, or hints that cannot be read. Comes before the run has ended."""

    run: str
    push_back: PushBack | None
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadRead:
    """How busy the machine is, read for a job."""

    job: str
    readings: LoadReadings


@dataclass(frozen=True, slots=True)
class SharedLimitGranted:
    """The daemon lets the start through that was asked for under this id."""

    id: str
    reservation: str


@dataclass(frozen=True, slots=True)
class SharedLimitQueued:
    """The daemon holds the start that was asked for; not before `wait` from now, as far as it knows."""

    id: str
    wait: timedelta
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class RateLimiterDown:
    """The daemon does not answer; whatever was asked for is void. QuotaFound follows, some day."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class QuotaWarned:
    """The daemon, or the way to it, has something that a person should know."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class RateLimiterUp:
    """The daemon answers again."""


Verb: TypeAlias = Literal["trigger", "pause", "resume", "start", "stop", "restart", "reset"]


@dataclass(frozen=True, slots=True)
class JobCommand:
    """Somebody asked for something about one job. `text` is why, in the words of the user, empty if none were given;
    `until` is when a pause ends by itself, None for never. `length` says so as a distance instead. `nominal` is the
    time of the slot of a trigger; jobs of one request share it, so that a `same_slot` need finds them.
    """

    verb: Verb
    job: str
    force: bool = False
    text: str = ""
    until: datetime | None = None
    length: timedelta | None = None
    nominal: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The wall clock was set, the machine slept, or both clocks drifted apart. Comes before other facts of its time."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Leave. `drain`: no new start, live timed runs finish, services stop; `stop`: stop all with their signal;
    `kill`: kill all now.
    """

    level: Literal["drain", "stop", "kill"] = "drain"


Fact: TypeAlias = (
    PlanAccepted
    | TimePassed
    | RunStarted
    | SpawnFailed
    | RunExited
    | RunEnded
    | RunLost
    | ProbeReported
    | PathsChanged
    | JobCommand
    | PushedBack
    | LoadRead
    | SharedLimitGranted
    | SharedLimitQueued
    | RateLimiterDown
    | RateLimiterUp
    | QuotaWarned
    | ClockJumped
    | StopRequested
)
