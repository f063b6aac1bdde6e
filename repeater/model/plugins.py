"""What everybody may know of plugins: their kinds, what one says of itself, and how a running one is asked.

Plain values and a protocol, so that the pure layers can ask a plugin without knowing that it lives in a process of its
own. How it does is `repeater.plugins`; a job's use of one is `model.spec.Plugin`.
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
    """What a plugin says of itself. `schema` is the draft-07 schema of its keys; `target` where its class is, as
    `module:name`; `answers` the questions that it takes; `distribution` the package that brought it.
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
    """How a run of an executor plugin is started: the arguments, and what its standard input has to say first."""

    argv: tuple[str, ...]
    request: Mapping[str, Any]


class Plugins(Protocol):
    """The plugins of the jobs in force. Every method answers in bounded time, or raises PluginFailed, which names the
    plugin; PluginBusy if the same question may have an answer in a moment.
    """

    def call(self, kind: Kind, plugin: Plugin, question: str, *arguments: Any) -> Any:
        """An answer, as plain data."""
        ...

    def program(self, plugin: Plugin) -> Program:
        """For one run of an executor plugin."""
        ...

    def waits_for_end(self, plugin: Plugin) -> bool:
        """Whether a schedule plugin counts from the end of the run before."""
        ...


class NoPlugins:
    """`Plugins` where there are none."""

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
        """Those that were described so far."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with installed distributions that were looked at, one sentence each."""
        ...

    def names(self, kind: Kind) -> tuple[str, ...]: ...

    def expect(self, plugins: Iterable[tuple[Kind, str]]) -> None:
        """These are about to be described; so that several can be loaded at the same time."""
        ...

    def describe(self, kind: Kind, name: str) -> Description:
        """Raises PluginFailed for one that cannot be loaded or is not what it has to be."""
        ...

    def refusal(self, kind: Kind, plugin: Plugin) -> str | None:
        """What the plugin has against keys that its schema admits; None if nothing. Raises PluginFailed."""
        ...
