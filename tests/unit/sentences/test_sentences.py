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
    ("executor_failed", "executor plugin `db` failed, its output says why"),
    ("overlap", "the run before was still going on"),
    ("superseded", "a newer slot took its place while both waited"),
    ("queue_full", "as many slots waited as `queue_max` allows"),
    ("slowdown", "it failed too often in a row, so the next start was put off"),
    ("missed", "it was missed"),
    ("missed_many", "it was missed, as were all others until 2026-01-01T00:00:00Z"),
    ("catch_up_max", "more slots were missed than `catch_up_max` allows"),
    ("catch_up_window", "it was missed longer ago than `catch_up_window`"),
    ("start_deadline", "it could not start within `start_deadline`"),
    ("paused", "paused: words"),
    ("paused", "paused"),
    ("done", "the job is done"),
    ("stopped", "words"),
    ("stopped", "stopped"),
    ("decided_before", "it was decided before the clock was set back"),
    ("upstream_failed", "`db` is not db after 2s"),
    ("upstream_failed", "`db` is not db"),
    ("schedule_changed", "the schedule changed"),
    ("disabled", "the job was disabled"),
    ("removed", "the job was removed"),
    ("replaced", "replaced (exit 3)"),
    ("replaced", "replaced by the next slot"),
    ("requested", "on request"),
    ("reloaded", "its definition changed"),
    ("definition_changed", "its definition changed while no supervisor was running"),
    ("files_changed", "files changed"),
    ("not_alive", "its `live` probe failed"),
    ("started_again", "started again"),
    ("pause_over", "the pause is over"),
    ("supervisor_gone", "the supervisor was gone before it ended"),
    ("shim_gone", "its keeper died"),
    ("runs_reached", "3 runs"),
    ("successes_reached", "3 successes"),
    ("failures_reached", "3 failures"),
    ("consecutive_failures", "3 failures in a row"),
    ("time_passed", "2s passed"),
    ("instant_reached", "2026-01-01T00:00:00Z reached"),
    ("run_succeeded", "a run succeeded"),
    ("run_failed", "a run failed"),
    ("run_exited", "a run exited with 3"),
    ("stop_pattern", "output matched the stop pattern"),
    ("stop_plugin", "`db`: words"),
    ("all_conditions", "3 runs, a run failed"),
    ("schedule_ended", "its schedule has ended"),
    ("service_ended", "it ended and `restart` is `db`"),
    ("needs", "needs `a` succeeded; needs `b` ready"),
    ("pool_full", "pool `db` is full"),
    ("group_full", "max_parallel of `db` is full"),
    ("rate", "its rate words until 2026-01-01T00:00:00Z"),
    ("rate", "its rate words"),
    ("limit", "limit `db` (words) until 2026-01-01T00:00:00Z"),
    ("limit", "limit `db` (words)"),
    ("shared_limit", "limit `db` (words, shared) until 2026-01-01T00:00:00Z: exit 3"),
    ("shared_limit", "limit `db` (words, shared)"),
    ("server_refused", "an HTTP 3 answer that names no delay; held for 2s, until 2026-01-01T00:00:00Z"),
    ("server_refused", "an HTTP 3 answer that names no delay; held for 2s"),
    ("server_push_back", "`db` of an HTTP 3 answer asks for 2s, `db` makes it 2s, until 2026-01-01T00:00:00Z"),
    ("server_push_back", "`db` asks for 2s"),
    ("waits_for_process", "waiting for pid 3"),
    ("attempt", "attempt 3"),
    ("retry_at", "attempt 3 failed, the next is at 2026-01-01T00:00:00Z"),
    ("paused_until", "words; until 2026-01-01T00:00:00Z"),
    ("paused_until", "until it is resumed"),
    ("slowed_down", "after 3 failures in a row, not before 2026-01-01T00:00:00Z"),
    ("not_enabled", "`enabled = false`"),
    ("supervisor_stopping", "the supervisor is shutting down"),
    ("still_running", "the run before is still going on"),
    ("not_active", "the job is no longer in the job files"),
    ("schedule_unknown", "words"),
    (
        "waits_for_clock",
        ("the clock is behind its decided slots, so it waits until 2026-01-01T00:00:00Z; "
        "`rpr reset db` begins again"),
    ),
    (
        "clock_was_set_back",
        ("the clock was set back from 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z, "
        "so it showed this time twice"),
    ),
    ("adaptive", "every 2s: exit 3 (success 50%, latency 500ms, target 500ms, usually 500ms, circuit open)"),
    ("adaptive", "every 2s: no run yet"),
    ("trial_succeeded", "the trial run succeeded: the circuit is closed"),
    ("trial_failed", "the trial run failed: the circuit stays open"),
    ("circuit_opened", "50% of runs fail, 50% are too many: the circuit is open"),
    ("slower_after_failure", "the run failed: slower"),
    ("slower", "500ms is slow for 500ms: slower"),
    ("faster", "500ms is fast for 500ms: faster"),
    ("back_to_base", "as usual: back towards base"),
    ("unchanged", "as usual: no change"),
    ("load", "every 2s: db 50% of at most 50%, busier than wanted"),
    ("load", "every 2s: no reading yet"),
    ("next_start_allowed", "the next start is allowed at 2026-01-01T00:00:00Z"),
    ("program_missing", "cannot start `words`: No such file or directory on the PATH"),
    ("program_missing", "cannot start `words`: No such file or directory"),
    ("interpreter_missing", "cannot start `words`: its interpreter `words` does not exist"),
    ("loader_missing", "cannot start `words`: the loader that it needs does not exist, it is made for another system"),
    ("program_is_folder", "cannot start `words`: Permission denied, it is a folder"),
    ("program_unusable", "cannot start `words`: No such file or directory"),
    ("program_as_user_denied", "cannot start `words`: Operation not permitted to run as user `db`"),
    (
        "arguments_too_big",
        ("cannot start `words`: Argument list too long: arguments and environment are too big for "
        "the system"),
    ),
    (
        "program_format",
        ("cannot start `words`: Exec format error, it has no `#!` line and is not a program for "
        "this machine"),
    ),
    ("program_failed", "cannot start `words`: words"),
    ("resource_short", "cannot start `words`: No such file or directory"),
    ("folder_unusable", "cannot enter folder `words`: No such file or directory"),
    ("command_empty", "cannot start ``: the command is empty"),
    ("command_nul", "cannot start `words`: it contains a NUL byte"),
    ("environment_nul", "cannot start `words`: environment variable `words` contains a NUL byte"),
    ("environment_name", "cannot start `words`: `words` cannot be the name of an environment variable"),
    ("user_unknown", "cannot run as user `db`: there is no such user"),
    ("user_denied", "cannot run as user `db`: Operation not permitted"),
    ("group_unknown", "cannot run as group `db`: there is no such group"),
    ("limit_unknown", "cannot limit `db`: this system does not know it"),
    ("limit_too_high", "cannot raise a limit to 3: 3 is the most allowed here"),
    ("nice_denied", "cannot run with nice 3: Permission denied"),
    ("limits_unset", "cannot set limits: words"),
    ("claim_failed", "cannot claim the slot: words"),
    ("launch_failed", "words"),
    ("probe_timeout", "no answer in time"),
    ("probe_status", "status 3"),
    ("probe_not_http", "the answer is not HTTP"),
    ("probe_failed", "words"),
    ("run_lost", "a run was lost: exit 3; trying again"),
    ("slot_decided_before", "the slot of 2026-01-01T00:00:00Z was decided before"),
    ("need_not_met", "goes on without `db`, which is not required"),
    ("pushed_back", "pushed back: exit 3"),
    ("hint_unreadable", "cannot read the delay that `db` names: `words`"),
    ("schedule_failed", "words; it is asked again"),
    ("stop_condition_failed", "words; the job goes on"),
    ("restart_not_alive", "is not alive (exit 3); restarting it"),
    ("restart_not_alive", "is not alive; restarting it"),
    (
        "clock_behind",
        ("the clock is behind slots that were decided: 3 jobs wait, `db` the longest, until "
        "2026-01-01T00:00:00Z; `rpr reset db` begins again"),
    ),
    ("machine_slept", "this machine slept for 2 s"),
    ("clock_set", "the clock was set by +2.0 s"),
    ("hook_spawn_failed", "hook db could not be started: exit 3"),
    ("hook_lost", "hook db was lost: exit 3"),
    ("hook_failed", "hook db failed: signal 3"),
    ("hook_failed", "hook db failed"),
    ("quota_lost_open", "exit 3; this process alone holds limits `a`, `b` until then"),
    ("quota_lost_closed", "exit 3; nothing starts under limits `a`, `b` until then"),
    ("quota_found", "the rate-limit daemon answers again"),
    ("quota_unreachable", "cannot reach the rate-limit daemon at `words`: words"),
    ("pattern_too_slow", "cannot match `words`: a line took longer than 0.5s, given up"),
    ("output_not_kept", "cannot keep output until the end of the run: words"),
    ("output_unwritable", "cannot write output: words"),
    ("file_unwritable", "cannot write `words`: No such file or directory"),
    ("request_failed", "a request failed inside: words"),
    ("accept_failed", "cannot accept a connection: words"),
    ("connection_ended", "a connection was ended by an internal error: words"),
    ("request_ended", "a request was ended by an internal error: words"),
    ("client_request_failed", "internal error in a request of client 3: words; it is disconnected"),
    ("ledgers_unwritable", "cannot keep the ledgers: words; they hold until this daemon ends"),
    ("ledgers_failing", "cannot keep the ledgers: words"),
    ("ledgers_recovered", "the ledgers are kept again"),
    ("rates_differ", "clients name `db` with different rates, a and b: the strictest counts, words"),
    ("request_not_counted", "a request of a 1.0 client for `db` is not counted: words"),
    (
        "attempts_not_counted",
        ("a 1.0 client asks for 3 attempts of `db`; 3 of them never fit its limit of 3 "
        "and are not counted"),
    ),
    ("old_daemon", "the rate-limit daemon at `/p` speaks version 1.0 only: starts are shared with an accuracy of a second, and nothing is given back"),
    ("metrics_failed", "cannot make the metrics: words"),
    ("metrics_missing", "words"),
    ("history_unwritable", "cannot write the history: words; a job whose slot cannot be claimed does not start"),
    ("history_row_unwritable", "cannot write a row of the history: words"),
    ("history_recovered", "the history can be written again"),
    (
        "outputs_unwritable",
        "cannot keep the output of runs: words; runs go on, and their output is lost",
    ),
    ("outputs_recovered", "the output of runs is kept again"),
    ("outputs_failing", "the output of runs cannot be kept, so it is lost"),
    ("history_lost", "cannot hold more than 3 unwritten results, the oldest are lost"),
    ("shim_missing", "there is no keeper, so jobs lose their output if this supervisor dies: words"),
    ("shim_not_understood", "cannot read a message of the keeper: words"),
    ("shim_lost", "the keeper of the processes is gone: words; ending what it left, and starting another one"),
    ("shim_lost", "the keeper of the processes is gone; ending what it left, and starting another one"),
    ("cgroups_unusable", "cannot give jobs cgroups of their own, so their daemons may be found late: words"),
    ("left_over_ended", "ending processes that an earlier supervisor left running"),
    ("left_over_alive", "some processes that an earlier supervisor left running cannot be killed"),
    ("state_adopted", "words"),
    ("watch_polled", "cannot watch files through the system, so they are polled: words"),
    ("watch_failing", "changes of files are noticed late or not at all: words"),
    ("shim_silent", "the keeper of the processes (pid 3) does not answer; nothing starts until it does"),
    ("shim_silent", "the keeper of the processes does not answer; nothing starts until it does"),
    ("shim_answers", "the keeper of the processes answers again"),
    (
        "shim_stuck",
        ("the keeper of the processes (pid 3) does not answer, so nothing starts and nothing can be "
        "stopped; `rpr down --kill` ends everything"),
    ),
    (
        "shim_stuck",
        ("the keeper of the processes does not answer, so nothing starts and nothing can be "
        "stopped; `rpr down --kill` ends everything"),
    ),
    ("plugin_too_slow", "output plugin `db` is too slow: 3 items were left out"),
    ("plugin_failed", "words; 3 items were lost"),
    ("socket_unusable", "words; `rpr status` and other commands cannot reach this supervisor"),
    ("control_socket_removed", "the control socket `/p` was removed"),
    ("control_socket_bound", "commands reach this supervisor at `/p` again"),
    ("control_socket_missing", "no command can reach this supervisor: words"),
    ("job_file_doubtful", "words"),
    ("more_warnings", "3 more warnings; `rpr validate` shows all"),
    ("history_failing", "the history cannot be written, so jobs that have to be claimed do not start"),
    ("service_not_ready", "service `db` is not ready"),
    ("files_rejected", "words"),
    ("last_files_active", "the job files are rejected, generation 3 is still active: words"),
    ("unreachable", "words"),
    ("job_waits", "`db` waits for its next start at 2026-01-01T00:00:00Z, in 2s"),
    ("job_is", "`db` is db: exit 3"),
    ("job_is", "`db` is db"),
    ("job_idle", "`db` waits: exit 3"),
    ("schedule_asked_again", "its schedule could not say when it is next, and is asked again: words"),
    ("schedule_manual", "it runs only when it is asked for"),
    ("schedule_watches", "it runs when files change: `a`, `b`"),
    ("service_not_started", "a service that is not started"),
    ("schedule_exhausted", "nothing of its schedule is to come"),
    ("no_supervisor", "`db` does nothing: no supervisor is running"),
    ("run_goes_on", "run `db` goes on since 2026-01-01T00:00:00Z (2s), pid 3"),
    ("run_goes_on", "run `db` goes on since 2026-01-01T00:00:00Z (2s)"),
    ("slots_queued", '3 more wait for it to end (`overlap = "db"`)'),
    ("slot_skipped_for_run", 'its slot at 2026-01-01T00:00:00Z was skipped for that (`overlap = "db"`)'),
    ("need_state", "it needs `db` db; that is db: exit 3"),
    ("need_state", "it needs `db` db; that is db"),
    ("place_held", "db `db` is held by 3 runs, a run failed, and 3 more"),
    ("place_held", "db `db` is held by 3 runs, a run failed"),
    ("holder", "`db` (pid 3, for 2s)"),
    ("holder", "`db`"),
    ("schedule_is", "its schedule is: words"),
    ("start_put_off", "its next slot is 2026-01-01T00:00:00Z, and jitter puts it off to 2026-01-01T00:00:00Z"),
    ("never_ran", "it has not run yet"),
    ("last_run_ended", "its last run ended 2s ago: exit 3"),
    ("last_run_ended", "its last run ended 2s ago"),
    ("failed_in_row", "the last 3 runs failed"),
    ("generation_active", "generation 3 is in force"),
    ("files_not_active", "the job files as they are now are not in force: exit 3"),
    (
        "internal_error",
        ("internal error in db `db` of `db` 3 times, last at 2026-01-01T00:00:00Z: words; the log "
        "has the traceback"),
    ),
    ("internal_error", "internal error in db 3 times, last at 2026-01-01T00:00:00Z: words; the log has the traceback"),
    ("slot_decided", "`db` at 2026-01-01T00:00:00Z: exit 3 (the last of 3 slots then)"),
    ("row_verdict", "db: exit 3"),
    ("row_verdict", "db"),
    ("slot_to_come", "`db` at 2026-01-01T00:00:00Z: that is still to come"),
    ("slot_not_recorded", "`db` at 2026-01-01T00:00:00Z: its schedule names this time, but no slot is recorded"),
    ("no_slot_then", "`db` at 2026-01-01T00:00:00Z: its schedule names no slot then"),
    ("run_started", "run `db` (pid 3) started 2026-01-01T00:00:00Z, 2s after it was due, took 2s"),
    ("run_started", "run `db` started 2026-01-01T00:00:00Z"),
    ("slot_jittered", "it was due 2026-01-01T00:00:00Z, 2s later (jitter)"),
    ("trigger_was", "it came from `db`, not from the schedule"),
    ("run_went_on", "run `db` (pid 3) was going on from 2026-01-01T00:00:00Z until 2026-01-01T00:00:00Z"),
    ("run_went_on", "run `db` was going on from 2026-01-01T00:00:00Z and is still"),
    ("run_before", "the run before it ended 2026-01-01T00:00:00Z: exit 3"),
    ("upstream_slot", "`db` at 2026-01-01T00:00:00Z: exit 3"),
    ("local_time_skipped", "no clock showed words there on words: it went forward, past it"),
    ("local_time_twice", "clocks showed that time twice: 2026-01-01T00:00:00Z and 2026-01-01T00:00:00Z"),
    ("clock_change_rule", "its rule for such nights is gap = `db`, fold = `db`"),
    ("interval_is", "it comes 2s after the end of each run; slots that came are in `rpr history db`"),
    ("cron_is", "its schedule is `words` in `db`"),
    ("slot_before", "the slot before is 2026-01-01T00:00:00Z"),
    ("slot_after", "the next one is 2026-01-01T00:00:00Z"),
    ("lives_unknown_before", "no supervisor is known from before 2026-01-01T00:00:00Z"),
    ("supervisor_down", "the supervisor was down from 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z"),
    ("supervisor_down", "the supervisor was down from 2026-01-01T00:00:00Z on"),
    (
        "supervisor_end_unknown",
        ("the supervisor ended without a word some time after 2026-01-01T00:00:00Z, and was down "
        "to 2026-01-01T00:00:00Z"),
    ),
    (
        "supervisor_end_unknown",
        ("the supervisor ended without a word some time after 2026-01-01T00:00:00Z, and was down "
        "on"),
    ),
    (
        "generation_was",
        ("generation 3 was in force, since 2026-01-01T00:00:00Z; now it is 3, whose schedule is "
        "the one explained here"),
    ),
    ("generation_was", "generation 3 was in force, since 2026-01-01T00:00:00Z"),
    ("output_ephemeral", "nothing is kept on disk, because the supervisor runs with `--ephemeral`"),
    ("output_off", "nothing of `db` is kept on disk, because its `output.keep` is `false`"),
    ("output_empty", "it printed nothing"),
    ("output_empty", "no output is kept: no run of these jobs printed anything"),
    (
        "output_gone",
        "nothing is kept of it; of the output of a job the last 3 runs are kept, and failed runs for 2s",
    ),
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
        "a run was lost: the next start is allowed at 1970; trying again"
    )


