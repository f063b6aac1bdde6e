"""The value of the key `schedule`, and the growing delays of `retry` and `slowdown`, as specs.

Short forms and tables give equal specs for equal meanings: `"every 30s"`, `{ every = "30000ms" }`; `*/5`, `0-59/5`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from repeater.jobfile.document import Path, kind
from repeater.jobfile.expand import schedule_table
from repeater.jobfile.reading import Reading
from repeater.model.spec import (
    Always,
    At,
    Backoff,
    Cron,
    Every,
    Growing,
    Jitter,
    Manual,
    Once,
    OnChange,
    ScheduleSpec,
)
from repeater.model.units import format_duration, parse_duration, parse_share

_WORDS: dict[str, ScheduleSpec] = {"once": Once(), "manual": Manual(), "always": Always()}
_AT: Path = ("schedule",)
_FORMS = "`once`, `manual`, `always`, `every 30s` or a cron expression"


def read_schedule(value: Any, reading: Reading, job: str, stagger: tuple[int, int] | None) -> ScheduleSpec:
    """The schedule that `value` means. Problems go to `reading`; then the result means nothing.

    `stagger` is (number of the cell, number of cells) for an even spread over the distance.
    """
    table = value if isinstance(value, dict) else _WORDS.get(value) or schedule_table(value)
    schedule: ScheduleSpec
    if isinstance(table, dict):
        schedule = _of_table(table, reading, job, stagger)
    elif isinstance(table, str):
        near = difflib.get_close_matches(table, [*_WORDS, "every 30s"], 1)
        hint = f"did you mean `{near[0]}`?" if near else None
        reading.problem(_AT, f"found {kind(table)}, expected {_FORMS}", hint)
        schedule = Once()
    else:
        schedule = table
    if stagger is not None and not isinstance(schedule, Every):
        reading.problem(("matrix", "stagger"), "found `even`, which needs an `every` schedule")
    return schedule


def read_backoff(table: Mapping[str, Any], reading: Reading, at: Path) -> Backoff:
    """The growing delay whose keys stand in `table`."""
    default = Backoff()
    backoff = Backoff(
        kind=table.get("backoff", default.kind),
        base=reading.duration(table, "base", at, default.base),
        max=reading.duration(table, "max", at, max(default.max, reading.duration(table, "base", at, default.base))),
        increment=reading.duration(table, "increment", at, default.increment),
        multiplier=float(reading.number(table, "multiplier", at, default.multiplier)),
        exponent=float(reading.number(table, "exponent", at, default.exponent)),
        jitter=table.get("jitter", default.jitter),
    )
    if backoff.max < backoff.base:
        found = f"found `{format_duration(backoff.max)}`, expected at least `base`, `{format_duration(backoff.base)}`"
        reading.problem((*at, "max"), found)
    return backoff


def _of_table(table: Mapping[str, Any], reading: Reading, job: str, stagger: tuple[int, int] | None) -> ScheduleSpec:
    if "every" in table:
        return _every(table, reading, stagger)
    if "cron" in table:
        return _cron(table, reading, job)
    if "at" in table:
        return At(reading.instant(table, "at", _AT))
    if "watch" in table:
        return OnChange(
            reading.texts(table, "watch", _AT),
            reading.texts(table, "ignore", _AT),
            reading.duration(table, "debounce", _AT, timedelta(milliseconds=200), zero=True),
        )
    return Growing(read_backoff(table, reading, _AT))


def _every(table: Mapping[str, Any], reading: Reading, stagger: tuple[int, int] | None) -> Every:
    every = reading.duration(table, "every", _AT, timedelta(seconds=1))
    offset = timedelta(0)
    if "offset" in table:
        offset = reading.duration(table, "offset", _AT, timedelta(0), zero=True)
        if offset >= every:
            cause = f"found `{format_duration(offset)}`, expected less than `every`, `{format_duration(every)}`"
            reading.problem((*_AT, "offset"), cause)
    elif stagger is not None:
        offset = every * stagger[0] // stagger[1]
    after_end = reading.truth(table, "after_end", _AT, False)
    immediate = reading.truth(table, "immediate", _AT, True)
    jitter = _jitter(table, reading)
    if jitter is not None and jitter.span is not None and jitter.span >= every:
        cause = f"found `{format_duration(jitter.span)}`, expected less than `every`, `{format_duration(every)}`"
        reading.problem((*_AT, "jitter"), cause)
    return Every(every, after_end, immediate, jitter, offset)


def _cron(table: Mapping[str, Any], reading: Reading, job: str) -> Cron:
    from repeater.schedule.cron import canonical, check_cron
    from repeater.schedule.zone import zone_of

    text, seconds = str(table["cron"]), table.get("seconds")
    zone, day_match = str(table.get("timezone", "UTC")), table.get("day_match", "or")
    try:
        zone_of(zone)
    except ValueError as error:
        reading.problem((*_AT, "timezone"), str(error))
        zone = "UTC"
    try:
        check_cron(text, seconds, zone, day_match, job)
        text = canonical(text, seconds, job)
    except ValueError as error:
        reading.problem((*_AT, "cron"), str(error))
    dst = table.get("dst", {})
    jitter = _jitter(table, reading)
    return Cron(text, seconds, zone, day_match, dst.get("gap", "next"), dst.get("fold", "first"), jitter)


def _jitter(table: Mapping[str, Any], reading: Reading) -> Jitter | None:
    text = table.get("jitter")
    if text is None:
        if "jitter_mode" in table:
            reading.problem((*_AT, "jitter_mode"), "found `jitter_mode` without `jitter`")
        return None
    mode = table.get("jitter_mode", "stable")
    try:
        if str(text).endswith("%"):
            return Jitter(share=parse_share(str(text)), mode=mode)
        return Jitter(span=parse_duration(str(text)), mode=mode)
    except ValueError as error:
        reading.problem((*_AT, "jitter"), str(error))
        return None
