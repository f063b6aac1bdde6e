"""A slot that was admitted: its data until it has its final record. The parts of a job change it."""

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
    """A grant of the rate-limit daemon: `left` further attempts are reserved.

    `unconfirmed`: it was not yet reported whether the last granted attempt started. `reservation` is None if the daemon
    was unreachable. `connection_epoch` counts the connections: a reservation of an earlier connection is void.
    """

    limit: Limit
    reservation: str | None
    left: int
    connection_epoch: int
    unconfirmed: bool


class ActiveSlot:
    """A slot that was admitted and has no final record yet.

    `wait_reason` says why it may not start yet, None if it does not wait for admission. `forced_outcome` is the state
    and the reason of its final record if its end was decided before the command ended. `ended` is when its last attempt
    ended, if the report came later. `uncounted_attempts` failed because of the machine, not the command. `tickets` are
    its permits in limits, `grants` those in shared limits. `refused`: a server refused its last attempt without naming
    a delay.
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
        "timers",
        "uncounted_attempts",
        "usage",
        "wait_reason",
        "waits_on",
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
        self.timers: list[Timer] = []
        self.tickets: dict[Key, Permit] = {}
        self.grants: dict[Key, SharedGrant] = {}

    def has_place(self, key: Key) -> bool:
        """Whether the next attempt has a reserved permit behind a key."""
        ticket, grant = self.tickets.get(key), self.grants.get(key)
        return bool((ticket is not None and ticket.planned) or (grant is not None and grant.left))

    def record(
        self,
        state: SlotState,
        reason: Reason | None,
        code: int | None,
        generation: int,
        *,
        ended: datetime | None = None,
    ) -> SlotRecord:
        """The record of the slot as of its last attempt."""
        slot, attempt = self.slot, self.attempt
        run = attempt.run.id if attempt else None
        return SlotRecord(
            slot.job, slot.nominal, slot.due, self.started, ended, state, reason, run, self.attempts, code,
            slot.trigger, generation, usage=self.usage,
        )  # fmt: skip
