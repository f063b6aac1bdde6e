"""Slots, runs and the rows they leave.

A *slot* is one nominal time of one job; it is decided at most once. A *run* is one attempt to carry it out. A
`SlotRecord` is the row that is kept: flat and JSON-able. `Progress` is what must survive a restart about a job; it is
stored in the same transaction as the row that changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, TypeAlias, TypedDict

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.json_types import Code, Count, Detail, Time
from repeater.model.reasons import Reason, reason_of
from repeater.model.time import Mono, from_epoch_us, from_rfc3339, rfc3339, to_epoch_us

Trigger: TypeAlias = Literal["schedule", "catch_up", "manual", "watch", "dependency", "start", "restart"]

SlotState: TypeAlias = Literal[
    "claimed",  # interim: the slot is taken, nothing is started yet
    "running",  # interim
    "retrying",  # interim: an attempt failed, another one follows
    "succeeded",
    "failed",
    "spawn_failed",
    "skipped",
    "expired",
    "replaced",
    "cancelled",
    "interrupted",
]
RunKind: TypeAlias = Literal["run", "hook", "probe"]
"""What a process is: an attempt of a slot, a hook of a decided slot, or an `exec` probe of a service."""
INTERIM: frozenset[str] = frozenset({"claimed", "running", "retrying"})

Outcome: TypeAlias = Literal[
    "success", "failed", "running", "skipped", "expired", "replaced", "cancelled", "interrupted"
]


@dataclass(frozen=True, slots=True)
class Slot:
    """A nominal time of a job. `due` is nominal plus jitter and is never earlier.

    `due_mono` is the reading of the monotonic clock at `due`, None in a slot that the engine did not make. All times in
    the row of a slot are counted from this pair, so a clock that is set during the run does not distort them.
    """

    job: str
    nominal: datetime
    due: datetime
    trigger: Trigger = "schedule"
    forced: bool = False
    due_mono: Mono | None = None

    def wall_at(self, mono: Mono) -> datetime:
        """What the wall clock shows at a monotonic reading, if it is not set after `due`."""
        assert self.due_mono is not None
        return self.due + timedelta(microseconds=mono - self.due_mono)

    def late_by(self, mono: Mono) -> timedelta:
        """How long after `due` a monotonic reading is; negative before `due`."""
        assert self.due_mono is not None
        return timedelta(microseconds=mono - self.due_mono)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. `id` sorts by time; `attempt` counts from 1; `generation` is the one that decided it."""

    id: str
    slot: Slot
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: an exit code, or the number of the signal that ended it, never both."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        return f"exit {self.code}" if self.signal is None else f"signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run needed: the largest memory in bytes, and CPU time in microseconds. None: not known."""

    memory: int | None = None
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an attempt succeeded, and why: `exit`, `timeout`, `failure_pattern`."""

    success: bool
    reason: Reason


class SlotJson(TypedDict):
    """A slot in the JSON output of `simulate`, and a part of that of `history`."""

    job: str
    nominal: Time
    due: Time
    started: Time | None
    ended: Time | None
    state: SlotState
    reason: str | None
    reason_code: Code | None
    detail: Detail
    run: str | None
    attempts: Count
    exit: int | None


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """The row of a slot, as of its last attempt. `exit` is the exit code, or minus the number of the signal.

    `reason` says why the slot ended so; None only for interim states. `command` is what ran, as text with
    secrets masked; only the rows of the store have it. `usage` is what the last attempt needed.
    """

    job: str
    nominal: datetime
    due: datetime
    started: datetime | None
    ended: datetime | None
    state: SlotState
    reason: Reason | None
    run: str | None
    attempts: int
    exit: int | None = None
    trigger: Trigger = field(default="schedule")
    generation: int = 0
    command: str | None = None
    usage: Usage = Usage()

    @property
    def outcome(self) -> Outcome:
        """The state without the distinctions that only the supervisor makes."""
        match self.state:
            case "succeeded":
                return "success"
            case "failed" | "spawn_failed":
                return "failed"
            case "claimed" | "running" | "retrying":
                return "running"
            case state:
                return state

    def as_json(self, sentence: Callable[[Reason], str]) -> SlotJson:
        """What `simulate --json` and `history --json` print of a slot, instants as RFC 3339 in UTC.

        `sentence` makes the text of `reason`; programs read `reason_code` and `detail`.
        """
        reason = self.reason
        return {
            "job": self.job,
            "nominal": rfc3339(self.nominal),
            "due": rfc3339(self.due),
            "started": rfc3339(self.started),
            "ended": rfc3339(self.ended),
            "state": self.state,
            "reason": None if reason is None else sentence(reason),
            "reason_code": None if reason is None else reason.code,
            "detail": {} if reason is None else reason.as_json(),
            "run": self.run,
            "attempts": self.attempts,
            "exit": self.exit,
        }


