"""`JobSpec` and its parts: what one job is, complete, frozen and hashable.

A spec is a job of a job file after expansion, checks and defaults: it has no templates, includes or missing values.
Two specs are equal exactly if the jobs behave the same, so a reload compares specs. Defaults are defined here and in
`schemas/jobs.schema.json`; a test compares both. Mappings are sorted tuples of pairs. `plan.diff` decides the effect of
a change on a running job; `model.dump` writes a spec back as job-file keys.
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
    """The process of a job. A string `command` is the last argument of `shell`; a tuple is argv, without a shell.

    `cwd` and `env_file` are absolute. `env` is the job's own and overrides `env_from_files`, the content of the env
    files. `stdin` is the text that the command reads; empty means immediate end of file. `late` lists the fields whose
    template uses only `run` and is rendered when the run starts: `command`, `command[1]`, `env.DAY`, `stdin`, `cwd`.
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
    secrets: tuple[str, ...] = ()  # environment variables whose values must not appear in logs, status or history
    late: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Termination:
    """How a run is stopped. `timeout` None: no limit."""

    timeout: timedelta | None = None
    stop_signal: str = "TERM"
    stop_timeout: timedelta = timedelta(seconds=10)
    drain_timeout: timedelta = timedelta(seconds=2)


# --- when -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Jitter:
    """A delay added to each nominal time: at most `span`, or at most `share` of the distance to the next time.

    `stable` is the same for every slot of a job (a hash of its name); `random` is chosen for each slot.
    """

    span: timedelta | None = None
    share: Fraction | None = None
    mode: Literal["stable", "random"] = "stable"


@dataclass(frozen=True, slots=True)
class Once:
    """One slot at every start of a supervisor."""


@dataclass(frozen=True, slots=True)
class OnceEver:
    """One run in total, even if it fails; none at later starts."""


@dataclass(frozen=True, slots=True)
class Manual:
    """No scheduled slots; runs on request, or after a needed job whose edge has `trigger`."""


@dataclass(frozen=True, slots=True)
class Always:
    """A service: kept running."""


LEAST_DISTANCE = timedelta(milliseconds=1)
"""The minimum distance of two slots, except that a run may follow the end of the previous one immediately."""


