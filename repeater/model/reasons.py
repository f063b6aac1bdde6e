"""Reasons: a code of a closed set, and typed fields. Sentences are not stored, compared or parsed.

Verdicts, records, waits, done causes, spawn failures, probe results, warnings and events contain a `Reason`. The
sentences for people are made by `repeater.sentences`; docs/reference/reasons.md has the meaning of each code.

The kinds of fields, and their values in `Reason.detail` and in the database:

    name text path errno     str; an errno is its name, `ENOENT`
    count                    int
    number                   int or float
    flag                     bool
    instant                  int, microseconds since 1970
    duration                 int, microseconds; may be negative
    names                    list of str
    needs                    list of [job, condition]
    reason, reasons          {"code": ..., "detail": ...}, or a list of these

A field whose kind ends with `?` may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.time import from_epoch_us, from_rfc3339, rfc3339, to_epoch_us, to_us

if TYPE_CHECKING:
    ReasonCode: TypeAlias = Literal[
        # how a run ended
        "success", "success_pattern", "exit", "signal", "timeout", "failure_pattern", "executor_failed",
        # why a slot was skipped, expired, replaced or cancelled
        "overlap", "superseded", "queue_full", "slowdown", "missed", "missed_many", "catch_up_max",
        "catch_up_window", "start_deadline", "paused", "done", "stopped", "decided_before", "upstream_failed",
        "schedule_changed", "disabled", "removed", "replaced",
        # why an unscheduled slot was created, and why a pause ended
        "requested", "reloaded", "definition_changed", "files_changed", "not_alive", "started_again", "pause_over",
        # why the exit of a run is unknown
        "supervisor_gone", "shim_gone",
        # why a job is done
        "runs_reached", "successes_reached", "failures_reached", "consecutive_failures", "time_passed",
        "instant_reached", "run_succeeded", "run_failed", "run_exited", "stop_pattern", "stop_plugin", "all_conditions",
        "schedule_ended", "service_ended",
        # what a due slot waits for
        "needs", "pool_full", "group_full", "rate", "limit", "shared_limit", "server_refused", "server_push_back",
        # the state of a job
        "waits_for_process", "attempt", "retry_at", "paused_until", "slowed_down", "not_enabled",
        "supervisor_stopping", "still_running", "not_active", "schedule_unknown",
        "waits_for_clock",
        # why an adaptive schedule has its current interval
        "adaptive", "trial_succeeded", "trial_failed", "circuit_opened", "slower_after_failure", "slower", "faster",
        "back_to_base", "unchanged", "load", "next_start_allowed",
        # why a process could not be started
        "program_missing", "interpreter_missing", "loader_missing", "program_is_folder", "program_unusable",
        "program_as_user_denied", "arguments_too_big", "program_format", "program_failed", "resource_short",
        "folder_unusable", "command_empty", "command_nul", "environment_nul", "environment_name", "user_unknown",
        "user_denied", "group_unknown", "limit_unknown", "limit_too_high", "nice_denied", "limits_unset",
        "claim_failed", "launch_failed",
        # results of probes
        "probe_timeout", "probe_status", "probe_not_http", "probe_failed",
        # warnings
        "run_lost", "slot_decided_before", "need_not_met", "pushed_back", "hint_unreadable",
        "schedule_failed", "stop_condition_failed",
        "restart_not_alive", "clock_behind", "machine_slept", "clock_set", "hook_spawn_failed", "hook_lost",
        "hook_failed", "quota_lost_open", "quota_lost_closed", "quota_found", "quota_unreachable",
        "pattern_too_slow", "output_not_kept", "output_unwritable", "file_unwritable",
        "request_failed", "accept_failed", "connection_ended",
        "request_ended", "client_request_failed", "ledgers_unwritable", "ledgers_failing", "ledgers_recovered",
        "rates_differ", "request_not_counted", "attempts_not_counted", "old_daemon",
        "metrics_failed", "metrics_missing", "history_unwritable", "history_row_unwritable", "history_recovered",
        "history_lost", "outputs_unwritable", "outputs_recovered", "outputs_failing",
        "shim_missing", "shim_not_understood", "shim_lost", "cgroups_unusable", "left_over_ended",
        "left_over_alive", "state_adopted", "watch_polled", "watch_failing", "shim_silent", "shim_answers",
        "shim_stuck", "plugin_too_slow", "plugin_failed", "socket_unusable", "control_socket_removed",
        "control_socket_bound", "control_socket_missing", "job_file_doubtful", "more_warnings", "history_failing",
        "service_not_ready",
        # why changed job files were rejected
        "files_rejected",
        "last_files_active", "unreachable",
        # answers of `why` about a job now
        "job_waits", "job_is", "job_idle", "schedule_asked_again", "schedule_manual", "schedule_watches",
        "service_not_started", "schedule_exhausted", "no_supervisor", "runs_unattended", "shim_keeps_runs",
        # additional facts of `why` about a job now
        "run_goes_on", "slots_queued", "slot_skipped_for_run", "need_state", "place_held", "holder", "schedule_is",
        "start_put_off", "never_ran", "last_run_ended", "failed_in_row", "generation_active", "files_not_active",
        "internal_error",
        # answers of `why` about a slot, and additional facts
        "slot_decided", "row_verdict", "slot_to_come", "slot_not_recorded", "no_slot_then", "run_started",
        "slot_jittered", "trigger_was", "run_went_on", "run_before", "upstream_slot", "local_time_skipped",
        "local_time_twice", "clock_change_rule", "interval_is", "cron_is", "slot_before", "slot_after",
        "lives_unknown_before", "clock_was_set_back", "supervisor_down", "supervisor_end_unknown", "generation_was",
        # why there is no output
        "output_ephemeral", "output_off", "output_empty", "output_gone",
        # messages of other programs and older versions
        "text", "legacy",
    ]  # fmt: skip
else:
    ReasonCode = str

FIELDS: Mapping[ReasonCode, str] = {
    # how a run ended
    "success": "exit:count? signal:count?",
    "success_pattern": "",
    "exit": "exit:count",
    "signal": "signal:count",
    "timeout": "after:duration",
    "failure_pattern": "",
    "executor_failed": "plugin:name",
    # why a slot was skipped, expired, replaced or cancelled
    "overlap": "",
    "superseded": "",
    "queue_full": "",
    "slowdown": "",
    "missed": "",
    "missed_many": "until:instant",
    "catch_up_max": "",
    "catch_up_window": "",
    "start_deadline": "",
    "paused": "text:text?",
    "done": "",
    "stopped": "text:text?",
    "decided_before": "",
    "upstream_failed": "job:name condition:name after:duration?",
    "schedule_changed": "",
    "disabled": "",
    "removed": "",
    "replaced": "cause:reason?",
    # why an unscheduled slot was created, and why a pause ended
    "requested": "",
    "reloaded": "",
    "definition_changed": "",
    "files_changed": "",
    "not_alive": "",
    "started_again": "",
    "pause_over": "",
    # why the exit of a run is unknown
    "supervisor_gone": "",
    "shim_gone": "",
    # why a job is done
    "runs_reached": "count:count",
    "successes_reached": "count:count",
    "failures_reached": "count:count",
    "consecutive_failures": "count:count",
    "time_passed": "length:duration",
    "instant_reached": "until:instant",
    "run_succeeded": "",
    "run_failed": "",
    "run_exited": "exit:count",
    "stop_pattern": "",
    "stop_plugin": "plugin:name text:text",
    "all_conditions": "reasons:reasons",
    "schedule_ended": "",
    "service_ended": "restart:name",
    # what a due slot waits for
    "needs": "needs:needs",
    "pool_full": "pool:name",
    "group_full": "group:name",
    "rate": "rate:text until:instant?",
    "limit": "limit:name rate:text until:instant?",
    "shared_limit": "limit:name rate:text until:instant? cause:reason?",
    "server_refused": "status:count delay:duration until:instant?",
    "server_push_back": "source:name status:count? asked:duration delay:duration bound:name? until:instant?",
    # the state of a job
    "waits_for_process": "pid:count",
    "attempt": "attempt:count",
    "retry_at": "attempt:count at:instant",
    "paused_until": "text:text? until:instant?",
    "slowed_down": "failures:count until:instant",
    "not_enabled": "",
    "supervisor_stopping": "",
    "still_running": "",
    "not_active": "",
    "schedule_unknown": "error:text",
    "waits_for_clock": "job:name until:instant",
    # why an adaptive schedule has its current interval
    "adaptive": "every:duration change:reason? success:number? latency:number? target:number? usual:number? open:flag?",
    "trial_succeeded": "",
    "trial_failed": "",
    "circuit_opened": "failure_rate:number threshold:number",
    "slower_after_failure": "",
    "slower": "latency:number target:number",
    "faster": "latency:number target:number",
    "back_to_base": "",
    "unchanged": "",
    "load": "every:duration reading:name? value:number? target:number? busier:flag?",
    "next_start_allowed": "at:instant",
    # why a process could not be started
    "program_missing": "program:text on_path:flag?",
    "interpreter_missing": "program:text interpreter:text",
    "loader_missing": "program:text",
    "program_is_folder": "program:text",
    "program_unusable": "program:text errno:errno",
    "program_as_user_denied": "program:text user:name",
    "arguments_too_big": "program:text",
    "program_format": "program:text",
    "program_failed": "program:text error:text",
    "resource_short": "program:text errno:errno",
    "folder_unusable": "folder:text errno:errno",
    "command_empty": "",
    "command_nul": "program:text",
    "environment_nul": "program:text variable:text",
    "environment_name": "program:text variable:text",
    "user_unknown": "user:name",
    "user_denied": "user:name",
    "group_unknown": "group:name",
    "limit_unknown": "limit:name",
    "limit_too_high": "wanted:count most:count",
    "nice_denied": "nice:count",
    "limits_unset": "error:text",
    "claim_failed": "error:text",
    "launch_failed": "error:text",
    # results of probes
    "probe_timeout": "",
    "probe_status": "status:count",
    "probe_not_http": "",
    "probe_failed": "error:text",
    # warnings
    "run_lost": "cause:reason",
    "slot_decided_before": "nominal:instant",
    "need_not_met": "job:name",
    "pushed_back": "cause:reason",
    "hint_unreadable": "source:name text:text",
    "schedule_failed": "error:text",
    "stop_condition_failed": "error:text",
    "restart_not_alive": "cause:reason?",
    "clock_behind": "job:name jobs:count until:instant",
    "machine_slept": "length:duration",
    "clock_set": "by:duration",
    "hook_spawn_failed": "hook:name cause:reason",
    "hook_lost": "hook:name cause:reason",
    "hook_failed": "hook:name exit:count? signal:count?",
    "quota_lost_open": "cause:reason limits:names",
    "quota_lost_closed": "cause:reason limits:names",
    "quota_found": "",
    "quota_unreachable": "path:text error:text",
    "pattern_too_slow": "pattern:text limit:number",
    "output_not_kept": "error:text",
    "output_unwritable": "error:text",
    "file_unwritable": "path:text errno:errno",
    "request_failed": "error:text",
    "accept_failed": "error:text",
    "connection_ended": "error:text",
    "request_ended": "error:text",
    "client_request_failed": "client:count error:text",
    "ledgers_unwritable": "error:text",
    "ledgers_failing": "error:text",
    "ledgers_recovered": "",
    "rates_differ": "resource:name rates:names rate:text",
    "request_not_counted": "resource:name error:text",
    "attempts_not_counted": "resource:name attempts:count left:count limit:count",
    "old_daemon": "path:path",
    "metrics_failed": "error:text",
    "metrics_missing": "error:text",
    "history_unwritable": "error:text",
    "history_row_unwritable": "error:text",
    "history_recovered": "",
    "history_lost": "most:count",
    "outputs_unwritable": "error:text",
    "outputs_recovered": "",
    "outputs_failing": "",
    "shim_missing": "error:text",
    "shim_not_understood": "error:text",
    "shim_lost": "error:text?",
    "cgroups_unusable": "error:text",
    "left_over_ended": "",
    "left_over_alive": "",
    "state_adopted": "text:text",
    "watch_polled": "error:text",
    "watch_failing": "error:text",
    "shim_silent": "pid:count?",
    "shim_answers": "",
    "shim_stuck": "pid:count?",
    "plugin_too_slow": "plugin:name items:count",
    "plugin_failed": "error:text items:count",
    "socket_unusable": "error:text",
    "control_socket_removed": "path:path",
    "control_socket_bound": "path:path",
    "control_socket_missing": "error:text",
    "job_file_doubtful": "problem:text",
    "more_warnings": "count:count",
    "history_failing": "",
    "service_not_ready": "job:name",
    # why changed job files were rejected
    "files_rejected": "error:text",
    "last_files_active": "generation:count error:text",
    "unreachable": "error:text",
    # answers of `why` about a job now
    "job_waits": "job:name due:instant left:duration",
    "job_is": "job:name state:name cause:reason?",
    "job_idle": "job:name cause:reason",
    "schedule_asked_again": "error:text",
    "schedule_manual": "",
    "schedule_watches": "globs:names",
    "service_not_started": "",
    "schedule_exhausted": "",
    "no_supervisor": "job:name",
    "runs_unattended": "job:name pid:count since:instant",
    "shim_keeps_runs": "pid:count",
    # additional facts of `why` about a job now
    "run_goes_on": "run:name since:instant lasts:duration pid:count?",
    "slots_queued": "count:count overlap:name",
    "slot_skipped_for_run": "nominal:instant overlap:name",
    "need_state": "job:name condition:name state:name cause:reason?",
    "place_held": "kind:name name:name holders:reasons more:count?",
    "holder": "job:name pid:count? lasts:duration?",
    "schedule_is": "schedule:text",
    "start_put_off": "nominal:instant due:instant",
    "never_ran": "",
    "last_run_ended": "ago:duration outcome:name? cause:reason?",
    "failed_in_row": "count:count",
    "generation_active": "generation:count",
    "files_not_active": "cause:reason",
    "internal_error": "owner:name name:name? job:name? error:text count:count last:instant",
    # answers of `why` about a slot, and additional facts
    "slot_decided": "job:name nominal:instant verdict:reason slots:count",
    "row_verdict": "outcome:name state:name cause:reason?",
    "slot_to_come": "job:name nominal:instant",
    "slot_not_recorded": "job:name nominal:instant",
    "no_slot_then": "job:name at:instant",
    "run_started": "run:name pid:count? started:instant late:duration? took:duration?",
    "slot_jittered": "due:instant by:duration",
    "trigger_was": "trigger:name",
    "run_went_on": "run:name pid:count? started:instant ended:instant?",
    "run_before": "ended:instant verdict:reason",
    "upstream_slot": "job:name nominal:instant verdict:reason",
    "local_time_skipped": "date:text time:text",
    "local_time_twice": "first:instant second:instant",
    "clock_change_rule": "gap:name fold:name",
    "interval_is": "job:name every:duration after_end:flag",
    "cron_is": "expression:text timezone:name",
    "slot_before": "nominal:instant",
    "slot_after": "nominal:instant",
    "lives_unknown_before": "at:instant",
    "clock_was_set_back": "since:instant until:instant",
    "supervisor_down": "since:instant until:instant?",
    "supervisor_end_unknown": "seen:instant until:instant?",
    "generation_was": "generation:count since:instant newest:count?",
    # why there is no output
    "output_ephemeral": "",
    "output_off": "job:name",
    "output_empty": "run:name?",
    "output_gone": "run:name runs:count failures:duration",
    # messages of other programs and older versions
    "text": "text:text",
    "legacy": "text:text",
}
"""The closed set of codes, each with its fields as `name:kind`, separated by spaces. A test compares it with
`ReasonCode`.
"""


@dataclass(frozen=True, slots=True)
class Reason:
    """A code and its fields. `detail` can be written as JSON; its instants and durations are whole microseconds."""

    code: ReasonCode
    detail: Mapping[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, Any]:
        """The reason as plain data, for another reason's `detail` or for storage; the inverse of `reason_of`."""
        return {"code": self.code, "detail": dict(self.detail)} if self.detail else {"code": self.code}

    def as_json(self) -> dict[str, Any]:
        """The fields for people and other programs: instants as RFC 3339 in UTC, durations in seconds."""
        return {name: _shown(value, kind_of(self.code, name)) for name, value in self.detail.items()}


