"""The layers of a job, and the rules to merge them.

`expand` merges layers and `build` reads the result. This is a separate module because a one-off command does not need
files, variables and matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.jobfile.document import Document, Path, has_template, path_of
from repeater.model.spec import BACKOFF_FIELDS, Pairs


@dataclass(frozen=True, slots=True)
class Layer:
    """One table of a job before the merge: its position, its text, and the names that its templates can use."""

    kind: str  # `defaults`, `template http_check`, `job`, `--set`
    document: Document
    base: Path
    raw: Mapping[str, Any]
    names: Mapping[str, Any]


@dataclass(slots=True)
class ExpandedJob:
    """A job before it is checked; `expand` sets its table.

    `place` is (number of this cell, number of cells) for an even stagger, or None.
    """

    name: str
    group: str
    cell: Pairs
    table: dict[str, Any]
    layers: tuple[Layer, ...]
    max_parallel: Any = None
    stagger: tuple[int, int] | None = None
    in_matrix: bool = False


def taken_back(layer: Layer) -> Iterator[tuple[int, Path]]:
    """The paths in `unset`, with their index in the list: the keys that this layer removes from weaker layers."""
    value = layer.raw.get("unset", ())
    for number, text in enumerate([value] if isinstance(value, str) else value if isinstance(value, list) else ()):
        if isinstance(text, str):
            yield number, path_of(text)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the higher table over the lower one, tables key by key. Neither is changed."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        if key in _KINDS and old is not None:
            merged[key] = _merge_kind(key, old, value)
        elif key in ("retry", "slowdown") and isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(_without_effect_on(old, value), value)
        elif key == "executor" and isinstance(old, dict):
            merged[key] = _merge_plugin(old, value)
        elif isinstance(value, dict) and isinstance(old, dict):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


# Tables with several kinds: if the kinds differ, only keys that both kinds allow are inherited.
_JITTER = frozenset({"jitter", "jitter_mode"})
_GROWTH = frozenset({"base", "max", "increment", "multiplier", "exponent", "jitter"})
_KINDS: dict[str, dict[str, frozenset[str]]] = {
    "schedule": {
        "every": _JITTER | {"after_end", "immediate", "offset"},
        "cron": _JITTER | {"seconds", "timezone", "day_match", "dst"},
        "at": frozenset(),
        "watch": frozenset({"ignore", "debounce"}),
        "backoff": _GROWTH,
        "rate": frozenset({"retry_pattern"}),
        "adaptive": frozenset(),
        "load": frozenset(),
        "plugin": frozenset(),  # only of the same plugin: `_merge_plugin`
    },
    "ready": dict.fromkeys(("http", "tcp", "exec", "log"), frozenset({"every", "timeout", "failures"})),
    "live": dict.fromkeys(("http", "tcp", "exec", "log"), frozenset({"every", "timeout", "failures"})),
}


def _merge_kind(key: str, low: Any, high: Any) -> Any:
    if key == "schedule" and isinstance(low, dict):
        high = schedule_table(high)
    if not isinstance(high, dict) or not isinstance(low, dict):
        return high
    kinds = _KINDS[key]
    ours = next((one for one in kinds if one in high), None)
    theirs = next((one for one in kinds if one in low), None)
    if ours is None:
        return merge(low, high)
    if ours == "plugin":
        return _merge_plugin(low, high)
    taken = kinds[ours] if theirs in (None, ours) else frozenset()
    if ours == "backoff":
        low = _without_effect_on(low, high)
    return merge({name: value for name, value in low.items() if name in taken}, high)


def _without_effect_on(low: Mapping[str, Any], high: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lower table without the keys that have no effect on the backoff kind of the higher one."""
    kind = high.get("backoff")
    if kind not in BACKOFF_FIELDS:
        return low
    return {name: value for name, value in low.items() if name not in _GROWTH or name in BACKOFF_FIELDS[kind]}


def _merge_plugin(low: Mapping[str, Any], high: Any) -> Any:
    """Keys are inherited only by a use of the same plugin."""
    table = {"plugin": high} if isinstance(high, str) and high != "local" else high
    if not isinstance(table, dict) or table.get("plugin", low.get("plugin")) != low.get("plugin"):
        return high
    return merge(low, table)


def schedule_table(value: Any) -> Any:
    """The table of a short form of a schedule; any other value unchanged."""
    if isinstance(value, str) and not has_template(value):
        text = value.strip()
        if text.startswith("every "):
            return {"every": text.removeprefix("every ").strip()}
        if text.startswith("@") or len(text.split()) >= 5:
            return {"cron": text}
    return value
