"""Finds the nearest name of a mistyped word. A name that stops or removes something is never suggested."""

from __future__ import annotations

from collections.abc import Iterable

DESTRUCTIVE = frozenset({
    "down", "stop", "reset", "restart",
    "--kill", "--now", "--force", "--allow-removals", "--allow-remote", "--kill-at-end",
})  # fmt: skip
"""Commands, verbs and options that stop runs, delete state, or disable a protection."""


def likely(word: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that is most similar to `word`; None if no name is similar, or if that name is destructive."""
    import difflib

    near = difflib.get_close_matches(word[:100], list(names), 1, cutoff)
    return near[0] if near and near[0] not in DESTRUCTIVE else None
