"""The sentence of every code: with all its fields, and with those alone that are always there."""

from __future__ import annotations

from typing import Any

import pytest

from repeater.model.reasons import FIELDS, Reason, fields_of, reason_from_json
from repeater.sentences import (
    MAKERS,
    as_item,
    done,
    explanations,
    pace,
    probes,
    runs,
    sentence,
    slots,
    spawn,
    states,
    waits,
    warnings,
)

SAMPLES: dict[str, Any] = {
    "name": "db", "text": "words", "path": "/p", "errno": "ENOENT", "count": 3, "number": 0.5, "flag": True,
    "instant": 1_767_225_600_000_000, "duration": 2_000_000, "names": ["a", "b"],
    "needs": [["a", "succeeded"], ["b", "ready"]], "reason": {"code": "exit", "detail": {"exit": 3}},
    "reasons": [{"code": "runs_reached", "detail": {"count": 3}}, {"code": "run_failed"}],
}  # fmt: skip
TABLE = [
    ("success", "exit 3, which counts as a success"),
    ("success", "success"),
    ("success_pattern", "output matched pattern"),
    ("exit", "exit 3"),
    ("signal", "signal 3"),
    ("timeout", "timed out after 2s"),
    ("failure_pattern", "output matched failure_pattern"),
    ("executor_failed", "executor plugin `db` failed; its output has the reason"),
    ("overlap", "the previous run was still running"),
    ("superseded", "a newer slot replaced it while both were queued"),
    ("queue_full", "the queue had reached `queue_max`"),
    ("slowdown", "the next start was delayed after consecutive failures"),
    ("missed", "it was missed"),
    ("missed_many", "it was missed, and so were all others until 2026-01-01T00:00:00Z"),
    ("catch_up_max", "more slots were missed than `catch_up_max` allows"),
    ("catch_up_window", "it was missed and is older than `catch_up_window`"),
    ("start_deadline", "it could not start within `start_deadline`"),
    ("paused", "paused: words"),
    ("paused", "paused"),
    ("done", "the job is done"),
    ("stopped", "words"),
    ("stopped", "stopped"),
    ("decided_before", "it had been decided before the clock was set back"),
    ("upstream_failed", "`db` is not db after 2s"),
    ("upstream_failed", "`db` is not db"),
    ("schedule_changed", "the schedule changed"),
    ("disabled", "the job was disabled"),
    ("removed", "the job was removed"),
    ("replaced", "replaced (exit 3)"),
    ("replaced", "replaced by the next slot"),
    ("requested", "by request"),
    ("reloaded", "its definition changed"),
    ("definition_changed", "its definition changed while no supervisor was running"),
    ("files_changed", "files changed"),
    ("not_alive", "its `live` probe failed"),
    ("started_again", "it was started again"),
    ("pause_over", "the pause is over"),
    ("supervisor_gone", "the supervisor exited during the run"),
    ("shim_gone", "the shim exited during the run"),
    ("runs_reached", "3 runs"),
    ("successes_reached", "3 successes"),
    ("failures_reached", "3 failures"),
    ("consecutive_failures", "3 consecutive failures"),
    ("time_passed", "2s passed"),
    ("instant_reached", "2026-01-01T00:00:00Z reached"),
    ("run_succeeded", "a run succeeded"),
    ("run_failed", "a run failed"),
    ("run_exited", "a run exited with 3"),
    ("stop_pattern", "output matched the stop pattern"),
    ("stop_plugin", "`db`: words"),
    ("all_conditions", "3 runs, a run failed"),
    ("schedule_ended", "its schedule has ended"),
    ("service_ended", "it exited and `restart` is `db`"),
    ("needs", "needs `a` to have succeeded; needs `b` to be ready"),
    ("pool_full", "pool `db` is full"),
    ("group_full", "max_parallel of `db` is full"),
    ("rate", "its rate words until 2026-01-01T00:00:00Z"),
    ("rate", "its rate words"),
    ("limit", "limit `db` (words) until 2026-01-01T00:00:00Z"),
    ("limit", "limit `db` (words)"),
    ("shared_limit", "limit `db` (words, shared) until 2026-01-01T00:00:00Z: exit 3"),
    ("shared_limit", "limit `db` (words, shared)"),
    ("server_refused", "an HTTP 3 answer without a delay; blocked for 2s, until 2026-01-01T00:00:00Z"),
    ("server_refused", "an HTTP 3 answer without a delay; blocked for 2s"),
    ("server_push_back", "`db` of an HTTP 3 answer asks for 2s, `db` makes it 2s, until 2026-01-01T00:00:00Z"),
    ("server_push_back", "`db` asks for 2s"),
    ("waits_for_process", "waiting for pid 3"),
    ("attempt", "attempt 3"),
    ("retry_at", "attempt 3 failed, the next attempt is at 2026-01-01T00:00:00Z"),
    ("paused_until", "words; until 2026-01-01T00:00:00Z"),
    ("paused_until", "until it is resumed"),
    ("slowed_down", "after 3 consecutive failures, not before 2026-01-01T00:00:00Z"),
    ("not_enabled", "`enabled = false`"),
    ("supervisor_stopping", "the supervisor is shutting down"),
    ("still_running", "the previous run is still running"),
    ("not_active", "the job is no longer in the job files"),
    ("schedule_unknown", "words"),
    ("waits_for_clock",
     ("the clock was set back, so it will not start before 2026-01-01T00:00:00Z; `rpr "
      "reset db` clears this")),
    ("clock_was_set_back",
     ("the clock was set back from 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z, so "
      "this time occurred twice")),
    ("adaptive", "every 2s: exit 3 (success 50%, latency 500ms, target 500ms, usually 500ms, circuit open)"),
    ("adaptive", "every 2s: no run yet"),
    ("trial_succeeded", "the trial run succeeded: the circuit is closed"),
    ("trial_failed", "the trial run failed: the circuit stays open"),
    ("circuit_opened", "50% of runs failed (limit 50%): the circuit is open"),
    ("slower_after_failure", "the run failed: slower"),
    ("slower", "500ms is slow for 500ms: slower"),
    ("faster", "500ms is fast for 500ms: faster"),
    ("back_to_base", "normal latency: back towards base"),
    ("unchanged", "normal latency: no change"),
    ("load", "every 2s: db 50% (target 50%), above the target"),
    ("load", "every 2s: no reading yet"),
    ("next_start_allowed", "the next start is allowed at 2026-01-01T00:00:00Z"),
    ("program_missing", "cannot start `words`: No such file or directory on the PATH"),
    ("program_missing", "cannot start `words`: No such file or directory"),
    ("interpreter_missing", "cannot start `words`: its interpreter `words` does not exist"),
    ("loader_missing", "cannot start `words`: its dynamic loader is missing (built for another system?)"),
    ("program_is_folder", "cannot start `words`: Permission denied, it is a directory"),
    ("program_unusable", "cannot start `words`: No such file or directory"),
    ("program_as_user_denied", "cannot start `words`: Operation not permitted to run as user `db`"),
    ("arguments_too_big",
     ("cannot start `words`: Argument list too long: arguments and environment are too "
      "big for the system")),
    ("program_format", "cannot start `words`: Exec format error, not an executable for this machine and no `#!` line"),
    ("program_failed", "cannot start `words`: words"),
    ("resource_short", "cannot start `words`: No such file or directory"),
    ("folder_unusable", "cannot enter directory `words`: No such file or directory"),
    ("command_empty", "cannot start ``: the command is empty"),
    ("command_nul", "cannot start `words`: it contains a NUL byte"),
    ("environment_nul", "cannot start `words`: environment variable `words` contains a NUL byte"),
    ("environment_name", "cannot start `words`: `words` cannot be the name of an environment variable"),
    ("user_unknown", "cannot run as user `db`: there is no such user"),
    ("user_denied", "cannot run as user `db`: Operation not permitted"),
    ("group_unknown", "cannot run as group `db`: there is no such group"),
    ("limit_unknown", "cannot limit `db`: this system does not know it"),
    ("limit_too_high", "cannot raise a limit to 3: the maximum is 3"),
    ("nice_denied", "cannot run with nice 3: Permission denied"),
    ("limits_unset", "cannot set limits: words"),
    ("claim_failed", "cannot claim the slot: words"),
    ("launch_failed", "words"),
    ("probe_timeout", "no answer in time"),
    ("probe_status", "status 3"),
    ("probe_not_http", "the answer is not HTTP"),
    ("probe_failed", "words"),
    ("run_lost", "a run was lost: exit 3; retrying"),
    ("slot_decided_before", "the slot of 2026-01-01T00:00:00Z had already been decided"),
    ("need_not_met", "starting without optional dependency `db`"),
    ("pushed_back", "pushed back: exit 3"),
    ("hint_unreadable", "cannot read the delay in `db`: `words`"),
    ("schedule_failed", "words; retrying"),
    ("stop_condition_failed", "words; the job continues"),
    ("restart_not_alive", "liveness probe failed (exit 3); restarting"),
    ("restart_not_alive", "liveness probe failed; restarting"),
    ("clock_behind",
     ("the clock was set back: 3 jobs, such as `db`, will not start before "
      "2026-01-01T00:00:00Z; `rpr reset db` clears this")),
    ("machine_slept", "system was suspended for 2 s"),
    ("clock_set", "system clock jumped by +2.0 s"),
    ("hook_spawn_failed", "hook db could not be started: exit 3"),
    ("hook_lost", "hook db was lost: exit 3"),
    ("hook_failed", "hook db failed: signal 3"),
    ("hook_failed", "hook db failed"),
    ("quota_lost_open", "exit 3; enforcing limits `a`, `b` locally until it is back"),
    ("quota_lost_closed", "exit 3; no starts under limits `a`, `b` until it is back"),
    ("quota_found", "rate-limit daemon reconnected"),
    ("quota_unreachable", "cannot reach the rate-limit daemon at `words`: words"),
    ("pattern_too_slow", "cannot match `words`: a line took longer than 0.5s; matching stopped"),
    ("output_not_kept", "cannot buffer output until the end of the run: words"),
    ("output_unwritable", "cannot write output: words"),
    ("file_unwritable", "cannot write `words`: No such file or directory"),
    ("request_failed", "internal error in request: words"),
    ("accept_failed", "cannot accept a connection: words"),
    ("connection_ended", "internal error in connection: words; it was closed"),
    ("request_ended", "internal error in request: words; it was aborted"),
    ("client_request_failed", "internal error in a request of client 3: words; the client was disconnected"),
    ("ledgers_unwritable", "cannot write the database: words; counts are in memory only"),
    ("ledgers_failing", "cannot write the database: words"),
    ("ledgers_recovered", "the database can be written again"),
    ("rates_differ", "clients use different rates for `db`, a and b: the strictest applies, words"),
    ("request_not_counted", "a request of a 1.0 client for `db` is not counted: words"),
    ("attempts_not_counted",
     ("a 1.0 client requested 3 attempts of `db`; 3 of them exceed its limit of 3 and "
      "are not counted")),
    ("old_daemon",
     ("the rate-limit daemon at `/p` only supports version 1.0: starts are counted "
      "with an accuracy of one second, and unused starts are not returned")),
    ("metrics_failed", "internal error in metrics: words"),
    ("metrics_missing", "words"),
    ("history_unwritable", "cannot write the history: words; jobs that must be recorded first do not start"),
    ("history_row_unwritable", "cannot write a history record: words"),
    ("history_recovered", "the history can be written again"),
    ("outputs_unwritable", "cannot keep the output of runs: words; runs go on, and their output is lost"),
    ("outputs_recovered", "the output of runs is kept again"),
    ("outputs_failing", "the output of runs cannot be kept, so it is lost"),
    ("history_lost", "cannot buffer more than 3 unwritten results; the oldest are lost"),
    ("shim_missing", "cannot start the shim; jobs will not survive this supervisor: words"),
    ("shim_not_understood", "cannot read a message of the shim: words"),
    ("shim_lost", "the shim exited unexpectedly: words; killing its runs and restarting it"),
    ("shim_lost", "the shim exited unexpectedly; killing its runs and restarting it"),
    ("cgroups_unusable", "cannot create cgroups, so daemonized children may be detected late: words"),
    ("left_over_ended", "killing processes left by a previous supervisor"),
    ("left_over_alive", "some processes left by a previous supervisor could not be killed"),
    ("state_adopted", "words"),
    ("watch_polled", "cannot use file notifications of the system, so files are polled: words"),
    ("watch_failing", "file changes may be detected late or not at all: words"),
    ("shim_silent", "the shim (pid 3) does not answer; no runs start until it does"),
    ("shim_silent", "the shim does not answer; no runs start until it does"),
    ("shim_answers", "the shim answers again"),
    ("shim_stuck",
     ("the shim (pid 3) does not answer, so runs cannot be started or stopped; `rpr "
      "down --kill` ends all processes")),
    ("shim_stuck",
     ("the shim does not answer, so runs cannot be started or stopped; `rpr down "
      "--kill` ends all processes")),
    ("plugin_too_slow", "output plugin `db` is too slow: 3 items were dropped"),
    ("plugin_failed", "words; 3 items were lost"),
    ("socket_unusable", "words; `rpr status` and other commands cannot reach this supervisor"),
    ("control_socket_removed", "the control socket `/p` was removed"),
    ("control_socket_bound", "commands can reach this supervisor at `/p` again"),
    ("control_socket_missing", "no command can reach this supervisor: words"),
    ("job_file_doubtful", "words"),
    ("more_warnings", "3 more warnings; `rpr validate` shows all of them"),
    ("history_failing", "the history cannot be written, so jobs that must be recorded first do not start"),
    ("service_not_ready", "service `db` is not ready"),
    ("files_rejected", "words"),
    ("last_files_active", "the job files are rejected, generation 3 is still active: words"),
    ("unreachable", "words"),
    ("job_waits", "`db` waits for its next start at 2026-01-01T00:00:00Z, in 2s"),
    ("job_is", "`db` is db: exit 3"),
    ("job_is", "`db` is db"),
    ("job_idle", "`db` has no next start: exit 3"),
    ("schedule_asked_again", "its schedule plugin failed and will be retried: words"),
    ("schedule_manual", "it runs only on request"),
    ("schedule_watches", "it runs when matching files change: `a`, `b`"),
    ("service_not_started", "it is a service and has not been started"),
    ("schedule_exhausted", "its schedule has no further starts"),
    ("no_supervisor", "`db` cannot run: no supervisor is running"),
    ("runs_unattended", "`db` runs as pid 3 since 2026-01-01T00:00:00Z, but no supervisor is running"),
    ("shim_keeps_runs", "the shim (pid 3) keeps it running: the next `rpr apply` takes it over, `rpr down` stops it"),
    ("run_goes_on", "run `db`: running since 2026-01-01T00:00:00Z (2s), pid 3"),
    ("run_goes_on", "run `db`: running since 2026-01-01T00:00:00Z (2s)"),
    ("slots_queued", '3 more queued until it ends (`overlap = "db"`)'),
    ("slot_skipped_for_run", 'its slot at 2026-01-01T00:00:00Z was skipped for this reason (`overlap = "db"`)'),
    ("need_state", "needs `db` to be db; `db` is db: exit 3"),
    ("need_state", "needs `db` to be db; `db` is db"),
    ("place_held", "db `db` is used by 3 runs, a run failed, and 3 more"),
    ("place_held", "db `db` is used by 3 runs, a run failed"),
    ("holder", "`db` (pid 3, for 2s)"),
    ("holder", "`db`"),
    ("schedule_is", "its schedule is: words"),
    ("start_put_off", "its next slot is 2026-01-01T00:00:00Z, delayed by jitter to 2026-01-01T00:00:00Z"),
    ("never_ran", "it has not run yet"),
    ("last_run_ended", "its last run ended 2s ago: exit 3"),
    ("last_run_ended", "its last run ended 2s ago"),
    ("failed_in_row", "the last 3 runs failed"),
    ("generation_active", "generation 3 is active"),
    ("files_not_active", "the current job files were rejected: exit 3"),
    ("internal_error",
     ("internal error in db `db` of `db` 3 times, last at 2026-01-01T00:00:00Z: words; "
      "the log has the traceback")),
    ("internal_error", "internal error in db 3 times, last at 2026-01-01T00:00:00Z: words; the log has the traceback"),
    ("slot_decided", "`db` at 2026-01-01T00:00:00Z: exit 3 (the last of 3 slots at that time)"),
    ("row_verdict", "db: exit 3"),
    ("row_verdict", "db"),
    ("slot_to_come", "`db` at 2026-01-01T00:00:00Z: this time is in the future"),
    ("slot_not_recorded", "`db` at 2026-01-01T00:00:00Z: it was scheduled at this time, but no slot is recorded"),
    ("no_slot_then", "`db` at 2026-01-01T00:00:00Z: it was not scheduled at that time"),
    ("run_started", "run `db` (pid 3) started 2026-01-01T00:00:00Z, 2s after it was due, took 2s"),
    ("run_started", "run `db` started 2026-01-01T00:00:00Z"),
    ("slot_jittered", "it was due 2026-01-01T00:00:00Z, 2s later (jitter)"),
    ("trigger_was", "it was started by `db`, not by the schedule"),
    ("run_went_on", "run `db` (pid 3) ran from 2026-01-01T00:00:00Z until 2026-01-01T00:00:00Z"),
    ("run_went_on", "run `db` has been running since 2026-01-01T00:00:00Z"),
    ("run_before", "the previous run ended 2026-01-01T00:00:00Z: exit 3"),
    ("upstream_slot", "`db` at 2026-01-01T00:00:00Z: exit 3"),
    ("local_time_skipped", "words did not exist on words in this zone (clocks went forward)"),
    ("local_time_twice", "that time occurred twice (clocks went back): 2026-01-01T00:00:00Z and 2026-01-01T00:00:00Z"),
    ("clock_change_rule", "its clock-change rule is gap = `db`, fold = `db`"),
    ("interval_is", "it is scheduled 2s after the end of each run; `rpr history db` shows past slots"),
    ("cron_is", "its schedule is `words` in `db`"),
    ("slot_before", "the previous slot is 2026-01-01T00:00:00Z"),
    ("slot_after", "the next slot is 2026-01-01T00:00:00Z"),
    ("lives_unknown_before", "no supervisor is recorded before 2026-01-01T00:00:00Z"),
    ("supervisor_down", "the supervisor was down from 2026-01-01T00:00:00Z until 2026-01-01T00:00:00Z"),
    ("supervisor_down", "the supervisor was down from 2026-01-01T00:00:00Z"),
    ("supervisor_end_unknown",
     ("the supervisor crashed after 2026-01-01T00:00:00Z and was down until "
      "2026-01-01T00:00:00Z")),
    ("supervisor_end_unknown", "the supervisor crashed after 2026-01-01T00:00:00Z and was down"),
    ("generation_was",
     ("generation 3 was active, since 2026-01-01T00:00:00Z; the current generation is "
      "3; this explanation uses its schedule")),
    ("generation_was", "generation 3 was active, since 2026-01-01T00:00:00Z"),
    ("output_ephemeral", "nothing is kept on disk, because the supervisor runs with `--ephemeral`"),
    ("output_off", "nothing of `db` is kept on disk, because its `output.keep` is `false`"),
    ("output_empty", "it printed nothing"),
    ("output_empty", "no output is kept: no run of these jobs printed anything"),
    ("output_gone",
     ("its output is not stored; of the output of a job the last 3 runs are kept, and "
      "failed runs for 2s")),
    ("text", "words"),
    ("legacy", "words"),
]  # fmt: skip


