"""The resources of the daemon: the ledger and the queue of each, and the changes to store. Sans-IO, reads no clock.

`ratelimitd.broker` admits requests, `ratelimitd.protocol_v1` serves clients of version 1.0. Both record attempts here,
so that each attempt in a ledger is also in `changes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.time import Instant, Mono
from repeater.policy.limit import Pattern, Permit, SlidingWindow, check_pattern
from repeater.ratelimitd.persistence import AttemptDeleted, AttemptRecord, AttemptsPruned, Change, Kind, ResourceRecord
from repeater.ratelimitd.protocol import Rate, Reserve
from repeater.wire.json_lines import BadMessage

MOST_RESOURCES = 10_000
LATE = 50_000
"""Upper bound of the microseconds from the instant of an attempt to its start."""
_BEFORE_RESTART = 0  # stands for the clients before a restart; no client has this number
_MOST_RATES = 64  # different rates of one resource that are remembered
_FORESEEN = 64  # queued requests whose starts are estimated one by one


@dataclass(slots=True, eq=False)
class Reservation:
    """A reservation of a 1.1 client. `assumed_started` is the instant of a start that was assumed without a report."""

    id: str
    client: int
    resource: Resource
    ticket: Permit
    row: int = 0
    granted: int = 0
    assumed_started: Mono | None = None


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request in the queue of a resource."""

    client: int
    ask: Reserve
    pattern: Pattern
    reservation: Reservation | None


