"""Why a slot was skipped, expired, replaced or cancelled, and why an unscheduled slot was created."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker, is_not


def _paused(fields: Fields) -> str:
    return "paused" + fields.part("text", ": {text}")


def _stopped(fields: Fields) -> str:
    return fields.part("text", "{text}") or "stopped"


def _upstream_failed(fields: Fields) -> str:
    return f"`{fields['job']}` {is_not(fields['condition'])}" + fields.part("after", " after {after}")


def _replaced(fields: Fields) -> str:
    return fields.part("cause", "replaced ({cause})") or "replaced by the next slot"


SENTENCES: Mapping[ReasonCode, Maker] = {
    "overlap": "the previous run was still running",
    "superseded": "a newer slot replaced it while both were queued",
    "queue_full": "the queue had reached `queue_max`",
    "slowdown": "the next start was delayed after consecutive failures",
    "missed": "it was missed",
    "missed_many": "it was missed, and so were all others until {until}",
    "catch_up_max": "more slots were missed than `catch_up_max` allows",
    "catch_up_window": "it was missed and is older than `catch_up_window`",
    "start_deadline": "it could not start within `start_deadline`",
    "paused": _paused,
    "done": "the job is done",
    "stopped": _stopped,
    "decided_before": "it had been decided before the clock was set back",
    "upstream_failed": _upstream_failed,
    "schedule_changed": "the schedule changed",
    "disabled": "the job was disabled",
    "removed": "the job was removed",
    "replaced": _replaced,
    "requested": "by request",
    "reloaded": "its definition changed",
    "definition_changed": "its definition changed while no supervisor was running",
    "files_changed": "files changed",
    "not_alive": "its `live` probe failed",
    "started_again": "it was started again",
    "pause_over": "the pause is over",
}
