"""`status` where no supervisor runs: the last known state of each job, and the runs that go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from repeater.control.commands.status import JobItem, RunningItem, last_of, last_run_records
from repeater.control.context import FindRecords
from repeater.model.run import Progress
from repeater.model.spec import JobSpec
from repeater.model.time import rfc3339
from repeater.plan.select import select
from repeater.sentences import coded, text_of


def offline_items(
    specs: Sequence[JobSpec],
    patterns: Iterable[str],
    rows: FindRecords,
    progress: Mapping[str, Progress],
    running: Mapping[str, Sequence[RunningItem]],
) -> list[JobItem]:
    """An item for each job that is meant, with the keys of `status`. `running` has the live runs by job.

    The state is `running`, `paused`, `done`, `disabled`, or `down` for a job that waits for a supervisor. Raises
    UsageError.
    """
    chosen = select(list(specs), list(patterns)) if patterns else list(specs)
    last = last_run_records(rows, [spec.name for spec in chosen])
    return [_item(spec, progress.get(spec.name), last.get(spec.name), running.get(spec.name, ())) for spec in chosen]


def _item(spec: JobSpec, known: Progress | None, last: Any, running: Sequence[RunningItem]) -> JobItem:
    state, why = "down", None
    if running:
        state = "running"
    elif known is not None and known.done is not None:
        state, why = "done", known.done
    elif not spec.enabled:
        state = "disabled"
    elif known is not None and known.paused is not None:
        state, why = "paused", known.paused
    runs, skipped = (known.runs, known.skipped) if known else (0, 0)
    return {
        "job": spec.name,
        "state": state,
        "why": text_of(why),
        **coded(why),
        "waited": None,
        "next": None,
        "last": None if last is None else last_of(last),
        "running": list(running),
        "runs": runs,
        "successes": known.successes if known else 0,
        "failures": known.failures if known else 0,
        "planned": runs + skipped,
        "skipped": skipped,
        "interval": None,
        "average_interval": None,
        "consecutive_successes": max(0, known.streak) if known else 0,
        "consecutive_failures": max(0, -known.streak) if known else 0,
        "last_success": rfc3339(known.last_success) if known else None,
        "pending": 0,
        "ready": None,
        "paused": None
        if known is None or known.paused is None
        else {"text": known.paused.detail.get("text"), "until": rfc3339(known.paused_until)},
        "service": spec.is_service,
        "labels": dict(spec.labels),
        "description": spec.description,
        "faults": [],
    }


def running_item(run: str, pid: int, since: datetime, now: datetime, row: Any) -> RunningItem:
    """A live run, with the keys of `running` of `status`."""
    return {
        "run": run,
        "pid": pid,
        "attempt": row.attempts,
        "nominal": rfc3339(row.nominal),
        "started": rfc3339(since),
        "seconds": round(max(0.0, (now - since).total_seconds()), 3),
        "trigger": row.trigger,
    }
