"""Who may start when, and who has to wait: what the daemon decides. Sans-IO and clockless.

Whoever drives it (`ratelimitd.server`) hands in messages with one reading of the clocks and takes out what is to be
said (`said`), what is to be kept over a restart (`changes`), reasons for the log (`warnings`), and when to look again
(`next_due`). A message that is refused (BadMessage) has changed nothing.

Requests of version 1.1 wait in one row for each resource; the first is admitted at the instant at which its ledger
allows it, and the others are looked at when it has been. So a place is never raced for, and a client that waits costs
nothing. A granted attempt counts as happening now, whenever now is, until its start is told (`policy.limit`); of a
client that is gone it is given back, for nobody can have started it since. Version 1.0 is `ratelimitd.protocol_v1`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import Instant, Mono
from repeater.policy.limit import Permit
from repeater.ratelimitd.persistence import AttemptRecord, Change, ResourceRecord
from repeater.ratelimitd.protocol import (
    Handshake,
    Message,
    PushBackReport,
    Register,
    Release,
    Reserve,
    RunMetrics,
    Schedule,
    StartReport,
    StatsRequest,
    encode,
    say_handshake,
)
from repeater.ratelimitd.protocol_v1 import V1Sessions
from repeater.ratelimitd.resources import QueuedRequest, Reservation, Resource, ResourceTable, check
from repeater.ratelimitd.run_stats import RunStats
from repeater.sentences import coded, sentence
from repeater.wire.json_lines import BadMessage

GRANT_WITHIN = 30_000_000
"""Microseconds after which a granted attempt that nobody told of counts as started: a start takes no longer."""
CLAIM_WITHIN = 60_000_000
"""Microseconds in which a client may still tell of an attempt that was granted before a restart."""
TIDY_EVERY = 60_000_000
MOST_WAITING = 256
"""Requests of one client that wait at once, and reservations that it holds."""


@dataclass(slots=True, eq=False)
class _Client:
    """A connection. `waiting` names its requests by resource and id."""

    waiting: set[tuple[str, str]] = field(default_factory=set)
    reservations: dict[str, Reservation] = field(default_factory=dict)


class Broker:
    """`mark` begins the names of reservations, so that those of different lives of a daemon differ. `settling`: how
    many microseconds after its start a process has its first effect, at most, as far as we know.
    """

    def __init__(self, mark: str, settling: int = 0) -> None:
        self.outbox: list[tuple[int, bytes]] = []
        self.warnings: list[Reason] = []
        self._mark = mark
        self._given = 0
        self._ledgers = ResourceTable(settling)
        self._first = V1Sessions(self._ledgers, self.warnings)
        self._runs = RunStats()
        self._clients: dict[int, _Client] = {}
        self._due: dict[str, Mono] = {}
        self._flying: OrderedDict[str, Reservation] = OrderedDict()
        self._untold: dict[str, tuple[Resource, Mono, int]] = {}
        self._untold_until: Mono | None = None
        self._tidy_at: Mono | None = None

    @property
    def changes(self) -> list[Change]:
        """What is to be kept, in order; for the driver to take out."""
        return self._ledgers.changes

    @changes.setter
    def changes(self, changes: list[Change]) -> None:
        self._ledgers.changes = changes

    def restore(self, known: Iterable[ResourceRecord], kept: Iterable[AttemptRecord], now: Instant) -> None:
        """What an earlier life left. What was granted and not told of counts as started now, until its client says
        better.
        """
        untold = self._ledgers.restore(known, kept, now)
        self._untold = {name: (resource, now.mono, row) for name, (resource, row) in untold.items()}
        self._untold_until = Mono(now.mono + CLAIM_WITHIN)
        self._tidy_at = now.mono

    # --- clients -------------------------------------------------------------------------------------------------

    def connect(self, client: int) -> None:
        self._clients[client] = _Client()

    def disconnect(self, client: int, now: Instant) -> None:
        """What the client did not use is there for others."""
        gone = self._clients.pop(client)
        touched: dict[str, Resource] = {}
        for name, ask in gone.waiting:
            resource = self._ledgers.get(name)
            if resource is not None:
                resource.queue.pop((client, ask), None)
                touched[name] = resource
        for reservation in gone.reservations.values():
            self._refund(reservation)
            touched[reservation.resource.name] = reservation.resource
        self._ledgers.leave(client, now)
        for resource in (*touched.values(), *self._first.disconnect(client, now)):
            self._admit(resource, now)

    def holds(self, client: int) -> bool:
        """Whether the client waits for something or has something that its end gives back."""
        who = self._clients[client]
        return bool(who.waiting or who.reservations) or self._first.holds(client)

    def handle(self, client: int, message: Message, now: Instant) -> None:
        """Carry out one message. Raises BadMessage with what is wrong, to be told to the client."""
        if self._tidy_at is None:
            self._tidy_at = Mono(now.mono + TIDY_EVERY)
        match message:
            case Handshake(version):
                self.outbox.append((client, say_handshake(version)))
            case Schedule(name):
                answer = self._first.schedule(client, message, now)
                self._try_admit_head(name, now)
                self.outbox.append((client, answer))
            case Register(attempts):
                self.outbox.append((client, self._first.register(client, attempts, now)))
                for name in {name for name, _, _ in attempts}:
                    self._try_admit_head(name, now)
            case Reserve():
                self._reserve(client, message, now)
            case StartReport():
                self._started(client, message, now)
            case Release():
                self._release(client, message, now)
            case PushBackReport(name, rate, delay, reason):
                resource = self._ledgers.get_or_create(name, rate, client, now)
                resource.ledger.push_back(now.mono + delay)
                resource.reason = reason
                self._ledgers.keep_known(resource)
                self._admit(resource, now)
            case RunMetrics():
                self._runs.count(message)
            case StatsRequest():  # the server adds what it knows itself
                self.outbox.append((client, encode("stats_response", status="ok", **self.stats(now))))

    # --- time ----------------------------------------------------------------------------------------------------

    def next_due(self) -> Mono | None:
        """When `pass_time` is wanted, if nothing else happens before; None for never."""
        dues = [*self._due.values(), *self._first.due_times()]
        if self._flying:
            dues.append(Mono(next(iter(self._flying.values())).granted + GRANT_WITHIN))
        dues += [due for due in (self._untold_until, self._tidy_at) if due is not None]
        return min(dues, default=None)

    def advance_to(self, now: Instant) -> None:
        """What is due by now is done."""
        for resource in self._first.pass_time(now):
            self._admit(resource, now)
        while self._flying:
            reservation = next(iter(self._flying.values()))
            if reservation.granted + GRANT_WITHIN > now.mono:
                break
            reservation.assumed = self._mark_started(reservation, now.mono)
            self._admit(reservation.resource, now)
        if self._untold_until is not None and self._untold_until <= now.mono:
            self._untold, self._untold_until = {}, None
        for name in [name for name, due in self._due.items() if due <= now.mono]:
            self._try_admit_head(name, now)
        if self._tidy_at is not None and self._tidy_at <= now.mono:
            self._ledgers.prune(now, self._is_held)
            self._tidy_at = Mono(now.mono + TIDY_EVERY) if len(self._ledgers) else None

    def _is_held(self, resource: Resource) -> bool:
        held = (one.resource for who in self._clients.values() for one in who.reservations.values())
        untold = (one for one, _, _ in self._untold.values())
        return any(one is resource for one in (*held, *untold)) or self._first.uses(resource)

    # --- asking and granting -------------------------------------------------------------------------------------

    def _reserve(self, client: int, ask: Reserve, now: Instant) -> None:
        who = self._clients[client]
        held = None if ask.reservation is None else self._next_of(who, ask.reservation, ask.resource)
        known = self._ledgers.get(ask.resource)
        waiting = None if known is None else known.queue.get((client, ask.id))
        pattern = (0,) if held is not None else ask.offsets
        if waiting is None:
            rate = ask.rate if ask.rate is not None else None if known is None or not known.known else known.rate
            if rate is not None:
                check(pattern, rate)
            if not ask.forced and len(who.waiting) + len(who.reservations) >= MOST_WAITING:
                raise BadMessage(
                    "busy", f"cannot queue more than {MOST_WAITING} requests and reservations of one client"
                )
        resource = self._ledgers.get_or_create(ask.resource, ask.rate, client, now)
        if ask.rate is not None:
            self._warn_of_rates(resource)
        if waiting is None:
            waiting = QueuedRequest(client, ask, pattern, held)
            if ask.forced:
                self._grant(resource, waiting, resource.ledger.force(None if held is None else held.ticket), now)
                return
            resource.queue[client, ask.id] = waiting
            who.waiting.add((resource.name, ask.id))
            if held is not None:  # its place is reserved already
                resource.queue.move_to_end((client, ask.id), last=False)
            self._admit(resource, now)
        if (client, ask.id) in resource.queue:
            until, ahead = resource.estimate_start(waiting, now)
            wait = {"wait_ms": max(0, until - now.mono) / 1000, "ahead": ahead}
            reason = {"reason": resource.reason} if resource.reason and resource.is_pushed(now) else {}
            self.outbox.append((client, encode("reserve_response", id=ask.id, status="waiting", **wait, **reason)))

    def _warn_of_rates(self, resource: Resource) -> None:
        """Different rates for one resource: the log and each client of version 1.1 that named one are told, once."""
        rates = tuple(sorted(resource.asked, key=lambda rate: (rate.count, rate.window)))
        if len(rates) < 2:
            return
        reason = because(
            "rates_differ", resource=resource.name, rates=[str(rate) for rate in rates], rate=str(resource.rate)
        )
        self.warnings.append(reason)
        for client in resource.of_clients:
            if resource.warned.get(client) != rates:
                resource.warned[client] = rates
                self.outbox.append(
                    (
                        client,
                        encode("warning_notice", resource_id=resource.name, warning=sentence(reason), **coded(reason)),
                    )
                )

    def _next_of(self, who: _Client, name: str, resource: str) -> Reservation:
        """The reservation whose next attempt is asked for."""
        held = self._require_owned(who, name)
        if held.resource.name != resource:
            raise BadMessage("unknown", f"reservation `{held.id}` does not belong to `{resource}`")
        if held.id in self._flying:
            raise BadMessage("unknown", f"reservation `{held.id}` has an unreported start")
        return held

    def _try_admit_head(self, name: str, now: Instant) -> None:
        resource = self._ledgers.get(name)
        if resource is not None:
            self._admit(resource, now)
        else:
            self._due.pop(name, None)

    def _admit(self, resource: Resource, now: Instant) -> None:
        """Grant what may be granted now, in the order of the row, and know when to look again."""
        ledger = resource.ledger
        self._due.pop(resource.name, None)
        while resource.queue:
            waiting = next(iter(resource.queue.values()))
            resource.settle_rate(now)
            answer: Permit | int
            if (early := resource.too_early(waiting, now)) is not None:
                answer = early
            elif waiting.reservation is not None:
                at = ledger.readmit(waiting.reservation.ticket, now.mono)
                answer = waiting.reservation.ticket if at is None else at
            else:
                answer = ledger.admit(now.mono, resource.usable(waiting.pattern))
            if isinstance(answer, int):
                change = resource.changes_at(now)
                self._due[resource.name] = Mono(answer if change is None else min(answer, change))
                return
            self._grant(resource, waiting, answer, now)

    def _grant(self, resource: Resource, waiting: QueuedRequest, ticket: Permit, now: Instant) -> None:
        client, ask = waiting.client, waiting.ask
        who = self._clients[client]
        resource.queue.pop((client, ask.id), None)
        who.waiting.discard((resource.name, ask.id))
        held = waiting.reservation
        if held is None:
            self._given += 1
            held = Reservation(f"{self._mark}-{self._given}", client, resource, ticket)
            who.reservations[held.id] = held
        self._flying[held.id] = held
        held.granted, held.assumed = now.mono, None
        held.row = self._ledgers.keep(resource, now.mono, "flying", held.id)
        resource.grants += 1
        self.outbox.append((client, encode("reserve_response", id=ask.id, status="granted", reservation=held.id)))

    # --- what became of a grant ----------------------------------------------------------------------------------

    def _started(self, client: int, notice: StartReport, now: Instant) -> None:
        who, ledgers = self._clients[client], self._ledgers
        at = Mono(now.mono - notice.ago)
        reservation = who.reservations.get(notice.reservation or "")
        if reservation is None:
            self._record_unreserved_start(client, notice, at, now)
            return
        resource, at = reservation.resource, Mono(max(at, reservation.granted))
        if reservation.assumed is not None:
            resource.ledger.forget(reservation.assumed)
            ledgers.drop(reservation.row)
            if notice.started:
                ledgers.record(resource, at)
            reservation.assumed = None
        elif reservation.id not in self._flying:
            raise BadMessage("unknown", f"reservation `{reservation.id}` has no unreported start")
        elif notice.started:
            self._mark_started(reservation, at)
        else:
            del self._flying[reservation.id]
            resource.ledger.failed(reservation.ticket)
            ledgers.drop(reservation.row)
        if not reservation.ticket.planned:
            del who.reservations[reservation.id]
        self._admit(resource, now)

    def _record_unreserved_start(self, client: int, notice: StartReport, at: Mono, now: Instant) -> None:
        """A start of a reservation that was given back with its connection, or of an earlier life, or of nobody's."""
        resource = self._find_reservation(notice.reservation)
        if resource is None and notice.resource is not None:
            resource = self._ledgers.get_or_create(notice.resource, notice.rate, client, now)
        if resource is None:
            raise BadMessage("unknown", f"unknown reservation `{notice.reservation}`")
        if notice.started:
            self._ledgers.record(resource, at)
        self._admit(resource, now)

    def _release(self, client: int, asked: Release, now: Instant) -> None:
        who = self._clients[client]
        if asked.id is not None:
            names = [name for name, ask in who.waiting if ask == asked.id]
            if not names:
                raise BadMessage("unknown", f"no queued request `{asked.id}`")
            for name in names:
                who.waiting.discard((name, asked.id))
                resource = self._ledgers.get_or_create(name, None, client, now)
                resource.queue.pop((client, asked.id), None)
                self._admit(resource, now)
        elif (told := self._find_reservation(asked.reservation)) is not None:
            self._admit(told, now)
        else:
            reservation = self._require_owned(who, asked.reservation or "")
            del who.reservations[reservation.id]
            self._refund(reservation)
            self._admit(reservation.resource, now)
        self.outbox.append((client, encode("release_response", status="ok")))

    def _find_reservation(self, reservation: str | None) -> Resource | None:
        """Somebody tells of what was granted in an earlier life: the start that was assumed for it is none."""
        untold = self._untold.pop(reservation or "", None)
        if untold is None:
            return None
        resource, assumed, row = untold
        resource.ledger.forget(assumed)
        self._ledgers.drop(row)
        return resource

    def _require_owned(self, who: _Client, name: str) -> Reservation:
        try:
            return who.reservations[name]
        except KeyError:
            raise BadMessage("unknown", f"unknown reservation `{name}`") from None

    def _mark_started(self, reservation: Reservation, at: Mono) -> Mono:
        """A granted attempt happened at this instant; the one at which it counts."""
        resource = reservation.resource
        at = self._ledgers.settled(resource, at)
        del self._flying[reservation.id]
        resource.ledger.started(reservation.ticket, at)
        self._ledgers.moved(resource, reservation.row, at)
        return at

    def _refund(self, reservation: Reservation) -> None:
        if self._flying.pop(reservation.id, None) is not None:
            self._ledgers.drop(reservation.row)
        reservation.resource.ledger.release(reservation.ticket)

    # --- figures -------------------------------------------------------------------------------------------------

    def stats(self, now: Instant) -> Mapping[str, Any]:
        """How everything stands; plain data."""
        return {
            "clients": len(self._clients),
            "waiting": sum(len(resource.queue) for resource in self._ledgers),
            "resources": [resource.figures(now) for resource in self._ledgers],
            **self._runs.figures(),
        }