def test_a_code_of_a_newer_version_is_shown_as_it_is() -> None:
    assert sentence(Reason("brand_new")) == "brand_new"  # type: ignore[arg-type]
    assert sentence(Reason("brand_new", {"text": "so"})) == "so"  # type: ignore[arg-type]


def test_json_has_the_sentence_the_code_and_the_fields() -> None:
    assert as_item(Reason("exit", {"exit": 3})) == {"reason": "exit 3", "reason_code": "exit", "detail": {"exit": 3}}
    assert as_item(None, "why") == {"why": None, "reason_code": None, "detail": {}}


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("success", "it ran and succeeded"),
        ("failed", "it ran and failed: exit 3"),
        ("running", "it is starting"),
        ("interrupted", "it was interrupted: exit 3"),
        ("expired", "it expired: exit 3"),
        ("skipped", "skipped: exit 3"),
    ],
)
def test_a_verdict_of_a_row_has_its_words_for_each_outcome(outcome: str, words: str) -> None:
    cause = {"code": "exit", "detail": {"exit": 3}}
    assert sentence(Reason("row_verdict", {"outcome": outcome, "state": "starting", "cause": cause})) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("running", "`a` is running"),
        ("held", "`a` is due and held back"),
        ("slowed", "`a` is put off"),
        ("done", "`a` is done; `rpr reset a` begins anew"),
        ("stopped", "`a` is stopped; `rpr start a` starts it"),
    ],
)
def test_a_state_of_a_job_has_its_words(state: str, words: str) -> None:
    assert sentence(Reason("job_is", {"job": "a", "state": state})) == words


def test_a_full_group_is_named_by_its_key() -> None:
    holder = {"code": "holder", "detail": {"job": "a"}}
    reason = Reason("place_held", {"kind": "group", "name": "m", "holders": [holder]})
    assert sentence(reason) == "max_parallel of `m` is held by `a`"
