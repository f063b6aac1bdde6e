"""Limits that the rate-limit daemon enforces for all processes: requests, grants, and reports about starts.

For each limit there is one request at a time, for the slot that came first. It waits at the daemon, in the queue of all
processes. A retry with a reserved permit does not wait in that queue, so it has a request of its own. A grant belongs
to the slot of its request. If the slot cannot start, the grant is given back at once, because others wait for it. While
the daemon does not answer, `engine.limits` enforces `open` limits locally, and `closed` limits allow no start.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from datetime import timedelta
from typing import TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.engine.actions import PushBackQuota, ReleaseQuota, RequestSharedStart, SpendQuota, WithdrawQuota
from repeater.engine.active_slot import ActiveSlot, SharedGrant
from repeater.engine.context import Context
from repeater.engine.facts import QuotaWarned, RateLimiterDown, RateLimiterUp, SharedLimitGranted, SharedLimitQueued
from repeater.engine.keys import Key
from repeater.model.events import Warned
from repeater.model.reasons import Reason, ReasonCode
from repeater.model.reasons import reason as because
from repeater.model.spec import Limit
from repeater.model.time import Mono

_FOUND = Reason("quota_found")
_Place: TypeAlias = tuple[Key, ActiveSlot | None]
"""A limit, and the slot if the slot has a reserved permit. All other slots of a limit share one place."""


@dataclass(slots=True, eq=False)
class _PendingRequest:
    id: str
    slot: ActiveSlot
    limit: Limit
    offsets: tuple[int, ...]
    left: int
    until: Mono | None = None
    reason: Reason | None = None
    granted: str | None = None


class SharedLimits:
    """The requests and grants of shared limits.

    `touch` is called with a key when its waiting slots must be checked again. `asked` are the requests and the grants
    that no slot has used yet. `lost` says why the daemon does not answer, None if it answers.
    """

    def __init__(self, context: Context, touch: Callable[[Key], None]) -> None:
        self._context = context
        self._touch = touch
        self.asked: dict[_Place, _PendingRequest] = {}
        self._limits: Mapping[Key, Limit] = {}
        self._count = 0
        self._epoch = 0
        self.lost: Reason | None = None

    def accept(self, limits: Mapping[Key, Limit]) -> None:
        """Use these shared limits, by key. Requests for changed limits are withdrawn."""
        for place, asked in list(self.asked.items()):
            if limits.get(place[0]) != asked.limit:
                self._drop(place)
        self._limits = limits

    def holds(self, key: Key) -> bool:
        """Whether the daemon decides about the limit of a key. If it is down, a `closed` limit allows no start."""
        limit = self._limits.get(key)
        return limit is not None and (self.lost is None or limit.fail == "closed")

    def enter(self, key: Key, slot: ActiveSlot, offsets: tuple[int, ...]) -> Reason | None:
        """None: the next attempt of the slot was granted and starts now. Else the reason to wait."""
        limit = self._limits[key]
        if self.lost is not None:
            return because("shared_limit", limit=limit.name, rate=str(limit.rate), cause=self.lost)
        reservation = self._reservation(key, slot)
        place = key, None if reservation is None else slot
        asked = self.asked.get(place)
        if asked is not None and asked.slot is slot and asked.granted is not None:
            del self.asked[place]
            slot.grants[key] = SharedGrant(limit, asked.granted, asked.left, self._epoch, unconfirmed=True)
            return None
        if asked is None:
            left = len(offsets) - 1 if reservation is None else slot.grants[key].left - 1
            self._count += 1
            asked = self.asked[place] = _PendingRequest(str(self._count), slot, limit, offsets, left)
            request = RequestSharedStart(asked.id, limit.name, limit.rate, offsets, reservation)
            self._context.actions.append(request)
        now = self._context.now
        is_over = asked.until is None or asked.until <= now.mono
        until = None if is_over or asked.until is None else now.at_mono(asked.until).wall.replace(microsecond=0)
        rate = str(limit.rate)
        return because("shared_limit", limit=limit.name, rate=rate, until=until, cause=asked.reason)

    def alone(self, key: Key, slot: ActiveSlot) -> None:
        """The next attempt of a slot starts without the daemon: it is forced, or the daemon does not answer."""
        slot.grants[key] = SharedGrant(self._limits[key], None, 0, self._epoch, unconfirmed=True)

    def report_start_of(self, key: Key, slot: ActiveSlot) -> None:
        """Report the start of the current attempt also if it was granted before its job had this limit."""
        grant = slot.grants.get(key)
        if grant is None or not grant.unconfirmed:
            self.alone(key, slot)

    def _reservation(self, key: Key, slot: ActiveSlot) -> str | None:
        """The reservation of the daemon for the next attempt of the slot, None if there is none."""
        grant = slot.grants.get(key)
        is_valid = grant is not None and grant.left and grant.connection_epoch == self._epoch
        return grant.reservation if grant is not None and is_valid else None

    # --- messages of the daemon ----------------------------------------------------------------------------------

    def handle(
        self, fact: SharedLimitGranted | SharedLimitQueued | RateLimiterDown | RateLimiterUp | QuotaWarned
    ) -> None:
        match fact:
            case SharedLimitGranted(id_, reservation):
                self._granted(id_, reservation)
            case SharedLimitQueued(id_, wait, reason):
                self._waits(id_, wait, reason)
            case RateLimiterDown(reason):
                self._lost(reason)
            case RateLimiterUp():
                self._found()
            case QuotaWarned(reason):
                self._context.emit_event(Warned("", reason))

    def _granted(self, id_: str, reservation: str) -> None:
        place = self._place_of(id_)
        if place is None:
            self._context.actions.append(ReleaseQuota(reservation))
        else:
            self.asked[place].granted = reservation
            self._touch(place[0])

    def _waits(self, id_: str, wait: timedelta, reason: Reason | None) -> None:
        place = self._place_of(id_)
        if place is not None:
            asked = self.asked[place]
            asked.until, asked.reason = self._context.now.plus(wait).mono, reason
            self._touch(place[0])

    def _lost(self, reason: Reason) -> None:
        self.asked.clear()
        self._epoch += 1
        self.lost = reason
        for fail in ("open", "closed"):
            names = [limit.name for limit in self._limits.values() if limit.fail == fail]
            if names:
                code: ReasonCode = "quota_lost_open" if fail == "open" else "quota_lost_closed"
                self._context.emit_event(Warned("", because(code, cause=reason, limits=names)))
        self._touch_all()

    def _found(self) -> None:
        if self.lost is not None:
            self.lost = None
            self._context.emit_event(Warned("", _FOUND))
            self._touch_all()

    # --- reports about attempts ----------------------------------------------------------------------------------

    def started(self, slot: ActiveSlot) -> None:
        """The process of the attempt exists."""
        self._spend(slot, started=True)

    def failed(self, slot: ActiveSlot) -> None:
        """The attempt did not start."""
        self._spend(slot, started=False)

    def release(self, slot: ActiveSlot) -> None:
        """The slot has ended: give back what it reserved."""
        for grant in slot.grants.values():
            if grant.reservation is not None and grant.left and grant.connection_epoch == self._epoch:
                self._context.actions.append(ReleaseQuota(grant.reservation))
                grant.unconfirmed = False
        self._spend(slot, started=False)
        slot.grants.clear()

    def push_back(self, limit: Limit, delay: timedelta, reason: Reason) -> None:
        """A server asks all clients of the limit to wait."""
        self._context.actions.append(PushBackQuota(limit.name, limit.rate, delay, reason))

    def tidy(self, waiting: Mapping[Key, Container[ActiveSlot]]) -> bool:
        """Give back unused grants and withdraw requests without a waiting slot; True if that freed a limit."""
        freed = [
            place
            for place, asked in self.asked.items()
            if asked.granted is not None or asked.slot not in waiting.get(place[0], ())
        ]
        for place in freed:
            self._drop(place)
        return bool(freed)

    def _spend(self, slot: ActiveSlot, *, started: bool) -> None:
        for grant in slot.grants.values():
            if grant.unconfirmed and (started or grant.reservation is not None):
                self._context.actions.append(SpendQuota(grant.limit.name, grant.limit.rate, grant.reservation, started))
            grant.unconfirmed = False

    def _drop(self, place: _Place) -> None:
        asked = self.asked.pop(place)
        if asked.granted is not None:
            self._context.actions.append(ReleaseQuota(asked.granted))
        else:
            self._context.actions.append(WithdrawQuota(asked.id))
        self._touch(place[0])

    def _place_of(self, id_: str) -> _Place | None:
        return next((place for place, asked in self.asked.items() if asked.id == id_), None)

    def _touch_all(self) -> None:
        for key in self._limits:
            self._touch(key)
