"""Plugins in memory: `model.plugins.Plugins` whose answers a test gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repeater.errors import PluginFailed
from repeater.model.plugins import Kind, Program
from repeater.model.spec import Plugin


class FakePlugins:
    """`answers[name]` is called with the plugin's keys and what it is told; `broken[name]` is why it cannot be asked."""

    def __init__(self, answers: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] | None = None) -> None:
        self.answers = answers or {}
        self.broken: dict[str, str] = {}
        self.asked = 0

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:
        self.asked += 1
        if plugin.name in self.broken:
            raise PluginFailed(self.broken[plugin.name])
        return self.answers[plugin.name](plugin.table(), arguments[0])

    def program(self, plugin: Plugin) -> Program:
        if plugin.name in self.broken:
            raise PluginFailed(self.broken[plugin.name])
        return Program(("python", "run"), {"name": plugin.name, "keys": plugin.keys})

    def waits_for_end(self, plugin: Plugin) -> bool:
        return bool(plugin.table().get("waits"))
