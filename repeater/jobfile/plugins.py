"""Parses and checks the use of a plugin in a job: `"name"`, or a table with `plugin` and the plugin's own keys.

A `PluginCatalog` argument checks that the plugin exists and accepts its keys; `repeater.plugins.catalog` implements it.
Without a catalog plugins are not checked, so jobs that were checked earlier, such as those of the last generation, can
be compared even if their plugins are not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from repeater.errors import PluginFailed
from repeater.jobfile.document import Path, describe, quote_value
from repeater.jobfile.table_reader import TableReader
from repeater.jobfile.validate import Fault, check_keys
from repeater.model.plugins import WORDS, Kind, PluginCatalog
from repeater.model.spec import Plugin


def named_plugins(data: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    """The plugins in a document that can be found without expanding it."""
    tables = [data.get("defaults")]
    for key in ("jobs", "templates"):
        entries = data.get(key)
        tables += entries.values() if isinstance(entries, dict) else ()
    for table in tables:
        if not isinstance(table, dict):
            continue
        schedule = table.get("schedule")
        if isinstance(schedule, dict) and isinstance(schedule.get("plugin"), str):
            yield "schedule", schedule["plugin"]
        uses: list[tuple[Kind, Any]] = [("executor", table.get("executor"))] if "executor" in table else []
        for kind_, key in _LISTS:
            inner = table.get(key)
            listed = inner.get("plugins") if isinstance(inner, dict) else None
            uses += [(kind_, one) for one in (listed if isinstance(listed, list) else [listed])]
        for kind_, use in uses:
            name = use.get("plugin") if isinstance(use, dict) else use
            if isinstance(name, str):
                yield kind_, name


_LISTS: tuple[tuple[Kind, str], ...] = (("output", "output"), ("stop_condition", "stop"))


def read_plugins(kind: Kind, table: Mapping[str, Any], reading: TableReader, at: Path) -> tuple[Plugin, ...]:
    """The value of a key `plugins`: one use, or a list of them."""
    value, at = table["plugins"], (*at, "plugins")
    if not isinstance(value, list):
        return (read_plugin(kind, value, reading, at),)
    return tuple(read_plugin(kind, one, reading, (*at, number)) for number, one in enumerate(value))


def read_plugin(kind_: Kind, value: Any, reading: TableReader, at: Path) -> Plugin:
    """The use of one plugin. Problems are added to `reading`; then the result is not valid."""
    table = value if isinstance(value, dict) else {"plugin": value}
    name = table.get("plugin")
    if not isinstance(name, str) or not name:
        reading.problem(at, f"found {describe(name)}, expected the name of a plugin")
        return Plugin("")
    try:
        plugin = Plugin.of(name, {key: one for key, one in table.items() if key != "plugin"})
    except (TypeError, ValueError) as error:
        reading.problem(at, f"cannot pass this value to a plugin: {error}")
        return Plugin(name)
    if reading.catalog is not None:
        for fault in _faults(kind_, plugin, reading.catalog, short=not isinstance(value, dict)):
            reading.problem((*at, *fault.path), fault.message, fault.hint)
    return plugin


def _faults(kind_: Kind, plugin: Plugin, catalog: PluginCatalog, *, short: bool) -> Iterator[Fault]:
    place: Path = () if short else ("plugin",)
    from repeater.jobfile.expand import nearest

    names = catalog.names(kind_)
    if plugin.name not in names:
        known = f"known: {', '.join(f'`{name}`' for name in names)}"
        hint = nearest(plugin.name, names) or (known if names else f"no {WORDS[kind_]} is installed")
        yield Fault(place, f"unknown {WORDS[kind_]} `{quote_value(plugin.name)}`", hint)
        return
    try:
        description = catalog.describe(kind_, plugin.name)
        faults = list(check_keys(description.schema, plugin.table()))
        refusal = None if faults else catalog.refusal(kind_, plugin)
    except PluginFailed as failure:
        yield Fault(place, failure.message, failure.hint)
        return
    yield from faults
    if refusal is not None:
        yield Fault((), refusal)