def reason(code: ReasonCode, **fields: Any) -> Reason:
    """A reason. Fields can be `datetime`, `timedelta` and `Reason`; fields that are None or empty text are left out."""
    return Reason(code, {name: _stored(value) for name, value in fields.items() if value is not None and value != ""})


def reason_of(kept: Any) -> Reason | None:
    """The inverse of `Reason.kept`; None for None. A text, as version 0.1 stored it, becomes `legacy`."""
    if kept is None:
        return None
    if isinstance(kept, Mapping):
        return Reason(kept["code"], kept.get("detail") or {})
    return Reason("legacy", {"text": str(kept)})


@lru_cache(maxsize=512)
def fields_of(code: ReasonCode) -> dict[str, str]:
    """The fields of a code, each with its kind; empty for a code of a newer version."""
    return dict(part.split(":") for part in FIELDS.get(code, "").split())


def kind_of(code: ReasonCode, name: str) -> str:
    """The kind of a field, without the `?`; `text` for a field that is not known."""
    return fields_of(code).get(name, "text").rstrip("?")


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_epoch_us(value)
    if isinstance(value, timedelta):
        return to_us(value)
    if isinstance(value, Reason):
        return value.kept()
    if isinstance(value, list | tuple):
        return [_stored(one) for one in value]
    return value


