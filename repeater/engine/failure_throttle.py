"""How consecutive failures, and the restarts of a service, delay the next start."""

from __future__ import annotations

from datetime import timedelta

from repeater.engine.context import Context
from repeater.model.run import Verdict
from repeater.model.spec import Backoff, JobSpec
from repeater.model.time import Instant
from repeater.schedule.backoff import backoff_delay

SERVICE_FLOOR = timedelta(seconds=1)
"""The shortest time between two starts of a service."""
_SERVICE = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=30))


class FailureThrottle:
    """`not_before` is the earliest instant of the next start, None if it is not delayed."""

    __slots__ = ("_delay", "_failures", "not_before")

    def __init__(self) -> None:
        self._failures = 0
        self._delay: timedelta | None = None
        self.not_before: Instant | None = None

    def reset(self) -> None:
        self._failures = 0
        self._delay = None
        self.not_before = None

    def holds(self, now: Instant) -> bool:
        """Whether it is too early for a start."""
        return self.not_before is not None and now.mono < self.not_before.mono

    def move_clock(self, by: timedelta) -> None:
        """The wall clock was set."""
        if self.not_before is not None:
            self.not_before = Instant(self.not_before.wall + by, self.not_before.mono)

    def record_outcome(
        self, spec: JobSpec, outcome: Verdict, code: int | None, lasted: timedelta | None, context: Context
    ) -> None:
        """A run of the job ended now, `lasted` after its first start; None if it never started."""
        rule, now = spec.slowdown, context.now
        backoff = rule.backoff if rule else _SERVICE
        self.not_before = None
        if outcome.success or (rule and rule.on_exit is not None and code not in rule.on_exit):
            self._failures, self._delay = 0, None
        else:
            # a service that ran long was healthy, so its failure is the first of a new series
            was_healthy = spec.is_service and lasted is not None and lasted >= backoff.max
            self._failures = 1 if was_healthy else self._failures + 1
            if rule is not None or spec.is_service:
                before = self._delay if self._failures > 1 else None
                self._delay = backoff_delay(backoff, self._failures, context.draw.random(), before)
                self.not_before = now.plus(self._delay)
        if spec.is_service and lasted is not None:
            floor = now.plus(SERVICE_FLOOR - lasted)
            if self.not_before is None or self.not_before.mono < floor.mono:
                self.not_before = floor
