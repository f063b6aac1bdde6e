"""`history`: the rows of slots, newest first. Also used by the command itself where no supervisor runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict, get_args

from repeater.control.context import Args, ControlContext, FindRecords, Send, aside
from repeater.errors import UsageError
from repeater.model.json_types import Count, Seconds
from repeater.model.run import Outcome, SlotJson, SlotRecord, Trigger
from repeater.model.spec import JobSpec, ProcessSpec
from repeater.plan.select import select
from repeater.sentences import sentence

MOST = 100_000
OUTCOMES: tuple[str, ...] = get_args(Outcome)


class SlotItem(SlotJson):
    """One slot. `memory` is in bytes."""

    outcome: Outcome
    trigger: Trigger
    generation: Count
    command: str | None
    memory: Count | None
    cpu: Seconds | None


class HistoryResult(TypedDict):
    rows: Count


async def history(desk: ControlContext, args: Args, send: Send) -> HistoryResult:
    """An item for each slot, with the keys of `simulate --json` and `trigger`, `generation`, `outcome`, `command`,
    `memory` in bytes and `cpu` in seconds.
    """
    specs = [job.spec for job in desk.engine.jobs.values()]
    known = await aside(lambda: list(desk.meta().progress)) if args["jobs"] else []
    query = partial(read, desk.rows, specs, known, args)
    rows = await aside(query)
    for first in range(0, len(rows), 500):
        await send(*map(as_item, rows[first : first + 500]))
    return {"rows": len(rows)}


def read(
    rows: FindRecords, specs: Sequence[JobSpec], known: Iterable[str], args: Mapping[str, Any]
) -> list[SlotRecord]:
    """The rows that a request selects. `known` are the jobs with a history, active or not. Raises UsageError."""
    for outcome in args["outcomes"]:
        if outcome not in OUTCOMES:
            raise UsageError(f"cannot filter by `{outcome[:60]}`: expected one of {', '.join(OUTCOMES)}")
    jobs = names_of(specs, known, args["jobs"])
    limit = 100 if args["limit"] is None else min(args["limit"], MOST)
    return rows(jobs, limit, since=args["since"], until=args["until"], outcomes=args["outcomes"])


def names_of(specs: Sequence[JobSpec], known: Iterable[str], patterns: Sequence[str]) -> list[str] | None:
    """The names that patterns select among active jobs and jobs with a history; None for all."""
    if not patterns:
        return None
    here = {spec.name for spec in specs}
    gone = [
        JobSpec(name=name, group=name.partition("[")[0], process=ProcessSpec(command=()))
        for name in known
        if name not in here
    ]
    return [spec.name for spec in select([*specs, *gone], patterns)]


def as_item(row: SlotRecord) -> SlotItem:
    return {
        **row.as_json(sentence),
        "outcome": row.outcome,
        "trigger": row.trigger,
        "generation": row.generation,
        "command": row.command,
        "memory": row.usage.memory,
        "cpu": None if row.usage.cpu is None else row.usage.cpu / 1e6,
    }
