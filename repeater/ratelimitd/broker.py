"""Admission for shared rate limits. Sans-IO, and it reads no clock.

`ratelimitd.server` passes in messages with one reading of the clocks. It takes out the lines to send (`outbox`), the
changes to store (`changes`), the reasons to log (`warnings`), and the time of the next call (`next_due`). A message
that is refused (BadMessage) has changed nothing.

Requests of version 1.1 form one FIFO queue per resource. Only the head is evaluated, when its ledger allows a start.
Clients therefore do not race, and a waiting client costs nothing. A granted attempt counts as happening now, at any
later time too, until its start is reported (`policy.limit`). When a client disconnects, its granted attempts are
refunded, because it can no longer start them. Version 1.0 is in `ratelimitd.protocol_v1`.
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
"""Microseconds after which an unreported granted attempt counts as started, because no start takes longer."""
CLAIM_WITHIN = 60_000_000
"""Microseconds after a restart in which a client may report an attempt that was granted before it."""
TIDY_EVERY = 60_000_000
MOST_WAITING = 256
"""Maximum number of queued requests and reservations of one client."""


@dataclass(slots=True, eq=False)
class _Client:
    """A connection. `waiting` has its queued requests as pairs of resource and id."""

    waiting: set[tuple[str, str]] = field(default_factory=set)
    reservations: dict[str, Reservation] = field(default_factory=dict)


class Broker:
    """`id_prefix` begins the ids of reservations, so that ids differ between restarts of the daemon. `settling` is the
    upper bound of the microseconds between the start of a process and its first effect.
    """

    def __init__(self, id_prefix: str, settling: int = 0) -> None:
        self.outbox: list[tuple[int, bytes]] = []
        self.warnings: list[Reason] = []
        self._id_prefix = id_prefix
        self._given = 0
        self._ledgers = ResourceTable(settling)
        self._first = V1Sessions(self._ledgers, self.warnings)
        self._runs = RunStats()
        self._clients: dict[int, _Client] = {}
        self._due: dict[str, Mono] = {}
        self._unconfirmed: OrderedDict[str, Reservation] = OrderedDict()  # granted, and not yet reported
        self._restored: dict[str, tuple[Resource, Mono, int]] = {}  # granted before a restart, and not yet reported
        self._restored_until: Mono | None = None
        self._tidy_at: Mono | None = None

    @property
    def changes(self) -> list[Change]:
        """Changes to store, in order. The driver takes them out."""
        return self._ledgers.changes

    @changes.setter
    def changes(self, changes: list[Change]) -> None:
        self._ledgers.changes = changes

    def restore(self, resources: Iterable[ResourceRecord], attempts: Iterable[AttemptRecord], now: Instant) -> None:
        """Load the state from before a restart. A granted, unreported attempt counts as started now until its client
        reports it.
        """
        restored = self._ledgers.restore(resources, attempts, now)
        self._restored = {name: (resource, now.mono, row) for name, (resource, row) in restored.items()}
        self._restored_until = Mono(now.mono + CLAIM_WITHIN)
        self._tidy_at = now.mono

    # --- clients -------------------------------------------------------------------------------------------------

    def connect(self, client: int) -> None:
        self._clients[client] = _Client()

    def disconnect(self, client: int, now: Instant) -> None:
        """Remove the requests of the client, and refund its reservations."""
        closed = self._clients.pop(client)
        touched: dict[str, Resource] = {}
        for name, ask in closed.waiting:
            resource = self._ledgers.get(name)
            if resource is not None:
                resource.queue.pop((client, ask), None)
                touched[name] = resource
        for reservation in closed.reservations.values():
            self._refund(reservation)
            touched[reservation.resource.name] = reservation.resource
        self._ledgers.leave(client, now)
        for resource in (*touched.values(), *self._first.disconnect(client, now)):
            self._admit(resource, now)

    def holds(self, client: int) -> bool:
        """Whether the client has queued requests or reservations."""
        state = self._clients[client]
        return bool(state.waiting or state.reservations) or self._first.holds(client)

    def handle(self, client: int, message: Message, now: Instant) -> None:
        """Carry out one message. Raises BadMessage with the error to send to the client."""
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
            case StatsRequest():  # the server answers this message itself, with its own figures
                self.outbox.append((client, encode("stats_response", status="ok", **self.stats(now))))

    # --- time ----------------------------------------------------------------------------------------------------

    def next_due(self) -> Mono | None:
        """When to call `advance_to` if no message arrives before. None: never."""
        dues = [*self._due.values(), *self._first.due_times()]
        if self._unconfirmed:
            dues.append(Mono(next(iter(self._unconfirmed.values())).granted + GRANT_WITHIN))
        dues += [due for due in (self._restored_until, self._tidy_at) if due is not None]
        return min(dues, default=None)

    def advance_to(self, now: Instant) -> None:
        """Carry out everything that is due by now."""
        for resource in self._first.pass_time(now):
            self._admit(resource, now)
        while self._unconfirmed:
            reservation = next(iter(self._unconfirmed.values()))
            if reservation.granted + GRANT_WITHIN > now.mono:
                break
            reservation.assumed_started = self._mark_started(reservation, now.mono)
            self._admit(reservation.resource, now)
        if self._restored_until is not None and self._restored_until <= now.mono:
            self._restored, self._restored_until = {}, None
        for name in [name for name, due in self._due.items() if due <= now.mono]:
            self._try_admit_head(name, now)
        if self._tidy_at is not None and self._tidy_at <= now.mono:
            self._ledgers.prune(now, self._is_held)
            self._tidy_at = Mono(now.mono + TIDY_EVERY) if len(self._ledgers) else None

    def _is_held(self, resource: Resource) -> bool:
        reserved = (one.resource for client in self._clients.values() for one in client.reservations.values())
        restored = (one for one, _, _ in self._restored.values())
        return any(one is resource for one in (*reserved, *restored)) or self._first.uses(resource)

    # --- asking and granting -------------------------------------------------------------------------------------

    def _reserve(self, client: int, ask: Reserve, now: Instant) -> None:
        state = self._clients[client]
        reserved = None if ask.reservation is None else self._next_of(state, ask.reservation, ask.resource)
        existing = self._ledgers.get(ask.resource)
        waiting = None if existing is None else existing.queue.get((client, ask.id))
        pattern = (0,) if reserved is not None else ask.offsets
        if waiting is None:
            rate = ask.rate
            if rate is None and existing is not None and existing.known:
                rate = existing.rate
            if rate is not None:
                check(pattern, rate)
            if not ask.forced and len(state.waiting) + len(state.reservations) >= MOST_WAITING:
                raise BadMessage(
                    "busy", f"cannot queue more than {MOST_WAITING} requests and reservations of one client"
                )
        resource = self._ledgers.get_or_create(ask.resource, ask.rate, client, now)
        if ask.rate is not None:
            self._warn_of_rates(resource)
        if waiting is None:
            waiting = QueuedRequest(client, ask, pattern, reserved)
            if ask.forced:
                permit = resource.ledger.force(None if reserved is None else reserved.ticket)
                self._grant(resource, waiting, permit, now)
                return
            resource.queue[client, ask.id] = waiting
            state.waiting.add((resource.name, ask.id))
            if reserved is not None:  # its attempt is counted already
                resource.queue.move_to_end((client, ask.id), last=False)
            self._admit(resource, now)
        if (client, ask.id) in resource.queue:
            until, ahead = resource.estimate_start(waiting, now)
            wait = {"wait_ms": max(0, until - now.mono) / 1000, "ahead": ahead}
            reason = {"reason": resource.reason} if resource.reason and resource.is_pushed(now) else {}
            self.outbox.append((client, encode("reserve_response", id=ask.id, status="waiting", **wait, **reason)))

    def _warn_of_rates(self, resource: Resource) -> None:
        """Report different rates of one resource once: to the log and to each 1.1 client that requested one."""
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

    def _next_of(self, client: _Client, name: str, resource: str) -> Reservation:
        """The reservation whose next attempt is requested."""
        reserved = self._require_owned(client, name)
        if reserved.resource.name != resource:
            raise BadMessage("unknown", f"reservation `{reserved.id}` does not belong to `{resource}`")
        if reserved.id in self._unconfirmed:
            raise BadMessage("unknown", f"reservation `{reserved.id}` has an unreported start")
        return reserved

    def _try_admit_head(self, name: str, now: Instant) -> None:
        resource = self._ledgers.get(name)
        if resource is not None:
            self._admit(resource, now)
        else:
            self._due.pop(name, None)

    def _admit(self, resource: Resource, now: Instant) -> None:
        """Grant the requests that may start now, in the order of the queue, and schedule the next evaluation."""
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
        state = self._clients[client]
        resource.queue.pop((client, ask.id), None)
        state.waiting.discard((resource.name, ask.id))
        reserved = waiting.reservation
        if reserved is None:
            self._given += 1
            reserved = Reservation(f"{self._id_prefix}-{self._given}", client, resource, ticket)
            state.reservations[reserved.id] = reserved
        self._unconfirmed[reserved.id] = reserved
        reserved.granted, reserved.assumed_started = now.mono, None
        reserved.row = self._ledgers.keep(resource, now.mono, "flying", reserved.id)
        resource.grants += 1
        self.outbox.append((client, encode("reserve_response", id=ask.id, status="granted", reservation=reserved.id)))

    # --- reports about a grant -----------------------------------------------------------------------------------

    def _started(self, client: int, notice: StartReport, now: Instant) -> None:
        state, ledgers = self._clients[client], self._ledgers
        at = Mono(now.mono - notice.ago)
        reservation = state.reservations.get(notice.reservation or "")
        if reservation is None:
            self._record_unreserved_start(client, notice, at, now)
            return
        resource, at = reservation.resource, Mono(max(at, reservation.granted))
        if reservation.assumed_started is not None:
            resource.ledger.forget(reservation.assumed_started)
            ledgers.drop(reservation.row)
            if notice.started:
                ledgers.record(resource, at)
            reservation.assumed_started = None
        elif reservation.id not in self._unconfirmed:
            raise BadMessage("unknown", f"reservation `{reservation.id}` has no unreported start")
        elif notice.started:
            self._mark_started(reservation, at)
        else:
            del self._unconfirmed[reservation.id]
            resource.ledger.failed(reservation.ticket)
            ledgers.drop(reservation.row)
        if not reservation.ticket.planned:
            del state.reservations[reservation.id]
        self._admit(resource, now)

    def _record_unreserved_start(self, client: int, notice: StartReport, at: Mono, now: Instant) -> None:
        """Record a start whose reservation was refunded, was granted before a restart, or never existed."""
        resource = self._find_reservation(notice.reservation)
        if resource is None and notice.resource is not None:
            resource = self._ledgers.get_or_create(notice.resource, notice.rate, client, now)
        if resource is None:
            raise BadMessage("unknown", f"unknown reservation `{notice.reservation}`")
        if notice.started:
            self._ledgers.record(resource, at)
        self._admit(resource, now)

    def _release(self, client: int, request: Release, now: Instant) -> None:
        state = self._clients[client]
        if request.id is not None:
            names = [name for name, ask in state.waiting if ask == request.id]
            if not names:
                raise BadMessage("unknown", f"no queued request `{request.id}`")
            for name in names:
                state.waiting.discard((name, request.id))
                resource = self._ledgers.get_or_create(name, None, client, now)
                resource.queue.pop((client, request.id), None)
                self._admit(resource, now)
        elif (restored := self._find_reservation(request.reservation)) is not None:
            self._admit(restored, now)
        else:
            reservation = self._require_owned(state, request.reservation or "")
            del state.reservations[reservation.id]
            self._refund(reservation)
            self._admit(reservation.resource, now)
        self.outbox.append((client, encode("release_response", status="ok")))

    def _find_reservation(self, reservation: str | None) -> Resource | None:
        """The resource of a reservation from before a restart. The start that was assumed for it is removed."""
        restored = self._restored.pop(reservation or "", None)
        if restored is None:
            return None
        resource, assumed, row = restored
        resource.ledger.forget(assumed)
        self._ledgers.drop(row)
        return resource

    def _require_owned(self, client: _Client, name: str) -> Reservation:
        try:
            return client.reservations[name]
        except KeyError:
            raise BadMessage("unknown", f"unknown reservation `{name}`") from None

    def _mark_started(self, reservation: Reservation, at: Mono) -> Mono:
        """Record that a granted attempt started at `at`. Returns the instant at which the start counts."""
        resource = reservation.resource
        at = self._ledgers.settled(resource, at)
        del self._unconfirmed[reservation.id]
        resource.ledger.started(reservation.ticket, at)
        self._ledgers.moved(resource, reservation.row, at)
        return at

    def _refund(self, reservation: Reservation) -> None:
        if self._unconfirmed.pop(reservation.id, None) is not None:
            self._ledgers.drop(reservation.row)
        reservation.resource.ledger.release(reservation.ticket)

    # --- figures -------------------------------------------------------------------------------------------------

    def stats(self, now: Instant) -> Mapping[str, Any]:
        """Statistics as plain data."""
        return {
            "clients": len(self._clients),
            "waiting": sum(len(resource.queue) for resource in self._ledgers),
            "resources": [resource.figures(now) for resource in self._ledgers],
            **self._runs.figures(),
        }
