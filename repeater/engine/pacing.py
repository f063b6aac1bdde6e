"""What schedules that adapt want now: the state of an adaptive one, the last readings of one that follows the load.

The formulas are `schedule.adaptive`'s and `schedule.load`'s. Called by `engine.job`. They are
imported where they are used: most jobs use neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from repeater.model.reasons import Reason
from repeater.model.spec import Adaptive, LoadAware, ScheduleSpec

if TYPE_CHECKING:
    from repeater.schedule.adaptive import AdaptiveState
    from repeater.schedule.load import LoadReadings


class Pacing:
    """Of one job. Survives edits of the schedule: what was learnt stays, within the new bounds."""

    __slots__ = ("_readings", "_state")

    def __init__(self) -> None:
        self._state: AdaptiveState | None = None
        self._readings: LoadReadings | None = None

    def pace(self, schedule: ScheduleSpec) -> timedelta | None:
        """The interval wanted now; None for a schedule whose distance does not change."""
        if isinstance(schedule, Adaptive):
            from repeater.schedule import adaptive

            return adaptive.interval(schedule, self._state)
        if isinstance(schedule, LoadAware):
            from repeater.schedule import load

            return load.interval(schedule, self._readings)
        return None

    def note(self, schedule: Adaptive, *, success: bool, latency: timedelta) -> Reason:
        """A run was decided; why the interval is what it is now."""
        from repeater.schedule import adaptive

        self._state = adaptive.observe(schedule, self._state, success=success, latency=latency)
        return adaptive.explain(schedule, self._state)

    def read(self, schedule: LoadAware, readings: LoadReadings) -> Reason:
        """The machine was looked at; why the interval is what it is now."""
        from repeater.schedule import load

        self._readings = readings
        return load.explain(schedule, readings)

    def reset(self) -> None:
        self._state = self._readings = None

    def take_up(self, kept: Mapping[str, Any] | None) -> None:
        """What an earlier life has learnt; what makes no sense is forgotten."""
        if kept is None:
            self._state = None
        else:
            from repeater.schedule.adaptive import AdaptiveState

            self._state = AdaptiveState.from_json(kept)

    def as_json(self) -> dict[str, Any] | None:
        return None if self._state is None else self._state.as_json()
