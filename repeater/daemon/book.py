"""The ledgers of all resources, and who waits for them: what the daemon knows and decides. Sans-IO and clockless.

Whoever drives it (`daemon.server`) hands in messages with one reading of the clocks and takes out what is to be said
(`said`), what is to be kept over a restart (`changes`), and when to look again (`next_due`).

Requests of version 1.1 wait in one row for each resource; the first is admitted at the instant at which its ledger
allows it, and the others are looked at when it has been. So a place is never raced for, and a client that waits costs
nothing. A granted attempt counts as happening now, whenever now is, until its start is told (`policy.limit`); of a
client that is gone it is given back, for nobody can have started it since.

A 1.0 client is told yes or an instant, and says nothing of starts. From the answer on it holds its attempts, each as if
it came up to `LATE` after its instant; a registration on the same connection confirms them, at the time at which it
comes. What is not confirmed in time is given back, unless the client had to sleep for so long that it cannot register
any more (it gives up after five seconds, and starts all the same). Its attempts to come are given back when it is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from repeater.daemon.kept import Change, Dropped, Kept, Kind, Known, Outdated
from repeater.daemon.protocol import (
    LONGEST_TIME,
    MOST_STARTS,
    Handshake,
    Message,
    PushBackNotice,
    Rate,
    Register,
    Release,
    Reserve,
    RunMetrics,
    Schedule,
    StartNotice,
    StatsRequest,
    say,
    say_handshake,
    say_registered,
    say_schedule,
)
from repeater.model.time import Instant, Mono, rfc3339
from repeater.policy.limit import Ledger, Pattern, Ticket, check_pattern
from repeater.wire.lines import BadMessage

GRANT_WITHIN = 30_000_000
"""Microseconds after which a granted attempt that nobody told of counts as started: a start takes no longer."""
REGISTER_WITHIN = 15_000_000
"""Microseconds that a 1.0 client has to register, from the instant that it was given."""
GIVES_UP = 5_000_000
"""Microseconds after its question in which a 1.0 client can still register."""
CLAIM_WITHIN = 60_000_000
"""Microseconds in which a client may still tell of an attempt that was granted before a restart."""
LATE = 50_000
"""Microseconds from the instant of an attempt of a 1.0 client to its start, at most, as far as we know."""
TIDY_EVERY = 60_000_000
MOST_WAITING = 256
"""Requests of one client that wait at once, and reservations that it holds."""
MOST_RESOURCES = 10_000
_FORESEEN = 64  # places in a row that are foreseen one by one
_SHOWN_RUNS = 20


@dataclass(slots=True, eq=False)
class _Reservation:
    """What a 1.1 client holds. `assumed` is the start that was taken for granted because none was told."""

    id: str
    client: int
    resource: _Resource
    ticket: Ticket
    row: int = 0
    granted: int = 0
    assumed: Mono | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in the row of a resource."""

    client: int
    ask: Reserve
    rate: Rate
    pattern: Pattern
    reservation: _Reservation | None


@dataclass(slots=True, eq=False)
class _Tentative:
    """Attempts of a 1.0 client: the instant and the row of each. `until`: when it has to be registered by."""

    resource: _Resource
    attempts: list[tuple[Mono, int]]
    asked: Mono
    until: Mono
    late: int
    registered: bool = False

    def may_have_slept(self) -> bool:
        """Whether the client had to wait for so long that it starts without a registration."""
        return self.attempts[0][0] - self.late - self.asked >= GIVES_UP


@dataclass(slots=True, eq=False)
class _Resource:
    name: str
    ledger: Ledger
    rate: Rate
    known: bool = True
    queue: OrderedDict[tuple[int, str], _Waiting] = field(default_factory=OrderedDict)
    grants: int = 0
    starts: int = 0
    reason: str = ""


@dataclass(slots=True, eq=False)
class _Client:
    version: str = ""
    name: str = ""
    id: str = ""
    waiting: set[tuple[str, str]] = field(default_factory=set)
    reservations: dict[str, _Reservation] = field(default_factory=dict)
    tentative: list[_Tentative] = field(default_factory=list)


