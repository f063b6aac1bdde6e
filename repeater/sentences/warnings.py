"""Warnings: the text of `warned` events, and why changed job files were rejected."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _restart_not_alive(fields: Fields) -> str:
    return "liveness probe failed" + fields.part("cause", " ({cause})") + "; restarting"


def _clock_behind(fields: Fields) -> str:
    jobs = fields.raw("jobs")
    who = "`{job}` will" if jobs == 1 else "{jobs} jobs, such as `{job}`, will"
    text = f"the clock was set back: {who} not start before {{until}}; `rpr reset {{job}}` clears this"
    return text.format_map(fields)


def _hook_failed(fields: Fields) -> str:
    how = fields.part("signal", "signal {signal}") or fields.part("exit", "exit {exit}")
    return "hook {hook} failed".format_map(fields) + (f": {how}" if how else "")


def _limits(fields: Fields) -> str:
    return ("limits " if len(fields.raw("limits")) > 1 else "limit ") + fields["limits"]


def _keeper(fields: Fields) -> str:
    return "the shim" + fields.part("pid", " (pid {pid})")


def _plugin_failed(fields: Fields) -> str:
    items = fields.raw("items")
    return "{error}; ".format_map(fields) + (f"{items} items were lost" if items > 1 else "an item was lost")


SENTENCES: Mapping[ReasonCode, Maker] = {
    "run_lost": "a run was lost: {cause}; retrying",
    "slot_decided_before": "the slot of {nominal} had already been decided",
    "need_not_met": "starting without optional dependency `{job}`",
    "pushed_back": "pushed back: {cause}",
    "hint_unreadable": "cannot read the delay in `{source}`: `{text}`",
    "schedule_failed": "{error}; retrying",
    "stop_condition_failed": "{error}; the job continues",
    "restart_not_alive": _restart_not_alive,
    "clock_behind": _clock_behind,
    "machine_slept": lambda fields: f"system was suspended for {fields.raw('length') / 1e6:.0f} s",
    "clock_set": lambda fields: f"system clock jumped by {fields.raw('by') / 1e6:+.1f} s",
    "hook_spawn_failed": "hook {hook} could not be started: {cause}",
    "hook_lost": "hook {hook} was lost: {cause}",
    "hook_failed": _hook_failed,
    "quota_lost_open": lambda fields: f"{fields['cause']}; enforcing {_limits(fields)} locally until it is back",
    "quota_lost_closed": lambda fields: f"{fields['cause']}; no starts under {_limits(fields)} until it is back",
    "quota_found": "rate-limit daemon reconnected",
    "pattern_too_slow": "cannot match `{pattern}`: a line took longer than {limit}s; matching stopped",
    "output_unwritable": "cannot write output: {error}",
    "output_not_kept": "cannot buffer output until the end of the run: {error}",
    "file_unwritable": "cannot write `{path}`: {errno}",
    "request_failed": "internal error in request: {error}",
    "accept_failed": "cannot accept a connection: {error}",
    "connection_ended": "internal error in connection: {error}; it was closed",
    "request_ended": "internal error in request: {error}; it was aborted",
    "client_request_failed": "internal error in a request of client {client}: {error}; the client was disconnected",
    "ledgers_unwritable": "cannot write the database: {error}; counts are in memory only",
    "ledgers_failing": "cannot write the database: {error}",
    "ledgers_recovered": "the database can be written again",
    "old_daemon": (
        "the rate-limit daemon at `{path}` only supports version 1.0: starts are counted with an accuracy of one "
        "second, and unused starts are not returned"
    ),
    "rates_differ": lambda fields: (
        f"clients use different rates for `{fields['resource']}`, {' and '.join(fields.raw('rates'))}: "
        f"the strictest applies, {fields['rate']}"
    ),
    "request_not_counted": "a request of a 1.0 client for `{resource}` is not counted: {error}",
    "attempts_not_counted": (
        "a 1.0 client requested {attempts} attempts of `{resource}`; {left} of them exceed its limit of {limit} "
        "and are not counted"
    ),
    "metrics_failed": "internal error in metrics: {error}",
    "metrics_missing": "{error}",
    "history_unwritable": "cannot write the history: {error}; jobs that must be recorded first do not start",
    "history_row_unwritable": "cannot write a history record: {error}",
    "outputs_unwritable": "cannot keep the output of runs: {error}; runs go on, and their output is lost",
    "outputs_recovered": "the output of runs is kept again",
    "outputs_failing": "the output of runs cannot be kept, so it is lost",
    "history_recovered": "the history can be written again",
    "history_lost": "cannot buffer more than {most} unwritten results; the oldest are lost",
    "shim_missing": "cannot start the shim; jobs will not survive this supervisor: {error}",
    "shim_not_understood": "cannot read a message of the shim: {error}",
    "shim_lost": lambda fields: (
        "the shim exited unexpectedly" + fields.part("error", ": {error}") + "; killing its runs and restarting it"
    ),
    "cgroups_unusable": "cannot create cgroups, so daemonized children may be detected late: {error}",
    "left_over_ended": "killing processes left by a previous supervisor",
    "left_over_alive": "some processes left by a previous supervisor could not be killed",
    "state_adopted": "{text}",
    "watch_polled": "cannot use file notifications of the system, so files are polled: {error}",
    "watch_failing": "file changes may be detected late or not at all: {error}",
    "shim_silent": lambda fields: f"{_keeper(fields)} does not answer; no runs start until it does",
    "shim_answers": "the shim answers again",
    "shim_stuck": lambda fields: (
        f"{_keeper(fields)} does not answer, so runs cannot be started or stopped; `rpr down --kill` ends all processes"
    ),
    "plugin_too_slow": "output plugin `{plugin}` is too slow: {items} items were dropped",
    "plugin_failed": _plugin_failed,
    "socket_unusable": "{error}; `rpr status` and other commands cannot reach this supervisor",
    "control_socket_removed": "the control socket `{path}` was removed",
    "control_socket_bound": "commands can reach this supervisor at `{path}` again",
    "control_socket_missing": "no command can reach this supervisor: {error}",
    "job_file_doubtful": "{problem}",
    "more_warnings": "{count} more warnings; `rpr validate` shows all of them",
    "history_failing": "the history cannot be written, so jobs that must be recorded first do not start",
    "service_not_ready": "service `{job}` is not ready",
    "files_rejected": "{error}",
    "last_files_active": "the job files are rejected, generation {generation} is still active: {error}",
    "unreachable": "{error}",
}
