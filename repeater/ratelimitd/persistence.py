"""The state of the rate-limit daemon that survives a restart, as changes to store. Plain values.

`ratelimitd.broker` makes the changes. `store.rate_limits` stores them and loads the records after a restart.
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
    """A stored attempt."""

    row: int
    resource: str
    at: Mono
    kind: Kind
    reservation: str = ""


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """A stored resource, without its attempts."""

    resource: str
    rate: Rate
    not_before: Mono | None = None


@dataclass(frozen=True, slots=True)
class AttemptDeleted:
    """Delete a stored attempt."""

    row: int


@dataclass(frozen=True, slots=True)
class AttemptsPruned:
    """Delete the attempts of a resource up to `until`. With `gone` also delete the resource."""

    resource: str
    until: Mono
    gone: bool = False


Change: TypeAlias = AttemptRecord | ResourceRecord | AttemptDeleted | AttemptsPruned


class LimitStore(Protocol):
    """Stores changes. Applied changes survive a crash of this process."""

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        """The stored records, with instants of the current monotonic clock."""
        ...

    def apply(self, changes: Iterable[Change]) -> None:
        """Store the changes in one transaction. Raises OSError if that fails; then none is stored."""
        ...

    def close(self) -> None: ...


class NullLimitStore:
    """Stores nothing."""

    def load(self) -> tuple[list[ResourceRecord], list[AttemptRecord]]:
        return [], []

    def apply(self, changes: Iterable[Change]) -> None:
        pass

    def close(self) -> None:
        pass
