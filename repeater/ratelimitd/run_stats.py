"""Counts of the runs that `patience` reports, and the last run of each command. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from repeater.ratelimitd.protocol import RunMetrics

SHOWN = 20
"""Commands whose last run is shown."""


class RunStats:
    """Counts since the start of the daemon."""

    def __init__(self) -> None:
        self._counts = {"succeeded": 0, "failed": 0, "attempts": 0, "failed_attempts": 0}
        self._seconds = 0.0
        self._last: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def count(self, run: RunMetrics) -> None:
        self._counts["succeeded" if run.succeeded else "failed"] += 1
        self._counts["attempts"] += run.attempts
        self._counts["failed_attempts"] += run.failures
        self._seconds += run.seconds
        before = self._last.pop(run.hash, {"runs": 0})
        self._last[run.hash] = {
            "command_hash": run.hash,
            "command": run.command,
            "runs": before["runs"] + 1,
            "final_status": "succeeded" if run.succeeded else "failed",
            "total_attempts": run.attempts,
            "total_duration_seconds": run.seconds,
        }
        if len(self._last) > SHOWN:
            self._last.popitem(last=False)

    def figures(self) -> Mapping[str, Any]:
        """Figures for the statistics, the newest run first."""
        runs = {**self._counts, "seconds": round(self._seconds, 6)}
        return {"runs": runs, "last_runs": list(reversed(self._last.values()))}
