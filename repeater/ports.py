"""The ports of the engine: one protocol for each kind of IO, and the plain values that are passed through them.

Adapters implement the ports; `tests/fakes` has implementations in memory. Both pass the same contract tests in
`tests/contract`. This module has no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import Fact, RunEnded, RunExited, RunLost, RunStarted, SpawnFailed, SurvivingRun
from repeater.errors import RepeaterError
from repeater.model.reasons import Reason
from repeater.model.run import LimitedStart, Progress, RunKind, SlotRecord
from repeater.model.spec import JobSpec, Probe, ProcessSpec
from repeater.model.time import Instant
from repeater.model.units import Rate

if TYPE_CHECKING:
    from repeater.schedule.load_aware import LoadReadings

EmitFact: TypeAlias = Callable[[Fact], None]
"""Passes a fact to the supervisor. Must be called in the loop's thread."""


class TimerHandle(Protocol):
    """A pending call, like `asyncio.TimerHandle`."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """The part of an event loop that adapters use. asyncio and `system.loops.minimal` implement it."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """`delay` in seconds."""
        ...

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None: ...

    def remove_reader(self, fd: int) -> object: ...


class Clock(Protocol):
    """The wall clock and the monotonic clock. `now` reads both.

    `call_after` calls once, after `microseconds`, in the loop's thread.
    """

    def now(self) -> Instant: ...

    def suspended_us(self) -> int:
        """Microseconds for which this machine was suspended since boot; 0 if the system does not provide this."""
        ...

    def boot(self) -> str:
        """The id of this boot of the machine. Monotonic readings of two processes are comparable if their boot ids
        are equal. Empty if it is not known.
        """
        ...

    def call_after(self, microseconds: int, call: Callable[[], None]) -> TimerHandle: ...

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call `call` after the current callback has returned."""
        ...


Users: TypeAlias = Callable[[str], Mapping[str, str]]
"""Returns the environment variables of a user, by name or number; empty for an unknown user."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A process to start. Templates are rendered and defaults are filled in.

    Its environment is `base`, overridden by `env`. Several launches share one `base` object, which is never changed.
    `stdin` is the content of standard input; empty means immediate end of file. The process leads a new session. The
    engine decides when to stop it; the shim enforces `timeout`, `stop_signal` and `stop_timeout` while no supervisor
    is connected. `is_service`: the run is long, so its start may be slower. The facts about the process repeat `kind`.
    """

    run: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    stdin: bytes = b""
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    nice: int = 0
    rlimits: tuple[tuple[str, tuple[int, int]], ...] = ()
    attempt: int = 1
    timeout: timedelta | None = None
    stop_signal: str = "TERM"
    stop_timeout: timedelta = timedelta(seconds=10)
    is_service: bool = False
    base: Mapping[str, str] = field(default_factory=dict)
    kind: RunKind = "run"


Stream: TypeAlias = Literal["stdout", "stderr"]


class RunSink(Protocol):
    """Receives the output of a run, each stream in the order written."""

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        """Handle a chunk. False: the reader must pause this run until `resume_reading` is called."""
        ...

    def finish(self, run: str) -> frozenset[str]:
        """The patterns found in the whole output of the run. Called once, when the run ends or cannot be started."""
        ...


class Spawner(Protocol):
    """Starts and stops processes. Starting never blocks the loop.

    The facts of a run are emitted through an `EmitFact`, an argument of the constructor. After RunEnded no process of
    the run that the adapter can find is running, and `RunSink.write` is not called for the run again.
    """

    def start(self, launch: LaunchRequest) -> None: ...

    def signal(self, run: str, signal: str) -> None:
        """Send the signal, then CONT, to every process of the session. Unknown or ended runs are ignored."""
        ...

    def kill_tree(self, run: str) -> None:
        """Kill all processes of the run and close its output. RunEnded follows."""
        ...

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        """The runs of an earlier client that continue. Each must be passed to `adopt` or `kill_unclaimed`."""
        ...

    def adopt(self, run: str) -> None:
        """Manage a surviving run like an own run that was started. RunStarted is not emitted."""
        ...

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        """Kill and drop surviving runs, without facts. Returns when their processes have exited."""
        ...

    def acknowledge(self, runs: Iterable[str]) -> None:
        """The ends of these runs are in the history, so the spawner may delete its own records of them."""
        ...

    def resume_reading(self, run: str) -> None:
        """Continue reading a run that `RunSink.write` paused."""
        ...

    @property
    def trouble(self) -> Reason | None:
        """Why processes can currently be neither started nor stopped; None if they can."""
        ...

    def force(self) -> None:
        """From now on, kill the shim with SIGKILL if it does not answer."""
        ...

    def close(self) -> None:
        """Kill all remaining processes and release all resources. Emits no more facts."""
        ...


@dataclass(frozen=True, slots=True)
class StoredState:
    """The content of a store when it is opened: the last generation, the progress of each job, unfinished records."""

    generation: int = 0
    progress: Mapping[str, Progress] = field(default_factory=dict)
    open_rows: tuple[SlotRecord, ...] = ()


