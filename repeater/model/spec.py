"""`JobSpec` and its parts: what one job is, complete, frozen and hashable.

A spec is what is left of a job file after everything was expanded, checked and given its defaults: no template, no
include, no missing value. Two specs are equal exactly when the jobs behave the same, so equality decides a reload.
Defaults stand here and in `schemas/jobs.schema.json`; a test keeps both equal. Mappings are sorted tuples of pairs.
Which change has which effect on a running job is `plan.diff`'s business, how a spec is written back as job-file keys is
`model.dump`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.units import Rate

if TYPE_CHECKING:
    from fractions import Fraction

Pairs: TypeAlias = tuple[tuple[str, str], ...]

# --- the process ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What is executed. A string `command` is given to `shell` as its last argument; a tuple is argv, no shell.

    `cwd` and `env_file` are absolute. `env` is the job's own (it wins), `env_from_files` what the `env_file`s held.
    `stdin` is the text that the command reads, empty for end of file at once. `late` names the fields that still hold
    a template over `run`, and over nothing else: `command`, `command[1]`, `env.DAY`, `stdin`, `cwd`.
    """

    command: str | tuple[str, ...]
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    cwd: str = ""
    env: Pairs = ()
    env_file: tuple[str, ...] = ()
    env_from_files: Pairs = field(default=(), repr=False)
    env_mode: Literal["inherit", "clean"] = "inherit"
    stdin: str = ""
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    nice: int = 0
    rlimits: tuple[tuple[str, tuple[int, int]], ...] = ()  # (name, (soft, hard)); -1 is unlimited
    secrets: tuple[str, ...] = ()  # names of environment values that no log, status or history may show
    late: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Termination:
    """How a run is brought to its end. `timeout` None means never."""

    timeout: timedelta | None = None
    stop_signal: str = "TERM"
    stop_timeout: timedelta = timedelta(seconds=10)
    drain_timeout: timedelta = timedelta(seconds=2)


# --- when -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Jitter:
    """A delay added to each nominal time, never early: at most `span`, or at most `share` of the distance to the next.

    `stable` is the same for every slot of a job (a hash of its name), `random` is drawn for every slot.
    """

    span: timedelta | None = None
    share: Fraction | None = None
    mode: Literal["stable", "random"] = "stable"


@dataclass(frozen=True, slots=True)
class Once:
    """One slot at every start of a supervisor."""


@dataclass(frozen=True, slots=True)
class OnceEver:
    """One run, whatever its outcome, and none at later starts."""


@dataclass(frozen=True, slots=True)
class Manual:
    """No slot of its own; runs when asked, or when an edge with `trigger` asks."""


@dataclass(frozen=True, slots=True)
class Always:
    """A service: kept running."""


LEAST_DISTANCE = timedelta(milliseconds=1)
"""No schedule has two slots closer than this, except that a run may follow the end of the one before at once."""


@dataclass(frozen=True, slots=True)
class Every:
    """A grid of instants `every` apart; with `after_end` the distance counts from the last end, and may be none.

    `immediate`: the first slot is the anchor itself, not one step later. `offset` shifts the grid (matrix stagger).
    """

    every: timedelta
    after_end: bool = False
    immediate: bool = True
    jitter: Jitter | None = None
    offset: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Cron:
    """crontab(5) in a time zone. `expression` is canonical: two texts for the same times give equal specs."""

    expression: str
    seconds: Literal["first", "last"] | None = None
    timezone: str = "UTC"
    day_match: Literal["or", "and"] = "or"
    gap: Literal["next", "shift", "skip"] = "next"
    fold: Literal["first", "second", "both", "skip"] = "first"
    jitter: Jitter | None = None


@dataclass(frozen=True, slots=True)
class At:
    """One slot at an instant."""

    at: datetime


@dataclass(frozen=True, slots=True)
class OnChange:
    """A slot when files that match change; `debounce` after the last of a burst of changes."""

    globs: tuple[str, ...]
    ignore: tuple[str, ...] = ()
    debounce: timedelta = timedelta(milliseconds=200)


