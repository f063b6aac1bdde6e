"""`rpr trigger`, `pause`, `resume`, `start`, `stop`, `restart`, `reset`: what a person asks of single jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import call_for_jobs, clock, length_option, some_jobs_argument, supervisor_options, told

if TYPE_CHECKING:
    from repeater.apps import SupervisorSelector


@click.command(epilog="Example: rpr trigger backup")
@some_jobs_argument
@click.option("--force", is_flag=True, help="Also if it is paused, done, or running, and without what it needs.")
@json_option
@supervisor_options
def trigger(jobs: tuple[str, ...], force: bool, as_json: bool, where: SupervisorSelector) -> int:
    """Run jobs once, now.

    The run follows `overlap`, `needs` and `pool` like any other. Exit code 1 if one of them was skipped.
    """
    items = call_for_jobs(where, "trigger", jobs, as_json=as_json, words=_became, force=force)
    return 1 if any(item["became"] == "skipped" for item in items) else 0


def _became(item: Mapping[str, Any]) -> str:
    run = f", run {item['run']}" if item["run"] else ""
    why = told(item)
    reason = f": {why}" if why and item["became"] != "started" else ""
    return f"{item['became']}{run}{reason}"


@click.command(epilog="Example: rpr pause 'db-*' --for 1h --reason 'moving the disk'")
@some_jobs_argument
@click.option("--for", "length", metavar="LENGTH", help="Until so long from now, `1h`; without it until `rpr resume`.")
@click.option("--reason", metavar="TEXT", default="", help="Why; shown wherever somebody wonders.")
@json_option
@supervisor_options
def pause(jobs: tuple[str, ...], length: str | None, reason: str, as_json: bool, where: SupervisorSelector) -> None:
    """Skip the slots of jobs from now on.

    Live runs go on. A pause outlives the supervisor; each skipped slot has its row in the history.
    """
    seconds = length_option(length, "--for")
    call_for_jobs(where, "pause", jobs, as_json=as_json, words=_paused, **{"for": seconds, "reason": reason})


def _paused(item: Mapping[str, Any]) -> str:
    return "paused until it is resumed" if item["until"] is None else f"paused until {clock(item['until'])}"


@click.command(epilog="Example: rpr resume 'db-*'")
@some_jobs_argument
@json_option
@supervisor_options
def resume(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """End a pause.

    Nothing is run for the slots that were skipped.
    """
    call_for_jobs(where, "resume", jobs, as_json=as_json, words=_resumed)


def _resumed(item: Mapping[str, Any]) -> str:
    if not item["was"]:
        return "was not paused"
    return f"resumed, next start {clock(item['next'])}" if item["next"] else "resumed"


def _state(item: Mapping[str, Any]) -> str:
    why = f": {told(item, 'why')}" if item["why"] else ""
    following = f", next start {clock(item['next'])}" if item["next"] and item["state"] == "waiting" else ""
    return f"{item['state']}{why}{following}"


@click.command(epilog="Example: rpr start web")
@some_jobs_argument
@json_option
@supervisor_options
def start(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """Let jobs start again that were stopped or are disabled.

    A service starts at once, other jobs at their next time.
    """
    call_for_jobs(where, "start", jobs, as_json=as_json, words=_state)


@click.command(epilog="Example: rpr stop web worker")
@some_jobs_argument
@click.option("--reason", metavar="TEXT", default="", help="Why; it becomes the reason of the cancelled runs.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@json_option
@supervisor_options
def stop(jobs: tuple[str, ...], reason: str, no_wait: bool, as_json: bool, where: SupervisorSelector) -> None:
    """Stop the live runs of jobs, and start nothing more of them.

    Returns when no process of them is left. They stay stopped until `rpr start`, or until the supervisor is started
    anew; use `enabled = false` in the file for longer.
    """
    call_for_jobs(where, "stop", jobs, as_json=as_json, words=_state, reason=reason, wait=not no_wait)


@click.command(epilog="Example: rpr restart web")
@some_jobs_argument
@json_option
@supervisor_options
def restart(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """End the live run of jobs and start a new one.

    The new run starts when no process of the old one is left. Does not wait for it.
    """
    call_for_jobs(where, "restart", jobs, as_json=as_json, words=_state)


@click.command(epilog="Example: rpr reset import")
@some_jobs_argument
@json_option
@supervisor_options
def reset(jobs: tuple[str, ...], as_json: bool, where: SupervisorSelector) -> None:
    """Begin jobs anew: forget counters, failures in a row, and that they are done.

    The history stays, and so does a pause.
    """
    call_for_jobs(where, "reset", jobs, as_json=as_json, words=_state)
