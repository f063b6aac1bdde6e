"""`trigger`, `pause`, `resume`, `start`, `stop`, `restart`, `reset`: commands for single jobs.

Each passes one fact for each job to the engine, which decides, and reports the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from repeater.control.commands.logs import OutputStream
from repeater.control.commands.status import job_state
from repeater.control.context import Args, ControlContext, Send
from repeater.engine.facts import JobCommand, Verb
from repeater.engine.job import Job
from repeater.engine.job_states import TAKES_SLOTS, State
from repeater.errors import RepeaterError, UsageError
from repeater.model.json_types import Code, Count, Detail, Time
from repeater.model.reasons import Reason
from repeater.model.run import Outcome, Slot
from repeater.model.spec import Always, Once
from repeater.model.time import MICROSECOND, rfc3339
from repeater.output.buffer import Chunk
from repeater.sentences import as_item, coded, text_of


class _Job(TypedDict):
    job: str


class _Triggered(TypedDict):
    result: Literal["started", "blocked", "queued", "skipped"]
    reason: str | None
    reason_code: Code | None
    detail: Detail
    run: str | None
    outcome: Outcome | None
    exit: int | None
    hint: str | None


class Triggered(_Job, _Triggered):
    """The result of `trigger` for one job. The reason is that of a start that was not immediate.

    With `wait` or `follow`, `outcome`, `exit`, `run` and the reason are those of the end of the slot. `hint` says how
    to run a skipped job.
    """


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
    """Run each job once, now. An item says whether it was `started`, `blocked`, `queued` or `skipped`, and why.

    With `wait`, an item is sent when the slot has ended. `follow` also sends the output of the runs before that.
    """
    refused, jobs, nominal = 0, desk.require_jobs(args["jobs"]), desk.now()
    while any(job.has_decided(nominal) for job in jobs):
        nominal += MICROSECOND
    mine = dict.fromkeys(jobs, nominal)
    output = _output_of(desk, mine, send) if args["follow"] else None
    waits = args["wait"] or args["follow"]
    results = []
    try:
        for job in jobs:
            before = _known(job)
            await desk.submit(JobCommand("trigger", job.spec.name, force=args["force"], nominal=nominal))
            mine[job] = next((slot.nominal for slot in _slots(job) if slot.nominal not in before), nominal)
            item = _trigger_result(job, before)
            results.append((job, item))
            if not waits:
                refused += item["result"] == "skipped"
                await _send_triggered(send, job, item)
        if waits:
            for job in jobs:
                await desk.wait_until(lambda job=job: _is_over(job, mine[job]))  # type: ignore[misc]
            if output is not None:
                await output.end()
    finally:
        if output is not None:
            output.cancel()
    for job, item in results if waits else ():
        ended = _ended(job, mine[job], item)
        refused += ended["result"] == "skipped"
        await _send_triggered(send, job, ended)
    return {"skipped": refused}


async def _send_triggered(send: Send, job: Job, item: _Triggered) -> None:
    triggered: Triggered = {"job": job.spec.name, **item}
    await send(triggered)


def _output_of(desk: ControlContext, nominals: Mapping[Job, datetime], send: Send) -> OutputStream:
    """Sends the output of the slots with these nominal times, from now on."""

    def is_wanted(piece: Chunk) -> bool:
        job, active = desk.engine.admission.runs.get(piece.run, (None, None))
        return job is not None and active is not None and nominals.get(job) == active.slot.nominal

    return OutputStream(desk, is_wanted, send)


def _is_over(job: Job, nominal: datetime) -> bool:
    return nominal in job.recent or all(slot.nominal != nominal for slot in _slots(job))


def _ended(job: Job, nominal: datetime, item: _Triggered) -> _Triggered:
    """The same with the end of the slot."""
    row = job.recent.get(nominal)
    if row is None:
        return item
    result = item["result"] if row.attempts else "skipped"
    return {
        "result": result, **as_item(row.reason), "run": row.run, "outcome": row.outcome, "exit": row.exit,
        "hint": item["hint"],
    }  # fmt: skip


def _known(job: Job) -> set[Any]:
    return {slot.nominal for slot in _slots(job)} | set(job.recent)


def _slots(job: Job) -> list[Slot]:
    return [held.slot for held in job.open] + list(job.pending)


def _trigger_result(job: Job, before: set[Any]) -> _Triggered:
    for held in job.open:
        if held.slot.nominal not in before and held.slot.trigger == "manual":
            if held.wait_reason is not None:
                return _triggered("blocked", held.wait_reason)
            return _triggered("started", run=held.attempt.run.id if held.attempt else None)
    for slot in job.pending:
        if slot.nominal not in before:
            return _triggered("queued", Reason("still_running"))
    for nominal, row in reversed(job.recent.items()):
        if nominal not in before and row.trigger == "manual":
            if row.attempts:
                return _triggered("started", row.reason, row.run)
            return _triggered("skipped", row.reason, hint=_way_to_run(job, row.reason))
    return _triggered("skipped", Reason("not_active"))


def _triggered(
    result: Literal["started", "blocked", "queued", "skipped"],
    reason: Reason | None = None,
    run: str | None = None,
    hint: str | None = None,
) -> _Triggered:
    return {"result": result, **as_item(reason), "run": run, "outcome": None, "exit": None, "hint": hint}


def _way_to_run(job: Job, reason: Reason | None) -> str | None:
    """What to do to run a job whose slot was skipped; None if there is nothing better than to wait."""
    name = job.spec.name
    by_force = f"`rpr trigger --force {name}` runs it once"
    match reason.code if reason is not None else "":
        case "overlap" | "queue_full" if job.spec.is_service:
            return f"`rpr restart {name}` replaces the current run"
        case "overlap" | "queue_full":
            return f"`rpr trigger --force {name}` starts a second run beside the current one"
        case "paused":
            return f"`rpr resume {name}` ends the pause; {by_force}"
        case "done":
            return f"`rpr reset {name}` starts it over; {by_force}"
        case "stopped" | "disabled" if job.state in (State.INACTIVE, State.STOPPING):
            return f"`rpr start {name}` lets it run again; then trigger it"
        case _:
            return None


async def pause(desk: ControlContext, args: Args, send: Send) -> None:
    """Skip the slots of jobs from now on, without an end, for a time, or until an instant; live runs continue."""
    end = args["until"]
    length = None if args["for"] is None else timedelta(seconds=args["for"])
    if end is not None and length is not None:
        raise UsageError("cannot pause: `for` and `until` exclude each other")
    if end is not None and end <= desk.now():
        raise RepeaterError(f"cannot pause until {rfc3339(end)}: that time is over")
    for job in desk.require_jobs(args["jobs"]):
        await desk.submit(JobCommand("pause", job.spec.name, text=args["reason"], until=end, length=length))
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
    """Take slots again. A service, and a `once` job that is done, start now."""
    jobs = desk.require_jobs(args["jobs"])
    if all(map(_why_not_started, jobs)):
        _check_startable("start", jobs, _why_not_started)
    await _for_each_job(desk, args, send, "start")


async def restart(desk: ControlContext, args: Args, send: Send) -> None:
    """Ends the live run, if any, and starts a new one when nothing of it is left.

    With `wait`, an item is sent when the new run has started, or why it has not.
    """
    jobs = desk.require_jobs(args["jobs"])
    _check_startable("restart", jobs, _why_not_restarted)
    before = {job: _known(job) for job in jobs}
    for job in jobs:
        await desk.submit(JobCommand("restart", job.spec.name))
    for job in jobs:
        if args["wait"]:
            await desk.wait_until(lambda job=job: _has_restarted(job, before[job]))  # type: ignore[misc]
        await send(_report(desk, job))


def _check_startable(verb: str, jobs: Sequence[Job], why_not: Callable[[Job], tuple[str, str] | None]) -> None:
    """Raises RepeaterError, before anything is done, for the first job that cannot start."""
    for job in jobs:
        refusal = why_not(job)
        if refusal is not None:
            raise RepeaterError(f"cannot {verb} `{job.spec.name}`: {refusal[0]}", hint=refusal[1])


def _why_not_restarted(job: Job) -> tuple[str, str] | None:
    name = job.spec.name
    if job.state is State.INACTIVE:
        return f"it is {'stopped' if job.spec.enabled else 'disabled'}", f"`rpr start {name}` starts it"
    if job.state is State.DONE and not job.may_run_again:
        return f"it is done: {text_of(job.progress.done)}", f"`rpr reset {name}` starts it over"
    return None


def _why_not_started(job: Job) -> tuple[str, str] | None:
    name = job.spec.name
    if job.state is not State.DONE:
        return None
    if not job.may_run_again:
        return f"it is done: {text_of(job.progress.done)}", f"`rpr reset {name}` starts it over"
    if isinstance(job.spec.schedule, Once | Always):
        return None
    return f"it is done: {text_of(job.progress.done)}", f"`rpr trigger {name}` runs it once"


def _has_restarted(job: Job, before: set[datetime]) -> bool:
    """Whether the requested run has started, waits at a limit, or was decided."""
    if job.state not in TAKES_SLOTS or any(nominal not in before for nominal in job.recent):
        return True
    new = [held for held in job.open if held.slot.nominal not in before]
    return any(held.wait_reason is not None or held.started is not None for held in new)


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
