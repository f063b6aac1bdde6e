"""Slots, runs and their records.

A *slot* is one nominal time of one job; it is decided at most once. A *run* is one attempt to carry it out. A
`SlotRecord` is the stored record of a slot: flat, and written as JSON. `Progress` is the state of a job that must
survive a restart; it is stored in the same transaction as the record that changed it.
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
    "claimed",  # interim: the slot is claimed, nothing is started yet
    "running",  # interim
    "retrying",  # interim: an attempt failed, a retry follows
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
"""The kind of a process: an attempt of a slot, a hook of a decided slot, or an `exec` probe of a service."""
INTERIM: frozenset[str] = frozenset({"claimed", "running", "retrying"})

Outcome: TypeAlias = Literal[
    "success", "failed", "running", "skipped", "expired", "replaced", "cancelled", "interrupted"
]


@dataclass(frozen=True, slots=True)
class Slot:
    """A nominal time of a job. `due` is nominal plus jitter and is never earlier.

    `due_mono` is the reading of the monotonic clock at `due`, None in a slot that the engine did not create. All times
    in the record of a slot are counted from this pair, so a clock change during the run does not distort them.
    """

    job: str
    nominal: datetime
    due: datetime
    trigger: Trigger = "schedule"
    forced: bool = False
    due_mono: Mono | None = None

    def wall_at(self, mono: Mono) -> datetime:
        """The wall time at a monotonic reading, if the clock is not set after `due`."""
        assert self.due_mono is not None
        return self.due + timedelta(microseconds=mono - self.due_mono)

    def late_by(self, mono: Mono) -> timedelta:
        """The time from `due` to a monotonic reading; negative before `due`."""
        assert self.due_mono is not None
        return timedelta(microseconds=mono - self.due_mono)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. `id` sorts by time; `attempt` counts from 1; `generation` is the generation that decided it."""

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
    """The resources that a run used: peak memory in bytes, and CPU time in microseconds. None: not known."""

    memory: int | None = None
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an attempt succeeded, and the reason: `exit`, `timeout`, `failure_pattern`."""

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
    """The record of a slot after its last attempt. `exit` is the exit code, or minus the number of the signal.

    `reason` explains the outcome; None only for interim states. `command` is the command as text, with secrets masked;
    only the records of the store have it. `usage` has the resources that the last attempt used.
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
        """The state as users see it, without the distinctions that only the supervisor needs."""
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
        """The slot as `simulate --json` and `history --json` print it, with instants as RFC 3339 in UTC.

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

    `limit` is the name of the job's limit at that time, None if the job had only its own rate. `at` is the wall time
    of the start and `mono` the monotonic reading in the boot `boot`; an empty boot means that only the wall time is
    known. `window` is the longest window that counts the start, in microseconds. While `is_known` is False, the attempt
    is claimed and its process may or may not have started; `at` and `mono` are the times of the claim.
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
    """The state of a job that survives a restart. Counters count decided runs, not attempts.

    `anchor` is the start of the schedule's grid, `cursor` the last decided nominal time (None: none yet), `schedule` a
    fingerprint of the schedule of both. `skipped` counts the slots without a run. `done` is the reason why the job is
    finished, else None. `streak` counts consecutive outcomes: positive for successes, negative for failures. `paused`
    is the reason of a pause, else None. `paused_until` is the automatic end of the pause, None if there is none;
    `pause_rides` is `mono` if the end was given as a duration rather than a time of day. `pushed_until` is the end of
    a server's push-back, `pushed` its reason. `refusals` counts consecutive refusals without a delay. `began` is the
    first time when the job was active; `stop.for` counts from it. `clock` is the wall time minus the monotonic reading
    in the boot `boot`, in microseconds, when the times were written; None: not known.
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
    adaptive: Mapping[str, Any] | None = None  # learned state of an adaptive schedule
    pushed_until: datetime | None = None
    pushed: Reason | None = None
    refusals: int = 0
    skipped: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain data for the store, with instants in microseconds since 1970. `from_json` is the inverse and ignores
        unknown keys.
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
