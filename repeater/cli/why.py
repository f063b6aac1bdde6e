"""`rpr why`: explain the state of a job, or the outcome of a slot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.history import _row
from repeater.cli.options import json_option
from repeater.cli.remote import print_json, printable, supervisor_options
from repeater.errors import Unreachable

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.control.commands.explain_history import WhyResult


@click.command(epilog="Example: rpr why backup@03:00")
@click.argument("question", metavar="JOB[@TIME]")
@json_option
@supervisor_options
def why(question: str, as_json: bool, where: SupervisorSelector) -> None:
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
    print(printable(result["answer"]))
    for fact in result["facts"]:
        print(f"  {printable(fact)}")
    if result["slots"] and not at:
        print("  its last slots:")
        for slot in result["slots"]:
            time, _, outcome, took, reason, run = map(printable, _row(slot))
            print(f"    {time}  {outcome}" + "".join(f"  {part}" for part in (took, reason, run) if part))
    if lines := result.get("output"):
        print("  the last lines of the failed run:")
        for line in lines:
            print(f"    {printable(line)}")


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
