"""`status` and `health`: the state of each job and of the supervisor. They read the engine and change nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TypedDict

from repeater.control.commands.last_output import FAILURES, last_output
from repeater.control.context import Args, ControlContext, FindRecords, Send, aside
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.job import Job
from repeater.engine.job_states import State
from repeater.errors import RepeaterError
from repeater.model.json_types import Code, Count, Detail, Seconds, Time
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import SlotRecord, Trigger
from repeater.model.time import Instant, rfc3339
from repeater.sentences import ReasonItem, as_item, coded, reason_item, text_of
from repeater.supervisor.faults import FaultRecord

_SLEW = timedelta(seconds=2)  # a smaller difference of the clocks is not a step of the wall clock
_RUNS = ("success", "failed", "interrupted", "cancelled")  # outcomes of slots that may have come to a run
_MOST_OUTPUTS = 20  # failed jobs of which the last lines are shown
LINES = 3
_BATCH = 8  # jobs described before others in the loop come first: about 1 ms with their lines


class LastItem(TypedDict):
    """The last run. `output` has the last lines of a failed run."""

    outcome: str
    reason: str | None
    reason_code: Code | None
    detail: Detail
    ended: Time | None
    run: str | None
    exit: int | None
    output: list[str]


class RunningItem(TypedDict):
    run: str
    pid: int | None
    attempt: Count
    nominal: Time
    started: Time | None
    seconds: float | None
    trigger: Trigger


class PausedItem(TypedDict):
    text: str | None
    until: Time | None


class FaultItem(TypedDict):
    """An unexpected exception."""

    owner: str
    job: str | None
    name: str
    error: str
    count: Count
    first: Time
    last: Time
    reason: str
    reason_code: Code | None
    detail: Detail


class JobItem(TypedDict):
    """One job. The reason is that of the state."""

    job: str
    state: str
    why: str | None
    reason_code: Code | None
    detail: Detail
    waited: Count | None
    next: Time | None
    last: LastItem | None
    running: list[RunningItem]
    runs: Count
    successes: Count
    failures: Count
    planned: Count
    skipped: Count
    interval: Seconds | None
    average_interval: Seconds | None
    consecutive_successes: Count
    consecutive_failures: Count
    last_success: Time | None
    pending: Count
    ready: bool | None
    paused: PausedItem | None
    service: bool
    labels: dict[str, str]
    description: str
    faults: list[FaultItem]


class StatusResult(TypedDict):
    """The supervisor."""

    project: str
    pid: Count
    since: Time
    uptime: Seconds
    now: Time
    generation: Count
    jobs: Count
    state_dir: str
    files: list[str]
    problems: list[str]
    problem_reasons: list[ReasonItem]
    faults: list[FaultItem]
    rejected: str | None
    rejected_reason: ReasonItem | None


class HealthResult(TypedDict):
    ok: bool
    ready: bool
    problems: list[str]
    problem_reasons: list[ReasonItem]
    faults: list[FaultItem]
    pid: Count
    generation: Count


async def status(desk: ControlContext, args: Args, send: Send) -> StatusResult:
    """An item for each job; the result is about the supervisor."""
    await desk.settled()
    jobs = desk.jobs(args["jobs"])
    try:
        before = await last_rows(desk, jobs)
    except (RepeaterError, OSError):  # without a descriptor or a thread: a status without the history is still useful
        before = desk.earlier
    now = desk.clock.now()
    faulty = {fault.job for fault in desk.faults(None)}
    shown = 0
    for first in range(0, len(jobs), _BATCH):
        items = [describe(job, now, before.get(job.spec.name)) for job in jobs[first : first + _BATCH]]
        for item in items:
            if item["job"] in faulty:
                item["faults"] = [as_fault(one) for one in desk.faults(item["job"])]
            last = item["last"]
            if last is not None and last["outcome"] in FAILURES and shown < _MOST_OUTPUTS:
                last["output"] = await last_output(desk, item["job"], last["run"], LINES)
                shown += 1
        await send(*items)
        await desk.settled()
    life = desk.life
    problems = [reason_item(problem) for problem in desk.troubles()]
    rejected = desk.rejected()
    return {
        "project": life.project,
        "pid": life.pid,
        "since": rfc3339(began_at(life.began, now)),
        "uptime": elapsed(life.began, now),
        "now": rfc3339(now.wall),
        "generation": desk.engine.generation,
        "jobs": len(desk.engine.jobs),
        "state_dir": life.state,
        "files": list(desk.files()),
        "problems": [problem["reason"] for problem in problems],
        "problem_reasons": problems,
        "faults": [as_fault(one) for one in desk.faults(None)],
        "rejected": text_of(rejected),
        "rejected_reason": None if rejected is None else reason_item(rejected),
    }


async def health(desk: ControlContext, args: Args, send: Send) -> HealthResult:  # noqa: ARG001
    """Report the health. `ready`: the supervisor works, and all services with a `ready` probe are ready.

    `ok`: it is ready, the current job files are active, and the clock is not behind decided slots. An invalid edit and
    a wrong clock change `ok`, not `ready`.
    """
    await desk.settled()
    problems = [
        because("service_not_ready", job=job.spec.name)
        for job in desk.engine.jobs.values()
        if job.spec.is_service and job.ready is False and job.state in (State.IDLE, State.ACTIVE)
    ]
    problems += desk.troubles()
    ready = not problems
    behind = desk.engine.clock_behind(desk.now())
    if behind is not None:
        problems.append(behind)
    rejected = desk.rejected()
    if rejected is not None:
        first, *_ = str(rejected.detail.get("error", "")).splitlines() or [""]  # all problems are in `status`
        problems.append(because("last_files_active", generation=desk.engine.generation, error=first))
    shown = [reason_item(problem) for problem in problems[:100]]
    return {
        "ok": not problems,
        "ready": ready,
        "problems": [problem["reason"] for problem in shown],
        "problem_reasons": shown,
        "faults": [as_fault(one) for one in desk.faults(None)],
        "pid": os.getpid(),
        "generation": desk.engine.generation,
    }


def elapsed(since: Instant, now: Instant) -> float:
    """Seconds by the monotonic clock, so a step of the wall clock does not change them."""
    return round((now.mono - since.mono) / 1e6, 3)


def seconds_of(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def began_at(began: Instant, now: Instant) -> datetime:
    """The wall time of a past reading. If the clock was set since then, it is counted back from the present time."""
    counted = now.at_mono(began.mono).wall
    return began.wall if abs(counted - began.wall) <= _SLEW else counted.replace(microsecond=0)


def as_fault(fault: FaultRecord) -> FaultItem:
    """An unexpected exception for JSON."""
    return {
        "owner": fault.owner,
        "job": fault.job or None,
        "name": fault.name,
        "error": fault.error,
        "count": fault.count,
        "first": rfc3339(fault.first),
        "last": rfc3339(fault.last),
        **reason_item(fault_reason(fault)),
    }


def fault_reason(fault: FaultRecord) -> Reason:
    """An unexpected exception, as a fact of `why` and of `health`."""
    return because(
        "internal_error",
        owner=fault.owner,
        name=fault.name,
        job=fault.job,
        error=fault.error,
        count=fault.count,
        last=fault.last,
    )


async def last_rows(desk: ControlContext, jobs: Iterable[Job]) -> Mapping[str, SlotRecord | None]:
    """The last run of each job that did not run since the supervisor was started, from the history. A job is looked
    up once.
    """
    names = [
        job.spec.name
        for job in jobs
        if job.progress.runs and job.spec.name not in desk.earlier and not any(map(_ran, job.recent.values()))
    ]
    if names:
        found = await aside(partial(last_run_records, desk.rows, names))
        desk.earlier.update(dict.fromkeys(names) | found)
    return desk.earlier


def last_run_records(rows: FindRecords, names: Iterable[str]) -> dict[str, SlotRecord]:
    """The last run of each job in the history. Blocks."""
    found = {}
    for name in names:
        row = next((row for row in rows([name], 5, outcomes=_RUNS) if row.attempts), None)
        if row is not None:
            found[name] = row
    return found


def _ran(row: SlotRecord) -> bool:
    return row.attempts > 0


def describe(job: Job, now: Instant, before: SlotRecord | None = None) -> JobItem:
    """One job for `status --json`. Instants are RFC 3339 in UTC, lengths seconds. `before` is its last run before this
    supervisor was started.
    """
    spec, progress = job.spec, job.progress
    state, why = job_state(job, now)
    return {
        "job": spec.name,
        "state": state,
        "why": text_of(why),
        **coded(why),
        "waited": _waited(job, now),
        "next": rfc3339(job.next.due) if job.next is not None else None,
        "last": _last(job, before),
        "running": [_running(held, now) for held in job.open if held.attempt is not None and held.attempt.started],
        "runs": progress.runs,
        "successes": progress.successes,
        "failures": progress.failures,
        "planned": job.planned,
        "skipped": progress.skipped,
        "interval": seconds_of(job.interval),
        "average_interval": seconds_of(job.starts.average),
        "consecutive_successes": max(0, progress.streak),
        "consecutive_failures": max(0, -progress.streak),
        "last_success": rfc3339(progress.last_success),
        "pending": len(job.pending),
        "ready": job.ready,
        "paused": None
        if job.paused is None
        else {"text": job.paused.detail.get("text"), "until": rfc3339(progress.paused_until)},
        "service": spec.is_service,
        "labels": dict(spec.labels),
        "description": spec.description,
        "faults": [],
    }


def job_state(job: Job, now: Instant) -> tuple[str, Reason | None]:
    """The state of a job in one word, and the reason if the state does not explain itself.

    `running`, `starting`, `blocked` (a start is due and waits), `retrying`, `stopping`, `paused`, `throttled` (delayed
    by failures), `scheduled` (the next start is known), `idle` (nothing starts it by itself), `done`, `stopped`,
    `disabled`.
    """
    held = job.open[0] if job.open else None
    if job.state in (State.STOPPING, State.DRAINING, State.FINISHING) and held is not None:
        if job.state is State.FINISHING:
            return _state_of_active_slot(held)
        return "stopping", because("waits_for_process", pid=held.pid) if held.pid else None
    if held is not None:
        return _state_of_active_slot(held)
    if job.state is State.INACTIVE:
        return ("stopped", None) if job.spec.enabled else ("disabled", Reason("not_enabled"))
    if job.state is State.DONE:
        return "done", job.progress.done
    if job.state in (State.REMOVED, State.DRAINING):
        return "stopped", Reason("supervisor_stopping")
    if job.paused is not None:
        until = job.progress.paused_until
        text = job.paused.detail.get("text")
        return "paused", because("paused_until", text=text, until=None if until is None else _seconds(until))
    not_before = job.throttle.not_before
    if job.throttle.holds(now) and not_before is not None:
        return "throttled", because(
            "slowed_down", failures=max(0, -job.progress.streak), until=_seconds(not_before.wall)
        )
    until = job.waits_for_clock(now.wall)
    why = None if until is None else because("waits_for_clock", job=job.spec.name, until=until)
    if job.next is not None:
        return "scheduled", why
    fault = job.next_slot.fault
    return "idle", why if fault is None else because("schedule_unknown", error=fault)


def _waited(job: Job, now: Instant) -> int | None:
    """Seconds for which the slot that is held has waited; None if no slot is."""
    held = job.open[0] if job.open else None
    return None if held is None or held.wait_reason is None else (now.mono - held.since.mono) // 1_000_000


def _state_of_active_slot(held: ActiveSlot) -> tuple[str, Reason | None]:
    attempt = held.attempt
    if attempt is not None and attempt.live:
        if held.forced_outcome is not None:
            return "stopping", held.forced_outcome[1]
        if attempt.started is None:
            return "starting", None
        return "running", because("attempt", attempt=held.attempts) if held.attempts > 1 else None
    if held.wait_reason is not None:
        return "blocked", held.wait_reason
    if held.retry is not None:
        return "retrying", because("retry_at", attempt=held.attempts, at=_seconds(held.retry.at.wall))
    return "starting", None


def _running(held: ActiveSlot, now: Instant) -> RunningItem:
    attempt = held.attempt
    assert attempt is not None
    began = attempt.started
    return {
        "run": attempt.run.id,
        "pid": held.pid,
        "attempt": held.attempts,
        "nominal": rfc3339(held.slot.nominal),
        "started": rfc3339(began.wall) if began else None,
        "seconds": elapsed(began, now) if began else None,
        "trigger": held.slot.trigger,
    }


def _last(job: Job, before: SlotRecord | None) -> LastItem | None:
    """The last slot that came to a run; without a history only what is remembered of it."""
    row = next((row for row in reversed(job.recent.values()) if row.attempts), before)
    if row is not None:
        return last_of(row)
    progress = job.progress
    if progress.last_end is None or not progress.streak:
        return None
    outcome = "success" if progress.streak > 0 else "failed"
    return {
        "outcome": outcome,
        **as_item(None),
        "ended": rfc3339(progress.last_end),
        "run": None,
        "exit": None,
        "output": [],
    }


def last_of(row: SlotRecord) -> LastItem:
    return {
        "outcome": row.outcome,
        **as_item(row.reason),
        "ended": rfc3339(row.ended),
        "run": row.run,
        "exit": row.exit,
        "output": [],
    }


def _seconds(wall: datetime) -> datetime:
    return wall.replace(microsecond=0)
