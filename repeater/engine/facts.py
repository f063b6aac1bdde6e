"""What the engine receives: frozen values, one class for each thing that can happen.

A fact has no time of its own: its time is the reading of the clocks that `Engine.handle` gets with it. The engine gets
facts of kind `run` only; the supervisor handles those of hooks and probes itself. Facts about a run come in the order
RunStarted, RunExited, RunEnded, or SpawnFailed comes alone. RunExited is omitted if no process of the run is left when
the first one exits. RunLost may replace any of them, and is the last fact then. The facts come from
`supervisor.supervisor`, and from `engine.simulate`.
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
    """A run of an earlier supervisor that the shim still manages: it is live, or its end is known.

    `mono` is the reading of the monotonic clock at `began`, None if it is unknown.
    """

    pid: int
    began: datetime
    mono: Mono | None = None


@dataclass(frozen=True, slots=True)
class PlanAccepted:
    """A new generation was accepted.

    `progress` is what the store knows of its jobs. `open_rows` are records that an earlier supervisor left open, and
    `living` are those of their runs that are still live; all other runs are over. `stale` are jobs whose definition has
    changed since these runs started, in a way that restarts services. `starts` are the stored starts that limits may
    still count; a reload that changes no limit has none.
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
    """The time that the engine waits for has come, or other time has passed."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The process of a run exists. `at` is since when, if the report came later."""

    run: str
    pid: int
    at: Mono | None = None
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process of a run could not be started, or its slot could not be claimed.

    `temporary`: the machine lacked a resource (EAGAIN, EMFILE, ENOMEM, ENOSPC), so the command is not the cause.
    `taken`: the slot was decided before the clock was set back, and keeps that record. `exit_code` is the status of a
    shell that cannot start the command: 126 or 127.
    """

    run: str
    reason: Reason
    temporary: bool = False
    taken: bool = False
    exit_code: int = 126
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class RunExited:
    """The first process of a run has exited, but others are alive or its output is still open."""

    run: str
    exit: Exit
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class RunEnded:
    """No process of a run is left and its output is complete.

    `matched` names the patterns that were in its output: `success`, `failure`, `stop`. `at` is when its first process
    ended, if no supervisor was connected then. `mono` is the same by the monotonic clock, None if it is unknown.
    `timed_out`: the shim stopped the run then, because of its timeout. `usage` is the memory and CPU time of the run.
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
    """No process of a run is left and its end is unknown. Without RunStarted it is unknown whether the run started."""

    run: str
    reason: Reason
    kind: RunKind = "run"


@dataclass(frozen=True, slots=True)
class ProbeReported:
    """The result of a probe. `reason` says why it failed, None if it succeeded."""

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
    """The output of a run has a push-back of a server, or hints that cannot be read. Comes before RunEnded."""

    run: str
    push_back: PushBack | None
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadRead:
    """The load of the machine, read for a job."""

    job: str
    readings: LoadReadings


@dataclass(frozen=True, slots=True)
class SharedLimitGranted:
    """The rate-limit daemon grants the start that was requested with this id."""

    id: str
    reservation: str


@dataclass(frozen=True, slots=True)
class SharedLimitQueued:
    """The rate-limit daemon has queued the requested start, and expects to grant it after `wait` or later."""

    id: str
    wait: timedelta
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class RateLimiterDown:
    """The rate-limit daemon does not answer, so all requests are void. RateLimiterUp follows when it is back."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class QuotaWarned:
    """A warning of the rate-limit daemon, or of the connection to it."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class RateLimiterUp:
    """The rate-limit daemon answers again."""


Verb: TypeAlias = Literal["trigger", "pause", "resume", "start", "stop", "restart", "reset"]


@dataclass(frozen=True, slots=True)
class JobCommand:
    """A command of a user about one job.

    `text` is the reason that the user gave, or empty. A pause ends at `until` or after `length`, or never if both are
    None. `nominal` is the time of the slot of a trigger. Jobs of one request share it, so that a `same_slot` need finds
    them.
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
    """The supervisor must exit.

    `drain` starts nothing more, lets timed runs finish and stops services. `stop` ends every run with its stop signal.
    `kill` kills every run now.
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