class Book:
    """`mark` begins the names of reservations, so that those of different lives of a daemon differ. `settling`: how
    many microseconds after its start a process has its first effect, at most, as far as we know.
    """

    def __init__(self, mark: str, settling: int = 0) -> None:
        self.said: list[tuple[int, bytes]] = []
        self.changes: list[Change] = []
        self._mark = mark
        self._settling = settling
        self._given = self._rows = 0
        self._resources: dict[str, _Resource] = {}
        self._clients: dict[int, _Client] = {}
        self._due: dict[str, Mono] = {}
        self._tentative: dict[_Tentative, _Client] = {}
        self._flying: OrderedDict[str, _Reservation] = OrderedDict()
        self._orphans: dict[str, tuple[_Resource, Mono, int]] = {}
        self._orphans_until: Mono | None = None
        self._tidy_at: Mono | None = None
        self._runs = {"succeeded": 0, "failed": 0, "attempts": 0, "failed_attempts": 0}
        self._run_seconds = 0.0
        self._last_runs: OrderedDict[str, dict[str, Any]] = OrderedDict()

    # --- over a restart ------------------------------------------------------------------------------------------

    def restore(self, known: Iterable[Known], kept: Iterable[Kept], now: Instant) -> None:
        """What an earlier life left. What was granted and not told of counts as started now."""
        for one in known:
            resource = self._resource(one.resource, one.rate)
            resource.ledger.not_before = one.not_before
        for attempt in kept:
            found = self._resources.get(attempt.resource)
            self._rows = max(self._rows, attempt.row)
            if found is None:
                continue
            at = attempt.at
            if attempt.kind == "flying":
                at = now.mono
                self._orphans[attempt.reservation] = (found, at, attempt.row)
                self._orphans_until = Mono(now.mono + CLAIM_WITHIN)
                self.changes.append(Kept(attempt.row, attempt.resource, at, "started"))
            found.ledger.record(at)
        self.changes = [change for change in self.changes if not isinstance(change, Known)]
        self._tidy_at = now.mono

    # --- clients -------------------------------------------------------------------------------------------------

    def connect(self, client: int) -> None:
        self._clients[client] = _Client()

    def disconnect(self, client: int, now: Instant) -> None:
        """What the client did not use is there for others."""
        gone = self._clients.pop(client)
        touched: dict[str, _Resource] = {}
        for name, ask in gone.waiting:
            resource = self._resources[name]
            resource.queue.pop((client, ask), None)
            touched[name] = resource
        for reservation in gone.reservations.values():
            self._give_back(reservation)
            touched[reservation.resource.name] = reservation.resource
        for tentative in tuple(gone.tentative):
            self._abandon(tentative, now)
            touched[tentative.resource.name] = tentative.resource
        for resource in touched.values():
            self._admit(resource, now)

    def holds(self, client: int) -> bool:
        """Whether the client waits for something or has something that its end gives back."""
        who = self._clients[client]
        return bool(who.waiting or who.reservations or who.tentative)

    def take(self, client: int, message: Message, now: Instant) -> None:
        """Carry out one message. Raises BadMessage with what is wrong, to be told to the client."""
        match message:
            case Handshake(version, name, id_):
                who = self._clients[client]
                who.version, who.name, who.id = version, name, id_
                self.said.append((client, say_handshake(version)))
            case Schedule():
                self._schedule(client, message, now)
            case Register(attempts):
                self._register(client, attempts, now)
            case Reserve():
                self._reserve(client, message, now)
            case StartNotice():
                self._started(client, message, now)
            case Release():
                self._release(client, message, now)
            case PushBackNotice(name, rate, delay, reason):
                resource = self._resource(name, rate)
                resource.ledger.push_back(now.mono + delay)
                resource.reason = reason
                self._keep_known(resource)
                self._admit(resource, now)
            case RunMetrics():
                self._count_run(message)
            case StatsRequest():  # the server adds what it knows itself
                self.said.append((client, say("stats_response", status="ok", **self.stats(now))))

    # --- time ----------------------------------------------------------------------------------------------------

    def next_due(self) -> Mono | None:
        """When `pass_time` is wanted, if nothing else happens before; None for never."""
        dues = [*self._due.values(), *(one.until for one in self._tentative)]
        if self._flying:
            dues.append(Mono(next(iter(self._flying.values())).granted + GRANT_WITHIN))
        dues += [due for due in (self._orphans_until, self._tidy_at) if due is not None]
        return min(dues, default=None)

    def pass_time(self, now: Instant) -> None:
        """What is due by now is done."""
        for tentative in [one for one in self._tentative if one.until <= now.mono]:
            if not tentative.registered and tentative.may_have_slept():
                tentative.registered = True
                tentative.until = tentative.attempts[-1][0]
            if tentative.until <= now.mono:
                self._abandon(tentative, now)
                self._admit(tentative.resource, now)
        while self._flying:
            reservation = next(iter(self._flying.values()))
            if reservation.granted + GRANT_WITHIN > now.mono:
                break
            reservation.assumed = self._land(reservation, now.mono)
            self._admit(reservation.resource, now)
        if self._orphans_until is not None and self._orphans_until <= now.mono:
            self._orphans, self._orphans_until = {}, None
        for name in [name for name, due in self._due.items() if due <= now.mono]:
            self._admit(self._resources[name], now)
        if self._tidy_at is not None and self._tidy_at <= now.mono:
            self._tidy(now)

    def _tidy(self, now: Instant) -> None:
        for name, resource in list(self._resources.items()):
            live = bool(resource.ledger.recent(now.mono)) or bool(resource.queue) or self._is_pushed(resource, now)
            gone = not live and not self._is_held(resource)
            self.changes.append(Outdated(name, Mono(now.mono - resource.rate.window), gone))
            if gone:
                del self._resources[name]
        self._tidy_at = Mono(now.mono + TIDY_EVERY) if self._resources else None

    def _is_held(self, resource: _Resource) -> bool:
        held = {one.resource.name for who in self._clients.values() for one in who.reservations.values()}
        return resource.name in held or any(one.resource is resource for one in self._tentative)

    # --- version 1.1 ---------------------------------------------------------------------------------------------

    def _reserve(self, client: int, ask: Reserve, now: Instant) -> None:
        who = self._clients[client]
        held = None
        if ask.reservation is not None:
            held = self._own(who, ask.reservation)
            if held.resource.name != ask.resource:
                raise BadMessage("unknown", f"reservation `{held.id}` is not one of `{ask.resource}`")
            if held.id in self._flying:
                raise BadMessage("unknown", f"the last attempt of reservation `{held.id}` was not told of")
        resource = self._resource(ask.resource, ask.rate)
        waiting = resource.queue.get((client, ask.id))
        if waiting is None:
            pattern = (0,) if held is not None else ask.offsets
            _check(pattern, resource.rate)
            waiting = _Waiting(client, ask, resource.rate, pattern, held)
            if ask.forced:
                self._grant(resource, waiting, resource.ledger.force(None if held is None else held.ticket), now)
                return
            if len(who.waiting) + len(who.reservations) >= MOST_WAITING:
                raise BadMessage(
                    "busy", f"cannot hold more than {MOST_WAITING} requests and reservations of one client"
                )
            resource.queue[client, ask.id] = waiting
            who.waiting.add((resource.name, ask.id))
            if held is not None:  # its place is reserved already
                resource.queue.move_to_end((client, ask.id), last=False)
            self._admit(resource, now)
        if (client, ask.id) in resource.queue:
            until, ahead = self._foresee(resource, waiting, now)
            wait = {"wait_ms": max(0, until - now.mono) / 1000, "ahead": ahead}
            reason = {"reason": resource.reason} if resource.reason and self._is_pushed(resource, now) else {}
            self.said.append((client, say("reserve_response", id=ask.id, status="waiting", **wait, **reason)))

    def _admit(self, resource: _Resource, now: Instant) -> None:
        """Grant what may be granted now, in the order of the row, and know when to look again."""
        ledger = resource.ledger
        self._due.pop(resource.name, None)
        while resource.queue:
            waiting = next(iter(resource.queue.values()))
            ledger.change(waiting.rate.count, waiting.rate.window)
            if waiting.reservation is not None:
                ticket: Ticket | int = waiting.reservation.ticket
                at = ledger.readmit(waiting.reservation.ticket, now.mono)
                if at is not None:
                    ticket = at
            else:
                ticket = ledger.admit(now.mono, waiting.pattern)
            if isinstance(ticket, int):
                self._due[resource.name] = Mono(ticket)
                return
            self._grant(resource, waiting, ticket, now)

    def _grant(self, resource: _Resource, waiting: _Waiting, ticket: Ticket, now: Instant) -> None:
        client, ask = waiting.client, waiting.ask
        who = self._clients[client]
        resource.queue.pop((client, ask.id), None)
        who.waiting.discard((resource.name, ask.id))
        held = waiting.reservation
        if held is None:
            self._given += 1
            held = _Reservation(f"{self._mark}-{self._given}", client, resource, ticket)
            who.reservations[held.id] = held
        self._flying.pop(held.id, None)
        self._flying[held.id] = held
        held.granted, held.assumed = now.mono, None
        held.row = self._keep(resource, now.mono, "flying", held.id)
        resource.grants += 1
        self.said.append((client, say("reserve_response", id=ask.id, status="granted", reservation=held.id)))

    def _started(self, client: int, notice: StartNotice, now: Instant) -> None:
        who = self._clients[client]
        at = Mono(now.mono - notice.ago)
        reservation = who.reservations.get(notice.reservation or "")
        if reservation is None:
            self._started_alone(notice, at, now)
            return
        resource = reservation.resource
        if reservation.assumed is not None:
            resource.ledger.forget(reservation.assumed)
            self.changes.append(Dropped(reservation.row))
            if notice.started:
                self._record(resource, Mono(max(at, reservation.granted)))
            reservation.assumed = None
        elif reservation.id not in self._flying:
            raise BadMessage("unknown", f"no attempt of reservation `{reservation.id}` was granted and not told of")
        elif notice.started:
            self._land(reservation, Mono(max(at, reservation.granted)))
        else:
            del self._flying[reservation.id]
            resource.ledger.failed(reservation.ticket)
            self.changes.append(Dropped(reservation.row))
        if not reservation.ticket.planned:
            del who.reservations[reservation.id]
        self._admit(resource, now)

    def _started_alone(self, notice: StartNotice, at: Mono, now: Instant) -> None:
        """A start of a reservation that was given back with its connection, or of an earlier life, or of nobody's."""
        orphan = self._orphans.pop(notice.reservation or "", None)
        if orphan is not None:
            resource, assumed, row = orphan
            resource.ledger.forget(assumed)
            self.changes.append(Dropped(row))
        elif notice.resource is not None:
            resource = self._resource(notice.resource, notice.rate)
        else:
            raise BadMessage("unknown", f"there is no reservation `{notice.reservation}`")
        if notice.started:
            self._record(resource, at)
        self._admit(resource, now)

    def _release(self, client: int, asked: Release, now: Instant) -> None:
        who = self._clients[client]
        if asked.id is not None:
            names = [name for name, ask in who.waiting if ask == asked.id]
            for name in names:
                who.waiting.discard((name, asked.id))
                self._resources[name].queue.pop((client, asked.id), None)
                self._admit(self._resources[name], now)
            if not names:
                raise BadMessage("unknown", f"no request `{asked.id}` waits")
        elif asked.reservation in self._orphans:
            resource, assumed, row = self._orphans.pop(asked.reservation or "")
            resource.ledger.forget(assumed)
            self.changes.append(Dropped(row))
            self._admit(resource, now)
        else:
            reservation = self._own(who, asked.reservation or "")
            del who.reservations[reservation.id]
            self._give_back(reservation)
            self._admit(reservation.resource, now)
        self.said.append((client, say("release_response", status="ok")))

    def _own(self, who: _Client, name: str) -> _Reservation:
        try:
            return who.reservations[name]
        except KeyError:
            raise BadMessage("unknown", f"there is no reservation `{name}`") from None

    def _land(self, reservation: _Reservation, at: Mono) -> Mono:
        """A granted attempt happened at this instant; the one at which it counts."""
        resource = reservation.resource
        at = self._settled(resource, at)
        del self._flying[reservation.id]
        resource.ledger.started(reservation.ticket, at)
        resource.starts += 1
        self.changes.append(Kept(reservation.row, resource.name, at, "started"))
        return at

    def _give_back(self, reservation: _Reservation) -> None:
        if self._flying.pop(reservation.id, None) is not None:
            self.changes.append(Dropped(reservation.row))
        reservation.resource.ledger.release(reservation.ticket)

    # --- version 1.0 ---------------------------------------------------------------------------------------------

    def _schedule(self, client: int, ask: Schedule, now: Instant) -> None:
        if ask.probes:
            self._answer(client, now, now, "nothing was reserved")
            return
        who, resource = self._clients[client], self._resource(ask.resource, ask.rate)
        _check(ask.offsets, ask.rate)
        for before in [one for one in who.tentative if one.resource is resource and not one.registered]:
            self._abandon(before, now)  # it asks again
        if len(who.tentative) >= MOST_WAITING:
            raise BadMessage("busy", f"cannot hold more than {MOST_WAITING} reservations of one client")
        at = self._after_the_row(resource, ask, now)
        late = min(LATE, ask.rate.window // 20)
        attempts = [Mono(at + offset + late) for offset in ask.offsets]
        for attempt in attempts:
            resource.ledger.record(attempt)
        rows = [(attempt, self._keep(resource, attempt, "planned")) for attempt in attempts]
        tentative = _Tentative(resource, rows, now.mono, Mono(at + REGISTER_WITHIN), late)
        who.tentative.append(tentative)
        self._tentative[tentative] = who
        resource.grants += 1
        self._admit(resource, now)
        words = "the limit allows it" if at <= now.mono else f"the limit of {ask.rate.count} is used up until then"
        self._answer(client, now.at_mono(Mono(at)), now, words)

    def _answer(self, client: int, at: Instant, now: Instant, reason: str) -> None:
        can, wall = at.mono <= now.mono, rfc3339(at.wall)
        self.said.append((client, say_schedule(can=can, reason=reason, wait_until=str(wall))))

    def _after_the_row(self, resource: _Resource, ask: Schedule, now: Instant) -> int:
        """The earliest instant for a request that comes after all those that wait."""
        foreseen = [resource.ledger.reserve(now.mono, one.pattern) for one in self._front(resource)]
        resource.ledger.change(ask.rate.count, ask.rate.window)
        later = len(resource.queue) - len(foreseen)
        begin = now.mono + -(-later // ask.rate.count) * ask.rate.window
        at = resource.ledger.earliest(begin, ask.offsets)
        for ticket in foreseen:
            resource.ledger.release(ticket)
        return at

    def _register(self, client: int, attempts: tuple[tuple[str, int, int], ...], now: Instant) -> None:
        """The attempts of one answer are confirmed, whatever times the client gives them; others are recorded."""
        who = self._clients[client]
        confirmed = 0
        for name in dict.fromkeys(name for name, _, _ in attempts):
            tentative = next((one for one in who.tentative if one.resource.name == name and not one.registered), None)
            if tentative is None:
                continue
            self._confirm(tentative, now)
            confirmed += len(tentative.attempts)
            attempts = tuple(one for one in attempts if one[0] != name)
        wall = int(now.wall.timestamp())
        for name, at, expires in attempts:
            if expires > wall and at - wall < LONGEST_TIME // 1000:
                length = max(1, expires - at) * 1_000_000
                resource = self._resources.get(name) or self._resource(name, Rate(MOST_STARTS, length), known=False)
                self._record(resource, Mono(now.mono + max(at - wall, -length // 1_000_000) * 1_000_000))
        self.said.append((client, say_registered(f"registered {confirmed + len(attempts)} requests")))

    def _confirm(self, tentative: _Tentative, now: Instant) -> None:
        """The first attempt starts now; the others hold their places, as long as the client is there."""
        resource = tentative.resource
        (at, row), *later = tentative.attempts
        resource.ledger.forget(at)
        first = Mono(max(now.mono, at - tentative.late) + tentative.late)
        resource.ledger.record(first)
        self.changes.append(Kept(row, resource.name, first, "started"))
        resource.starts += 1
        tentative.attempts = [(first, row), *later]
        tentative.registered = True
        tentative.until = Mono(max(one for one, _ in tentative.attempts))

    def _abandon(self, tentative: _Tentative, now: Instant) -> None:
        """The client is gone, or did not register: what cannot have happened is given back."""
        who = self._tentative.pop(tentative)
        who.tentative.remove(tentative)
        may_have_started = tentative.registered or tentative.may_have_slept()
        for at, row in tentative.attempts:
            if not may_have_started or at - tentative.late > now.mono:
                tentative.resource.ledger.forget(at)
                self.changes.append(Dropped(row))

    # --- within --------------------------------------------------------------------------------------------------

    def _resource(self, name: str, rate: Rate | None, *, known: bool = True) -> _Resource:
        resource = self._resources.get(name)
        if resource is None:
            if rate is None:
                raise BadMessage("unknown", f"cannot limit `{name}`: nobody has said its rate")
            if len(self._resources) >= MOST_RESOURCES:
                raise BadMessage("busy", f"cannot keep more than {MOST_RESOURCES} resources")
            resource = self._resources[name] = _Resource(name, Ledger(rate.count, rate.window), rate, known)
            self._keep_known(resource)
        elif rate is None and not resource.known:
            raise BadMessage("unknown", f"cannot limit `{name}`: nobody has said its rate")
        elif rate is not None and known and (resource.rate != rate or not resource.known):
            resource.rate, resource.known = rate, True
            resource.ledger.change(rate.count, rate.window)
            self._keep_known(resource)
        if self._tidy_at is None:
            self._tidy_at = Mono(0)
        return resource

    def _keep_known(self, resource: _Resource) -> None:
        if not resource.known:
            return
        until = resource.ledger.not_before
        self.changes.append(Known(resource.name, resource.rate, None if until is None else Mono(until)))

    def _keep(self, resource: _Resource, at: Mono, kind: Kind, reservation: str = "") -> int:
        self._rows += 1
        self.changes.append(Kept(self._rows, resource.name, at, kind, reservation))
        return self._rows

    def _settled(self, resource: _Resource, at: Mono) -> Mono:
        """When a start shows: what others see are its effects, and they must not come closer together than starts."""
        return Mono(at + min(self._settling, resource.rate.window // 50))

    def _record(self, resource: _Resource, at: Mono) -> None:
        at = self._settled(resource, at)
        resource.ledger.record(at)
        resource.starts += 1
        self._keep(resource, at, "started")

    def _front(self, resource: _Resource) -> list[_Waiting]:
        return [one for _, one in zip(range(_FORESEEN), resource.queue.values(), strict=False)]

    def _foresee(self, resource: _Resource, waiting: _Waiting, now: Instant) -> tuple[int, int]:
        """When a request of the row may be granted, as far as is known, and how many are before it."""
        ahead = list(resource.queue).index((waiting.client, waiting.ask.id))
        tickets, at = [], now.mono
        for one in self._front(resource)[: ahead + 1]:
            ticket = resource.ledger.reserve(now.mono, one.pattern)
            at = Mono(ticket.planned[0])
            tickets.append(ticket)
        for ticket in tickets:
            resource.ledger.release(ticket)
        beyond = max(0, ahead + 1 - len(tickets))
        return at + -(-beyond // waiting.rate.count) * waiting.rate.window, ahead

    def _is_pushed(self, resource: _Resource, now: Instant) -> bool:
        return resource.ledger.not_before is not None and resource.ledger.not_before > now.mono

    # --- figures -------------------------------------------------------------------------------------------------

    def _count_run(self, run: RunMetrics) -> None:
        self._runs["succeeded" if run.succeeded else "failed"] += 1
        self._runs["attempts"] += run.attempts
        self._runs["failed_attempts"] += run.failures
        self._run_seconds += run.seconds
        before = self._last_runs.pop(run.hash, {"runs": 0})
        self._last_runs[run.hash] = {
            "command_hash": run.hash,
            "command": run.command,
            "runs": before["runs"] + 1,
            "final_status": "succeeded" if run.succeeded else "failed",
            "total_attempts": run.attempts,
            "total_duration_seconds": run.seconds,
        }
        if len(self._last_runs) > _SHOWN_RUNS:
            self._last_runs.popitem(last=False)

    def stats(self, now: Instant) -> Mapping[str, Any]:
        """How everything stands; plain data."""
        return {
            "clients": len(self._clients),
            "waiting": sum(len(resource.queue) for resource in self._resources.values()),
            "resources": [self._figures(resource, now) for _, resource in sorted(self._resources.items())],
            "runs": {**self._runs, "seconds": round(self._run_seconds, 6)},
            "last_runs": list(reversed(self._last_runs.values())),
        }

    def _figures(self, resource: _Resource, now: Instant) -> dict[str, Any]:
        ledger = resource.ledger
        used, kept = ledger.used(now.mono), len(ledger.recent(now.mono))
        at = ledger.earliest(now.mono)
        return {
            "resource_id": resource.name,
            "rate_limit": resource.rate.count if resource.known else None,
            "window_ms": resource.rate.window // 1000 if resource.known else None,
            "used": used,
            "reserved": max(0, kept - used),
            "waiting": len(resource.queue),
            "next_in_ms": (at - now.mono) / 1000,
            "grants": resource.grants,
            "starts": resource.starts,
        }


def _check(pattern: Pattern, rate: Rate) -> None:
    try:
        check_pattern(pattern, rate.count, rate.window)
    except ValueError as error:
        raise BadMessage("field", f"cannot use `retry_offsets`: {error}") from None
