"""Typed keys of what a slot waits for. `engine.admission` checks the slots of a key again when it has changed."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

KeyKind: TypeAlias = Literal["job", "pool", "group", "limit", "rate", "answer"]


class Key(NamedTuple):
    """A kind and a name.

    Keys of `job`, `rate` (the rate of a job) and `answer` (a push-back of a server) have the name of a job, those of
    `group` the name of a matrix job, and those of `pool` and `limit` their own name.
    """

    kind: KeyKind
    name: str
