"""`rpr trigger`, `pause`, `resume`, `start`, `stop`, `restart`, `reset`: commands about single jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import (
    call_for_jobs,
    clock,
    instant,
    instant_option,
    length_option,
    print_json,
    reason_text,
    some_jobs_argument,
    supervisor_options,
)
from repeater.errors import UsageError

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector


@click.command(epilog="Example: rpr trigger backup --follow")
@some_jobs_argument
@click.option(
    "--force", is_flag=True, help="Run the job even if it is paused, done or already running, and ignore its `needs`."
)
@click.option("--wait", is_flag=True, help="Wait for the end of the runs and show their results.")
@click.option("-f", "--follow", is_flag=True, help="Show the output of the runs and wait for their end.")
@json_option
@supervisor_options
def trigger(
    jobs: tuple[str, ...], force: bool, wait: bool, follow: bool, as_json: bool, where: SupervisorSelector
) -> int:
    """Run jobs once, immediately.

    `overlap`, `needs` and `pool` apply as for a scheduled run. Exit code 1: at least one job was skipped, or failed
    with `--wait`. With `--follow` and one job, the exit code is that of its run.
    """
    from repeater.cli.logs import OutputPrinter

    output = OutputPrinter(names=len(jobs) != 1 or any(mark in jobs[0] for mark in "*?="), times=False, raw=False)

    def is_output(item: Mapping[str, Any]) -> bool:
        if "result" in item:
            if not as_json:
                output.close()
            return False
        if as_json:
            print_json(item)
        else:
            output.show(item)
        return True

    items = call_for_jobs(
        where, "trigger", jobs, as_json=as_json, words=_result, is_output=is_output,
        force=force, wait=wait, follow=follow,
    )  # fmt: skip
    if follow and len(items) == 1 and items[0]["outcome"] == "failed" and items[0]["exit"]:
        code: int = items[0]["exit"]
        return code if code > 0 else 128 - code  # a signal, as in a shell
    failed = (wait or follow) and any(item["outcome"] != "success" for item in items)
    return 1 if failed or any(item["result"] == "skipped" for item in items) else 0


def _result(item: Mapping[str, Any]) -> str:
    run = f", run {item['run']}" if item["run"] else ""
    why = reason_text(item)
    result = item["result"] if item["outcome"] is None or item["result"] == "skipped" else item["outcome"]
    reason = f": {why}" if why and result not in ("started", "success") else ""
    return f"{result}{run}{reason}"


@click.command(epilog="Example: rpr pause 'db-*' --for 1h --reason 'moving the disk'")
@some_jobs_argument
@click.option(
    "--for", "length", metavar="LENGTH", help="Pause for this long, for example `1h`. Default: until `rpr resume`."
)
@click.option("--until", metavar="TIME", help="Pause until this time, for example `07:00`, `tomorrow` or a date.")
@click.option("--reason", metavar="TEXT", default="", help="Reason, shown by `status`, `why` and `history`.")
@json_option
@supervisor_options
def pause(
    jobs: tuple[str, ...],
    length: str | None,
    until: str | None,
    reason: str,
    as_json: bool,
    where: SupervisorSelector,
) -> None:
    """Pause jobs: skip their slots.

    Current runs continue. A pause is kept when the supervisor restarts. Skipped slots are recorded in the history.
    """
    if length is not None and until is not None:
        raise UsageError("cannot use `--for` with `--until`: they exclude each other")
    end = instant_option(until, "--until", ahead=True)
    at = instant(end)
    if at is not None and at <= datetime.now(UTC):
        raise UsageError(f"cannot use `--until {until}`: that time is over")
    args: dict[str, Any] = {
        "for": length_option(length, "--for"),
        "until": end,
        "reason": reason,
    }
    call_for_jobs(where, "pause", jobs, as_json=as_json, words=_paused, **args)


def _paused(item: Mapping[str, Any]) -> str:
    return "paused until it is resumed" if item["until"] is None else f"paused until {clock(item['until'])}"


@click.command(epilog="Example: rpr resume 'db-*'")
@some_jobs_argument
@json_option
@supervisor_options
def resume(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """Resume paused jobs.

    Slots that were skipped during the pause do not run.
    """
    call_for_jobs(where, "resume", jobs, as_json=as_json, words=_resumed)


def _resumed(item: Mapping[str, Any]) -> str:
    if not item["was"]:
        return "was not paused"
    return f"resumed, next start {clock(item['next'])}" if item["next"] else "resumed"


def _state(item: Mapping[str, Any]) -> str:
    why = f": {reason_text(item, 'why')}" if item["why"] else ""
    following = f", next start {clock(item['next'])}" if item["next"] and item["state"] == "scheduled" else ""
    return f"{item['state']}{why}{following}"


@click.command(epilog="Example: rpr start web")
@some_jobs_argument
@json_option
@supervisor_options
def start(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """Start jobs that were stopped or are disabled.

    A service and a finished `once` job start immediately, other jobs at their next scheduled time.
    """
    call_for_jobs(where, "start", jobs, as_json=as_json, words=_state)


@click.command(epilog="Example: rpr stop web worker")
@some_jobs_argument
@click.option("--reason", metavar="TEXT", default="", help="Reason, recorded with the cancelled runs.")
@click.option("--no-wait", is_flag=True, help="Return immediately, before the jobs have stopped.")
@json_option
@supervisor_options
def stop(jobs: tuple[str, ...], reason: str, no_wait: bool, as_json: bool, where: SupervisorSelector) -> None:
    """Stop jobs: end their current runs and start no new ones.

    Returns when no process of the jobs is left. The jobs stay stopped until `rpr start` or until the supervisor
    restarts. To stop a job permanently, set `enabled = false` in the job file.
    """
    call_for_jobs(where, "stop", jobs, as_json=as_json, words=_state, reason=reason, wait=not no_wait)


@click.command(epilog="Example: rpr restart web")
@some_jobs_argument
@click.option("--no-wait", is_flag=True, help="Return immediately, before the new runs have started.")
@json_option
@supervisor_options
def restart(jobs: tuple[str, ...], no_wait: bool, as_json: bool, where: SupervisorSelector) -> None:
    """Restart jobs: stop the current run and start a new one.

    The new run starts when no process of the old run is left. Returns when the new run has started.
    """
    call_for_jobs(where, "restart", jobs, as_json=as_json, words=_state, wait=not no_wait)


@click.command(epilog="Example: rpr reset import")
@some_jobs_argument
@json_option
@supervisor_options
def reset(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """Reset jobs: clear run counters, consecutive failures and the done state.

    The history and a pause are kept.
    """
    call_for_jobs(where, "reset", jobs, as_json=as_json, words=_state)
