"""`trigger`, `pause`, `resume`, `start`, `stop`, `restart`, `reset`: commands for single jobs.

Each passes one fact for each job to the engine, which decides, and reports the result.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, TypedDict

from repeater.control.commands.status import job_state
from repeater.control.context import Args, ControlContext, Send
from repeater.engine.facts import JobCommand, Verb
from repeater.engine.job import Job
from repeater.engine.job_states import State
from repeater.errors import RepeaterError
from repeater.model.json_types import Code, Count, Detail, Time
from repeater.model.reasons import Reason
from repeater.model.time import MICROSECOND, rfc3339
from repeater.sentences import as_item, coded, text_of


class _Job(TypedDict):
    job: str


class _Triggered(TypedDict):
    result: Literal["started", "blocked", "queued", "skipped"]
    reason: str | None
    reason_code: Code | None
    detail: Detail
    run: str | None


class Triggered(_Job, _Triggered):
    """The result of `trigger` for one job. The reason is that of a start that was not immediate."""


class TriggerResult(TypedDict):
    skipped: Count


class PauseBegan(TypedDict):
    job: str
    paused: bool
    until: Time | None


class PauseEnded(TypedDict):
    """`was` says whether the job was paused."""

    job: str
    was: bool
    next: Time | None


class Ordered(TypedDict):
    """The state of a job after a command. The reason is that of the state."""

    job: str
    state: str
    why: str | None
    reason_code: Code | None
    detail: Detail
    next: Time | None


async def trigger(desk: ControlContext, args: Args, send: Send) -> TriggerResult:
    """Run each job once, now. An item says whether it was `started`, `blocked`, `queued` or `skipped`, and why."""
    refused, jobs, nominal = 0, desk.require_jobs(args["jobs"]), desk.now()
    while any(job.has_decided(nominal) for job in jobs):
        nominal += MICROSECOND
    for job in jobs:
        before = _known(job)
        await desk.submit(JobCommand("trigger", job.spec.name, force=args["force"], nominal=nominal))
        item = _trigger_result(job, before)
        refused += item["result"] == "skipped"
        triggered: Triggered = {"job": job.spec.name, **item}
        await send(triggered)
    return {"skipped": refused}


def _known(job: Job) -> set[Any]:
    return {slot.nominal for slot in _slots(job)} | set(job.recent)


def _slots(job: Job) -> list[Any]:
    return [held.slot for held in job.open] + list(job.pending)


def _trigger_result(job: Job, before: set[Any]) -> _Triggered:
    for held in job.open:
        if held.slot.nominal not in before and held.slot.trigger == "manual":
            if held.wait_reason is not None:
                return {"result": "blocked", **as_item(held.wait_reason), "run": None}
            return {"result": "started", **as_item(None), "run": held.attempt.run.id if held.attempt else None}
    for slot in job.pending:
        if slot.nominal not in before:
            return {"result": "queued", **as_item(Reason("still_running")), "run": None}
    for nominal, row in reversed(job.recent.items()):
        if nominal not in before and row.trigger == "manual":
            return {"result": "skipped" if row.attempts == 0 else "started", **as_item(row.reason), "run": row.run}
    return {"result": "skipped", **as_item(Reason("not_active")), "run": None}


async def pause(desk: ControlContext, args: Args, send: Send) -> None:
    """Skip the slots of jobs from now on; live runs continue."""
    length = args["for"]
    length = None if length is None else timedelta(seconds=length)
    for job in desk.require_jobs(args["jobs"]):
        await desk.submit(JobCommand("pause", job.spec.name, text=args["reason"], length=length))
        until = rfc3339(job.progress.paused_until)
        item: PauseBegan = {"job": job.spec.name, "paused": job.paused is not None, "until": until}
        await send(item)


async def resume(desk: ControlContext, args: Args, send: Send) -> None:
    for job in desk.require_jobs(args["jobs"]):
        was = job.paused is not None
        await desk.submit(JobCommand("resume", job.spec.name))
        following = rfc3339(job.next.due) if job.next else None
        item: PauseEnded = {"job": job.spec.name, "was": was, "next": following}
        await send(item)


async def start(desk: ControlContext, args: Args, send: Send) -> None:
    await _for_each_job(desk, args, send, "start")


async def restart(desk: ControlContext, args: Args, send: Send) -> None:
    """Ends the live run, if any, and starts a new one when nothing of it is left."""
    for job in desk.require_jobs(args["jobs"]):
        if job.state is State.INACTIVE:
            raise RepeaterError(
                f"cannot restart `{job.spec.name}`: it is {job_state(job, desk.clock.now())[0]}",
                hint=f"`rpr start {job.spec.name}` starts it",
            )
    await _for_each_job(desk, args, send, "restart")


async def reset(desk: ControlContext, args: Args, send: Send) -> None:
    """Clear the counters and the done state."""
    await _for_each_job(desk, args, send, "reset")


async def stop(desk: ControlContext, args: Args, send: Send) -> None:
    """No new start, live runs are stopped; with `wait` an item comes when nothing of the job is alive."""
    jobs = desk.require_jobs(args["jobs"])
    await desk.submit(*(JobCommand("stop", job.spec.name, text=args["reason"]) for job in jobs))
    for job in jobs:
        if args["wait"]:
            await desk.wait_until(lambda job=job: not job.open or job.state is not State.STOPPING)  # type: ignore[misc]
        await send(_report(desk, job))


async def _for_each_job(desk: ControlContext, args: Args, send: Send, verb: Verb) -> None:
    for job in desk.require_jobs(args["jobs"]):
        await desk.submit(JobCommand(verb, job.spec.name))
        await send(_report(desk, job))


def _report(desk: ControlContext, job: Job) -> Ordered:
    state, why = job_state(job, desk.clock.now())
    return {
        "job": job.spec.name,
        "state": state,
        "why": text_of(why),
        **coded(why),
        "next": rfc3339(job.next.due) if job.next else None,
    }
