"""`why JOB` and `why JOB@TIME`: why a job runs, waits or does nothing now; what became of a slot then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from repeater.control.desk import Args, Desk, Send, aside
from repeater.control.past import Answer, explain, parse_moment, zone_of
from repeater.control.status import as_fault, began_at, condition, elapsed, fault_sentence
from repeater.engine.job import Job
from repeater.engine.slot import OpenSlot
from repeater.errors import UsageError
from repeater.model.dump import dump_job
from repeater.model.reasons import OVERLAP, Reason
from repeater.model.reasons import reason as because
from repeater.model.run import RunRecord
from repeater.model.spec import Always, Cron, Manual, OnChange
from repeater.model.time import Instant, age, rfc3339, span
from repeater.sentences import sentence


async def why(desk: Desk, args: Args, send: Send) -> Mapping[str, Any]:  # noqa: ARG001
    """The result has `job`, `at`, `answer`, `facts` and `slots`, the rows that it is about."""
    pattern, at = args["job"], args["at"]
    jobs = desk.jobs([pattern]) if pattern else []
    if len(jobs) != 1:
        names = ", ".join(f"`{job.spec.name}`" for job in jobs[:5])
        cause = f"`{pattern}` means {len(jobs)} jobs: {names} …" if jobs else "no job is named"
        raise UsageError(f"cannot explain: {cause}", hint="name one of them")
    job = jobs[0]
    name, spec = job.spec.name, job.spec
    if at:
        moment = parse_moment(at, zone_of(spec), desk.now())
        past = await aside(desk.past)
        answer = await aside(partial(explain, spec, name, moment, desk.rows, past, desk.now()))
        answer.facts = [_with_pid(fact, job) for fact in answer.facts]
        told = rfc3339(moment.begin)
    else:
        answer, told = now(desk, job), None
    return {"job": name, "at": told, **answer.as_json()}


def _with_pid(fact: str, job: Job) -> str:
    """What is told of a run that still goes on, with its process: rows do not know it."""
    for held in job.open:
        if held.attempt is not None and held.pid and (name := f"run `{held.attempt.run.id}`") in fact:
            return fact.replace(name, f"{name} (pid {held.pid})", 1)
    return fact


def now(desk: Desk, job: Job) -> Answer:
    """The state of a job at this moment, and what it hangs on."""
    instant = desk.clock.now()
    state, reason = condition(job, instant)
    answer = Answer(f"`{job.spec.name}` {_sentence(job, state, reason, instant)}")
    answer.facts += _open(job, instant)
    answer.facts += _needs(desk, job)
    answer.facts += _places(desk, job)
    answer.facts += _schedule(job, instant)
    answer.facts += _record(job, instant)
    answer.facts.append(f"generation {desk.engine.generation} is in force")
    rejected = desk.rejected()
    if rejected is not None:
        answer.facts.append(f"the job files as they are now are not in force: {sentence(rejected)}")
    answer.facts += map(sentence, desk.troubles())
    answer.facts += [fault_sentence(as_fault(one)) for one in desk.faults(job.spec.name)]
    answer.rows = sorted(job.recent.values(), key=lambda row: row.nominal, reverse=True)[:5]
    return answer


def _sentence(job: Job, state: str, reason: Reason | None, instant: Instant) -> str:
    why = "" if reason is None else f": {sentence(reason, lambda wall: _clock(wall, job))}"
    match state:
        case "waiting":
            assert job.next is not None
            left = job.next.due - instant.wall
            return (
                f"waits for its next start at {_clock(job.next.due, job)}, in {age(instant.wall, instant.wall + left)}"
            )
        case "running" | "starting" | "retrying" | "stopping":
            return f"is {state}{why}"
        case "held":
            return f"is due and held back{why}"
        case "slowed":
            return f"is put off{why}"
        case "done":
            return f"is done{why}; `rpr reset {job.spec.name}` begins anew"
        case "stopped":
            return f"is stopped{why}; `rpr start {job.spec.name}` starts it"
        case "idle":
            return f"waits: {_idle(job)}"
        case _:
            return f"is {state}{why}"


def _idle(job: Job) -> str:
    if job.upcoming.fault is not None:
        return f"its schedule could not say when it is next, and is asked again: {job.upcoming.fault}"
    match job.spec.schedule:
        case Manual():
            return "it runs only when it is asked for"
        case OnChange(globs=globs):
            return f"it runs when files change: {', '.join(globs)}"
        case Always():
            return "a service that is not started"
        case _:
            return "nothing of its schedule is to come"


def _open(job: Job, instant: Instant) -> Iterator[str]:
    for held in job.open:
        attempt = held.attempt
        if attempt is not None and attempt.started is not None:
            lasts = span(elapsed(attempt.started, instant))
            began = _clock(began_at(attempt.started, instant), job)
            yield f"run `{attempt.run.id}` goes on since {began} ({lasts}), pid {held.pid}"
    if job.pending:
        yield f'{len(job.pending)} more wait for it to end (`overlap = "{job.spec.overlap.kind}"`)'
    last = next(reversed(job.recent.values()), None)
    if last is not None and last.reason == OVERLAP and job.open:
        yield f'its slot at {_clock(last.nominal, job)} was skipped for that (`overlap = "{job.spec.overlap.kind}"`)'


def _needs(desk: Desk, job: Job) -> Iterator[str]:
    instant = desk.clock.now()
    for need, targets in job.node.needs:
        for target in targets:
            upstream = desk.engine.jobs.get(target)
            if upstream is not None:
                state, reason = condition(upstream, instant)
                words = "ready" if upstream.ready else "not ready" if upstream.ready is False else state
                yield f"it needs `{target}` {need.condition}; that is {words}" + (
                    "" if reason is None else f": {sentence(reason)}"
                )


def _places(desk: Desk, job: Job) -> Iterator[str]:
    """Who takes the places that a held slot waits for."""
    keys = {key for held in job.open if held.held for key in held.waits_on if key.kind != "job"}
    for key in sorted(keys):
        holders = [
            f"`{other.spec.name}`{_since(held, desk)}"
            for other in desk.engine.jobs.values()
            for held in other.open
            if key in held.pool
        ]
        if holders:
            what = "max_parallel of" if key.kind == "group" else key.kind
            yield f"{what} `{key.name}` is held by {', '.join(holders[:5])}" + (" …" if len(holders) > 5 else "")


def _since(held: OpenSlot, desk: Desk) -> str:
    attempt = held.attempt
    began = attempt.started if attempt else None
    return f" (pid {held.pid}, for {span(elapsed(began, desk.clock.now()))})" if began else ""


def _schedule(job: Job, instant: Instant) -> Iterator[str]:
    text = dump_job(job.spec).get("schedule", "once")
    words = text if isinstance(text, str) else ", ".join(f"{key} {value}" for key, value in text.items())
    yield f"its schedule is: {words}"
    if job.next is not None and job.next.due != job.next.nominal:
        yield f"its next slot is {_clock(job.next.nominal, job)}, and jitter puts it off to {_clock(job.next.due, job)}"
    not_before = job.slowing.not_before
    if job.slowing.holds(instant) and not_before is not None and -job.progress.streak > 0:
        slowed = because("slowed_down", failures=-job.progress.streak, until=not_before.wall)
        yield sentence(slowed, lambda wall: _clock(wall, job))


def _record(job: Job, instant: Instant) -> Iterator[str]:
    progress = job.progress
    if not progress.runs:
        yield "it has not run yet"
        return
    row = next((row for row in reversed(job.recent.values()) if row.attempts), None)
    ended = progress.last_end
    if row is not None and row.ended is not None:
        yield f"its last run ended {age(ended or row.ended, instant.wall)} ago: {_said(row)}"
    elif ended is not None:
        yield f"its last run ended {age(ended, instant.wall)} ago"
    if progress.streak < -1:
        yield f"the last {-progress.streak} runs failed"


def _said(row: RunRecord) -> str:
    return row.outcome if row.reason is None else sentence(row.reason)


def _clock(wall: datetime, job: Job) -> str:
    zone = zone_of(job.spec) if isinstance(job.spec.schedule, Cron) else None
    local = wall.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S}{local:%z}"
