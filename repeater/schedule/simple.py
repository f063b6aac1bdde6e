"""The schedules without arithmetic: once, at an instant, never by themselves (manual, watch), and services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from repeater._lazy_dataclasses import dataclass
from repeater.model.time import MICROSECOND, Instant
from repeater.schedule.base import Track


@dataclass(frozen=True, slots=True)
class OnceSchedule:
    """One slot, at the anchor; none if something was decided at or after it."""

    clock: Literal["mono"] = "mono"
    waits_for_end: bool = False
    ends: bool = True

    def next(self, track: Track) -> Instant | None:
        taken = track.cursor is not None and track.cursor.mono >= track.anchor.mono
        return None if taken else track.anchor

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)


@dataclass(frozen=True, slots=True)
class AtSchedule:
    """One slot at an instant. There is no slot if the instant had passed when the job became active."""

    at: datetime
    clock: Literal["wall"] = "wall"
    waits_for_end: bool = False
    ends: bool = True

    def next(self, track: Track) -> Instant | None:
        at = self.at.astimezone(UTC)
        if track.cursor is None:
            return None if at < track.anchor.wall else track.anchor.at_wall(at)
        return None if at <= track.cursor.wall else track.cursor.at_wall(at)

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)


@dataclass(frozen=True, slots=True)
class ManualSchedule:
    """No slot of its own: `manual` waits for a person or another job, `watch` for a change."""

    clock: Literal["mono"] = "mono"
    waits_for_end: bool = False
    ends: bool = False

    def next(self, track: Track) -> None:  # noqa: ARG002
        return None

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)


@dataclass(frozen=True, slots=True)
class AlwaysSchedule:
    """A service: a slot at the anchor, then one as soon as the run before has ended.

    How long a restart waits is the engine's business (`slowdown`), not a matter of time alone.
    """

    clock: Literal["mono"] = "mono"
    waits_for_end: bool = True
    ends: bool = False

    def next(self, track: Track) -> Instant:
        if track.cursor is None:
            return track.anchor
        earliest = track.cursor.plus(MICROSECOND)
        if track.last_end is not None and track.last_end.mono > earliest.mono:
            return track.last_end
        return earliest

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)
