"""What authors of plugins import: four kinds, each a class to derive from, and the values that they are given.

A plugin is a class that an installed package names as an entry point:

    [project.entry-points."repeater.schedules"]
    sun = "my_package:Sun"

It runs in a process of its own, never in the one that runs the jobs: one that raises, hangs or crashes is named in a
message and does no further harm. For each set of keys that a job file gives there is one instance.
`docs/reference/plugins.md` says what is promised, `docs/how-to/write-a-plugin.md` leads through an example.

Only the standard library is used here. Everything else of repeater may change at any time; what this module offers
changes with the major version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

GROUPS = {
    "schedule": "repeater.schedules",
    "executor": "repeater.executors",
    "output": "repeater.outputs",
    "stop_condition": "repeater.stop_conditions",
}
"""The entry point group of each kind."""


class Plugin:
    """What all kinds have. `description` is one line for people; `version` is that of the package unless given;
    `schema` is a JSON schema (draft-07) of the plugin's keys in a job file, none by default.

    `keys` are the job's keys, already valid, with the `default`s of the schema. An `__init__` of your own may refuse
    them with a ValueError, which the user sees with the place in the file; it must do nothing else, for it is also
    called when a file is only checked.
    """

    description: ClassVar[str] = ""
    version: ClassVar[str] = ""
    schema: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys


@dataclass(frozen=True, slots=True)
class Track:
    """What a schedule may know. Every instant is in UTC.

    `anchor` is when the job came into force; `after` is the instant after which the next start is wanted, exclusive:
    the last one that was decided; None when there was none, then `anchor` itself may be one. `last_end` is the end of
    the last run, None before the first; `runs` counts the runs, `failures_in_row` the failures since the last success.
    """

    job: str
    anchor: datetime
    after: datetime | None
    last_end: datetime | None
    runs: int
    failures_in_row: int


class Schedule(Plugin):
    """When next? A pure function: the same track gives the same answer, now, in a forecast and in a simulation.

    With `waits_for_end` the next start counts from the end of the run before, and is not asked for while one is live.
    """

    waits_for_end: ClassVar[bool] = False

    def next(self, track: Track) -> datetime | None:
        """The first start strictly after `track.after`, with a time zone. None when there is no further one."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Task:
    """A run for an executor. `command` is the job's: text, a list, or None; `stdin` is what it would read.

    `os.environ` and the working folder are the job's too, and so are its limits, user and group.
    """

    job: str
    run: str
    attempt: int
    nominal: datetime
    due: datetime
    trigger: str
    command: str | list[str] | None
    stdin: str


class Executor(Plugin):
    """Runs a run in its own way. Each run is a process of its own, so it may take its time and use what it likes.

    What is printed is the output of the run. The job's `timeout` and `rpr stop` end it with SIGTERM, which raises
    SystemExit here so that `finally` blocks are carried out, and with SIGKILL if it does not end in time.
    """

    def run(self, task: Task) -> int | None:
        """The exit code, 0 to 124; None is 0. An exception is a failure of the plugin: exit code 125."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Run:
    """A run for an output: `job` and the run's id."""

    job: str
    run: str


class Output(Plugin):
    """Gets what jobs print, or what became of their slots, or both. Override what is of interest; no more is sent.

    Calls come one after the other and never while the job waits: if the plugin is too slow, a part is left out and a
    warning says how much.
    """

    def begin(self, run: Run) -> None:
        """A run is about to start."""

    def chunk(self, run: Run, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Bytes that it printed, in the order in which they came; not lines."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A slot was decided: the ten keys of `rpr history --json`, `outcome`, `trigger` and `generation`."""

    def close(self) -> None:
        """No job uses this any more, or the supervisor leaves."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a stop condition judges. Counters are of runs, not of attempts or skipped slots; `streak` counts outcomes in
    a row, failures as negative numbers; `last` is the last slot that was decided, with the ten keys of
    `rpr history --json`.
    """

    job: str
    now: datetime
    elapsed_seconds: float
    runs: int
    successes: int
    failures: int
    streak: int
    first_start: datetime | None
    last_start: datetime | None
    last_end: datetime | None
    last_success: datetime | None
    last: Mapping[str, Any] | None


class StopCondition(Plugin):
    """Is the job done? Asked after every decided slot; a pure function of what it is told."""

    def met(self, tally: Tally) -> str | None:
        """Why the job is done, in a few words; None when it is not."""
        raise NotImplementedError


KINDS: Mapping[str, type[Plugin]] = {
    "schedule": Schedule,
    "executor": Executor,
    "output": Output,
    "stop_condition": StopCondition,
}

__all__ = [
    "Executor",
    "Output",
    "Plugin",
    "Run",
    "Schedule",
    "StopCondition",
    "Tally",
    "Task",
    "Track",
]
