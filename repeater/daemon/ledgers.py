"""The resources that the daemon knows: the ledger of each, who waits at it, and what is to be kept of it.

Clockless and sans-IO. `daemon.book` decides who may start, `daemon.first` speaks with clients of version 1.0; both
write down here what happened, so that each attempt in a ledger is also one in `changes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from repeater.daemon.kept import Change, Dropped, Kept, Kind, Known, Outdated
from repeater.daemon.protocol import Rate, Reserve
from repeater.dataclass import dataclass, field
from repeater.model.time import Instant, Mono
from repeater.policy.limit import Ledger, Pattern, Ticket, check_pattern
from repeater.wire.lines import BadMessage

MOST_RESOURCES = 10_000
_FORESEEN = 64  # places in a row that are foreseen one by one


@dataclass(slots=True, eq=False)
class Reservation:
    """What a 1.1 client holds. `assumed` is the start that was taken for granted because none was told."""

    id: str
    client: int
    resource: Resource
    ticket: Ticket
    row: int = 0
    granted: int = 0
    assumed: Mono | None = None


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in the row of a resource."""

    client: int
    ask: Reserve
    rate: Rate
    pattern: Pattern
    reservation: Reservation | None


@dataclass(slots=True, eq=False)
class Resource:
    """One limit. `known`: somebody has said its rate. `reason` is that of the last push-back."""

    name: str
    ledger: Ledger
    rate: Rate
    known: bool = True
    queue: OrderedDict[tuple[int, str], Waiting] = field(default_factory=OrderedDict)
    grants: int = 0
    starts: int = 0
    reason: str = ""

    def is_pushed(self, now: Instant) -> bool:
        """Whether a server asked to wait, and the time is not over."""
        return self.ledger.not_before is not None and self.ledger.not_before > now.mono

    def foresee(self, waiting: Waiting, now: Instant) -> tuple[int, int]:
        """When a request of the row may be granted, as far as is known, and how many are before it."""
        ahead = list(self.queue).index((waiting.client, waiting.ask.id))
        tickets = [self.ledger.reserve(now.mono, one.pattern) for one in self._front(ahead + 1)]
        at = tickets[-1].planned[0] if tickets else now.mono
        for ticket in tickets:
            self.ledger.release(ticket)
        beyond = ahead + 1 - len(tickets)
        return at + -(-beyond // waiting.rate.count) * waiting.rate.window, ahead

    def after_the_row(self, rate: Rate, offsets: Pattern, now: Instant) -> int:
        """The earliest instant for a request that comes after all those that wait."""
        tickets = [self.ledger.reserve(now.mono, one.pattern) for one in self._front(len(self.queue))]
        self.ledger.change(rate.count, rate.window)
        beyond = len(self.queue) - len(tickets)
        at = self.ledger.earliest(now.mono + -(-beyond // rate.count) * rate.window, offsets)
        for ticket in tickets:
            self.ledger.release(ticket)
        return at

    def figures(self, now: Instant) -> dict[str, Any]:
        """For the statistics."""
        used, kept = self.ledger.used(now.mono), len(self.ledger.recent(now.mono))
        return {
            "resource_id": self.name,
            "rate_limit": self.rate.count if self.known else None,
            "window_ms": self.rate.window // 1000 if self.known else None,
            "used": used,
            "reserved": max(0, kept - used),
            "waiting": len(self.queue),
            "next_in_ms": (self.ledger.earliest(now.mono) - now.mono) / 1000,
            "grants": self.grants,
            "starts": self.starts,
        }

    def _front(self, most: int) -> Iterator[Waiting]:
        return (one for _, one in zip(range(min(most, _FORESEEN)), self.queue.values(), strict=False))


class Ledgers:
    """All resources by name. `settling`: how many microseconds after its start a process has its first effect."""

    def __init__(self, settling: int) -> None:
        self.changes: list[Change] = []
        self._settling = settling
        self._rows = 0
        self._resources: dict[str, Resource] = {}

    def __len__(self) -> int:
        return len(self._resources)

    def __iter__(self) -> Iterator[Resource]:
        """By name."""
        return (resource for _, resource in sorted(self._resources.items()))

    def get(self, name: str) -> Resource | None:
        return self._resources.get(name)

    def room_for(self, names: Iterable[str]) -> None:
        """Raises BadMessage if the resources that are new among these would be too many."""
        if len(self._resources) + len({name for name in names if name not in self._resources}) > MOST_RESOURCES:
            raise BadMessage("busy", f"cannot keep more than {MOST_RESOURCES} resources")

    def named(self, name: str, rate: Rate | None, *, known: bool = True) -> Resource:
        """The resource, new if it has to be; a rate that is said counts from now on. Raises BadMessage."""
        resource = self._resources.get(name)
        if rate is None and (resource is None or not resource.known):
            raise BadMessage("unknown", f"cannot limit `{name}`: nobody has said its rate")
        if resource is None:
            assert rate is not None
            self.room_for((name,))
            resource = self._resources[name] = Resource(name, Ledger(rate.count, rate.window), rate, known)
            self.keep_known(resource)
        elif rate is not None and known and (resource.rate != rate or not resource.known):
            resource.rate, resource.known = rate, True
            resource.ledger.change(rate.count, rate.window)
            self.keep_known(resource)
        return resource

    def restore(self, known: Iterable[Known], kept: Iterable[Kept], now: Instant) -> dict[str, tuple[Resource, int]]:
        """What an earlier life left. What was granted and not told of counts as started now; it is given back, by
        reservation, with its row.
        """
        for one in known:
            self.named(one.resource, one.rate).ledger.not_before = one.not_before
        self.changes.clear()
        untold: dict[str, tuple[Resource, int]] = {}
        for attempt in kept:
            self._rows = max(self._rows, attempt.row)
            resource = self._resources.get(attempt.resource)
            if resource is None:
                continue
            if attempt.kind == "flying":
                untold[attempt.reservation] = (resource, attempt.row)
                self.changes.append(Kept(attempt.row, attempt.resource, now.mono, "started"))
            resource.ledger.record(now.mono if attempt.kind == "flying" else attempt.at)
        return untold

    def tidy(self, now: Instant, is_held: Callable[[Resource], bool]) -> None:
        """Forget what no window can hold any more, and resources that nobody uses."""
        for name, resource in list(self._resources.items()):
            live = bool(resource.ledger.recent(now.mono)) or bool(resource.queue) or resource.is_pushed(now)
            gone = not live and not is_held(resource)
            self.changes.append(Outdated(name, Mono(now.mono - resource.rate.window), gone))
            if gone:
                del self._resources[name]

    # --- writing down --------------------------------------------------------------------------------------------

    def keep_known(self, resource: Resource) -> None:
        """The rate, or the push-back, is another one."""
        if resource.known:
            until = resource.ledger.not_before
            self.changes.append(Known(resource.name, resource.rate, None if until is None else Mono(until)))

    def keep(self, resource: Resource, at: Mono, kind: Kind, reservation: str = "") -> int:
        """A new attempt, which is in the ledger already; its row."""
        self._rows += 1
        self.changes.append(Kept(self._rows, resource.name, at, kind, reservation))
        return self._rows

    def moved(self, resource: Resource, row: int, at: Mono) -> None:
        """The attempt of a row happened at this instant; the ledger knows."""
        resource.starts += 1
        self.changes.append(Kept(row, resource.name, at, "started"))

    def drop(self, row: int) -> None:
        """The attempt of a row did not happen; the ledger knows."""
        self.changes.append(Dropped(row))

    def record(self, resource: Resource, at: Mono) -> None:
        """A start that nobody asked for."""
        at = self.settled(resource, at)
        resource.ledger.record(at)
        resource.starts += 1
        self.keep(resource, at, "started")

    def settled(self, resource: Resource, at: Mono) -> Mono:
        """When a start shows: what others see are its effects, and they must not come closer together than starts."""
        return Mono(at + min(self._settling, resource.rate.window // 50))


def check(pattern: Pattern, rate: Rate) -> None:
    """Raises BadMessage for attempts that can never be made under a rate."""
    try:
        check_pattern(pattern, rate.count, rate.window)
    except ValueError as error:
        raise BadMessage("field", f"cannot use `retry_offsets`: {error}") from None


def fitting(pattern: Pattern, rate: Rate) -> Pattern:
    """The attempts that a rate can hold, taken in order; the first always fits."""
    fits: Pattern = ()
    for offset in pattern:
        try:
            check_pattern((*fits, offset), rate.count, rate.window)
        except ValueError:
            continue
        fits = (*fits, offset)
    return fits
