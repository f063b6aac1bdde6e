"""Prometheus metrics: counts events, and samples the engine at each scrape. Has its own registry of prometheus-client.

Names, units and labels are a stable interface for dashboards, listed in docs/how-to/monitor.md. Labels are bounded:
after `MAX_JOBS` jobs the others share the label `_other`, which is not a valid name of a job. The series of a removed
job are removed too. Events arrive in the loop's thread; `expose` may be called in another one.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Protocol, TypeAlias, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from repeater import __version__
from repeater.engine.job import Job
from repeater.model.events import (
    Event,
    FaultContained,
    GenerationApplied,
    JobRemoved,
    ReloadRecovered,
    ReloadRejected,
    RunBegan,
    RunFinished,
    SlotDecided,
    SpawnRejected,
)
from repeater.model.run import Outcome, SlotRecord
from repeater.sentences.spawn import SENTENCES

MAX_JOBS = 1000
MAX_LIMITS = 200
OTHER = "_other"
_AT_ONCE = 200
_OUTCOMES: tuple[str, ...] = get_args(Outcome)
_LENGTHS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600)
_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60)
_RAN = ("succeeded", "failed", "spawn_failed")


values.ValueClass = values.MutexValue  # PROMETHEUS_MULTIPROC_DIR, if set, is for the jobs
disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series per counter, without use here


class ResourceUsage(Protocol):
    """The current use of limits and pools."""

    def __call__(self) -> Iterable[tuple[str, str, int, int]]:
        """`limit` or `pool`, its name, its use, its size."""
        ...


class Metrics:
    """`clock` returns seconds, for the duration of runs."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: set[str] = set()
        self._began: dict[str, tuple[str, float]] = {}
        self._orphans: set[str] = set()
        self._codes: dict[str, set[str]] = {}  # of slots without a run, by label of a job
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._runs = Counter(
            "repeater_runs", "Runs that ended, by job and outcome; each attempt counts as one run.", ["job", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._length = Histogram(
            "repeater_run_duration_seconds", "Duration of runs.", ["job"], buckets=_LENGTHS, registry=registry
        )
        self._late = Histogram(
            "repeater_run_lateness_seconds", "Delay between the due time and the start of runs.", buckets=_DELAYS,
            registry=registry,
        )  # fmt: skip
        self._skipped = Counter(
            "repeater_slots_skipped", "Slots that did not run, by job and reason.", ["job", "reason"],
            registry=registry,
        )  # fmt: skip
        self._unstarted = Counter(
            "repeater_spawn_failures", "Processes that could not be started, by reason.", ["reason"], registry=registry
        )
        for code in SENTENCES:  # `increase` needs the series to exist before its first failure
            self._unstarted.labels(code)
        self._reloads = Counter(
            "repeater_config_reloads", "Job files that were applied or rejected.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("accepted", "rejected"):
            self._reloads.labels(result)
        self._faults = Counter(
            "repeater_faults", "Internal errors that were contained; the log has the details.", ["owner"],
            registry=registry,
        )  # fmt: skip
        self._reload_ok = Gauge(
            "repeater_config_last_reload_successful", "1 if the current job files are active, 0 if they were rejected.",
            registry=registry,
        )  # fmt: skip
        self._reload_at = Gauge(
            "repeater_config_last_reload_success_timestamp_seconds", "Time when job files were last applied.",
            registry=registry,
        )  # fmt: skip
        self._generation = Gauge(
            "repeater_config_generation", "The active generation of the job files.", registry=registry
        )
        Gauge("repeater_build_info", "1, with the version of repeater.", ["version"], registry=registry).labels(
            __version__
        ).set(1)
        self._look = _Collector()
        registry.register(self._look)
        ProcessCollector(registry=registry)

    def __call__(self, event: Event) -> None:
        match event:
            case RunBegan(run, _, late):
                self._began[run.id] = (run.slot.job, self._clock())
                self._late.observe(max(0.0, late))
            case RunFinished(run, verdict):
                self._ended(run.id, run.slot.job, "success" if verdict.success else "failed")
            case SlotDecided(row, count):
                self._decided(row, count)
            case GenerationApplied(generation):
                self._generation.set(generation)
                self._reload_ok.set(1)
                self._reload_at.set(time.time())
                self._reloads.labels("accepted").inc()
            case ReloadRecovered():
                self._reload_ok.set(1)
            case ReloadRejected():
                self._reload_ok.set(0)
                self._reloads.labels("rejected").inc()
            case JobRemoved(job):
                self._forget(job)
            case FaultContained(owner):
                self._faults.labels(owner).inc()
            case SpawnRejected(_, reason):
                self._unstarted.labels(reason.code).inc()
            case _:
                pass

    def attach(self, use: ResourceUsage) -> None:
        """Use `use` for the metrics of limits and pools."""
        self._look.use = use

    def sample(self, jobs: Mapping[str, Job]) -> Iterator[None]:
        """Sample the active jobs in parts, so that the loop can run in between. Call it before `expose`."""
        active = list(jobs.items())
        self._look.begin()
        for first in range(0, len(active), _AT_ONCE):
            for _, job in active[first : first + _AT_ONCE]:
                self._look.see(job)
            yield
        for name in self._known.difference(name for name, _ in active):
            self._forget(name)

    def expose(self) -> bytes:
        """All metrics in the text format. Not for concurrent callers."""
        return generate_latest(self._registry)

    def label(self, job: str) -> str:
        """The label of a job: its name, or `_other` beyond the bound."""
        if job in self._known:
            return job
        if len(self._known) >= MAX_JOBS:
            return OTHER
        self._known.add(job)
        return job

    def _decided(self, row: SlotRecord, count: int) -> None:
        if row.attempts == 0:
            if row.state not in _RAN and row.reason is not None:
                label = self.label(row.job)
                self._codes.setdefault(label, set()).add(row.reason.code)
                self._skipped.labels(label, row.reason.code).inc(count)
        elif row.state not in _RAN and row.run is not None:
            self._ended(row.run, row.job, row.outcome)  # cancelled, replaced, interrupted: there is no other event

    def _ended(self, run: str, job: str, outcome: str) -> None:
        _, began = self._began.pop(run, (job, None))
        if run in self._orphans:
            self._orphans.discard(run)
            return
        label = self.label(job)
        self._runs.labels(label, outcome).inc()
        if began is not None:
            self._length.labels(label).observe(self._clock() - began)

    def _forget(self, job: str) -> None:
        self._orphans.update(run for run, (of, _) in self._began.items() if of == job)
        if job in self._known:
            self._known.discard(job)
            for metric, seconds in ((self._runs, _OUTCOMES), (self._skipped, self._codes.pop(job, ()))):
                for second in seconds:
                    _remove(metric, job, second)
            _remove(self._length, job)


def _remove(metric: Counter | Histogram, *labels: str) -> None:
    with contextlib.suppress(KeyError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about several processes
        metric.remove(*labels)


_Seen: TypeAlias = tuple[str, tuple[float | None, ...]]
"""The name of a job, and its values in the order of `_OF_JOBS`. None: no sample."""
_OF_JOBS: tuple[tuple[type[GaugeMetricFamily | CounterMetricFamily], str, str], ...] = (
    (GaugeMetricFamily, "repeater_job_runs_live", "Live runs of a job."),
    (GaugeMetricFamily, "repeater_job_consecutive_failures", "Consecutive failures of a job."),
    (CounterMetricFamily, "repeater_slots_planned", "Slots that became due: run, skipped or queued."),
    (GaugeMetricFamily, "repeater_job_next_start_timestamp_seconds", "Time of the next start of a job."),
    (GaugeMetricFamily, "repeater_job_last_success_timestamp_seconds", "Time of the last success of a job."),
    (GaugeMetricFamily, "repeater_job_interval_seconds", "The current interval of a job."),
    (GaugeMetricFamily, "repeater_job_average_interval_seconds", "The average time from start to start of a job."),
)


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


class _Collector(Collector):
    """Samples of the current jobs: call `begin`, then `see` for each job, then `collect`."""

    def __init__(self) -> None:
        self.use: ResourceUsage | None = None
        self._jobs: list[_Seen] = []
        self._rest = self._count = 0
        self._used: list[tuple[str, str, int, int]] = []

    def begin(self) -> None:
        self._jobs = []
        self._rest = self._count = 0
        self._used = [] if self.use is None else list(self.use())[:MAX_LIMITS]

    def see(self, job: Job) -> None:
        """Sample one job. After `MAX_JOBS` jobs only the sum of live runs is counted."""
        running = sum(slot.attempt is not None and slot.attempt.started is not None for slot in job.open)
        self._count += 1
        if len(self._jobs) >= MAX_JOBS:
            self._rest += running
            return
        progress = job.progress
        values = (
            running,
            max(0, -progress.streak),
            job.planned,
            job.next.due.timestamp() if job.next is not None else None,
            progress.last_success.timestamp() if progress.last_success is not None else None,
            _seconds(job.interval),
            _seconds(job.starts.average),
        )
        self._jobs.append((job.spec.name, values))

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("repeater_jobs", "Active jobs.", self._count)
        families = [family(name, help_text, labels=["job"]) for family, name, help_text in _OF_JOBS]
        for name, found in self._jobs:
            for family, value in zip(families, found, strict=True):
                if value is not None:
                    family.add_metric([name], value)
        if self._count > len(self._jobs):
            families[0].add_metric([OTHER], self._rest)
        yield from families
        for kind, used_help, size_help in (
            ("limit", "Starts in the current window of a limit.", "Maximum number of starts in a window of a limit."),
            ("pool", "Current runs in a pool.", "Maximum number of concurrent runs in a pool."),
        ):
            used = GaugeMetricFamily(f"repeater_{kind}_used", used_help, labels=[kind])
            size = GaugeMetricFamily(f"repeater_{kind}_size", size_help, labels=[kind])
            for resource_kind, name, count, limit in self._used:
                if resource_kind == kind:
                    used.add_metric([name], count)
                    size.add_metric([name], limit)
            yield from (used, size)
