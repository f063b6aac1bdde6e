"""`why JOB` and `why JOB@TIME`: explain the current state of a job, or a past slot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial

from repeater.control.commands.explain_history import (
    LINES,
    HistoryExplanation,
    WhyResult,
    explain,
    failed_row,
    has_jitter,
    zone_of,
)
from repeater.control.commands.last_output import last_output
from repeater.control.commands.status import began_at, elapsed, fault_reason, job_state, last_rows
from repeater.control.context import Args, ControlContext, Send, aside
from repeater.engine.active_slot import ActiveSlot
from repeater.engine.job import Job
from repeater.errors import UsageError
from repeater.model.dump import dump_job
from repeater.model.moment import parse_moment
from repeater.model.reasons import OVERLAP, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import SlotRecord
from repeater.model.spec import Always, Manual, OnChange
from repeater.model.time import Instant, rfc3339

_SLOTS = 5
"""How many of the last slots an answer shows."""


async def why(desk: ControlContext, args: Args, send: Send) -> WhyResult:  # noqa: ARG001
    """The result has `job`, `at`, `answer`, `facts` with their codes, `slots`, the rows that it is about, and
    `output`, the last lines of the newest of them if it failed.
    """
    pattern, at = args["job"], args["at"]
    jobs = desk.jobs([pattern]) if pattern else []
    if len(jobs) != 1:
        names = ", ".join(f"`{job.spec.name}`" for job in jobs[:5])
        cause = f"`{pattern}` matches {len(jobs)} jobs: {names} …" if jobs else "no job given"
        raise UsageError(f"cannot explain: {cause}", hint="name one of them")
    job = jobs[0]
    name, spec = job.spec.name, job.spec
    if at:
        moment = parse_moment(at, zone_of(spec), desk.now())
        meta = await aside(desk.meta)
        pids = {held.attempt.run.id: held.pid for held in job.open if held.attempt is not None and held.pid}
        answer = await aside(partial(explain, spec, name, moment, desk.rows, meta, desk.now(), pids, is_alive=True))
        told = rfc3339(moment.begin)
    else:
        before = await _before(desk, job)
        answer, told = now(desk, job, before), None
    failed = failed_row(answer.rows)
    lines = [] if failed is None else await last_output(desk, name, failed.run, LINES)
    return {"job": name, "at": told, **answer.as_json(), "output": lines}


async def _before(desk: ControlContext, job: Job) -> list[SlotRecord]:
    """The last slots in the history, newest first, if this supervisor has not decided enough of them itself."""
    if len(job.recent) >= _SLOTS or not (job.progress.runs or job.progress.skipped):
        return []
    last = await last_rows(desk, [job])
    rows = await aside(partial(desk.rows, [job.spec.name], _SLOTS))
    ran = last.get(job.spec.name)
    return rows if ran is None or any(row.attempts for row in rows) else [*rows, ran]


def now(desk: ControlContext, job: Job, before: Iterable[SlotRecord] = ()) -> HistoryExplanation:
    """The state of a job at this moment, and what it hangs on. `before` are slots from the history, newest first."""
    instant = desk.clock.now()
    answer = HistoryExplanation(_state(job, instant), zone_of(job.spec))
    if (until := job.waits_for_clock(instant.wall)) is not None:
        answer.facts.append(because("waits_for_clock", job=job.spec.name, until=until))
    answer.facts += _active_run_facts(job, instant)
    answer.facts += _needs(desk, job)
    answer.facts += _pool_holders(desk, job)
    answer.facts += _schedule(job, instant)
    slots = {**{row.nominal: row for row in before}, **job.recent}
    rows = sorted(slots.values(), key=lambda row: row.nominal, reverse=True)
    answer.facts += _last_run_facts(job, instant, rows)
    answer.facts.append(because("generation_active", generation=desk.engine.generation))
    rejected = desk.rejected()
    if rejected is not None:
        answer.facts.append(because("files_not_active", cause=rejected))
    answer.facts += desk.troubles()
    answer.facts += map(fault_reason, desk.faults(job.spec.name))
    answer.rows = rows[:_SLOTS]
    return answer


def _state(job: Job, instant: Instant) -> Reason:
    name = job.spec.name
    state, reason = job_state(job, instant)
    match state:
        case "scheduled":
            assert job.next is not None
            return because("job_waits", job=name, due=job.next.due, left=job.next.due - instant.wall)
        case "idle":
            return because("job_idle", job=name, cause=_idle_reason(job))
        case _:
            return because("job_is", job=name, state=state, cause=reason)


def _idle_reason(job: Job) -> Reason:
    if job.next_slot.fault is not None:
        return because("schedule_asked_again", error=job.next_slot.fault)
    match job.spec.schedule:
        case Manual():
            return Reason("schedule_manual")
        case OnChange(globs=globs):
            return because("schedule_watches", globs=globs)
        case Always():
            return Reason("service_not_started")
        case _:
            return Reason("schedule_exhausted")


def _active_run_facts(job: Job, instant: Instant) -> Iterator[Reason]:
    for held in job.open:
        attempt = held.attempt
        if attempt is not None and attempt.started is not None:
            since = attempt.started
            yield because(
                "run_goes_on",
                run=attempt.run.id,
                since=began_at(since, instant),
                lasts=timedelta(seconds=elapsed(since, instant)),
                pid=held.pid or None,
            )
    overlap = job.spec.overlap.kind
    if job.pending:
        yield because("slots_queued", count=len(job.pending), overlap=overlap)
    last = next(reversed(job.recent.values()), None)
    if last is not None and last.reason == OVERLAP and job.open:
        yield because("slot_skipped_for_run", nominal=last.nominal, overlap=overlap)


def _needs(desk: ControlContext, job: Job) -> Iterator[Reason]:
    instant = desk.clock.now()
    for need, targets in job.node.needs:
        for target in targets:
            upstream = desk.engine.jobs.get(target)
            if upstream is not None:
                state, reason = job_state(upstream, instant)
                if upstream.ready is not None:
                    state = "ready" if upstream.ready else "not ready"
                yield because("need_state", job=target, condition=need.condition, state=state, cause=reason)


def _pool_holders(desk: ControlContext, job: Job) -> Iterator[Reason]:
    """Who takes the places that a held slot waits for."""
    keys = {key for held in job.open if held.wait_reason for key in held.waits_on if key.kind != "job"}
    for key in sorted(keys):
        holders = [
            _holder(other, held, desk) for other in desk.engine.jobs.values() for held in other.open if key in held.pool
        ]
        if holders:
            more = len(holders) - 5 if len(holders) > 5 else None
            yield because("place_held", kind=key.kind, name=key.name, holders=holders[:5], more=more)


def _holder(job: Job, held: ActiveSlot, desk: ControlContext) -> Reason:
    began = held.attempt.started if held.attempt else None
    if began is None:
        return because("holder", job=job.spec.name)
    lasts = timedelta(seconds=elapsed(began, desk.clock.now()))
    return because("holder", job=job.spec.name, pid=held.pid or None, lasts=lasts)


def _schedule(job: Job, instant: Instant) -> Iterator[Reason]:
    text = dump_job(job.spec).get("schedule", "once")
    yield because(
        "schedule_is",
        schedule=text if isinstance(text, str) else ", ".join(f"{key} {value}" for key, value in text.items()),
    )
    not_before = job.throttle.not_before
    is_slow = job.throttle.holds(instant) and not_before is not None and -job.progress.streak > 0
    if job.next is not None and job.next.due != job.next.nominal and has_jitter(job.spec) and not is_slow:
        yield because("start_put_off", nominal=job.next.nominal, due=job.next.due)
    if is_slow and not_before is not None:
        yield because("slowed_down", failures=-job.progress.streak, until=not_before.wall)


def _last_run_facts(job: Job, instant: Instant, rows: Iterable[SlotRecord]) -> Iterator[Reason]:
    progress = job.progress
    if not progress.runs:
        yield Reason("never_ran")
        return
    row = next((row for row in rows if row.attempts), None)
    ended = progress.last_end
    if row is not None and row.ended is not None:
        yield because("last_run_ended", ago=instant.wall - (ended or row.ended), outcome=row.outcome, cause=row.reason)
    elif ended is not None:
        yield because("last_run_ended", ago=instant.wall - ended)
    if progress.streak < -1:
        yield because("failed_in_row", count=-progress.streak)
