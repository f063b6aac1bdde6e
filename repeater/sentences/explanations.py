"""The answers of `rpr why`, and additional facts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from repeater.model.reasons import ReasonCode
from repeater.model.time import age
from repeater.sentences.fields import Fields, Maker, to_be

_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = {"blocked": "due but blocked", "throttled": "delayed by failures"}


def _age(fields: Fields, name: str) -> str:
    """A duration in one or two units."""
    return age(_ZERO, _ZERO + timedelta(microseconds=fields.raw(name)))


def _pid(fields: Fields) -> str:
    return fields.part("pid", " (pid {pid})")


def _job_is(fields: Fields) -> str:
    state = str(fields.raw("state"))
    text = "`{job}` is ".format_map(fields) + _STATES.get(state, state) + fields.part("cause", ": {cause}")
    match state:
        case "done":
            return text + "; run `rpr reset {job}` to start over".format_map(fields)
        case "stopped":
            return text + "; run `rpr start {job}` to start it".format_map(fields)
        case _:
            return text


def _run_goes_on(fields: Fields) -> str:
    return f"run `{fields['run']}`: running since {fields['since']} ({_age(fields, 'lasts')})" + fields.part(
        "pid", ", pid {pid}"
    )


def _place_held(fields: Fields) -> str:
    what = "max_parallel of" if fields.raw("kind") == "group" else fields["kind"]
    return f"{what} `{fields['name']}` is used by {fields['holders']}" + fields.part("more", ", and {more} more")


def _holder(fields: Fields) -> str:
    if "lasts" not in fields:
        return fields["job"].join("``")
    return f"`{fields['job']}` ({fields.part('pid', 'pid {pid}, ')}for {_age(fields, 'lasts')})"


def _last_run_ended(fields: Fields) -> str:
    how = fields["cause"] or fields["outcome"]
    return f"its last run ended {_age(fields, 'ago')} ago" + (f": {how}" if how else "")


def _internal_error(fields: Fields) -> str:
    what = fields["owner"] + fields.part("name", " `{name}`") + fields.part("job", " of `{job}`")
    times = " {count} times, last".format_map(fields) if fields.raw("count") > 1 else ""
    return f"internal error in {what}{times} at {fields['last']}: {fields['error']}; the log has the traceback"


def _slot_decided(fields: Fields) -> str:
    text = "`{job}` at {nominal}: {verdict}".format_map(fields)
    return text + (" (the last of {slots} slots at that time)".format_map(fields) if fields.raw("slots") > 1 else "")


def _row_verdict(fields: Fields) -> str:
    cause = fields.part("cause", ": {cause}")
    match fields.raw("outcome"):
        case "success":
            return "it ran and succeeded"
        case "failed":
            return f"it ran and failed{cause}"
        case "running":
            return "its state is {state}".format_map(fields)
        case "interrupted":
            return f"it was interrupted{cause}"
        case "expired":
            return f"it expired{cause}"
        case outcome:
            return f"{outcome}{cause}"


def _run_started(fields: Fields) -> str:
    return (
        f"run `{fields['run']}`{_pid(fields)} started {fields['started']}"
        + fields.part("late", ", {late} after it was due")
        + fields.part("took", ", took {took}")
    )


def _run_went_on(fields: Fields) -> str:
    end = fields.part("ended", "ran from {started} until {ended}") or f"has been running since {fields['started']}"
    return f"run `{fields['run']}`{_pid(fields)} {end}"


def _interval_is(fields: Fields) -> str:
    when = "{every} after the end of each run" if fields.raw("after_end") else "every {every}"
    return f"it is scheduled {when}; `rpr history {{job}}` shows past slots".format_map(fields)


def _back(fields: Fields) -> str:
    return fields.part("until", " until {until}")


def _generation_was(fields: Fields) -> str:
    return "generation {generation} was active, since {since}".format_map(fields) + fields.part(
        "newest", "; the current generation is {newest}; this explanation uses its schedule"
    )


def _output_empty(fields: Fields) -> str:
    return fields.part("run", "it printed nothing") or "no output is kept: no run of these jobs printed anything"


SENTENCES: Mapping[ReasonCode, Maker] = {
    "job_waits": lambda fields: (
        f"`{fields['job']}` waits for its next start at {fields['due']}, in {_age(fields, 'left')}"
    ),
    "job_is": _job_is,
    "job_idle": "`{job}` has no next start: {cause}",
    "schedule_asked_again": "its schedule plugin failed and will be retried: {error}",
    "schedule_manual": "it runs only on request",
    "schedule_watches": "it runs when matching files change: {globs}",
    "service_not_started": "it is a service and has not been started",
    "schedule_exhausted": "its schedule has no further starts",
    "no_supervisor": "`{job}` cannot run: no supervisor is running",
    "runs_unattended": "`{job}` runs as pid {pid} since {since}, but no supervisor is running",
    "shim_keeps_runs": "the shim (pid {pid}) keeps it running: the next `rpr apply` takes it over, `rpr down` stops it",
    "run_goes_on": _run_goes_on,
    "slots_queued": '{count} more queued until it ends (`overlap = "{overlap}"`)',
    "slot_skipped_for_run": 'its slot at {nominal} was skipped for this reason (`overlap = "{overlap}"`)',
    "need_state": lambda fields: (
        f"needs `{fields['job']}` {to_be(fields['condition'])}; "
        + "`{job}` is {state}".format_map(fields)
        + fields.part("cause", ": {cause}")
    ),
    "place_held": _place_held,
    "holder": _holder,
    "schedule_is": "its schedule is: {schedule}",
    "start_put_off": "its next slot is {nominal}, delayed by jitter to {due}",
    "never_ran": "it has not run yet",
    "last_run_ended": _last_run_ended,
    "failed_in_row": "the last {count} runs failed",
    "generation_active": "generation {generation} is active",
    "files_not_active": "the current job files were rejected: {cause}",
    "internal_error": _internal_error,
    "slot_decided": _slot_decided,
    "row_verdict": _row_verdict,
    "slot_to_come": "`{job}` at {nominal}: this time is in the future",
    "slot_not_recorded": "`{job}` at {nominal}: it was scheduled at this time, but no slot is recorded",
    "no_slot_then": "`{job}` at {at}: it was not scheduled at that time",
    "run_started": _run_started,
    "slot_jittered": "it was due {due}, {by} later (jitter)",
    "trigger_was": "it was started by `{trigger}`, not by the schedule",
    "run_went_on": _run_went_on,
    "run_before": "the previous run ended {ended}: {verdict}",
    "upstream_slot": "`{job}` at {nominal}: {verdict}",
    "local_time_skipped": "{time} did not exist on {date} in this zone (clocks went forward)",
    "local_time_twice": "that time occurred twice (clocks went back): {first} and {second}",
    "clock_change_rule": "its clock-change rule is gap = `{gap}`, fold = `{fold}`",
    "interval_is": _interval_is,
    "cron_is": "its schedule is `{expression}` in `{timezone}`",
    "slot_before": "the previous slot is {nominal}",
    "slot_after": "the next slot is {nominal}",
    "lives_unknown_before": "no supervisor is recorded before {at}",
    "clock_was_set_back": "the clock was set back from {since} to {until}, so this time occurred twice",
    "supervisor_down": lambda fields: f"the supervisor was down from {fields['since']}{_back(fields)}",
    "supervisor_end_unknown": lambda fields: (
        f"the supervisor crashed after {fields['seen']} and was down{_back(fields)}"
    ),
    "generation_was": _generation_was,
    "output_ephemeral": "nothing is kept on disk, because the supervisor runs with `--ephemeral`",
    "output_off": "nothing of `{job}` is kept on disk, because its `output.keep` is `false`",
    "output_empty": _output_empty,
    "output_gone": (
        "its output is not stored; of the output of a job the last {runs} runs are kept, and failed runs for {failures}"
    ),
}
