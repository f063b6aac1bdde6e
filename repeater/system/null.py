"""Null objects for ports that a one-off command does not need. They have no thread and no file, and import little."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import RunEnded, RunExited, RunLost, RunStarted, SpawnFailed
from repeater.model.reasons import Reason
from repeater.model.run import LimitedStart, Progress, SlotRecord
from repeater.model.spec import JobSpec, Probe
from repeater.model.time import Instant
from repeater.model.units import Rate
from repeater.ports import StoredState

if TYPE_CHECKING:
    from repeater.schedule.load_aware import LoadReadings


class NullStore:
    """`ports.Store` that stores nothing. A claim succeeds immediately, because there is no other process."""

    def load(self) -> StoredState:
        return StoredState()

    def begin(self, generation: int, document: str = "", extras: str = "") -> None:
        pass

    def claim(
        self,
        row: SlotRecord,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
        then: Callable[[Exception | None], None],
        command: Callable[[], str | None] = lambda: None,  # noqa: ARG002
    ) -> None:
        then(None)

    def set_command(self, row: SlotRecord, command: str | None) -> None:
        pass

    def started(self, row: SlotRecord, pid: int) -> None:
        pass

    def record(self, row: SlotRecord, progress: Progress) -> None:
        pass

    def keep_start(self, start: LimitedStart) -> None:
        pass

    def drop_start(self, run: str) -> None:
        pass

    def starts(
        self,
        jobs: Sequence[str],  # noqa: ARG002
        limits: Sequence[str],  # noqa: ARG002
        window: timedelta,  # noqa: ARG002
        now: Instant,  # noqa: ARG002
        boot: str,  # noqa: ARG002
    ) -> list[LimitedStart]:
        return []

    def save(self, progress: Progress) -> None:
        pass

    def clock_set(self, before: datetime, after: datetime) -> None: ...

    def move(self, old: str, new: str) -> None:
        pass

    def forget(self, jobs: Iterable[str]) -> None:
        pass

    def find_records(self, jobs: Sequence[str] | None = None, most: int = 100, **_: object) -> Iterator[SlotRecord]:  # noqa: ARG002
        return iter(())

    def recent_durations(self) -> Mapping[str, float]:
        return {}

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class NullWatcher:
    """`ports.Watcher` for a job that watches nothing."""

    def watch(self, key: str, folder: str, globs: Sequence[str], ignore: Sequence[str] = ()) -> None:
        pass

    def watch_files(self, key: str, paths: Sequence[str]) -> None:
        pass

    def unwatch(self, key: str) -> None:
        pass

    def close(self) -> None:
        pass


class NullLoadProbe:
    """`ports.LoadProbe` for a job that does not depend on the load."""

    def read(self) -> LoadReadings:
        from repeater.schedule.load_aware import LoadReadings

        return LoadReadings()


class NullRateLimiter:
    """`ports.SharedRateLimiter` for jobs without shared limits."""

    def request(self, ask: RequestSharedStart) -> None:
        pass

    def withdraw(self, ask: str) -> None:
        pass

    def report_start(self, limit: str, rate: Rate, reservation: str | None, *, started: bool) -> None:
        pass

    def release(self, reservation: str) -> None:
        pass

    def push_back(self, limit: str, rate: Rate, delay: timedelta, reason: Reason) -> None:
        pass

    def close(self) -> None:
        pass


class NullProber:
    """`ports.Prober` for a job without probes."""

    def run_probe(self, job: str, kind: str, probe: Probe, spec: JobSpec) -> None:
        pass

    def on_run_fact(self, fact: RunStarted | RunExited | RunEnded | RunLost | SpawnFailed) -> None:
        pass

    def close(self) -> None:
        pass
