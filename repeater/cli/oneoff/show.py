"""`--as-job` and `--dry-run`: the same as a job file, and what would happen."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from repeater.cli.oneoff.document import Table
from repeater.errors import UsageError
from repeater.model.spec import JobSpec


def document(table: Table) -> dict[str, Any]:
    """A job file with this one job in it, so that reading it gives the same spec."""
    return {"version": 1, "jobs": {table.name: literal(table.job)}}


def literal(value: Any) -> Any:
    """The value so that a job file does not take it for a template."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise UsageError("cannot write a job file: the command holds bytes that are no text")
        return "{{ " + ascii(value) + " }}" if any(mark in value for mark in ("{{", "{%", "{#")) else value
    if isinstance(value, dict):
        return {key: literal(one) for key, one in value.items()}
    return [literal(one) for one in value] if isinstance(value, list) else value


def as_job(table: Table) -> str:
    """The job file, as TOML."""
    from repeater.jobfile.write import to_toml

    return to_toml(document(table))


def planned(spec: JobSpec) -> str:
    """What would run, and when."""
    from repeater.cli.next import table
    from repeater.model.time import Instant, Mono
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import first_start

    now = Instant(datetime.now(UTC), Mono(0))
    command = spec.process.command
    shown = command if isinstance(command, str) else shlex.join(command)
    lines = [f"would run: {shown}"]
    if first_start(spec, schedule_for(spec), now) == now.wall:
        lines.append("first run: now")
    return "\n".join([*lines, *table([spec], now, 5)]) + "\n"
