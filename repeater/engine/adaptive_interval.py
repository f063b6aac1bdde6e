"""The interval of schedules that adapt, and the average interval of all jobs.

`schedule.adaptive` and `schedule.load_aware` have the formulas. They are imported where they are used, because most
jobs use neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from repeater.model.reasons import Reason
from repeater.model.spec import Adaptive, LoadAware, ScheduleSpec
from repeater.model.time import MICROSECOND, Mono

if TYPE_CHECKING:
    from repeater.schedule.adaptive import AdaptiveState
    from repeater.schedule.load_aware import LoadReadings


class Starts:
    """Counts the starts of one job since the supervisor started, for their average interval."""

    __slots__ = ("_first", "_last", "_number")

    def __init__(self) -> None:
        self._number = self._first = self._last = 0

    def count(self, mono: Mono) -> None:
        """The first attempt of a slot has started."""
        if not self._number:
            self._first = mono
        self._number += 1
        self._last = mono

    @property
    def average(self) -> timedelta | None:
        """The average interval by the monotonic clock; None before the second start."""
        return None if self._number < 2 else (self._last - self._first) * MICROSECOND / (self._number - 1)


class AdaptiveInterval:
    """The state of one job that its interval depends on. It survives edits of the schedule, within the new bounds."""

    __slots__ = ("_readings", "_state")

    def __init__(self) -> None:
        self._state: AdaptiveState | None = None
        self._readings: LoadReadings | None = None

    def pace(self, schedule: ScheduleSpec) -> timedelta | None:
        """The current interval; None for a schedule whose interval does not change."""
        if isinstance(schedule, Adaptive):
            from repeater.schedule import adaptive

            return adaptive.interval(schedule, self._state)
        if isinstance(schedule, LoadAware):
            from repeater.schedule import load_aware

            return load_aware.interval(schedule, self._readings)
        return None

    def observe(self, schedule: Adaptive, *, success: bool, latency: timedelta) -> Reason:
        """Take the latency of a run, and return why the interval has its new length."""
        from repeater.schedule import adaptive

        self._state = adaptive.observe(schedule, self._state, success=success, latency=latency)
        return adaptive.explain(schedule, self._state)

    def read(self, schedule: LoadAware, readings: LoadReadings) -> Reason:
        """Take the load of the machine, and return why the interval has its new length."""
        from repeater.schedule import load_aware

        self._readings = readings
        return load_aware.explain(schedule, readings)

    def reset(self) -> None:
        self._state = self._readings = None

    def restore(self, kept: Mapping[str, Any] | None) -> None:
        """Take the stored state. A state that is not valid is ignored."""
        if kept is None:
            self._state = None
        else:
            from repeater.schedule.adaptive import AdaptiveState

            self._state = AdaptiveState.from_json(kept)

    def as_json(self) -> dict[str, Any] | None:
        return None if self._state is None else self._state.as_json()
