"""`events`: the last of what happened, and what happens from now on."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from repeater._lazy_dataclasses import fields
from repeater.control.context import Args, ControlContext, Send
from repeater.model.events import Event, RunBegan
from repeater.model.json_types import Count, Time
from repeater.model.reasons import Reason
from repeater.model.run import Run, SlotRecord, Verdict
from repeater.model.time import rfc3339
from repeater.model.units import format_duration
from repeater.output.event_log import Entry
from repeater.sentences import as_item as with_sentence
from repeater.sentences import sentence

MOST_WAITING = 10_000
"""Events that wait for one client that listens."""


class EventItem(TypedDict):
    """An event. The other keys are those of the kind of event."""

    time: Time
    event: str


class EventsResult(TypedDict):
    events: Count


async def events(desk: ControlContext, args: Args, send: Send) -> EventsResult:
    """An item for each event: `time`, `event` (`run_started`, `slot_decided`, …) and what belongs to it."""
    names = {job.spec.name for job in desk.jobs(args["jobs"])} if args["jobs"] else None
    past = [item for entry in desk.journal.entries() if _fits(item := as_item(entry), names)]
    if args["tail"] is not None:
        past = past[max(0, len(past) - args["tail"]) :]
    if not args["follow"]:
        await send(*past)
        return {"events": len(past)}
    waiting: deque[Entry] = deque()
    came, lost = asyncio.Event(), 0

    def take(entry: Entry) -> None:
        nonlocal lost
        if len(waiting) < MOST_WAITING:
            waiting.append(entry)
        else:
            lost += 1
        came.set()

    deaf = desk.journal.listen(take)
    try:
        await send(*past)
        while True:
            await came.wait()
            came.clear()
            items = [item for entry in waiting if _fits(item := as_item(entry), names)]
            waiting.clear()
            if lost:
                items.append({"lost": lost})
                lost = 0
            await send(*items)
    finally:
        deaf()


def _fits(item: Mapping[str, Any], names: set[str] | None) -> bool:
    return names is None or item.get("job") in names


def as_item(entry: Entry) -> dict[str, Any]:
    """An event for JSON, flat: of a run its id, job and slot, of a decided slot its row."""
    return {"time": rfc3339(entry.at), "event": event_name(type(entry.event)), **_flat(entry.event)}


def event_name(kind: type[Event]) -> str:
    """The public name of an event: `slot_decided` for SlotDecided."""
    return "run_started" if kind is RunBegan else re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _flat(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(event):
        value = getattr(event, field.name)
        match value:
            case Run(id=run, slot=slot, attempt=attempt):
                found |= {"job": slot.job, "run": run, "attempt": attempt, "nominal": rfc3339(slot.nominal)}
            case SlotRecord():
                found |= value.as_json(sentence)
            case Verdict(success=success, reason=reason):
                found |= {"success": success, **with_sentence(reason)}
            case Reason():
                found |= with_sentence(value)
            case datetime():
                found[field.name] = rfc3339(value)
            case timedelta():
                found[field.name] = format_duration(value)
            case tuple():
                found[field.name] = list(value)[:100]
            case str() | int() | float() | None:
                found[field.name] = value
            case _:
                found[field.name] = str(value)
    return found
