"""Why a job is in its state, for `status` and the commands about single jobs."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _paused_until(fields: Fields) -> str:
    return fields.part("text", "{text}; ") + (fields.part("until", "until {until}") or "until it is resumed")


def _slowed_down(fields: Fields) -> str:
    failures = fields.raw("failures")
    after = "after a short run"
    if failures:
        after = "after a failure" if failures == 1 else "after {failures} consecutive failures".format_map(fields)
    return after + ", not before {until}".format_map(fields)


SENTENCES: Mapping[ReasonCode, Maker] = {
    "waits_for_process": "waiting for pid {pid}",
    "attempt": "attempt {attempt}",
    "retry_at": "attempt {attempt} failed, the next attempt is at {at}",
    "paused_until": _paused_until,
    "slowed_down": _slowed_down,
    "not_enabled": "`enabled = false`",
    "supervisor_stopping": "the supervisor is shutting down",
    "still_running": "the previous run is still running",
    "not_active": "the job is no longer in the job files",
    "schedule_unknown": "{error}",
    "waits_for_clock": ("the clock was set back, so it will not start before {until}; `rpr reset {job}` clears this"),
    "text": "{text}",
    "legacy": "{text}",
}
