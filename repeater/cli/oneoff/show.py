"""`--as-job` prints an equivalent job file, `--dry-run` prints the planned runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from repeater._lazy_dataclasses import replace
from repeater.cli.oneoff.document import JobTable
from repeater.errors import UsageError
from repeater.model.spec import Cron, Every, Growing, JobSpec, Stop

if TYPE_CHECKING:
    from repeater.model.time import Instant

_SHOWN = 5
"""Maximum number of listed starts."""


def document(table: JobTable) -> dict[str, Any]:
    """A job file that contains only this job. Loading it gives the same spec."""
    limits = {"limits": table.limits} if table.limits else {}
    return {"version": 1, **limits, "jobs": {table.name: literal(table.job)}}


def literal(value: Any) -> Any:
    """Escape a value that a job file would treat as a template."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise UsageError("cannot write a job file: the command contains bytes that are not valid UTF-8")
        return "{{ " + ascii(value) + " }}" if any(mark in value for mark in ("{{", "{%", "{#")) else value
    if isinstance(value, dict):
        return {key: literal(one) for key, one in value.items()}
    return [literal(one) for one in value] if isinstance(value, list) else value


def as_job(table: JobTable) -> str:
    """The job file, as TOML."""
    from repeater.jobfile.write import to_toml

    return to_toml(document(table))


def planned(spec: JobSpec) -> str:
    """Print the command, its next starts and its end condition."""
    from repeater.model.time import Instant, Mono
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import first_start

    now = Instant(datetime.now(UTC), Mono(0))
    command = spec.process.command
    lines = [f"would run: {command if isinstance(command, str) else shlex.join(command)}"]
    at_once = first_start(spec, schedule_for(spec), now) == now.wall
    if at_once:
        lines.append("first run: now")
    if isinstance(spec.schedule, Every) and spec.schedule.after_end:
        lines.append("then: one run after another, without a pause")
    elif isinstance(spec.schedule, Growing):
        lines += _gaps(spec.schedule, spec.stop.times)
    else:
        lines += _starts(spec, now, at_once=at_once)
    return "\n".join([*lines, f"ends: {_end(spec.stop)}"]) + "\n"


def _starts(spec: JobSpec, now: Instant, *, at_once: bool) -> Iterator[str]:
    """The next starts, without those after the end of the job."""
    from repeater.cli.next import Forecast, table
    from repeater.schedule.factory import schedule_for
    from repeater.schedule.forecast import starts

    rule, most = spec.stop, _SHOWN
    if rule.times is not None:
        most = min(most, rule.times - at_once)
    ends = [end for end in (now.wall + rule.for_ if rule.for_ else None, rule.until) if end is not None]
    coming = [start for start in starts(spec, schedule_for(spec), now, most) if all(start.due < end for end in ends)]
    if coming or not isinstance(spec.schedule, Every | Cron):
        yield from table([spec], Forecast(now, len(coming)))


def _gaps(schedule: Growing, times: int | None) -> Iterator[str]:
    """The delays between attempts, up to the first random one."""
    from repeater.model.units import format_duration
    from repeater.schedule.backoff import backoff_delay

    rule = schedule.backoff
    if rule.kind == "decorrelated-jitter":
        yield f"then: after growing random delays, at most {format_duration(rule.max)}"
        return
    count = _SHOWN if times is None else min(_SHOWN, times - 1)
    plain = replace(rule, jitter="none")
    waits = [format_duration(backoff_delay(plain, number + 1, 0.0)) for number in range(count)]
    if waits:
        words = {
            "none": "delays of",
            "full": "random delays of at most",
            "equal": "delays, each reduced at random by up to a half, of",
        }
        yield f"then: after {words[rule.jitter]} {', '.join(waits)}" + (
            " …" if times is None or times - 1 > count else ""
        )


def _end(rule: Stop) -> str:
    """The end condition of the job as text."""
    from repeater.model.time import rfc3339
    from repeater.model.units import format_duration
    from repeater.policy.retry import HOPELESS

    words = []
    if rule.times is not None:
        words.append(f"after {rule.times} runs" if rule.times > 1 else "after 1 run")
    if rule.for_ is not None:
        words.append(f"after {format_duration(rule.for_)}")
    if rule.until is not None:
        words.append(f"at {rfc3339(rule.until)}")
    if rule.consecutive_failures is not None:
        words.append(f"after {rule.consecutive_failures} consecutive failures")
    if rule.on_success:
        words.append("at the first success")
    if rule.on_failure:
        words.append("at the first failure")
    if rule.on_exit is not None and (codes := [code for code in rule.on_exit if code not in HOPELESS]):
        words.append(f"at the first exit with {' or '.join(map(str, codes))}")
    if rule.except_exit is not None:
        words.append(f"at the first failure without exit {' or '.join(map(str, rule.except_exit))}")
    return ", or ".join(words) or "never, without a signal"