def samples(code: Any) -> list[Reason]:
    """A reason with all fields, and one with those that cannot be left out."""
    fields = fields_of(code)
    full = {name: SAMPLES[kind.rstrip("?")] for name, kind in fields.items()}
    least = {name: SAMPLES[kind] for name, kind in fields.items() if not kind.endswith("?")}
    return [Reason(code, full), Reason(code, least)]


@pytest.mark.parametrize("code", FIELDS)
def test_every_code_has_its_sentence(code: Any) -> None:
    wanted = [text for one, text in TABLE if one == code]
    assert list(dict.fromkeys(map(sentence, samples(code)))) == wanted


def test_each_code_has_its_sentence_in_one_module() -> None:
    modules = (runs, slots, done, waits, states, pace, spawn, probes, warnings, explanations)
    found = [code for module in modules for code in module.SENTENCES]
    assert sorted(found) == sorted(FIELDS)
    assert len(MAKERS) == len(FIELDS)


@pytest.mark.parametrize("code", FIELDS)
def test_a_reason_is_read_back_from_its_json(code: Any) -> None:
    for reason in samples(code):
        assert reason_from_json(code, reason.as_json()) == reason


def test_instants_are_shown_by_the_clock_of_the_reader() -> None:
    reason = Reason("run_lost", {"cause": {"code": "next_start_allowed", "detail": {"at": 0}}})
    assert sentence(reason, lambda wall: f"{wall:%Y}") == (
        "a run was lost: the next start is allowed at 1970; retrying"
    )


