"""The installed plugins: their entry points and their descriptions. Implements `jobfile.plugins.PluginCatalog`.

Installed packages are scanned only when a job file names a plugin, or for the list of plugins, because importing
`importlib.metadata` takes longer than most commands. Each plugin is described by a temporary process, so that a broken
plugin does no harm and a newly installed version is used.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from repeater._lazy_dataclasses import dataclass
from repeater.errors import PluginFailed
from repeater.jobfile.validate import check_rule
from repeater.model.plugins import WORDS, Description, Kind
from repeater.model.spec import Plugin
from repeater.plugins import GROUPS
from repeater.plugins.client import PluginChannel, Refusal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KINDS: tuple[Kind, ...] = ("schedule", "executor", "output", "stop_condition")
_TAKEN = ("plugin", "every", "cron", "at", "watch", "backoff", "rate", "adaptive", "load")
"""Keys that are reserved beside `plugin` in a schedule."""
_LOOK_LIMIT = 10.0
_AT_ONCE = 8
"""Plugins that are imported at the same time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point: the plugin's name, the path of its class, and the distribution that provides it."""

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str


class InstalledPlugins:
    """One scan of the installed plugins. Close it when the job files are read; its processes then end."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[str, list[Entry]]] | None = None
        self._expected: deque[tuple[Kind, str]] = deque()
        self._unreadable: list[str] = []
        self._talks: dict[tuple[Kind, str], PluginChannel] = {}
        self._described: dict[tuple[Kind, str], Description | PluginFailed] = {}
        self._refusals: dict[tuple[Kind, Plugin], str | None] = {}

    @property
    def used(self) -> tuple[Description, ...]:
        return tuple(one for one in self._described.values() if isinstance(one, Description))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about installed distributions whose entry points cannot be read."""
        return tuple(self._unreadable)

    def names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(sorted(self._of(kind)))

    def expect(self, plugins: Iterable[tuple[Kind, str]]) -> None:
        """Start to import these plugins in parallel, because `describe` follows. Unknown plugins are ignored."""
        self._expected.extend(one for one in dict.fromkeys(plugins) if one[1] in self._of(one[0]))
        self._begin_expected()

    def entries(self) -> list[Entry]:
        """All entry points, including those with a duplicate name."""
        return [entry for kind in KINDS for _, found in sorted(self._of(kind).items()) for entry in found]

    def describe(self, kind: Kind, name: str) -> Description:
        found = self._described.get((kind, name))
        if found is None:
            try:
                found = self._scan(kind, name)
            except PluginFailed as failure:
                found = failure
            self._described[kind, name] = found
        if isinstance(found, PluginFailed):
            raise found
        return found

    def refusal(self, kind: Kind, plugin: Plugin) -> str | None:
        if (kind, plugin) not in self._refusals:
            try:
                self._talk(kind, plugin.name).ask("make", plugin.keys, limit=_LOOK_LIMIT)
                self._refusals[kind, plugin] = None
            except Refusal as refusal:
                self._refusals[kind, plugin] = str(refusal)
        return self._refusals[kind, plugin]

    def close(self) -> None:
        """End the processes. The descriptions stay available."""
        for talk in self._talks.values():
            talk.close()
        self._talks.clear()

    def _of(self, kind: Kind) -> dict[str, list[Entry]]:
        if self._entries is None:
            self._entries = {one: {} for one in KINDS}
            groups = {GROUPS[one]: one for one in KINDS}
            for point, dist in _entry_points(self._unreadable):
                if point.group in groups:
                    entry = Entry(groups[point.group], point.name, _target(point), *dist)
                    self._entries[entry.kind].setdefault(point.name, []).append(entry)
        return self._entries[kind]

    def _begin_expected(self) -> None:
        """Start the processes of the next expected plugins without waiting for them."""
        while self._expected and sum(talk.is_loading for talk in self._talks.values()) < _AT_ONCE:
            kind, name = self._expected.popleft()
            if (kind, name) not in self._talks and (kind, name) not in self._described:
                try:
                    self._begin(kind, name)
                except PluginFailed as failure:
                    self._described[kind, name] = failure

    def _scan(self, kind: Kind, name: str) -> Description:
        entry, *others = self._of(kind)[name]
        prefix = f"cannot use {WORDS[kind]} `{name}`"
        if others:
            names = " and ".join(f"`{one.distribution}`" for one in (entry, *others))
            raise PluginFailed(f"{prefix}: {names} both provide one with this name", hint="remove one of them")
        described = self._talk(kind, name).ask("describe", "{}", limit=_LOOK_LIMIT)
        problem = check_rule(described["schema"]) or _reserved_key_problem(kind, described["schema"])
        if problem is not None:
            raise PluginFailed(f"{prefix}: {problem}")
        return Description(
            kind,
            name,
            described["version"] or entry.version,
            described["description"],
            entry.target,
            entry.distribution,
            described["schema"],
            frozenset(described["answers"]),
            described["waits_for_end"],
        )

    def _talk(self, kind: Kind, name: str) -> PluginChannel:
        talk = self._talks.get((kind, name))
        if talk is None or talk.is_over:
            talk = self._begin(kind, name)
        try:
            talk.ready()
        finally:
            self._begin_expected()
        return talk

    def _begin(self, kind: Kind, name: str) -> PluginChannel:
        entry = self._of(kind)[name][0]
        source = f" (of `{entry.distribution}` {entry.version})" if entry.distribution else ""
        talk = PluginChannel(kind, entry.target, f"cannot use {WORDS[kind]} `{name}`{source}")
        self._talks[kind, name] = talk
        return talk


def _entry_points(unreadable: list[str]) -> Iterator[tuple[EntryPoint, tuple[str, str]]]:
    """The entry points of every installed distribution, with its name and version.

    If several distributions have the same name, the first on the path counts. A distribution whose entry points cannot
    be read is left out, with a message in `unreadable`.
    """
    from importlib.metadata import distributions

    seen = set()
    for dist in distributions():
        name = getattr(dist, "_normalized_name", None) or re.sub(r"[-_.]+", "_", dist.name).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            points = [(point, point.name, point.group) for point in dist.entry_points]
        except Exception as error:  # noqa: BLE001 - the file of another package may be broken in any way
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            unreadable.append(f"cannot read the entry points of the distribution `{name}`: {cause}")
            continue
        known = None
        for point, _, group in points:
            if known is None and group in GROUPS.values():
                known = dist.name, dist.version
            yield point, known or ("", "")


def _target(point: EntryPoint) -> str:
    """`module:name`, without the extras that may follow."""
    return re.sub(r"\s*\[[^\]]*\]\s*$", "", point.value).replace(" ", "")


def _reserved_key_problem(kind: Kind, schema: dict[str, Any]) -> str | None:
    taken = _TAKEN if kind == "schedule" else _TAKEN[:1]
    bad = next((key for key in schema.get("properties", {}) if key in taken), None)
    return None if bad is None else f"its schema defines the key `{bad}`, which is reserved"
