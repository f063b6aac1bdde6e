"""The schedule of a plugin: times of day that the pure function of another package names.

The plugin is asked through `model.plugins.Plugins`. Its answers are checked here: instants that strictly increase, from
slot to slot by at least `LEAST_DISTANCE`. The last answer is remembered, because the engine asks the same question more
than once. Raises PluginFailed where other schedules have no way to fail; `engine.next_slot` asks again later.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from repeater._lazy_dataclasses import dataclass, field
from repeater.errors import PluginFailed
from repeater.model.plugins import WORDS, Plugins
from repeater.model.spec import LEAST_DISTANCE, Plugin
from repeater.model.time import Instant, from_rfc3339, rfc3339
from repeater.model.units import format_duration
from repeater.schedule.base import Track


@dataclass(frozen=True, slots=True)
class PluginSchedule:
    """It follows the wall clock, and ends when the plugin names no further time."""

    spec: Plugin
    job: str
    plugins: Plugins = field(compare=False)
    clock: Literal["wall"] = "wall"
    ends: bool = True
    _last: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def waits_for_end(self) -> bool:
        return self.plugins.waits_for_end(self.spec)

    def next(self, track: Track) -> Instant | None:
        """What the plugin says. Raises PluginFailed."""
        asked = {
            "job": self.job,
            "anchor": rfc3339(track.anchor.wall),
            "after": None if track.cursor is None else rfc3339(track.cursor.wall),
            "last_end": None if track.last_end is None else rfc3339(track.last_end.wall),
            "runs": track.runs,
            "failures_in_row": track.failures_in_row,
        }
        if self._last.get("asked") != asked:
            answer = self.plugins.call("schedule", self.spec, "next", asked)
            self._last.update(asked=asked, answer=self._checked(answer, track))
        wall: datetime | None = self._last["answer"]
        return None if wall is None else (track.cursor or track.anchor).at_wall(wall)

    def delay(self, job: str, nominal: Instant, draw: float) -> timedelta:  # noqa: ARG002
        return timedelta(0)

    def _checked(self, answer: object, track: Track) -> datetime | None:
        if answer is None:
            return None
        try:
            wall = from_rfc3339(str(answer))
        except ValueError as error:
            raise self._failed(f"it answered {error}") from None
        assert wall is not None
        if track.cursor is not None and wall <= track.cursor.wall:
            raise self._failed(f"it answered {answer}, which is not after {rfc3339(track.cursor.wall)}")
        is_slot = track.cursor is not None and self._last.get("answer") == track.cursor.wall
        if is_slot and track.cursor is not None and wall - track.cursor.wall < LEAST_DISTANCE:
            least = format_duration(LEAST_DISTANCE)
            raise self._failed(f"it answered {answer}, which is less than `{least}` after the previous start")
        if wall < track.anchor.wall:
            raise self._failed(
                f"it answered {answer}, which is before the first start of the job, {rfc3339(track.anchor.wall)}"
            )
        return wall

    def _failed(self, cause: str) -> PluginFailed:
        return PluginFailed(f"cannot use {WORDS['schedule']} `{self.spec.name}`: {cause}")
