"""Protocol 1.0, used by `patience`: responses are "granted" or "retry at", and clients do not report starts. Sans-IO.

After the response the attempts of the client count, each as if it started up to `LATE` after its instant. A
registration on the same connection confirms them at the time at which it arrives. Unconfirmed attempts are refunded
after a time. There is one exception: a client that had to wait for five seconds gives up registering and starts
anyway. The future attempts of a client are refunded when it disconnects.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import Instant, Mono, rfc3339
from repeater.ratelimitd.protocol import LONGEST_TIME, MOST_STARTS, Rate, Schedule, say_registered, say_schedule
from repeater.ratelimitd.resources import Resource, ResourceTable
from repeater.wire.json_lines import BadMessage, clip

REGISTER_WITHIN = 15_000_000
"""Microseconds in which a client must register, from the instant of its response."""
GIVES_UP = 5_000_000
"""Microseconds after its request in which a client can still register."""
MOST_HELD = 256
_FALLBACK = timedelta(minutes=1)  # the client waits this long if the response has no time


@dataclass(slots=True, eq=False)
class _Hold:
    """Attempts of one client: the instant and the row of each. `until` is the deadline of the registration, or the end
    of the last attempt.
    """

    resource: Resource
    attempts: list[tuple[Mono, int]]
    asked: Mono
    until: Mono
    late: int
    client: int
    registered: bool = False

    def started_unregistered(self) -> bool:
        """Whether the client had to wait too long to register, so that it starts without a registration."""
        return self.attempts[0][0] - self.late - self.asked >= GIVES_UP


class V1Sessions:
    """Returns lines to send. After a call that may refund attempts, the caller must evaluate the queue again."""

    def __init__(self, ledgers: ResourceTable, warnings: list[Reason]) -> None:
        self._ledgers = ledgers
        self._held: dict[_Hold, None] = {}
        self.warnings = warnings

    def schedule(self, client: int, ask: Schedule, now: Instant) -> bytes:
        """Respond whether the client may start now, and if not, when. The instant of the response is reserved.

        The response is always a `schedule_response`, because the client starts without a reservation after any other.
        Attempts that the limit can never admit are not counted. `warnings` gets a reason for that, and for a request
        that cannot be stored.
        """
        if ask.probes:
            return _answer(now, now, "nothing was reserved")
        mine = self._of(client)
        asks_again = [one for one in mine if one.resource.name == ask.resource and not one.registered]
        try:
            if len(mine) - len(asks_again) >= MOST_HELD:
                raise BadMessage("busy", f"cannot store more than {MOST_HELD} reservations of one client")
            resource = self._ledgers.get_or_create(ask.resource, ask.rate, client, now)
        except BadMessage as refusal:
            self.warnings.append(because("request_not_counted", resource=clip(ask.resource), error=refusal.message))
            return say_schedule(can=False, reason=refusal.message, wait_until=str(rfc3339(now.wall + _FALLBACK)))
        resource.promise(now.mono, now)
        offsets = resource.usable(ask.offsets)
        if offsets != ask.offsets:
            left = len(ask.offsets) - len(offsets)
            self.warnings.append(
                because(
                    "attempts_not_counted",
                    resource=clip(ask.resource),
                    attempts=len(ask.offsets),
                    left=left,
                    limit=resource.rate.count,
                )
            )
        for before in asks_again:
            self._abandon(before, now)
        at = Mono(resource.earliest_after_queue(offsets, now))
        late = resource.late
        attempts = []
        for instant in (Mono(at + offset + late) for offset in offsets):
            resource.ledger.record(instant)
            attempts.append((instant, self._ledgers.keep(resource, instant, "planned")))
        self._held[_Hold(resource, attempts, now.mono, Mono(at + REGISTER_WITHIN), late, client)] = None
        resource.promise(attempts[-1][0], now)
        resource.grants += 1
        text = "the limit allows it" if at <= now.mono else f"the limit of {resource.rate.count} is used up until then"
        if resource.rate != ask.rate:
            text += f"; other clients use {resource.rate}; the strictest applies"
        return _answer(now.at_mono(at), now, text)

    def register(self, client: int, attempts: tuple[tuple[str, int, int], ...], now: Instant) -> bytes:
        """Confirm the attempts of a response at their own instants, and record the other attempts.

        Raises BadMessage before anything is changed.
        """
        self._ledgers.room_for(name for name, _, _ in attempts)
        mine, confirmed = [one for one in self._of(client) if not one.registered], 0
        for name in dict.fromkeys(name for name, _, _ in attempts):
            tentative = next((one for one in mine if one.resource.name == name), None)
            if tentative is not None:
                self._confirm(tentative, now)
                confirmed += len(tentative.attempts)
                attempts = tuple(one for one in attempts if one[0] != name)
        wall = int(now.wall.timestamp())
        for name, at, expires in attempts:
            if expires > wall and at - wall < LONGEST_TIME // 1000:
                seconds = max(1, expires - at)
                rate = Rate(MOST_STARTS, seconds * 1_000_000)
                resource = self._ledgers.get(name) or self._ledgers.get_or_create(name, rate, client, now, known=False)
                self._ledgers.record(resource, Mono(now.mono + max(at - wall, -seconds) * 1_000_000))
        return say_registered(f"registered {confirmed + len(attempts)} requests")

    def disconnect(self, client: int, now: Instant) -> list[Resource]:
        """Refund the attempts of a client that disconnected. Returns the resources that changed."""
        mine = self._of(client)
        for tentative in mine:
            self._abandon(tentative, now)
        return [one.resource for one in mine]

    def pass_time(self, now: Instant) -> list[Resource]:
        """Refund attempts that were not registered in time, and drop those that are over. Returns changed resources."""
        changed = []
        for tentative in [one for one in self._held if one.until <= now.mono]:
            if not tentative.registered and tentative.started_unregistered():
                tentative.registered = True
                tentative.until = tentative.attempts[-1][0]
            if tentative.until <= now.mono:
                self._abandon(tentative, now)
                changed.append(tentative.resource)
        return changed

    def due_times(self) -> Iterator[Mono]:
        return (one.until for one in self._held)

    def holds(self, client: int) -> bool:
        return any(one.client == client for one in self._held)

    def uses(self, resource: Resource) -> bool:
        return any(one.resource is resource for one in self._held)

    def _of(self, client: int) -> list[_Hold]:
        return [one for one in self._held if one.client == client]

    def _confirm(self, tentative: _Hold, now: Instant) -> None:
        """The first attempt starts now. The others stay reserved until the client disconnects."""
        resource = tentative.resource
        (at, row), *later = tentative.attempts
        resource.ledger.forget(at)
        first = Mono(max(now.mono, at - tentative.late) + tentative.late)
        resource.ledger.record(first)
        resource.promise(first, now)
        self._ledgers.moved(resource, row, first)
        tentative.attempts = [(first, row), *later]
        tentative.registered = True
        tentative.until = Mono(max(one for one, _ in tentative.attempts))

    def _abandon(self, tentative: _Hold, now: Instant) -> None:
        """Refund the attempts that cannot have started. The client disconnected, did not register, or has finished."""
        del self._held[tentative]
        may_have_started = tentative.registered or tentative.started_unregistered()
        for at, row in tentative.attempts:
            if not may_have_started or at - tentative.late > now.mono:
                tentative.resource.ledger.forget(at)
                self._ledgers.drop(row)


def _answer(at: Instant, now: Instant, reason: str) -> bytes:
    return say_schedule(can=at.mono <= now.mono, reason=reason, wait_until=str(rfc3339(at.wall)))
