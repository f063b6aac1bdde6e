"""What a person should know: the text of `warned` events, and why changed job files were rejected."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _restart_not_alive(fields: Fields) -> str:
    return "is not alive" + fields.part("cause", " ({cause})") + "; restarting it"


def _clock_behind(fields: Fields) -> str:
    jobs = fields.raw("jobs")
    who = "`{job}` waits" if jobs == 1 else "{jobs} jobs wait, `{job}` the longest,"
    text = f"the clock is behind slots that were decided: {who} until {{until}}; `rpr reset {{job}}` begins again"
    return text.format_map(fields)


def _hook_failed(fields: Fields) -> str:
    how = fields.part("signal", "signal {signal}") or fields.part("exit", "exit {exit}")
    return "hook {hook} failed".format_map(fields) + (f": {how}" if how else "")


def _limits(fields: Fields) -> str:
    return ("limits " if len(fields.raw("limits")) > 1 else "limit ") + fields["limits"]


def _keeper(fields: Fields) -> str:
    return "the keeper of the processes" + fields.part("pid", " (pid {pid})")


def _plugin_failed(fields: Fields) -> str:
    items = fields.raw("items")
    return "{error}; ".format_map(fields) + (f"{items} items were lost" if items > 1 else "an item was lost")


SENTENCES: Mapping[ReasonCode, Maker] = {
    "run_lost": "a run was lost: {cause}; trying again",
    "slot_decided_before": "the slot of {nominal} was decided before",
    "need_not_met": "goes on without `{job}`, which is not required",
    "pushed_back": "pushed back: {cause}",
    "hint_unreadable": "cannot read the delay that `{source}` names: `{text}`",
    "schedule_failed": "{error}; it is asked again",
    "stop_condition_failed": "{error}; the job goes on",
    "restart_not_alive": _restart_not_alive,
    "clock_behind": _clock_behind,
    "machine_slept": lambda fields: f"this machine slept for {fields.raw('length') / 1e6:.0f} s",
    "clock_set": lambda fields: f"the clock was set by {fields.raw('by') / 1e6:+.1f} s",
    "hook_spawn_failed": "hook {hook} could not be started: {cause}",
    "hook_lost": "hook {hook} was lost: {cause}",
    "hook_failed": _hook_failed,
    "quota_lost_open": lambda fields: f"{fields['cause']}; this process alone holds {_limits(fields)} until then",
    "quota_lost_closed": lambda fields: f"{fields['cause']}; nothing starts under {_limits(fields)} until then",
    "quota_found": "the rate-limit daemon answers again",
    "pattern_too_slow": "cannot match `{pattern}`: a line took longer than {limit}s, given up",
    "output_unwritable": "cannot write output: {error}",
    "output_not_kept": "cannot keep output until the end of the run: {error}",
    "file_unwritable": "cannot write `{path}`: {errno}",
    "request_failed": "a request failed inside: {error}",
    "accept_failed": "cannot accept a connection: {error}",
    "connection_ended": "a connection was ended by an internal error: {error}",
    "request_ended": "a request was ended by an internal error: {error}",
    "client_request_failed": "internal error in a request of client {client}: {error}; it is disconnected",
    "ledgers_unwritable": "cannot keep the ledgers: {error}; they hold until this daemon ends",
    "ledgers_failing": "cannot keep the ledgers: {error}",
    "ledgers_recovered": "the ledgers are kept again",
    "old_daemon": (
        "the rate-limit daemon at `{path}` speaks version 1.0 only: starts are shared with an accuracy of a second, "
        "and nothing is given back"
    ),
    "rates_differ": lambda fields: (
        f"clients name `{fields['resource']}` with different rates, {' and '.join(fields.raw('rates'))}: "
        f"the strictest counts, {fields['rate']}"
    ),
    "request_not_counted": "a request of a 1.0 client for `{resource}` is not counted: {error}",
    "attempts_not_counted": (
        "a 1.0 client asks for {attempts} attempts of `{resource}`; {left} of them never fit its limit of {limit} "
        "and are not counted"
    ),
    "metrics_failed": "cannot make the metrics: {error}",
    "metrics_missing": "{error}",
    "history_unwritable": "cannot write the history: {error}; a job whose slot cannot be claimed does not start",
    "history_row_unwritable": "cannot write a row of the history: {error}",
    "outputs_unwritable": "cannot keep the output of runs: {error}; runs go on, and their output is lost",
    "outputs_recovered": "the output of runs is kept again",
    "outputs_failing": "the output of runs cannot be kept, so it is lost",
    "history_recovered": "the history can be written again",
    "history_lost": "cannot hold more than {most} unwritten results, the oldest are lost",
    "shim_missing": "there is no keeper, so jobs lose their output if this supervisor dies: {error}",
    "shim_not_understood": "cannot read a message of the keeper: {error}",
    "shim_lost": lambda fields: (
        "the keeper of the processes is gone"
        + fields.part("error", ": {error}")
        + "; ending what it left, and starting another one"
    ),
    "cgroups_unusable": "cannot give jobs cgroups of their own, so their daemons may be found late: {error}",
    "left_over_ended": "ending processes that an earlier supervisor left running",
    "left_over_alive": "some processes that an earlier supervisor left running cannot be killed",
    "state_adopted": "{text}",
    "watch_polled": "cannot watch files through the system, so they are polled: {error}",
    "watch_failing": "changes of files are noticed late or not at all: {error}",
    "shim_silent": lambda fields: f"{_keeper(fields)} does not answer; nothing starts until it does",
    "shim_answers": "the keeper of the processes answers again",
    "shim_stuck": lambda fields: (
        f"{_keeper(fields)} does not answer, so nothing starts and nothing can be stopped; "
        "`rpr down --kill` ends everything"
    ),
    "plugin_too_slow": "output plugin `{plugin}` is too slow: {items} items were left out",
    "plugin_failed": _plugin_failed,
    "socket_unusable": "{error}; `rpr status` and other commands cannot reach this supervisor",
    "control_socket_removed": "the control socket `{path}` was removed",
    "control_socket_bound": "commands reach this supervisor at `{path}` again",
    "control_socket_missing": "no command can reach this supervisor: {error}",
    "job_file_doubtful": "{problem}",
    "more_warnings": "{count} more warnings; `rpr validate` shows all",
    "history_failing": "the history cannot be written, so jobs that have to be claimed do not start",
    "service_not_ready": "service `{job}` is not ready",
    "files_rejected": "{error}",
    "last_files_active": "the job files are rejected, generation {generation} is still active: {error}",
    "unreachable": "{error}",
}
