"""The interface for authors of plugins: a base class for each of four kinds, and the values that they get.

A plugin is a class that an installed package names as an entry point:

    [project.entry-points."repeater.schedules"]
    sun = "my_package:Sun"

It runs in a separate process, never in the supervisor. A plugin that raises, hangs or crashes causes a message and does
not affect other jobs. There is one instance for each set of keys in the job files. `docs/reference/plugins.md`
describes the interface, `docs/how-to/write-a-plugin.md` explains an example.

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
    """The base of all kinds. `description` is one line for users. `version` defaults to the version of the package.
    `schema` is a JSON schema (draft-07) of the plugin's keys in a job file; by default there are no keys.

    `keys` are the job's keys, already valid, with the `default`s of the schema. An `__init__` may refuse them with a
    ValueError, which is shown with its position in the file. It must have no side effects, because it is also called
    when a file is only validated.
    """

    description: ClassVar[str] = ""
    version: ClassVar[str] = ""
    schema: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys


@dataclass(frozen=True, slots=True)
class Track:
    """The input of a schedule. Every instant is in UTC.

    `anchor` is when the job became active. `after` is the last decided start; the next start must be later. It is None
    before the first start, which may be `anchor` itself. `last_end` is the end of the last run, None before the first.
    `runs` counts the runs, `failures_in_row` the failures since the last success.
    """

    job: str
    anchor: datetime
    after: datetime | None
    last_end: datetime | None
    runs: int
    failures_in_row: int


class Schedule(Plugin):
    """Computes the next start. A pure function: forecasts and simulations rely on equal results for equal tracks.

    With `waits_for_end` the next start counts from the end of the previous run, and is not requested during a run.
    """

    waits_for_end: ClassVar[bool] = False

    def next(self, track: Track) -> datetime | None:
        """The first start strictly after `track.after`, with a time zone. None when there is no further one."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Task:
    """A run for an executor. `command` is the job's command: text, a list, or None. `stdin` is its standard input.

    The process has the environment, working directory, limits, user and group of the job.
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
    """Carries out runs. Each run has a separate process, so it may block.

    Printed text is the output of the run. The job's `timeout` and `rpr stop` end it with SIGTERM, which raises
    SystemExit here so that `finally` blocks run, and with SIGKILL if it does not exit in time.
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
    """Receives the output of jobs, or the records of their slots, or both. Only overridden methods are called.

    Calls are sequential, and jobs never wait for them. If the plugin is too slow, items are dropped and a warning has
    their number.
    """

    def begin(self, run: Run) -> None:
        """A run is about to start."""

    def chunk(self, run: Run, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Bytes that the run printed, in order. They need not end at a line end."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A slot was decided: the ten keys of `rpr history --json`, `outcome`, `trigger` and `generation`."""

    def close(self) -> None:
        """No job uses this plugin any more, or the supervisor exits."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The input of a stop condition. Counters count runs, not attempts or skipped slots. `streak` counts consecutive
    equal outcomes, failures as negative numbers. `last` is the last decided slot, with the ten keys of
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
    """Decides after every decided slot whether the job is done. A pure function of its input."""

    def met(self, tally: Tally) -> str | None:
        """A short reason why the job is done, or None if it is not."""
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
