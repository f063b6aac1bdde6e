"""`apply`, `plan`, `reload`, `down`: commands for the supervisor as a whole."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any, TypedDict

from repeater.control.context import ApplyRequest, Args, ControlContext, Level, Send
from repeater.engine.preview import Prospect
from repeater.errors import UsageError
from repeater.jobfile.document import JsonText
from repeater.model.dump import dump_job
from repeater.model.json_types import Code, Count, Detail, Time
from repeater.model.spec import JobSpec
from repeater.model.time import rfc3339
from repeater.plan.diff import JobPlan, Plan
from repeater.sentences import coded, text_of
from repeater.supervisor.reload import Applied

_TURN = 50
"""Items of a plan that are sent in one turn of the loop."""
LEVELS: dict[str, Level] = {"": "drain", "drain": "drain", "stop": "stop", "kill": "kill"}


class ChangeItem(TypedDict):
    key: str
    old: Any
    new: Any


class SharedChange(TypedDict):
    name: str
    old: Any
    new: Any


Changed = TypedDict(
    "Changed", {"job": str, "class": str, "from": str | None, "changes": list[ChangeItem], "schedule": Any}
)
"""What an apply does to one job."""


class NextStarts(TypedDict):
    old: Time | None
    new: Time | None


class _Outlook(TypedDict):
    next: NextStarts
    runs: Count
    successes: Count
    failures: Count
    done: str | None
    reason_code: Code | None
    detail: Detail
    returns: bool
    enabled: bool
    like: str | None


class Planned(Changed, _Outlook):
    """What an apply would do to one job, and what the supervisor knows of the job."""


class ApplyResult(TypedDict):
    generation: Count
    changed: Count
    unchanged: Count
    pools: list[SharedChange]
    limits: list[SharedChange]


class Refused(TypedDict):
    message: str
    hint: str | None


class PlanResult(ApplyResult):
    """`refused` is the error that an apply would raise."""

    refused: Refused | None


class DownResult(TypedDict):
    """`waiting` are the jobs whose runs the supervisor waits for."""

    pid: Count
    waiting: list[str]


async def apply(desk: ControlContext, args: Args, send: Send) -> ApplyResult:
    """Read and apply job files. An item for each changed job."""
    if not args["files"]:
        raise UsageError("cannot apply: no file given")
    applied = await desk.apply(_wanted(args), allow_removals=args["allow_removals"], dry_run=args["dry_run"])
    return await _report(applied, send)


async def reload(desk: ControlContext, args: Args, send: Send) -> ApplyResult:
    """Read and apply the current job files, also if they look unchanged."""
    return await _report(await desk.apply(None, allow_removals=args["allow_removals"]), send)


async def plan(desk: ControlContext, args: Args, send: Send) -> PlanResult:
    """Report what an apply would do. Nothing changes. An item for each job."""
    wanted = _wanted(args) if args["files"] else None
    foreseen = await desk.foresee(wanted, allow_removals=args["allow_removals"])
    specs = {job.name: job for job in foreseen.jobfile.jobs}
    rest = iter(foreseen.plan.jobs)
    while piece := list(islice(rest, _TURN)):
        await send(*(_planned(entry, specs.get(entry.job), foreseen.prospects[entry.job]) for entry in piece))
        await asyncio.sleep(0)  # `send` does not wait while the client reads fast
    refusal = foreseen.refusal
    refused: Refused | None = None if refusal is None else {"message": refusal.message, "hint": refusal.hint}
    return {**_result(foreseen.generation, foreseen.plan), "refused": refused}


def _wanted(args: Args) -> ApplyRequest:
    values = tuple((key, JsonText(text)) for key, text in args["set_json"])
    return ApplyRequest(args["files"], (*args["set"], *values), args["only"])


async def _report(applied: Applied, send: Send) -> ApplyResult:
    specs = {job.name: job for job in applied.jobfile.jobs}
    for entry in applied.plan.jobs:
        if entry.reload != "keep":
            await send(_item(entry, specs.get(entry.job)))
    return _result(applied.generation, applied.plan)


def _item(entry: JobPlan, spec: JobSpec | None) -> Changed:
    return {
        "job": entry.job,
        "class": entry.reload,
        "from": entry.moved_from,
        "changes": [{"key": change.key, "old": change.old, "new": change.new} for change in entry.changes],
        "schedule": dump_job(spec).get("schedule", "once") if spec is not None else None,
    }


def _planned(entry: JobPlan, spec: JobSpec | None, prospect: Prospect) -> Planned:
    return {**_item(entry, spec), **_outlook(entry, spec, prospect)}


def _outlook(entry: JobPlan, spec: JobSpec | None, prospect: Prospect) -> _Outlook:
    """What only the supervisor knows about an entry of a plan."""
    old, new = prospect.old, prospect.new
    return {
        "next": {"old": rfc3339(old.next), "new": rfc3339(new.next)},
        "runs": new.runs,
        "successes": new.successes,
        "failures": new.failures,
        "done": text_of(new.done),
        **coded(new.done),
        "returns": prospect.returns,
        "enabled": spec is not None and spec.enabled,
        "like": entry.like,
    }


def _result(generation: int, plan: Plan) -> ApplyResult:
    kept = sum(entry.reload == "keep" for entry in plan.jobs)
    shared: dict[str, list[SharedChange]] = {
        kind: [{"name": one.name, "old": one.old, "new": one.new} for one in plan.shared if one.kind == kind]
        for kind in ("pool", "limit")
    }
    return {
        "generation": generation,
        "changed": len(plan.jobs) - kept,
        "unchanged": kept,
        "pools": shared["pool"],
        "limits": shared["limit"],
    }


async def down(desk: ControlContext, args: Args, send: Send) -> DownResult:  # noqa: ARG001
    """Shut down the supervisor. The connection ends when it has exited."""
    if args["level"] not in LEVELS:
        raise UsageError(f"cannot shut down with `{args['level'][:60]}`: expected `drain`, `stop` or `kill`")
    desk.leave(LEVELS[args["level"]])
    await desk.submit()
    waiting = [job.spec.name for job in desk.engine.jobs.values() if job.open]
    return {"pid": desk.life.pid, "waiting": waiting}
