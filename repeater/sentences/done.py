"""Why a job is done."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Maker, counted

SENTENCES: Mapping[ReasonCode, Maker] = {
    "runs_reached": lambda fields: counted(fields.raw("count"), "run"),
    "successes_reached": lambda fields: counted(fields.raw("count"), "success", "successes"),
    "failures_reached": lambda fields: counted(fields.raw("count"), "failure"),
    "consecutive_failures": lambda fields: counted(fields.raw("count"), "consecutive failure"),
    "time_passed": "{length} passed",
    "instant_reached": "{until} reached",
    "run_succeeded": "a run succeeded",
    "run_failed": "a run failed",
    "run_exited": "a run exited with {exit}",
    "stop_pattern": "output matched the stop pattern",
    "stop_plugin": "`{plugin}`: {text}",
    "all_conditions": "{reasons}",
    "schedule_ended": "its schedule has ended",
    "service_ended": "it exited and `restart` is `{restart}`",
}