@dataclass(slots=True, eq=False)
class Resource:
    """One limit. `known`: a client has requested its rate. `reason` is the reason of the last push-back.

    `rate` is the active rate: the strictest of those that were requested in the window that ends now (`asked`, with the
    instants of the last request), or by a connected client (`of_clients`). A client of version 1.0 is promised an
    instant and starts up to `late` after it, so its attempts are intervals. They are recorded at their ends. Until
    `promised_until` the ledger adds `late` to the window.
    """

    name: str
    ledger: SlidingWindow
    rate: Rate
    known: bool = True
    settling: int = 0
    queue: OrderedDict[tuple[int, str], QueuedRequest] = field(default_factory=OrderedDict)
    asked: dict[Rate, int] = field(default_factory=dict)
    of_clients: dict[int, Rate] = field(default_factory=dict)
    warned: dict[int, tuple[Rate, ...]] = field(default_factory=dict)
    promised_until: int = 0
    grants: int = 0
    starts: int = 0
    reason: str = ""

    @property
    def late(self) -> int:
        """Upper bound of the microseconds from an attempt to its start."""
        return min(LATE, self.rate.window // 20)

    @property
    def way(self) -> int:
        """Upper bound of the microseconds from a grant to the instant at which its start counts."""
        return self.late + min(self.settling, self.rate.window // 50)

    def ask_for(self, rate: Rate, client: int, now: Instant) -> None:
        """A client requests a rate. Its former rate is dropped unless another client requests it."""
        former = self.of_clients.get(client)
        self.of_clients[client] = rate
        if former is not None and former != rate and former not in self.of_clients.values():
            self.asked.pop(former, None)
        self.asked[rate] = now.mono
        while len(self.asked) > _MOST_RATES:
            del self.asked[max(self.asked, key=_strictness)]
        self.known = True
        self.settle_rate(now)

    def leave(self, client: int, now: Instant) -> None:
        """A client disconnected. Its rate counts until the window is over."""
        rate = self.of_clients.pop(client, None)
        self.warned.pop(client, None)
        if rate in self.asked:
            self.asked[rate] = now.mono

    def settle_rate(self, now: Instant) -> None:
        """Apply the rate that is valid now."""
        if len(self.asked) > 1:
            wanted = set(self.of_clients.values())
            for rate in [
                rate for rate, at in self.asked.items() if at + rate.window <= now.mono and rate not in wanted
            ]:
                if len(self.asked) > 1:
                    del self.asked[rate]
        if self.asked:
            self.rate = next(iter(self.asked)) if len(self.asked) == 1 else min(self.asked, key=_strictness)
        window = self.rate.window + (self.late if self.is_promised(now) else 0)
        if (self.ledger.count, self.ledger.window) != (self.rate.count, window):
            self.ledger.change(self.rate.count, window)

    def changes_at(self, now: Instant) -> int | None:
        """The next instant at which the active rate may change, or None."""
        wanted = set(self.of_clients.values())
        ends = (
            [at + rate.window for rate, at in self.asked.items() if rate not in wanted] if len(self.asked) > 1 else []
        )
        return min((end for end in (*ends, self.promised_until) if end > now.mono), default=None)

    def is_promised(self, now: Instant) -> bool:
        """Whether attempts of version 1.0 count."""
        return self.promised_until > now.mono

    def promise(self, until: int, now: Instant) -> None:
        """Count an attempt of version 1.0 whose interval ends at `until`."""
        self.promised_until = max(self.promised_until, until + self.rate.window + self.late)
        self.settle_rate(now)

    def usable(self, pattern: Pattern) -> Pattern:
        """The attempts of a pattern that the active limit can admit."""
        return pattern if len(pattern) == 1 else fitting(pattern, Rate(self.ledger.count, self.ledger.window))

    def too_early(self, waiting: QueuedRequest, now: Instant) -> int | None:
        """The instant until which a grant could start too close to a promise, or None if a grant is safe now."""
        if not self.is_promised(now):
            return None
        if waiting.reservation is not None:
            at = self.ledger.earliest_for(waiting.reservation.ticket, now.mono, self.way)
        else:
            shifted = tuple(offset + self.way for offset in self.usable(waiting.pattern))
            at = self.ledger.earliest(now.mono, shifted, self.way)
        return at if at > now.mono else None

    def is_pushed(self, now: Instant) -> bool:
        """Whether a server asked to wait, and the time is not over."""
        return self.ledger.not_before is not None and self.ledger.not_before > now.mono

    def estimate_start(self, waiting: QueuedRequest, now: Instant) -> tuple[int, int]:
        """The estimated instant of the grant of a queued request, and the number of requests before it."""
        ahead = list(self.queue).index((waiting.client, waiting.ask.id))
        tickets = [self.ledger.reserve(now.mono, self.usable(one.pattern)) for one in self._head(ahead + 1)]
        at = tickets[-1].planned[0] if tickets else now.mono
        for ticket in tickets:
            self.ledger.release(ticket)
        beyond = ahead + 1 - len(tickets)
        return at + -(-beyond // self.ledger.count) * self.ledger.window, ahead

    def earliest_after_queue(self, offsets: Pattern, now: Instant) -> int:
        """The earliest instant for a promise after all queued requests.

        The estimate includes the time from each grant to its start.
        """
        way, late = self.way, self.late
        tickets = [self.ledger.reserve(now.mono, self.usable(one.pattern), way) for one in self._head(len(self.queue))]
        beyond = len(self.queue) - len(tickets)
        begin = now.mono + -(-beyond // self.ledger.count) * (self.ledger.window + way)
        at = self.ledger.earliest(begin, tuple(offset + late for offset in offsets), way)
        for ticket in tickets:
            self.ledger.release(ticket)
        return at

    def figures(self, now: Instant) -> dict[str, Any]:
        """Figures for the statistics."""
        used, recorded = self.ledger.used(now.mono), len(self.ledger.recent(now.mono))
        return {
            "resource_id": self.name,
            "rate_limit": self.rate.count if self.known else None,
            "window_ms": self.rate.window // 1000 if self.known else None,
            "used": used,
            "reserved": max(0, recorded - used),
            "waiting": len(self.queue),
            "next_in_ms": (self.ledger.earliest(now.mono) - now.mono) / 1000,
            "grants": self.grants,
            "starts": self.starts,
        }

    def _head(self, limit: int) -> Iterator[QueuedRequest]:
        return (request for _, request in zip(range(min(limit, _FORESEEN)), self.queue.values(), strict=False))


class ResourceTable:
    """All resources by name. `settling` is the number of microseconds from a start to its first effect."""

    def __init__(self, settling: int) -> None:
        self.changes: list[Change] = []
        self._settling = settling
        self._rows = 0
        self._resources: dict[str, Resource] = {}
        self._named_by: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._resources)

    def __iter__(self) -> Iterator[Resource]:
        """All resources, ordered by name."""
        return (resource for _, resource in sorted(self._resources.items()))

    def get(self, name: str) -> Resource | None:
        return self._resources.get(name)

    def room_for(self, names: Iterable[str]) -> None:
        """Raises BadMessage if there would be too many resources with these names."""
        if len(self._resources) + len({name for name in names if name not in self._resources}) > MOST_RESOURCES:
            raise BadMessage("busy", f"cannot store more than {MOST_RESOURCES} resources")

    def get_or_create(self, name: str, rate: Rate | None, client: int, now: Instant, *, known: bool = True) -> Resource:
        """The resource, created if needed. The strictest rate that clients request applies. Raises BadMessage."""
        resource = self._resources.get(name)
        if rate is None and (resource is None or not resource.known):
            raise BadMessage("unknown", f"resource `{name}` has no rate yet")
        if resource is None:
            assert rate is not None
            self.room_for((name,))
            ledger = SlidingWindow(rate.count, rate.window)
            resource = self._resources[name] = Resource(name, ledger, rate, known, self._settling)
            if known:
                self._named_by.setdefault(client, set()).add(name)
                resource.ask_for(rate, client, now)
            self.keep_known(resource)
        elif rate is not None and known:
            before = resource.rate, resource.known
            self._named_by.setdefault(client, set()).add(name)
            resource.ask_for(rate, client, now)
            if (resource.rate, resource.known) != before:
                self.keep_known(resource)
        return resource

    def leave(self, client: int, now: Instant) -> None:
        """The client disconnected. The rates that it requested count until their windows are over."""
        for name in self._named_by.pop(client, ()):
            resource = self._resources.get(name)
            if resource is not None:
                resource.leave(client, now)

    def restore(
        self, resources: Iterable[ResourceRecord], attempts: Iterable[AttemptRecord], now: Instant
    ) -> dict[str, tuple[Resource, int]]:
        """Load the state from before a restart. Granted, unreported attempts count as started now. They are returned
        by reservation, with their rows.
        """
        for record in resources:
            self.get_or_create(record.resource, record.rate, _BEFORE_RESTART, now).ledger.not_before = record.not_before
        self.leave(_BEFORE_RESTART, now)
        self.changes.clear()
        unconfirmed: dict[str, tuple[Resource, int]] = {}
        for attempt in attempts:
            self._rows = max(self._rows, attempt.row)
            resource = self._resources.get(attempt.resource)
            if resource is None:
                continue
            if attempt.kind == "flying":
                unconfirmed[attempt.reservation] = (resource, attempt.row)
                self.changes.append(AttemptRecord(attempt.row, attempt.resource, now.mono, "started"))
            at = now.mono if attempt.kind == "flying" else attempt.at
            if attempt.kind == "started" and at > (latest := self.settled(resource, now.mono)):
                at = latest  # the wall clock was ahead before a reboot, or is behind now
                self.changes.append(AttemptRecord(attempt.row, attempt.resource, at, "started"))
            resource.ledger.record(at)
            if attempt.kind == "planned":  # a future attempt of version 1.0
                resource.promise(attempt.at, now)
        return unconfirmed

    def prune(self, now: Instant, is_held: Callable[[Resource], bool]) -> None:
        """Delete attempts that are older than every window, and unused resources."""
        for name, resource in list(self._resources.items()):
            resource.settle_rate(now)
            live = bool(resource.ledger.recent(now.mono)) or bool(resource.queue) or resource.is_pushed(now)
            is_unused = not live and not is_held(resource)
            self.changes.append(AttemptsPruned(name, Mono(now.mono - resource.ledger.window), is_unused))
            if is_unused:
                del self._resources[name]

    # --- recording -----------------------------------------------------------------------------------------------

    def keep_known(self, resource: Resource) -> None:
        """Store a changed rate or push-back."""
        if resource.known:
            until = resource.ledger.not_before
            self.changes.append(ResourceRecord(resource.name, resource.rate, None if until is None else Mono(until)))

    def keep(self, resource: Resource, at: Mono, kind: Kind, reservation: str = "") -> int:
        """Store a new attempt that is in the ledger already. Returns its row."""
        self._rows += 1
        self.changes.append(AttemptRecord(self._rows, resource.name, at, kind, reservation))
        return self._rows

    def moved(self, resource: Resource, row: int, at: Mono) -> None:
        """Store that the attempt of a row started at this instant. The ledger is up to date."""
        resource.starts += 1
        self.changes.append(AttemptRecord(row, resource.name, at, "started"))

    def drop(self, row: int) -> None:
        """Delete the attempt of a row, which did not happen. The ledger is up to date."""
        self.changes.append(AttemptDeleted(row))

    def record(self, resource: Resource, at: Mono) -> None:
        """Record a start without a reservation."""
        at = self.settled(resource, at)
        resource.ledger.record(at)
        resource.starts += 1
        self.keep(resource, at, "started")

    def settled(self, resource: Resource, at: Mono) -> Mono:
        """The instant of the first effect of a start, which counts because a rate-limited server sees effects only."""
        return Mono(at + min(self._settling, resource.rate.window // 50))


def _strictness(rate: Rate) -> tuple[Fraction, int]:
    """Sort key: the strictest rate has the fewest starts in the long run, then the fewest in one window."""
    return Fraction(rate.count, rate.window), rate.count


def check(pattern: Pattern, rate: Rate) -> None:
    """Raises BadMessage if the rate can never admit these attempts."""
    try:
        check_pattern(pattern, rate.count, rate.window)
    except ValueError as error:
        raise BadMessage("field", f"cannot use `retry_offsets`: {error}") from None


def fitting(pattern: Pattern, rate: Rate) -> Pattern:
    """The attempts that a rate can admit, taken in order. The first always fits."""
    fits: Pattern = ()
    for offset in pattern:
        try:
            check_pattern((*fits, offset), rate.count, rate.window)
        except ValueError:
            continue
        fits = (*fits, offset)
    return fits
