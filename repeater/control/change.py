"""`apply`, `reload`, `down`: what a person asks of the supervisor as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repeater.control.desk import Args, Desk, Level, Send, Wanted
from repeater.errors import UsageError
from repeater.jobfile import JsonText
from repeater.model.dump import dump_job
from repeater.runtime.reload import Applied

LEVELS: dict[str, Level] = {"": "drain", "drain": "drain", "stop": "stop", "kill": "kill"}


async def apply(desk: Desk, args: Args, send: Send) -> Mapping[str, Any]:
    """Brings job files into force, which it reads itself. An item for each job, unchanged ones left out."""
    if not args["files"]:
        raise UsageError("cannot apply: no file is named")
    values = tuple((key, JsonText(text)) for key, text in args["set_json"])
    wanted = Wanted(args["files"], (*args["set"], *values), args["only"])
    applied = await desk.apply(wanted, allow_removals=args["allow_removals"], dry_run=args["dry_run"])
    return await _report(applied, send)


async def reload(desk: Desk, args: Args, send: Send) -> Mapping[str, Any]:
    """Reads the job files of now again, also if they look unchanged."""
    return await _report(await desk.apply(None, allow_removals=args["allow_removals"]), send)


async def _report(applied: Applied, send: Send) -> Mapping[str, Any]:
    kept = 0
    specs = {job.name: job for job in applied.jobfile.jobs}
    for entry in applied.plan.jobs:
        if entry.reload == "keep":
            kept += 1
            continue
        changes = [{"key": change.key, "old": change.old, "new": change.new} for change in entry.changes]
        spec = specs.get(entry.job)
        await send(
            {
                "job": entry.job,
                "class": entry.reload,
                "from": entry.moved_from,
                "changes": changes,
                "schedule": dump_job(spec).get("schedule", "once") if spec is not None else None,
            }
        )
    return {"generation": applied.generation, "changed": len(applied.plan.jobs) - kept, "unchanged": kept}


async def down(desk: Desk, args: Args, send: Send) -> Mapping[str, Any]:  # noqa: ARG001
    """Asks the supervisor to leave. The connection ends when it has."""
    if args["level"] not in LEVELS:
        raise UsageError(f"cannot go down by `{args['level'][:60]}`: expected `drain`, `stop` or `kill`")
    desk.leave(LEVELS[args["level"]])
    await desk.say()
    waiting = [job.spec.name for job in desk.engine.jobs.values() if job.open]
    return {"pid": desk.life.pid, "waiting": waiting}
