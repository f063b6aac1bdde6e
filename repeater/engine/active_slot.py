"""A slot that was admitted: what is known until its final row is written. Plain data; `engine.job` moves it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import dataclass
from repeater.engine.attempt import Attempt
from repeater.engine.keys import Key
from repeater.engine.timers import Timer
from repeater.model.reasons import Reason
from repeater.model.run import Slot, SlotRecord, SlotState, Usage
from repeater.model.spec import Limit
from repeater.model.time import Instant

if TYPE_CHECKING:
    from repeater.policy.limit import Permit


@dataclass(slots=True, eq=False)
class SharedGrant:
    """What a daemon let through under a shared limit: `left` further attempts are reserved, `flying` says that the last
    one is neither told as started nor as failed. Without a `reservation` nobody was asked. `life` counts the lives of
    the connection; a reservation of an earlier one is void.
    """

    limit: Limit
    reservation: str | None
    left: int
    connection_epoch: int
    unconfirmed: bool


class ActiveSlot:
    """A slot that was admitted and has no final row yet.

    `held` says what it waits for, None when it does not wait at a gate. `fate` is the state and reason of its row if
    somebody else decided how it ends. `ended` is when its last attempt did, if that was before it was told. `free`
    counts attempts that the machine failed, not the command. `tickets` are its places in limits, `grants` those in
    limits that a daemon holds. `refused`: a server refused its last attempt without naming a delay.
    """

    __slots__ = (
        "attempt",
        "attempts",
        "delay",
        "ended",
        "forced_outcome",
        "grants",
        "pid",
        "pool",
        "refused",
        "retry",
        "since",
        "slot",
        "started",
        "tickets",
        "uncounted_attempts",
        "usage",
        "wait_reason",
        "waits_on",
        "wakes",
    )  # fmt: skip

    def __init__(self, slot: Slot, since: Instant) -> None:
        self.slot = slot
        self.since = since
        self.attempts = 0
        self.uncounted_attempts = 0
        self.refused = False
        self.attempt: Attempt | None = None
        self.started: datetime | None = None
        self.ended: Instant | None = None
        self.pid: int | None = None
        self.delay: timedelta | None = None
        self.retry: Timer | None = None
        self.wait_reason: Reason | None = None
        self.usage = Usage()
        self.forced_outcome: tuple[SlotState, Reason] | None = None
        self.waits_on: tuple[Key, ...] = ()
        self.pool: tuple[Key, ...] = ()
        self.wakes: list[Timer] = []
        self.tickets: dict[Key, Permit] = {}
        self.grants: dict[Key, SharedGrant] = {}

    def has_place(self, key: Key) -> bool:
        """Whether the next attempt has a reserved place behind a key."""
        ticket = self.tickets.get(key)
        return ticket is not None and bool(ticket.planned)

    def record(
        self,
        state: SlotState,
        reason: Reason | None,
        code: int | None,
        generation: int,
        *,
        ended: datetime | None = None,
    ) -> SlotRecord:
        """The row of the slot as of its last attempt."""
        slot, attempt = self.slot, self.attempt
        run = attempt.run.id if attempt else None
        return SlotRecord(
            slot.job, slot.nominal, slot.due, self.started, ended, state, reason, run, self.attempts, code,
            slot.trigger, generation, usage=self.usage,
        )  # fmt: skip
