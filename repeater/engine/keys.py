"""What a held slot waits on: typed keys. Whoever changes something behind a key touches it (`engine.admission`)."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

KeyKind: TypeAlias = Literal["job", "pool", "group", "limit", "rate", "answer"]


class Key(NamedTuple):
    """`kind` and the name of what it is about.

    `job`, `rate` (the job's own) and `answer` (a server's push-back) have the name of a job, `group` that of a matrix
    job, `pool` and `limit` their own.
    """

    kind: KeyKind
    name: str
