"""The plugins that are installed: entry points, and what each says of itself when it is looked at.

A look is taken when a job file names a plugin, or somebody asks for the list; importing `importlib.metadata` alone
costs more than most commands. Each plugin is looked at in a process of its own that is gone afterwards, so that a
broken one harms nothing, and one that was installed anew is seen as it is now. Implements `jobfile.plugins.Catalog`.
"""

from __future__ import annotations

from typing import Any

from repeater.dataclass import dataclass
from repeater.errors import PluginFailed
from repeater.jobfile.validate import check_rule
from repeater.model.plugins import WORDS, Description, Kind
from repeater.model.spec import Plugin
from repeater.plugins import GROUPS
from repeater.plugins.process import Conversation, Refusal

KINDS: tuple[Kind, ...] = ("schedule", "executor", "output", "stop_condition")
_TAKEN = ("plugin", "every", "cron", "at", "watch", "backoff", "rate", "adaptive", "load")
"""Keys that mean something else beside `plugin` in a schedule."""
_LOOK_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point: the plugin's name, where its class is, and which distribution brought it."""

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str


class InstalledPlugins:
    """One look at what is installed. Closed when the job files were read: nothing of it stays."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[str, list[Entry]]] = {}
        self._talks: dict[tuple[Kind, str], Conversation] = {}
        self._described: dict[tuple[Kind, str], Description | PluginFailed] = {}
        self._refusals: dict[tuple[Kind, Plugin], str | None] = {}

    @property
    def used(self) -> tuple[Description, ...]:
        return tuple(one for one in self._described.values() if isinstance(one, Description))

    def names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(sorted(self._of(kind)))

    def entries(self) -> list[Entry]:
        """All of them, those with a name that another one has too."""
        return [entry for kind in KINDS for _, found in sorted(self._of(kind).items()) for entry in found]

    def describe(self, kind: Kind, name: str) -> Description:
        found = self._described.get((kind, name))
        if found is None:
            try:
                found = self._look(kind, name)
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
        """End the processes; what was found stays."""
        for talk in self._talks.values():
            talk.close()
        self._talks.clear()

    def _of(self, kind: Kind) -> dict[str, list[Entry]]:
        if kind not in self._entries:
            found: dict[str, list[Entry]] = {}
            self._entries[kind] = found
            from importlib.metadata import entry_points

            for point in entry_points(group=GROUPS[kind]):
                dist = point.dist
                entry = Entry(kind, point.name, point.value, dist.name if dist else "", dist.version if dist else "")
                known = found.setdefault(point.name, [])
                if entry not in known:  # a distribution that is found on the path twice
                    known.append(entry)
        return self._entries[kind]

    def _look(self, kind: Kind, name: str) -> Description:
        entry, *others = self._of(kind)[name]
        words = f"cannot use {WORDS[kind]} `{name}`"
        if others:
            names = " and ".join(f"`{one.distribution}`" for one in (entry, *others))
            raise PluginFailed(f"{words}: {names} both bring one of this name", hint="remove one of them")
        told = self._talk(kind, name).ask("describe", "{}", limit=_LOOK_LIMIT)
        problem = check_rule(told["schema"]) or _crowded(kind, told["schema"])
        if problem is not None:
            raise PluginFailed(f"{words}: {problem}")
        return Description(
            kind,
            name,
            told["version"] or entry.version,
            told["description"],
            entry.target,
            entry.distribution,
            told["schema"],
            frozenset(told["answers"]),
            told["waits_for_end"],
        )

    def _talk(self, kind: Kind, name: str) -> Conversation:
        talk = self._talks.get((kind, name))
        if talk is None or talk.is_over:
            entry = self._of(kind)[name][0]
            source = f" (of `{entry.distribution}` {entry.version})" if entry.distribution else ""
            talk = Conversation(kind, entry.target, f"cannot use {WORDS[kind]} `{name}`{source}")
            self._talks[kind, name] = talk
        return talk


def _crowded(kind: Kind, schema: dict[str, Any]) -> str | None:
    taken = _TAKEN if kind == "schedule" else _TAKEN[:1]
    bad = next((key for key in schema.get("properties", {}) if key in taken), None)
    return None if bad is None else f"its schema has a key `{bad}`, which means something else there"
