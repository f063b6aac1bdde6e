"""The table of all verbs: the only place that lists them. Each is an async function of a `Desk`.

    async def verb(desk, args, send) -> result

`args` were checked against `params` before; `send` passes items on, the result ends the answer. A verb raises
RepeaterError for what cannot be, and never blocks the loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.control.commands import events, history, jobs, logs, status, supervisor, why
from repeater.control.context import Args, ControlContext, Send
from repeater.control.protocol import Params
from repeater.model.likeness import likely
from repeater.wire.json_lines import BadMessage

Run: TypeAlias = Callable[[ControlContext, Args, Send], Awaitable[Mapping[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Verb:
    """What is done, the arguments, and the type of each item of the reply. `item` None: the reply has no items.

    The return annotation of `run` is the type of the result.
    """

    run: Run
    params: Params
    item: type | None = None

    async def carry_out(self, desk: ControlContext, args: Args, send: Send) -> Mapping[str, Any] | None:
        """Waits first while a generation is half taken."""
        await desk.settled()
        return await self.run(desk, args, send)


VERBS: Mapping[str, Verb] = {
    "status": Verb(status.status, {"jobs": "texts"}, status.JobItem),
    "health": Verb(status.health, {}),
    "logs": Verb(
        logs.logs,
        {"jobs": "texts", "run": "text", "since": "time", "failed": "flag", "tail": "count", "follow": "flag"},
        logs.OutputItem,
    ),
    "history": Verb(
        history.history,
        {"jobs": "texts", "limit": "count", "since": "time", "until": "time", "outcomes": "texts"},
        history.SlotItem,
    ),
    "events": Verb(events.events, {"jobs": "texts", "tail": "count", "follow": "flag"}, events.EventItem),
    "why": Verb(why.why, {"job": "text", "at": "text"}),
    "trigger": Verb(jobs.trigger, {"jobs": "texts", "force": "flag", "wait": "flag", "follow": "flag"}, jobs.Triggered),
    "pause": Verb(jobs.pause, {"jobs": "texts", "for": "seconds", "until": "time", "reason": "text"}, jobs.PauseBegan),
    "resume": Verb(jobs.resume, {"jobs": "texts"}, jobs.PauseEnded),
    "start": Verb(jobs.start, {"jobs": "texts"}, jobs.Ordered),
    "stop": Verb(jobs.stop, {"jobs": "texts", "reason": "text", "wait": "flag"}, jobs.Ordered),
    "restart": Verb(jobs.restart, {"jobs": "texts", "wait": "flag"}, jobs.Ordered),
    "reset": Verb(jobs.reset, {"jobs": "texts"}, jobs.Ordered),
    "apply": Verb(
        supervisor.apply,
        {
            "files": "texts",
            "set": "pairs",
            "set_json": "pairs",
            "only": "texts",
            "allow_removals": "flag",
            "dry_run": "flag",
        },
        supervisor.Changed,
    ),
    "plan": Verb(
        supervisor.plan,
        {"files": "texts", "set": "pairs", "set_json": "pairs", "only": "texts", "allow_removals": "flag"},
        supervisor.Planned,
    ),
    "reload": Verb(supervisor.reload, {"allow_removals": "flag"}, supervisor.Changed),
    "down": Verb(supervisor.down, {"level": "text"}),
}


def unknown(verb: str) -> BadMessage:
    """The refusal of a verb that is not in the table."""
    near = likely(verb, VERBS)
    shown = verb[:60].encode("ascii", "backslashreplace").decode()
    return BadMessage(
        "unknown_verb",
        f"cannot carry out `{shown}`: unknown verb",
        hint=f"did you mean `{near}`?" if near else None,
    )
