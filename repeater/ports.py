"""The seams between the decisions and the world: one protocol for each, and the plain values that cross them.

Adapters implement them for real, `tests/fakes` in memory; both pass the same contract tests in
`tests/contract`. Nothing here does anything.
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
"""Hands a fact to the supervisor. Only ever called in the thread of the loop."""


class TimerHandle(Protocol):
    """A pending call, as `asyncio.TimerHandle` is one."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """What adapters need of an event loop. asyncio's is one; `system.loops.minimal` another."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object: ...

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> TimerHandle:
        """`delay` in seconds."""
        ...

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None: ...

    def remove_reader(self, fd: int) -> object: ...


class Clock(Protocol):
    """The two clocks. `now` reads both at once.

    `call_after` calls once, `microseconds` later, in the loop's thread.
    """

    def now(self) -> Instant: ...

    def suspended_us(self) -> int:
        """Microseconds that this machine has been suspended since it was started, as far as it can tell."""
        ...

    def boot(self) -> str:
        """Names this boot of the machine and its monotonic clock: readings of two processes can be compared if it is
        the same. Empty where it is not known.
        """
        ...

    def call_after(self, microseconds: int, call: Callable[[], None]) -> TimerHandle: ...

    def call_soon(self, call: Callable[[], None]) -> None:
        """Calls after the current callback has returned."""
        ...


Users: TypeAlias = Callable[[str], Mapping[str, str]]
"""Gives the environment variables of a user, by name or number; none for an unknown one."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A process to start, ready for the operating system: no template, no default is left in it.

    Its environment is `base`, which it shares with other launches (the same object, never changed), and `env` over it.
    `stdin` is what it can read; empty means end of file at once. The process leads a new session. When to stop it is
    the engine's decision; `timeout` and what follows it are for whoever looks after the run while there is no engine.
    `is_service`: it is meant to live long, so its start may take its time. The facts about the process repeat `kind`.
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
    """Takes a run's output, in the order written in each stream."""

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        """Takes a chunk. False: the reader must pause this run until it is told to go on."""
        ...

    def finish(self, run: str) -> frozenset[str]:
        """The patterns found in the run's whole output. Called once, at its end or when it could not be started."""
        ...


class Spawner(Protocol):
    """Owns processes. Starting never blocks the loop.

    The facts of a run come through the `EmitFact` it was built with. After RunEnded nothing of the run is alive
    (as far as the level of the adapter sees) and `Sink.write` will not be called for it again.
    """

    def start(self, launch: LaunchRequest) -> None: ...

    def signal(self, run: str, signal: str) -> None:
        """To every process of the session, then CONT. Unknown or ended runs are ignored."""
        ...

    def kill_tree(self, run: str) -> None:
        """Kills whatever is left and closes the output; RunEnded follows."""
        ...

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        """The runs of an earlier client that somebody looked after. Each has to be adopted or disowned."""
        ...

    def adopt(self, run: str) -> None:
        """Go on with a survivor as with a run of our own, from RunStarted on, which is not told."""
        ...

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        """Kill survivors and forget them; nothing is told of them. Returns when they are dead."""
        ...

    def acknowledge(self, runs: Iterable[str]) -> None:
        """What became of these is on record, so it need not be remembered elsewhere any more."""
        ...

    def resume_reading(self, run: str) -> None:
        """Go on reading a run that `Sink.write` asked to pause."""
        ...

    @property
    def trouble(self) -> Reason | None:
        """Why processes can be neither started nor stopped now; None if they can."""
        ...

    def force(self) -> None:
        """From now on end by SIGKILL also what stands between us and the processes, if it does not answer."""
        ...

    def close(self) -> None:
        """Kills whatever still lives and frees everything. Tells nothing any more."""
        ...


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a store knows when it is opened: the last generation, every job's progress, unfinished rows."""

    generation: int = 0
    progress: Mapping[str, Progress] = field(default_factory=dict)
    open_rows: tuple[SlotRecord, ...] = ()