class Store(Protocol):
    """Stores records and progress. Writes return immediately and are committed in groups, in the order of the calls.

    `then` is called in the loop's thread: with None once the write is durable, or with the error if it failed. A write
    that was reported as durable survives `kill -9` of this process.
    """

    def load(self) -> StoredState: ...

    def begin(self, generation: int, document: str = "", extras: str = "") -> None:
        """Record a new active generation. `document` is its jobs as text. `extras` has the other parts that a later
        plan compares: pools, limits, and marks of env-file contents.
        """
        ...

    def claim(
        self,
        row: SlotRecord,
        progress: Progress,
        then: Callable[[Exception | None], None],
        command: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Insert the record of a new attempt. Fails if (job, nominal, attempt) was ever claimed.

        `command` returns the text of the command for the record. A store that keeps no records does not call it.
        """
        ...

    def set_command(self, row: SlotRecord, command: str | None) -> None:
        """Store the command of a claimed attempt after its run templates are rendered."""
        ...

    def started(self, row: SlotRecord, pid: int) -> None: ...

    def record(self, row: SlotRecord, progress: Progress) -> None:
        """Insert or close the record of (job, nominal, attempts), and store the progress, in one transaction.

        A record without an attempt does not replace one with attempts. So runs stay in the history if the clock is set
        back and the slot becomes due again.
        """
        ...

    def keep_start(self, start: LimitedStart) -> None:
        """Store the start of an attempt that a limit counts. Replaces the stored start of the same run.

        It is kept for at least `start.window`, even if the records of the job are deleted earlier.
        """
        ...

    def drop_start(self, run: str) -> None:
        """Delete the stored start of this run, because its attempt did not start."""
        ...

    def starts(
        self, jobs: Sequence[str], limits: Sequence[str], window: timedelta, now: Instant, boot: str
    ) -> list[LimitedStart]:
        """The starts of these jobs and under these limits, less than `window` before `now`, including retries.

        Starts of the boot `boot` are compared by the monotonic clock, others by the wall clock. A claimed attempt whose
        start is not known is always included. For runs that no limit counted, start times come from the history; a
        retry then counts as started when it ended.
        """
        ...

    def save(self, progress: Progress) -> None: ...

    def clock_set(self, before: datetime, after: datetime) -> None:
        """Record that the wall clock was set from `before` to `after`. The age of a record depends on such changes."""
        ...

    def move(self, old: str, new: str) -> None:
        """Assign the records and progress of job `old` to job `new`."""
        ...

    def forget(self, jobs: Iterable[str]) -> None:
        """Drop the progress of jobs that were removed long ago."""
        ...

    def find_records(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[SlotRecord]:
        """Records, newest first, one for each slot.

        Only records with a nominal time in `[since, until)` and, if `outcomes` is not empty, with a listed outcome.
        """
        ...

    def recent_durations(self) -> Mapping[str, float]:
        """Median duration in seconds of the last runs of each job, for simulation."""
        ...

    def flush(self) -> None:
        """Return when all earlier writes are durable."""
        ...

    def close(self) -> None: ...


class Watcher(Protocol):
    """Reports changes of files in the loop's thread, through the callback `changed(key, paths)`.

    Reports are hints: a change may be reported twice or together with others, so the receiver reads the files again
    and compares. A change that the system does not report is found by slow polling.
    """

    def watch(self, key: str, folder: str, globs: Sequence[str], ignore: Sequence[str] = ()) -> None:
        """Report files under `folder` that match (`policy.paths`). Replaces what `key` watched."""
        ...

    def watch_files(self, key: str, paths: Sequence[str]) -> None:
        """Report these files when their content changes, also through symbolic links.

        Creation and deletion are changes. Replaces what `key` watched.
        """
        ...

    def unwatch(self, key: str) -> None: ...

    def close(self) -> None: ...


class Prober(Protocol):
    """Runs probes. Each result is reported once, as ProbeReported, within the timeout of the probe."""

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None: ...

    def on_run_fact(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        """Handle a fact about a run of kind `probe`. Only the prober knows these runs."""
        ...

    def close(self) -> None: ...


class RunTemplateRenderer(Protocol):
    """Renders run templates outside of the loop, with a time limit."""

    def render(
        self, process: ProcessSpec, run: Mapping[str, Any], then: Callable[[ProcessSpec | RepeaterError], None]
    ) -> None:
        """Call `then` once, later, in the loop's thread, with the rendered process or with an error.

        `run` has the fields `template.RUN_FIELDS`.
        """
        ...

    def close(self) -> None: ...


class LoadProbe(Protocol):
    """Reads the load of the machine. Never blocks. Calls in short succession return the same readings."""

    def read(self) -> LoadReadings: ...


class SharedRateLimiter(Protocol):
    """Requests starts under shared limits from the rate-limit daemon. Never blocks.

    Each request is answered by SharedLimitGranted, possibly after SharedLimitQueued. If the daemon is unreachable,
    RateLimiterDown is emitted once for all pending requests, and RateLimiterUp when it is reachable again. Other
    calls have no answer and do not fail: messages are buffered until the daemon is back.
    """

    def request(self, ask: RequestSharedStart) -> None: ...

    def withdraw(self, ask: str) -> None:
        """Cancel the request with this id. It may have been granted meanwhile."""
        ...

    def report_start(self, limit: str, rate: Rate, reservation: str | None, *, started: bool) -> None:
        """Report that a granted attempt, or one without a reservation, has started now, or that it did not start."""
        ...

    def release(self, reservation: str) -> None: ...

    def push_back(self, limit: str, rate: Rate, delay: timedelta, reason: Reason) -> None: ...

    def close(self) -> None: ...
