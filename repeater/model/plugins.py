"""The interface of plugins: their kinds, their descriptions, and the protocol for calls to a running plugin.

Pure layers can call a plugin through this protocol without knowing that it runs in a separate process.
`repeater.plugins` implements it; `model.spec.Plugin` is the use of a plugin by a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.errors import PluginFailed
from repeater.model.spec import Plugin

Kind: TypeAlias = Literal["schedule", "executor", "output", "stop_condition"]

WORDS: dict[Kind, str] = {
    "schedule": "schedule plugin",
    "executor": "executor plugin",
    "output": "output plugin",
    "stop_condition": "stop condition plugin",
}


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a plugin. `schema` is the draft-07 schema of its keys; `target` is its class, as
    `module:name`; `answers` are the calls that it supports; `distribution` is the package that contains it.
    """

    kind: Kind
    name: str
    version: str
    description: str
    target: str
    distribution: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    answers: frozenset[str] = frozenset()
    waits_for_end: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """The command of a run of an executor plugin: the arguments, and the beginning of its standard input."""

    argv: tuple[str, ...]
    request: Mapping[str, Any]


class Plugins(Protocol):
    """The plugins of the active jobs. Every method returns in bounded time or raises PluginFailed, which names the
    plugin. PluginBusy: the same call may succeed after a moment.
    """

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:
        """Call the plugin and return its answer as plain data."""
        ...

    def program(self, plugin: Plugin) -> Program:
        """The command for one run of an executor plugin."""
        ...

    def waits_for_end(self, plugin: Plugin) -> bool:
        """Whether a schedule plugin counts from the end of the previous run."""
        ...


class NoPlugins:
    """An implementation of `Plugins` without plugins."""

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:  # noqa: ARG002
        raise PluginFailed(f"cannot use {WORDS[kind]} `{plugin.name}`: plugins are not loaded here")

    def program(self, plugin: Plugin) -> Program:
        self.call("executor", plugin, "run")
        raise AssertionError

    def waits_for_end(self, plugin: Plugin) -> bool:  # noqa: ARG002
        return False


NO_PLUGINS = NoPlugins()


class PluginCatalog(Protocol):
    """The plugins that are installed."""

    @property
    def used(self) -> tuple[Description, ...]:
        """The plugins that were described so far."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems of the installed distributions that were read, one sentence each."""
        ...

    def names(self, kind: Kind) -> tuple[str, ...]: ...

    def expect(self, plugins: Iterable[tuple[Kind, str]]) -> None:
        """Start to load these plugins in parallel, before they are described."""
        ...

    def describe(self, kind: Kind, name: str) -> Description:
        """The description. Raises PluginFailed if the plugin cannot be loaded or is not valid."""
        ...

    def refusal(self, kind: Kind, plugin: Plugin) -> str | None:
        """Why the plugin rejects keys that its schema accepts; None if it accepts them. Raises PluginFailed."""
        ...
