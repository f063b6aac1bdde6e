"""What of the ledgers is kept over a restart, as changes to be written. Plain values.

`ratelimitd.broker` makes them, whoever keeps them (`store.rate_limits`) hands them back when the next life begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.model.time import Mono
from repeater.ratelimitd.protocol import Rate

Kind: TypeAlias = Literal["started", "flying", "planned"]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as it is kept over a restart."""

    row: int
    resource: str
    at: Mono
    kind: Kind
    reservation: str = ""


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """What is kept of a resource beside its attempts."""

    resource: str
    rate: Rate
    not_before: Mono | None = None


@dataclass(frozen=True, slots=True)
class AttemptDeleted:
    """An attempt that is not to be kept any more."""

    row: int


@dataclass(frozen=True, slots=True)
class AttemptsPruned:
    """No attempt of a resource from then or before matters; `gone`: nor does the resource itself."""

    resource: str
    until: Mono
    gone: bool = False


Change: TypeAlias = AttemptRecord | ResourceRecord | AttemptDeleted | AttemptsPruned


class LimitStore(Protocol):
    """Keeps changes; what was applied survives the death of this process."""

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        """What an earlier life left, as instants of the clock of now."""
        ...

    def apply(self, changes: Iterable[Change]) -> None:
        """In one transaction. Raises OSError when it cannot be written; nothing of it is then."""
        ...

    def close(self) -> None: ...


class NullLimitStore:
    """Keeps nothing."""

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        return [], []

    def apply(self, changes: Iterable[Change]) -> None:
        pass

    def close(self) -> None:
        pass
