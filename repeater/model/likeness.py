"""The nearest name of a word that was mistyped. A name that ends or removes something is never suggested."""

from __future__ import annotations

from collections.abc import Iterable

DESTRUCTIVE = frozenset({
    "down", "stop", "reset", "restart",
    "--kill", "--now", "--force", "--allow-removals", "--allow-remote", "--kill-at-end",
})  # fmt: skip
"""Commands, verbs and options that end runs, forget state, or take a protection away."""


def likely(word: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that `word` is most like; None if none is like it, or if that one is destructive."""
    import difflib

    near = difflib.get_close_matches(word[:100], list(names), 1, cutoff)
    return near[0] if near and near[0] not in DESTRUCTIVE else None