@dataclass(frozen=True, slots=True)
class Every:
    """A grid of instants with distance `every`. With `after_end` the distance counts from the last end and can be zero.

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
    """A slot when a matching file changes, `debounce` after the last of a burst of changes."""

    globs: tuple[str, ...]
    ignore: tuple[str, ...] = ()
    debounce: timedelta = timedelta(milliseconds=200)


BackoffKind: TypeAlias = Literal["fixed", "linear", "exponential", "fibonacci", "polynomial", "decorrelated-jitter"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay that grows with the number of the attempt. `schedule.backoff` has the formulas and the fields of each
    kind. `jitter` shortens it at random: `full` down to zero, `equal` down to a half.
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
"""The default multiplier of `decorrelated-jitter`; the other kinds use the default of `Backoff`."""


@dataclass(frozen=True, slots=True)
class Growing:
    """Each slot follows the end of the previous run after the next delay of `backoff`; the first is immediate."""

    backoff: Backoff


def _retry_growth(count: int) -> Fraction:
    from fractions import Fraction  # 1.3 ms, and few commands need it

    return Fraction(count, 10)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Each slot follows the end of the previous run after an interval between `min` and `max`, which depends on the
    latency and success of the runs. `schedule.adaptive` has the formulas.

    The thresholds are multiples of `target_latency`, which is learned from the runs if it is None. `failure_threshold`
    is the share of failures, above 0 and at most 1, that opens the circuit breaker.
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
    """Each slot follows the end of the previous run after an interval between `min` and `max`, which depends on the
    load of the machine.

    Above the shares `cpu` and `memory`, and above the load average `load` per CPU, the machine counts as busy.
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
    """Runs follow each other without a gap, as often as the rate allows in any window.

    A start reserves retries at the offsets of `retry_pattern`, which begins with 0; empty: no retries.
    """

    rate: Rate
    retry_pattern: tuple[timedelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Plugin:
    """A use of a plugin: its name, and the job's keys for it as canonical JSON."""

    name: str
    keys: str = "{}"

    @classmethod
    def of(cls, name: str, keys: Mapping[str, Any]) -> Plugin:
        """Raises ValueError for keys that cannot be written as JSON."""
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
    """When the job is done: any of these conditions, or all given ones if `all`. Decided runs are counted.

    `on_exit`: after a run that exits with one of these codes. `except_exit`: after a failure with any other code.
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
    """Further attempts of a failed run in the same slot. `attempts` includes the first one.

    `on_exit` None: retry after any failure, except if another attempt cannot help (`policy.retry`). Else retry only
    after these exit codes.
    """

    attempts: int = 1
    backoff: Backoff = Backoff()
    on_exit: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Slowdown:
    """After k consecutive failures the next start waits at least `backoff(k)` from the end of the last run."""

    backoff: Backoff = Backoff()
    on_exit: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """Criteria of success. A failure pattern overrides a success pattern, which overrides the exit code."""

    exit_codes: tuple[int, ...] = (0,)
    pattern: str | None = None
    failure_pattern: str | None = None
    ignore_case: bool = False
    stderr: bool = False


@dataclass(frozen=True, slots=True)
class HttpAware:
    """Whether HTTP back-pressure in a run's output delays the next start, and the maximum delay.

    `fields` are further JSON fields with a delay, by name or dotted path, with a unit after a colon if the name does
    not end in one. `json_on_success`: JSON in successful responses also counts. `trust_client`: hints in 4xx responses
    such as 400, 401 and 404 also count; `policy.http_aware` has the list. A refusal without a hint delays by
    `min_delay`, or one second if that is zero, and longer after each further refusal.
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
    """How a slot is handled that is due during a run. `most` is `queue_max` or `max_instances`."""

    kind: OverlapKind = "skip"
    queue_max: int | None = None
    max_instances: int | None = None


_SKIP, _LATEST = Overlap(), Overlap("latest")


def default_overlap(schedule: ScheduleSpec) -> Overlap:
    """The default overlap: file changes during a run start one more run; other slots are skipped."""
    return _LATEST if type(schedule) is OnChange else _SKIP


@dataclass(frozen=True, slots=True)
class CatchUp:
    """How slots missed during downtime, suspension or a block are handled. `start_deadline` counts from due."""

    kind: Literal["skip", "latest", "earliest", "all"] = "skip"
    window: timedelta = timedelta(hours=24)
    most: int = 100
    start_deadline: timedelta | None = None


Condition: TypeAlias = Literal["started", "healthy", "completed", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class Need:
    """One dependency on another job. `within` None: no limit. The name of a matrix job means all of its cells."""

    job: str
    condition: Condition
    within: timedelta | Literal["same_slot", "ever"] = "ever"
    trigger: bool = False
    required: bool = True
    hold: bool = False  # the job file calls it `while`
    timeout: timedelta | None = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness or liveness probe of a service: exactly one of `http`, `tcp`, `exec`, `log`."""

    http: str | None = None
    tcp: str | None = None
    exec: str | tuple[str, ...] | None = None
    log: str | None = None
    every: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Keep:
    """Which outputs of a job are kept on disk: those of the last `runs`, and of failed runs for the time `failures`.
    Of each output at most `size` bytes are kept: its beginning and its end.
    """

    runs: int = 20
    failures: timedelta = timedelta(days=7)
    size: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """Destinations of a run's output. `file` is absolute. `capture` is the number of bytes at the end that are kept in
    memory; `keep` is the retention on disk, None: nothing. `plugins` also receive the output.
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
    """Commands that run after a decided slot, with the facts about the run as RPR_* in their environment.

    A hook that runs longer than `timeout` is killed; None: no limit.
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

    `executor` None runs `process` on this machine; an executor plugin can run it in another way.
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
    moved_from: str | tuple[str, ...] | None = None  # of several old names, the first one with stored state applies

    @property
    def is_service(self) -> bool:
        return type(self.schedule) is Always


def former_names(spec: JobSpec) -> tuple[str, ...]:
    """The names in `moved_from`."""
    moved = spec.moved_from
    return () if moved is None else (moved,) if isinstance(moved, str) else moved


def cell_key(name: str) -> str:
    """The identity of a job name: for a matrix cell it does not depend on the order of the axes."""
    if name[-1:] != "]" or "," not in name:
        return name
    group, _, rest = name[:-1].partition("[")
    return f"{group}[{','.join(sorted(rest.split(',')))}]"


@dataclass(frozen=True, slots=True)
class Pool:
    """At most `slots` concurrent runs of all jobs that use this pool."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class Limit:
    """Maximum number of starts in any window, for all jobs that use this limit. `shared`: for all processes of this
    machine; the rate-limit daemon knows the limit by the same name. `fail`: while the daemon does not answer, `open`
    enforces the limit locally and `closed` starts nothing.
    """

    name: str
    rate: Rate
    shared: bool = False
    fail: Literal["open", "closed"] = "open"


@dataclass(frozen=True, slots=True)
class JobFile:
    """A complete job file: input of `plan` and `engine`. `jobs` are in the order of the file."""

    project: str
    jobs: tuple[JobSpec, ...] = ()
    pools: tuple[Pool, ...] = ()
    limits: tuple[Limit, ...] = ()

    def job(self, name: str) -> JobSpec | None:
        return next((job for job in self.jobs if job.name == name), None)
