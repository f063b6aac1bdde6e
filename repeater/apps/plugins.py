"""Plugins of job files: which are installed, and how a command calls those that a file uses.

`repeater.plugins` is imported only when a job file names a plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from repeater._lazy_dataclasses import dataclass
from repeater.errors import PluginFailed
from repeater.model.plugins import NO_PLUGINS, Description, Kind, Plugins

if TYPE_CHECKING:
    from repeater.jobfile.load import Loaded
    from repeater.model.spec import Plugin
    from repeater.plugins.catalog import InstalledPlugins


class Installed:
    """A `jobfile.plugins.PluginCatalog` that looks at what is installed when it is asked for the first time."""

    def __init__(self) -> None:
        self._found: InstalledPlugins | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._found is not None:
            self._found.close()

    @property
    def used(self) -> tuple[Description, ...]:
        return () if self._found is None else self._found.used

    @property
    def warnings(self) -> tuple[str, ...]:
        return () if self._found is None else self._found.warnings

    def names(self, kind: Kind) -> tuple[str, ...]:
        return self._look().names(kind)

    def expect(self, plugins: Iterable[tuple[Kind, str]]) -> None:
        self._look().expect(plugins)

    def describe(self, kind: Kind, name: str) -> Description:
        return self._look().describe(kind, name)

    def refusal(self, kind: Kind, plugin: Plugin) -> str | None:
        return self._look().refusal(kind, plugin)

    def _look(self) -> InstalledPlugins:
        if self._found is None:
            from repeater.plugins.catalog import InstalledPlugins

            self._found = InstalledPlugins()
        return self._found


@contextmanager
def plugin_catalog(loaded: Loaded) -> Iterator[Plugins]:
    """The plugins that job files use, to be asked for a forecast or a simulation."""
    if not loaded.plugins:
        yield NO_PLUGINS
        return
    from repeater.plugins.pool import PluginPool

    residents = PluginPool(loaded.plugins, live=False)
    try:
        yield residents
    finally:
        residents.close()


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that is installed. `description` is None if it cannot be used, and `problem` says why."""

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str
    description: Description | None = None
    problem: str = ""


def installed_plugins(names: Sequence[str] = ()) -> tuple[list[Found], tuple[str, ...]]:
    """Every plugin that is installed, or those of these names, each looked at; and what is wrong with distributions
    whose plugins cannot be known.
    """
    from repeater.plugins.catalog import InstalledPlugins

    plugins = InstalledPlugins()
    found = []
    entries = [entry for entry in plugins.entries() if not names or entry.name in names]
    plugins.expect((entry.kind, entry.name) for entry in entries)
    try:
        for entry in entries:
            described, problem = None, ""
            try:
                described = plugins.describe(entry.kind, entry.name)
            except PluginFailed as failure:
                problem = failure.message
            version = described.version if described is not None else entry.version
            found.append(Found(entry.kind, entry.name, entry.target, entry.distribution, version, described, problem))
    finally:
        plugins.close()
    return found, plugins.warnings