@dataclass(frozen=True, slots=True)
class LimitedStart:
    """The start of one attempt of a job whose starts are limited.

    `limit` is the name of the job's limit at that time, None if the job had only a rate of its own. `at` is the wall
    time of the start and `mono` the monotonic reading in the boot `boot`; an empty boot means that only the wall time
    is known. `window` is the longest window that counts the start, in microseconds. As long as `is_known` is False, the
    attempt is claimed and its process may exist since then or not at all; `at` and `mono` are those of the claim.
    """

    run: str
    job: str
    limit: str | None
    at: datetime
    mono: Mono
    boot: str = ""
    window: int = 0
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """What is remembered about a job over a restart. Counters count decided runs, not attempts.

    `anchor` is where the schedule's grid begins, `cursor` the last nominal time that was decided (None: none yet),
    `schedule` a fingerprint of the schedule that both belong to. `skipped` counts the slots that came to no run.
    `done` says why the job is finished, None when it is not. `streak` counts outcomes in a row: positive successes,
    negative failures. `paused` says why slots are skipped for now, None when they are not; `paused_until` is when
    that ends by itself, None for never, and `pause_rides` is `mono` if that is a distance rather than a time of day.
    `pushed_until` is until when a server's push-back holds the starts, `pushed` what it said; `refusals` counts the
    answers in a row that refused without naming a delay. `began` is when the job came into force first; `stop.for`
    counts from it. `clock` is the wall time minus the reading of the monotonic clock, in microseconds, with which the
    distances among the times were written, in the boot `boot`; None: not known.
    """

    job: str
    anchor: datetime
    cursor: datetime | None = None
    schedule: str = ""
    stop: str = ""
    runs: int = 0
    successes: int = 0
    failures: int = 0
    streak: int = 0
    first_start: datetime | None = None
    last_start: datetime | None = None
    last_end: datetime | None = None
    last_success: datetime | None = None
    done: Reason | None = None
    paused: Reason | None = None
    paused_until: datetime | None = None
    pause_rides: Literal["mono"] | None = None
    began: datetime | None = None
    clock: int | None = None
    boot: str | None = None
    adaptive: Mapping[str, Any] | None = None  # what an adaptive schedule has learnt
    pushed_until: datetime | None = None
    pushed: Reason | None = None
    refusals: int = 0
    skipped: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain data for the store, instants in microseconds since 1970; `from_json` reads it back, and leaves out keys
        that it does not know.
        """
        return {
            name: to_epoch_us(value)
            if isinstance(value, datetime)
            else value.kept()
            if isinstance(value, Reason)
            else value
            for name, value in zip(self.__match_args__, _values_of(self), strict=True)
            if value is not None
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        reasons = {"done", "paused", "pushed"}
        instants = {"anchor", "cursor", "first_start", "last_start", "last_end", "last_success", "began"}
        instants |= {"paused_until", "pushed_until"}
        known: dict[str, Any] = {
            name: reason_of(value)
            if name in reasons
            else (from_epoch_us(value) if isinstance(value, int) else from_rfc3339(value))
            if name in instants
            else value
            for name, value in data.items()
            if name in cls.__match_args__
        }
        return cls(**known)


_values_of = attrgetter(*Progress.__match_args__)
