"""Two plugins that decide: when a job starts, and when it has failed too often."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from repeater.plugins import Schedule, StopCondition, Tally, Track

_CLOCK = "^([01][0-9]|2[0-3]):[0-5][0-9]$"


class OfficeHours(Schedule):
    """A grid of times of day, on working days only."""

    description = "Every so many minutes during office hours, not at weekends and not on holidays"
    schema = {
        "properties": {
            "minutes": {
                "type": "integer",
                "minimum": 1,
                "maximum": 720,
                "default": 60,
                "description": "Between starts",
            },
            "opens": {"type": "string", "pattern": _CLOCK, "default": "09:00", "description": "The first start"},
            "closes": {"type": "string", "pattern": _CLOCK, "default": "17:00", "description": "No start from then on"},
            "timezone": {"type": "string", "default": "UTC", "description": "Where the office is"},
            "holidays": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
                "default": [],
                "description": "Days off, like 2027-01-01",
            },
        },
    }

    def __init__(self, keys: Mapping[str, Any]) -> None:
        super().__init__(keys)
        self.opens, self.closes = time.fromisoformat(keys["opens"]), time.fromisoformat(keys["closes"])
        if self.opens >= self.closes:
            raise ValueError(f"the office opens at {keys['opens']}, after it closes at {keys['closes']}")
        try:
            self.zone = ZoneInfo(keys["timezone"])
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone `{keys['timezone']}`") from None
        self.step = timedelta(minutes=keys["minutes"])
        self.holidays = frozenset(keys["holidays"])

    def next(self, track: Track) -> datetime | None:
        after = track.after or track.anchor - timedelta(microseconds=1)
        day = after.astimezone(self.zone).date()
        for _ in range(366):
            if day.weekday() < 5 and day.isoformat() not in self.holidays:
                start, end = datetime.combine(day, self.opens), datetime.combine(day, self.closes)
                while start < end:
                    found = start.replace(tzinfo=self.zone).astimezone(UTC)
                    if found > after:
                        return found
                    start += self.step
            day += timedelta(days=1)
        return None


class ErrorBudget(StopCondition):
    """Gives a job up once too large a share of its runs has failed."""

    description = "Done when more than a share of all runs has failed"
    schema = {
        "properties": {
            "most": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0.1,
                "description": "A share, 0 to 1",
            },
            "runs": {"type": "integer", "minimum": 1, "default": 10, "description": "Runs before it is judged"},
        },
    }

    def met(self, tally: Tally) -> str | None:
        decided = tally.successes + tally.failures
        if decided < self.keys["runs"] or tally.failures <= self.keys["most"] * decided:
            return None
        return f"{tally.failures} of {decided} runs failed"