def _shown(value: Any, kind: str) -> Any:
    match kind:
        case "instant":
            return rfc3339(from_epoch_us(value))
        case "duration":
            return value / 1_000_000
        case "reason":
            return _nested(value)
        case "reasons":
            return [_nested(one) for one in value]
        case _:
            return value


def _nested(kept: Any) -> dict[str, Any]:
    found = reason_of(kept)
    return {} if found is None else {"reason_code": found.code, "detail": found.as_json()}


def reason_from_json(code: ReasonCode, shown: Mapping[str, Any]) -> Reason:
    """The inverse of `Reason.as_json`."""
    return Reason(code, {name: _unshown(value, kind_of(code, name)) for name, value in shown.items()})


def _unshown(value: Any, kind: str) -> Any:
    match kind:
        case "instant":
            found = from_rfc3339(value)
            return None if found is None else to_epoch_us(found)
        case "duration":
            return round(value * 1_000_000)
        case "reason":
            return _unnested(value)
        case "reasons":
            return [_unnested(one) for one in value]
        case _:
            return value


def _unnested(shown: Mapping[str, Any]) -> dict[str, Any]:
    return reason_from_json(shown["reason_code"], shown["detail"]).kept()


SUCCESS = Reason("success")
MISSED = Reason("missed")
OVERLAP = Reason("overlap")
SUPERSEDED = Reason("superseded")
QUEUE_FULL = Reason("queue_full")
SLOWDOWN = Reason("slowdown")
START_DEADLINE = Reason("start_deadline")
PAUSED = Reason("paused")
DONE = Reason("done")
STOPPED = Reason("stopped")
REMOVED = Reason("removed")
REQUESTED = Reason("requested")
