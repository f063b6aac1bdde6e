"""Events as sentences, for `rpr events`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Clock: TypeAlias = Callable[[str | None], str]
Why: TypeAlias = Callable[[Mapping[str, Any]], str]

_CHANGED = {
    "in_place": "changed, effective now",
    "next_run": "changed, effective from its next run",
    "retime": "changed, rescheduled",
    "restart": "changed, restarting",
    "move": "renamed",
}
_DRAINING = {"drain": "waiting for", "stop": "stopping", "kill": "killing"}
_COUNTED = (("added", "added"), ("changed", "changed"), ("removed", "removed"), ("kept", "unchanged"))


def event_text(item: Mapping[str, Any], clock: Clock, why: Why) -> str:
    """The sentence of an event. `clock` shows an instant, `why` the reason of the item.

    Events of a newer version have their name and their fields.
    """
    make = _TEXTS.get(item["event"])
    return _fields(item) if make is None else make(item, clock, why)


def _fields(item: Mapping[str, Any]) -> str:
    shown = (f"{key}={value}" for key, value in item.items() if key not in ("time", "event", "job") and value)
    return " ".join([item["event"], *shown])


def _generation(item: Mapping[str, Any], _clock: Clock, _why: Why) -> str:
    parts = [f"{item[key]} {word}" for key, word in _COUNTED if item.get(key)]
    return f"generation {item['generation']} active" + (f": {', '.join(parts)}" if parts else "")


def _draining(item: Mapping[str, Any], _clock: Clock, _why: Why) -> str:
    return f"shutting down, {_DRAINING[item['level']]} {', '.join(item['jobs'])}" if item["jobs"] else "shutting down"


def _added(item: Mapping[str, Any], clock: Clock, _why: Why) -> str:
    return f"added, next start {clock(item['next'])}" if item.get("next") else "added"


def _finished(item: Mapping[str, Any], clock: Clock, why: Why) -> str:
    if item["success"]:
        return f"succeeded, run {item['run']}"
    if item.get("retry_at"):
        return (
            f"attempt {item['attempt']} failed: {why(item)}; retrying at {clock(item['retry_at'])}, run {item['run']}"
        )
    return f"failed: {why(item)}, run {item['run']}"


def _started(item: Mapping[str, Any], _clock: Clock, _why: Why) -> str:
    attempt = f", attempt {item['attempt']}" if item["attempt"] > 1 else ""
    late = f", {item['late']:.1f}s late" if item["late"] > 1 else ""
    return f"started, pid {item['pid']}{attempt}{late}, run {item['run']}"


def _decided(item: Mapping[str, Any], clock: Clock, why: Why) -> str:
    many = f"{item['count']} slots" if item["count"] > 1 else "slot"
    cause = f": {why(item)}" if item.get("reason") and not item["run"] else ""  # the end of the run has its reason
    return f"{many} {clock(item['nominal'])} {item['state']}{cause}"


def _missed(item: Mapping[str, Any], clock: Clock, _why: Why) -> str:
    first, last = clock(item["first"]), clock(item["last"])
    least = "at least " if item["at_least"] else ""
    between = first if first == last else f"{first} to {last}"
    return f"missed {least}{item['count']} start{'s' * (item['count'] > 1)} ({between})"


def _fault(item: Mapping[str, Any], _clock: Clock, _why: Why) -> str:
    name = f" `{item['name']}`" if item["name"] else ""
    again = f" ({item['count']} times)" if item["count"] > 1 else ""
    return f"internal error in {item['owner']}{name}{again}: {item['error']}"


def _ready(item: Mapping[str, Any], _clock: Clock, why: Why) -> str:
    return "ready" if item["ready"] else "not ready" + (f": {cause}" if (cause := why(item)) else "")


_TEXTS: Mapping[str, Callable[[Mapping[str, Any], Clock, Why], str]] = {
    "generation_applied": _generation,
    "reload_rejected": lambda item, _, why: (
        f"job files rejected; generation {item['generation']} remains active: {why(item)}"
    ),
    "reload_recovered": lambda item, *_: f"job files are valid again, generation {item['generation']} is active",
    "draining": _draining,
    "job_added": _added,
    "job_changed": lambda item, *_: _CHANGED.get(item["reload"], "changed"),
    "job_removed": lambda *_: "removed",
    "job_done": lambda item, _, why: f"done: {why(item)}",
    "job_paused": lambda item, _, why: f"paused: {why(item)}",
    "job_resumed": lambda item, _, why: f"resumed: {why(item)}",
    "job_ready": _ready,
    "interval_changed": lambda item, _, why: why(item),
    "run_started": _started,
    "run_adopted": lambda item, *_: f"adopted, pid {item['pid']}, run {item['run']}",
    "run_finished": _finished,
    "run_stopping": lambda item, _, why: f"sending {item['signal']}: {why(item)}",
    "slot_decided": _decided,
    "slot_blocked": lambda item, _, why: f"blocked: {why(item)}",
    "slots_missed": _missed,
    "spawn_rejected": lambda item, _, why: why(item),
    "warned": lambda item, _, why: f"warning: {why(item)}",
    "fault_contained": _fault,
}