class Store(Protocol):
    """Keeps rows and progress. Writes return at once and are committed in groups, in the order asked for.

    `then` is called in the loop's thread once the write is durable, with None, or with the error that kept it
    from being so. What was reported as written survives `kill -9` of this process.
    """

    def load(self) -> StoredState: ...

    def begin(self, generation: int, document: str = "", extras: str = "") -> None:
        """A new generation is in force. `document` is its jobs as text and `extras` the rest of what can be compared
        later: pools, limits, and marks of env-file contents.
        """
        ...

    def claim(
        self,
        row: SlotRecord,
        progress: Progress,
        then: Callable[[Exception | None], None],
        command: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Insert the row of a new attempt; fails if (job, nominal, attempt) was ever claimed.

        `command` gives the text of the command for the row. A store that keeps no rows does not call it.
        """
        ...

    def set_command(self, row: SlotRecord, command: str | None) -> None:
        """The command of a claimed attempt, once its late texts are rendered."""
        ...

    def started(self, row: SlotRecord, pid: int) -> None: ...

    def record(self, row: SlotRecord, progress: Progress) -> None:
        """Insert or close the row of (job, nominal, attempts), and keep the progress, in one transaction.

        A row without an attempt does not take the place of one with: what ran stays on record, also when the clock was
        set back and the slot comes up again.
        """
        ...

    def keep_start(self, start: LimitedStart) -> None:
        """Keep the start of an attempt that a limit counts, in the place of what was kept for the same run.

        It stays for at least `start.window`, whatever becomes of the rows of the job.
        """
        ...

    def drop_start(self, run: str) -> None:
        """The attempt of this run did not start."""
        ...

    def starts(
        self, jobs: Sequence[str], limits: Sequence[str], window: timedelta, now: Instant, boot: str
    ) -> list[LimitedStart]:
        """The starts of these jobs, and those under these limits, less than `window` before `now`, retries too.

        Starts of the boot `boot` are compared by the monotonic clock, others by the wall clock. A claimed attempt whose
        start is not known is always among them. For runs that no limit counted, the rows of the history say when they
        started; a retry then counts as starting when it ended.
        """
        ...

    def save(self, progress: Progress) -> None: ...

    def clock_set(self, before: datetime, after: datetime) -> None:
        """The wall clock was set from `before` to `after`: the age of a row does not follow from its times alone."""
        ...

    def move(self, old: str, new: str) -> None:
        """Rows and progress of job `old` belong to `new`."""
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
        """The newest rows first, one for each slot.

        Only nominal times from `since` on and before `until`, and only these outcomes, if any are given.
        """
        ...

    def recent_durations(self) -> Mapping[str, float]:
        """Median seconds of the last runs of each job; for simulation."""
        ...

    def flush(self) -> None:
        """Returns when everything asked for so far is durable."""
        ...

    def close(self) -> None: ...


class Watcher(Protocol):
    """Tells when files change, through the `changed(key, paths)` it was built with, in the loop's thread.

    Hints only: one change may be told twice or with others, so whoever is told reads again and compares; none
    is left out for longer than the slow look that stands behind the system's own messages.
    """

    def watch(self, key: str, folder: str, globs: Sequence[str], ignore: Sequence[str] = ()) -> None:
        """Report files under `folder` that match (`policy.paths`). Replaces what `key` watched."""
        ...

    def watch_files(self, key: str, paths: Sequence[str]) -> None:
        """Report these files when what they lead to changes, also through symbolic links.

        Appearing and going are changes. Replaces what `key` watched.
        """
        ...

    def unwatch(self, key: str) -> None: ...

    def close(self) -> None: ...


class Prober(Protocol):
    """Asks probes. Each answer is told once, as ProbeReported, within the probe's timeout."""

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None: ...

    def on_run_fact(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        """A fact about a run of kind `probe`, which only the prober knows."""
        ...

    def close(self) -> None: ...


class RunTemplateRenderer(Protocol):
    """Renders late texts away from the loop, under a limit of time."""

    def render(
        self, process: ProcessSpec, run: Mapping[str, Any], then: Callable[[ProcessSpec | RepeaterError], None]
    ) -> None:
        """Calls `then` once, later, in the loop's thread, with the process without late texts, or why there is none.

        `run` has the fields `template.RUN_FIELDS`.
        """
        ...

    def close(self) -> None: ...


class LoadProbe(Protocol):
    """Reads how busy the machine is. Never blocks; asked too soon again, it gives the same readings."""

    def read(self) -> LoadReadings: ...


class SharedRateLimiter(Protocol):
    """Asks the rate-limit daemon for starts under shared limits. Never blocks.

    Each `ask` is answered by QuotaGranted, perhaps after QuotaWaits; or QuotaLost is told, once for all that was
    asked, and QuotaFound when the daemon is there again. Nothing else has an answer, and nothing fails: what cannot be
    told now is told when the daemon is back.
    """

    def request(self, ask: RequestSharedStart) -> None: ...

    def withdraw(self, ask: str) -> None:
        """The start asked for under this id is not wanted any more; it may have been granted meanwhile."""
        ...

    def report_start(self, limit: str, rate: Rate, reservation: str | None, *, started: bool) -> None:
        """A granted attempt, or one without a reservation, happened just now; or it came to nothing."""
        ...

    def release(self, reservation: str) -> None: ...

    def push_back(self, limit: str, rate: Rate, delay: timedelta, reason: Reason) -> None: ...

    def close(self) -> None: ...
