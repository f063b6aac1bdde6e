"""`rpr why`: explain the state of a job, or the outcome of a slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.history import slot_cells
from repeater.cli.options import json_option
from repeater.cli.remote import print_json, printable, reason_text, supervisor_options, zone_name
from repeater.errors import Unreachable
from repeater.model.time import offset_text

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.control.commands.explain_history import WhyResult


@click.command(epilog="Example: rpr why backup@03:00")
@click.argument("question", metavar="JOB[@TIME]")
@click.option("--utc", is_flag=True, help="Show times in UTC.")
@json_option
@supervisor_options
def why(question: str, utc: bool, as_json: bool, where: SupervisorSelector) -> None:
    """Explain the current state of a job, or the result of its slot at TIME.

    TIME is a time of day (its last occurrence), a date, or both: `2026-03-29T02:30`. It is in the time zone of the
    job's schedule (default: the local zone). A time with a UTC offset, `2026-03-29T01:30:00Z`, is also accepted. If
    no supervisor is running, this uses the history, and shows runs that continue without a supervisor.
    """
    from repeater.apps.locate import connect

    end = question.rfind("]") + 1  # the name of a matrix cell can contain `@`
    name, _, at = question[end:].partition("@")
    job = question[:end] + name
    result: Mapping[str, Any]
    try:
        client = connect(where)
    except Unreachable as error:
        result = _from_disk(where, job, at, error)
    else:
        with client:
            result = client.call("why", job=job, at=at)
    if as_json:
        print_json(result)
        return
    show, zone = _clock(None if utc else result.get("zone"), datetime.now(UTC), utc=utc)
    print(printable(reason_text(result, "answer", show=show)))
    for fact in result["fact_reasons"]:
        print(f"  {printable(reason_text(fact, show=show))}")
    print(f"  times in {zone}")
    if result["slots"] and not at:
        print("  its last slots:")
        for slot in result["slots"]:
            time, _, outcome, took, reason, run = map(printable, slot_cells(slot, show))
            print(f"    {time}  {outcome}" + "".join(f"  {part}" for part in (took, reason, run) if part))
    if lines := result.get("output"):
        print("  the last lines of the failed run:")
        for line in lines:
            print(f"    {printable(line)}")


def _clock(name: str | None, now: datetime, *, utc: bool) -> tuple[Callable[[datetime], str], str]:
    """How to show all instants of one answer, and the name of the zone. None: the zone of this machine.

    An instant has its offset if that is not the present one, because the clocks were or will be changed.
    """
    zone: tzinfo | None = UTC if utc else None
    if name is not None:
        from repeater.schedule.zone import zone_of

        zone = zone_of(name)
    present = now.astimezone(zone).utcoffset()

    def show(moment: datetime) -> str:
        local = moment.astimezone(zone)
        text = f"{local:%Y-%m-%d %H:%M:%S}"
        return text if local.utcoffset() == present else f"{text} {offset_text(local)}"

    shown = zone_name(now, zone)
    return show, shown if name is None or shown == "UTC" else f"{name} ({shown})"


def _from_disk(where: SupervisorSelector, job: str, at: str, error: Unreachable) -> WhyResult:
    from repeater.apps.locate import records
    from repeater.apps.unattended import unattended_runs
    from repeater.control.commands.explain_history import explain_offline
    from repeater.control.commands.last_output import last_output_on_disk
    from repeater.output.run_reader import RunReader

    with records(where) as found:
        if found is None:
            raise error
        last_output = partial(last_output_on_disk, RunReader(found.state))
        left, now = unattended_runs(found), datetime.now(UTC)
        running = {one.job: (one.pid, one.since, left.shim or 0) for one in left.runs if one.job is not None}
        return explain_offline(job, at, found.specs, found.rows, found.meta, now, last_output, running)