BackoffKind: TypeAlias = Literal["fixed", "linear", "exponential", "fibonacci", "polynomial", "decorrelated-jitter"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay that grows with the number of the try, `schedule.backoff` has the formulas and which fields each kind
    uses. `jitter` shortens it at random: `full` down to zero, `equal` down to a half.
    """

    kind: BackoffKind = "exponential"
    base: timedelta = timedelta(seconds=1)
    max: timedelta = timedelta(seconds=60)
    increment: timedelta = timedelta(seconds=1)
    multiplier: float = 2.0
    exponent: float = 2.0
    jitter: Literal["none", "full", "equal"] = "none"


BACKOFF_FIELDS: dict[BackoffKind, frozenset[str]] = {
    "fixed": frozenset({"base", "jitter"}),
    "linear": frozenset({"base", "max", "increment", "jitter"}),
    "exponential": frozenset({"base", "max", "multiplier", "jitter"}),
    "fibonacci": frozenset({"base", "max", "jitter"}),
    "polynomial": frozenset({"base", "max", "exponent", "jitter"}),
    "decorrelated-jitter": frozenset({"base", "max", "multiplier"}),
}
"""The fields of `Backoff` that have an effect, for each kind."""

DECORRELATED_MULTIPLIER = 3.0
"""The default multiplier of `decorrelated-jitter`; the other kinds have that of `Backoff`."""


@dataclass(frozen=True, slots=True)
class Growing:
    """Each slot follows the end of the run before by the next delay of `backoff`; the first comes at once."""

    backoff: Backoff


def _retry_growth(count: int) -> Fraction:
    from fractions import Fraction  # 1.3 ms, which few commands need

    return Fraction(count, 10)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Each slot follows the end of the run before by an interval between `min` and `max` that the runs themselves
    decide: their latency and their success. `schedule.adaptive` has the formulas.

    The thresholds are multiples of `target_latency`, which is learnt from the runs if it is None; `failure_threshold`
    is the share of failures, above 0 and at most 1, that opens the circuit.
    """

    base: timedelta = timedelta(seconds=1)
    min: timedelta = timedelta(milliseconds=100)
    max: timedelta = timedelta(seconds=60)
    target_latency: timedelta | None = None
    slow_threshold: float = 2.0
    fast_threshold: float = 0.5
    failure_threshold: Fraction = field(default_factory=lambda: _retry_growth(3))


@dataclass(frozen=True, slots=True)
class LoadAware:
    """Each slot follows the end of the run before by an interval between `min` and `max` that the machine decides.

    `cpu` and `memory` are the shares up to which the machine counts as free, `load` is the load average for each CPU.
    `schedule.load_aware` has the formulas.
    """

    base: timedelta = timedelta(seconds=1)
    min: timedelta = timedelta(seconds=1)
    max: timedelta = timedelta(seconds=60)
    cpu: Fraction = field(default_factory=lambda: _retry_growth(7))
    memory: Fraction = field(default_factory=lambda: _retry_growth(8))
    load: float = 1.0


@dataclass(frozen=True, slots=True)
class RateLimited:
    """As often as the rate allows, in any window, and no more; runs follow each other without a gap while it does.

    A start reserves its further attempts at the offsets of `retry_pattern`, which begins with 0; empty: none.
    """

    rate: Rate
    retry_pattern: tuple[timedelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Plugin:
    """A use of a plugin: its name, and the job's own keys for it as JSON, in a canonical spelling."""

    name: str
    keys: str = "{}"

    @classmethod
    def of(cls, name: str, keys: Mapping[str, Any]) -> Plugin:
        """Raises ValueError for keys that JSON cannot hold."""
        import json

        return cls(name, json.dumps(keys, ensure_ascii=False, sort_keys=True, allow_nan=False))

    def table(self) -> dict[str, Any]:
        """The keys, as plain data."""
        import json

        table: dict[str, Any] = json.loads(self.keys)
        return table


ScheduleSpec: TypeAlias = (
    Once
    | OnceEver
    | Manual
    | Always
    | Every
    | Cron
    | At
    | OnChange
    | Growing
    | Adaptive
    | LoadAware
    | RateLimited
    | Plugin
)

# --- whether ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stop:
    """When the job is done: any of these, or all that are given if `all`. Counted are decided runs.

    `on_exit`: at a run that exits with one of these codes; `except_exit`: at a failure with another code than these.
    """

    times: int | None = None
    successes: int | None = None
    failures: int | None = None
    consecutive_failures: int | None = None
    for_: timedelta | None = None
    until: datetime | None = None
    on_success: bool = False
    on_failure: bool = False
    pattern: str | None = None
    all: bool = False
    plugins: tuple[Plugin, ...] = ()
    on_exit: tuple[int, ...] | None = None
    except_exit: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Further attempts of a failed run in the same slot. `attempts` counts the first one too.

    `on_exit` None retries after any failure, except where another attempt cannot help (`policy.retry`), else only after
    these exit codes.
    """

    attempts: int = 1
    backoff: Backoff = Backoff()
    on_exit: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Slowdown:
    """After k failures in a row the next start waits at least `backoff(k)`, counted from the end."""

    backoff: Backoff = Backoff()
    on_exit: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """What counts as success. A failure pattern beats a success pattern, which beats the exit code."""

    exit_codes: tuple[int, ...] = (0,)
    pattern: str | None = None
    failure_pattern: str | None = None
    ignore_case: bool = False
    stderr: bool = False


@dataclass(frozen=True, slots=True)
class HttpAware:
    """Whether a server's push-back that is found in a run's output holds the next start, and for how long at most.

    `fields` are further JSON fields that hold a delay, by name or dotted path, with a unit after a colon if the name
    does not end in one. `json_on_success`: JSON also counts in answers that did not refuse. `trust_client`: hints also
    count in answers that blame the request (400, 401, 404 ...), `policy.http_aware` has the list. A refusal without a
    hint holds by `min_delay`, or a second if that is zero, and longer each time.
    """

    max_delay: timedelta = timedelta(hours=1)
    min_delay: timedelta = timedelta(0)
    headers: bool = True
    json: bool = True
    json_on_success: bool = False
    fields: tuple[str, ...] = ()
    trust_client: bool = False


OverlapKind: TypeAlias = Literal["skip", "latest", "first", "queue", "replace", "allow"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What happens to a slot that is due while a run is live. `most` is `queue_max` or `max_instances`."""

    kind: OverlapKind = "skip"
    queue_max: int | None = None
    max_instances: int | None = None


_SKIP, _LATEST = Overlap(), Overlap("latest")


def default_overlap(schedule: ScheduleSpec) -> Overlap:
    """The overlap of a job that gives none: a change of files during a run starts one more run, other starts are
    skipped.
    """
    return _LATEST if type(schedule) is OnChange else _SKIP


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What happens to slots missed while down, asleep or held. `start_deadline` counts from due."""

    kind: Literal["skip", "latest", "earliest", "all"] = "skip"
    window: timedelta = timedelta(hours=24)
    most: int = 100
    start_deadline: timedelta | None = None


Condition: TypeAlias = Literal["started", "healthy", "completed", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class Need:
    """One edge to another job. `within` None means ever; the matrix cells of a job are named by the job's name."""

    job: str
    condition: Condition
    within: timedelta | Literal["same_slot", "ever"] = "ever"
    trigger: bool = False
    required: bool = True
    hold: bool = False  # the job file calls it `while`
    timeout: timedelta | None = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Probe:
    """How a service is asked whether it is ready or alive: exactly one of `http`, `tcp`, `exec`, `log`."""

    http: str | None = None
    tcp: str | None = None
    exec: str | tuple[str, ...] | None = None
    log: str | None = None
    every: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Keep:
    """Which outputs of a job stay on disk: those of the last `runs`, and those of failed runs for the time `failures`.
    Of each at most `size` bytes are kept, the beginning and the end.
    """

    runs: int = 20
    failures: timedelta = timedelta(days=7)
    size: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run's output goes. `file` is absolute. `capture` is how many bytes of the end are kept in memory, `keep`
    what is kept on disk; None: nothing. `plugins` get it too.
    """

    mode: Literal["stream", "aggregate", "suppress"] = "stream"
    file: str | None = None
    max_size: int = 10_000_000
    backups: int = 3
    timestamps: bool = False
    capture: int = 64 * 1024
    keep: Keep | None = Keep()
    plugins: tuple[Plugin, ...] = ()


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands run after a decided slot, with the run's facts as RPR_* in their environment.

    A hook that runs longer than `timeout` is killed; None: there is no limit.
    """

    on_success: str | tuple[str, ...] | None = None
    on_failure: str | tuple[str, ...] | None = None
    on_recovery: str | tuple[str, ...] | None = None
    on_skip: str | tuple[str, ...] | None = None
    timeout: timedelta | None = timedelta(minutes=1)


# --- the job ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job. `group` is the name in the file, `name` that of the matrix cell (`poll[region=eu]`) or the same.

    `executor` None runs `process` as a process of this machine; a plugin does with it what it likes.
    """

    name: str
    process: ProcessSpec
    schedule: ScheduleSpec = Once()
    group: str = ""
    cell: Pairs = ()
    max_parallel: int | None = None  # over all cells of the group
    description: str = ""
    labels: Pairs = ()
    enabled: bool = True
    stop: Stop = Stop()
    ending: Termination = Termination()
    retry: Retry = Retry()
    slowdown: Slowdown | None = None
    success: Success = Success()
    http_aware: HttpAware | None = None
    overlap: Overlap = Overlap()
    catch_up: CatchUp = CatchUp()
    delivery: Literal["at-most-once", "at-least-once"] = "at-most-once"
    limit: str | None = None
    pool: str | None = None
    needs: tuple[Need, ...] = ()
    restart: Literal["always", "on-failure", "never"] = "always"
    watch: tuple[str, ...] = ()
    watch_ignore: tuple[str, ...] = ()
    ready: Probe | None = None
    live: Probe | None = None
    output: Output = Output()
    hooks: Hooks = Hooks()
    executor: Plugin | None = None
    moved_from: str | tuple[str, ...] | None = None  # of several old names, the first one that has a state

    @property
    def is_service(self) -> bool:
        return type(self.schedule) is Always


def former_names(spec: JobSpec) -> tuple[str, ...]:
    """The names in `moved_from`."""
    moved = spec.moved_from
    return () if moved is None else (moved,) if isinstance(moved, str) else moved


def cell_key(name: str) -> str:
    """The identity of a job name: that of a cell does not depend on the order of its axes."""
    if name[-1:] != "]" or "," not in name:
        return name
    group, _, rest = name[:-1].partition("[")
    return f"{group}[{','.join(sorted(rest.split(',')))}]"


@dataclass(frozen=True, slots=True)
class Pool:
    """At most `slots` runs at once, over all jobs that name it."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many starts in any window, over all jobs that name it; `shared`: over all processes of this machine
    too, as a daemon knows it by the same name. `fail`: while the daemon does not answer, `open` limits the starts of
    this process alone, `closed` starts nothing.
    """

    name: str
    rate: Rate
    shared: bool = False
    fail: Literal["open", "closed"] = "open"


@dataclass(frozen=True, slots=True)
class JobFile:
    """A whole job file, built: what `plan` compares and `engine` runs. `jobs` are in the file's order."""

    project: str
    jobs: tuple[JobSpec, ...] = ()
    pools: tuple[Pool, ...] = ()
    limits: tuple[Limit, ...] = ()

    def job(self, name: str) -> JobSpec | None:
        return next((job for job in self.jobs if job.name == name), None)