def test_a_code_of_a_newer_version_is_shown_without_a_change() -> None:
    assert sentence(Reason("brand_new")) == "brand_new"  # type: ignore[arg-type]
    assert sentence(Reason("brand_new", {"text": "so"})) == "so"  # type: ignore[arg-type]


def test_json_has_the_sentence_the_code_and_the_fields() -> None:
    assert as_item(Reason("exit", {"exit": 3})) == {"reason": "exit 3", "reason_code": "exit", "detail": {"exit": 3}}
    assert as_item(None) == {"reason": None, "reason_code": None, "detail": {}}


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("success", "it ran and succeeded"),
        ("failed", "it ran and failed: exit 3"),
        ("running", "its state is starting"),
        ("interrupted", "it was interrupted: exit 3"),
        ("expired", "it expired: exit 3"),
        ("skipped", "skipped: exit 3"),
    ],
)
def test_a_verdict_of_a_row_has_a_text_for_each_outcome(outcome: str, words: str) -> None:
    cause = {"code": "exit", "detail": {"exit": 3}}
    assert sentence(Reason("row_verdict", {"outcome": outcome, "state": "starting", "cause": cause})) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("running", "`a` is running"),
        ("blocked", "`a` is due but blocked"),
        ("throttled", "`a` is delayed by failures"),
        ("done", "`a` is done; run `rpr reset a` to start over"),
        ("stopped", "`a` is stopped; run `rpr start a` to start it"),
    ],
)
def test_a_state_of_a_job_has_a_text(state: str, words: str) -> None:
    assert sentence(Reason("job_is", {"job": "a", "state": state})) == words


def test_a_full_group_is_named_by_its_key() -> None:
    holder = {"code": "holder", "detail": {"job": "a"}}
    reason = Reason("place_held", {"kind": "group", "name": "m", "holders": [holder]})
    assert sentence(reason) == "max_parallel of `m` is used by `a`"
