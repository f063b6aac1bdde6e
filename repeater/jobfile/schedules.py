"""Builds specs from the key `schedule` and from the backoff of `retry` and `slowdown`.

Texts and tables with the same meaning give equal specs: `"every 30s"`, `{ every = "30000ms" }`; `*/5`, `0-59/5`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from repeater._lazy_dataclasses import replace
from repeater.jobfile.document import Path, describe
from repeater.jobfile.layers import schedule_table
from repeater.jobfile.table_reader import TableReader
from repeater.model.spec import (
    BACKOFF_FIELDS,
    DECORRELATED_MULTIPLIER,
    LEAST_DISTANCE,
    Adaptive,
    Always,
    At,
    Backoff,
    Cron,
    Every,
    Growing,
    Jitter,
    LoadAware,
    Manual,
    Once,
    OnceEver,
    OnChange,
    RateLimited,
    ScheduleSpec,
    cell_key,
)
from repeater.model.time import to_us
from repeater.model.units import Rate, format_duration, parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from fractions import Fraction

_WORDS: dict[str, ScheduleSpec] = {"once": Once(), "once-ever": OnceEver(), "manual": Manual(), "always": Always()}
_AT: Path = ("schedule",)
_FORMS = "`once`, `once-ever`, `manual`, `always`, `every 30s` or a cron expression"


def read_schedule(value: Any, reading: TableReader, job: str, stagger: tuple[int, int] | None) -> ScheduleSpec:
    """The schedule of `value`. Problems are added to `reading`; then the result is not valid.

    `stagger` is (number of the cell, number of cells) for an even spread over the interval.
    """
    table = value if isinstance(value, dict) else _WORDS.get(value) or schedule_table(value)
    schedule: ScheduleSpec
    if isinstance(value, str) and isinstance(table, dict) and (fault := _fault_of_every(table)) is not None:
        from repeater.jobfile.hints import schedule_hint

        reading.problem((*_AT, "every"), fault, schedule_hint(value))
        schedule = Once()
    elif isinstance(table, dict):
        schedule = _from_table(table, reading, job, stagger)
    elif isinstance(table, str):
        from repeater.jobfile.hints import schedule_hint

        hint = schedule_hint(table)
        if hint is None:
            import difflib

            near = difflib.get_close_matches(table, [*_WORDS, "every 30s"], 1)
            hint = f"did you mean `{near[0]}`?" if near else None
        reading.problem(_AT, f"found {describe(table)}, expected {_FORMS}", hint)
        schedule = Once()
    else:
        schedule = table
    if stagger is not None and not isinstance(schedule, Every):
        reading.problem(("matrix", "stagger"), "found `even`, which needs an `every` schedule")
    return schedule


def _fault_of_every(table: Mapping[str, Any]) -> str | None:
    """The problem of the interval of a short form."""
    try:
        parse_duration(str(table.get("every", "1s")), zero=True)
    except ValueError as error:
        return str(error)
    return None


_GROWTH = ("base", "max", "increment", "multiplier", "exponent", "jitter")


def read_backoff(table: Mapping[str, Any], reading: TableReader, at: Path) -> Backoff:
    """The backoff from the keys of `table`."""
    default = Backoff()
    growth = table.get("backoff", default.kind)
    if growth == "decorrelated-jitter":
        default = replace(default, multiplier=DECORRELATED_MULTIPLIER)
    for key in _GROWTH:
        if key in table and key not in BACKOFF_FIELDS.get(growth, _GROWTH):
            kinds = [f"`{one}`" for one, keys in BACKOFF_FIELDS.items() if key in keys]
            hint = f"`{key}` is for {' and '.join(kinds)} only" if len(kinds) < 3 else None
            reading.problem((*at, key), f"found `{key}`, which has no effect on the backoff `{growth}`", hint)
    backoff = Backoff(
        kind=growth,
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


def _from_table(
    table: Mapping[str, Any], reading: TableReader, job: str, stagger: tuple[int, int] | None
) -> ScheduleSpec:
    if "plugin" in table:
        from repeater.jobfile.plugins import read_plugin

        return read_plugin("schedule", table, reading, _AT)
    if "every" in table:
        return _every(table, reading, stagger)
    if "cron" in table:
        return _cron(table, reading, job)
    if "at" in table:
        return At(reading.instant(table, "at", _AT))
    if "watch" in table:
        return OnChange(
            reading.globs(table, "watch", _AT),
            reading.globs(table, "ignore", _AT, ignore=True),
            reading.duration(table, "debounce", _AT, timedelta(milliseconds=200), zero=True),
        )
    if "rate" in table:
        return _rated(table, reading)
    if "adaptive" in table:
        return _adaptive(table["adaptive"], reading)
    if "load" in table:
        return _load(table["load"], reading)
    reading.distance(table, "base", _AT, LEAST_DISTANCE)
    return Growing(read_backoff(table, reading, _AT))


def read_rate(table: Mapping[str, Any], reading: TableReader, at: Path) -> Rate:
    """The value of the key `rate`."""
    try:
        return parse_rate(str(table["rate"]))
    except ValueError as error:
        from repeater.jobfile.hints import rate_hint

        reading.problem((*at, "rate"), str(error), rate_hint(str(table["rate"])))
        return Rate(1, timedelta(seconds=1))


def _rated(table: Mapping[str, Any], reading: TableReader) -> RateLimited:
    from repeater.policy.limit import check_pattern

    rate = read_rate(table, reading, _AT)
    pattern = []
    for text in reading.strings(table, "retry_pattern", _AT):
        try:
            pattern.append(parse_duration(text, zero=True))
        except ValueError as error:
            reading.bad_duration((*_AT, "retry_pattern"), str(error), text)
    if pattern != sorted(pattern):
        reading.problem((*_AT, "retry_pattern"), "expected ascending offsets, measured from the first attempt")
    elif pattern and pattern[0]:
        reading.problem((*_AT, "retry_pattern"), "expected `0s`, the first attempt itself, as the first offset")
    elif pattern:
        try:
            check_pattern(tuple(map(to_us, pattern)), rate.count, to_us(rate.window))
        except ValueError as error:
            reading.problem((*_AT, "retry_pattern"), str(error))
    return RateLimited(rate, tuple(pattern))


def _adaptive(table: Mapping[str, Any], reading: TableReader) -> Adaptive:
    at, default = (*_AT, "adaptive"), Adaptive()
    base, low, high = _bounds(table, reading, at, low=lambda base: min(default.min, base))
    return Adaptive(
        base,
        low,
        high,
        reading.duration(table, "target_latency", at, timedelta(1)) if "target_latency" in table else None,
        float(reading.number(table, "slow_threshold", at, default.slow_threshold)),
        float(reading.number(table, "fast_threshold", at, default.fast_threshold)),
        _target(table, "failure_threshold", reading, at, default.failure_threshold),
    )


def _load(table: Mapping[str, Any], reading: TableReader) -> LoadAware:
    at, default = (*_AT, "load"), LoadAware()
    base, low, high = _bounds(table, reading, at, low=lambda base: base)
    cpu = _target(table, "cpu", reading, at, default.cpu)
    memory = _target(table, "memory", reading, at, default.memory)
    return LoadAware(base, low, high, cpu, memory, float(reading.number(table, "load", at, default.load)))


def _bounds(
    table: Mapping[str, Any], reading: TableReader, at: Path, *, low: Callable[[timedelta], timedelta]
) -> tuple[timedelta, timedelta, timedelta]:
    """`base`, `min` and `max`, in this order; `low` returns the default of `min`."""
    default = Adaptive()
    base = reading.distance(table, "base", at, default.base)
    least = reading.distance(table, "min", at, low(base))
    most = reading.duration(table, "max", at, max(default.max, base))
    shown = f"`base`, `{format_duration(base)}`"
    if least > base:
        reading.problem((*at, "min"), f"found `{format_duration(least)}`, expected at most {shown}")
    if most < base:
        reading.problem((*at, "max"), f"found `{format_duration(most)}`, expected at least {shown}")
    return base, least, most


def _target(table: Mapping[str, Any], key: str, reading: TableReader, at: Path, default: Fraction) -> Fraction:
    """A share that is not zero."""
    if key not in table:
        return default
    try:
        share = parse_share(str(table[key]))
        if share:
            return share
        reading.problem((*at, key), f"found `{table[key]}`, expected more than `0%`")
    except ValueError as error:
        reading.problem((*at, key), str(error))
    return default


def _every(table: Mapping[str, Any], reading: TableReader, stagger: tuple[int, int] | None) -> Every:
    after_end = reading.boolean(table, "after_end", _AT, False)
    every = reading.distance(table, "every", _AT, timedelta(seconds=1), zero=after_end)
    offset = timedelta(0)
    if "offset" in table:
        offset = reading.duration(table, "offset", _AT, timedelta(0), zero=True)
        if offset >= every:
            cause = f"found `{format_duration(offset)}`, expected less than `every`, `{format_duration(every)}`"
            reading.problem((*_AT, "offset"), cause)
    elif stagger is not None:
        offset = every * stagger[0] // stagger[1]
    immediate = reading.boolean(table, "immediate", _AT, True)
    jitter = _jitter(table, reading)
    if jitter is not None and jitter.span is not None and jitter.span >= every:
        cause = f"found `{format_duration(jitter.span)}`, expected less than `every`, `{format_duration(every)}`"
        reading.problem((*_AT, "jitter"), cause)
    return Every(every, after_end, immediate, jitter, offset)


@cache
def _parse_cron() -> tuple[Callable[..., str], Callable[[str], object]]:
    """Imported with the first expression, because many commands read none. Cached, because there can be many jobs."""
    from repeater.schedule.cron import check_cron
    from repeater.schedule.zone import zone_of

    return check_cron, zone_of


def _cron(table: Mapping[str, Any], reading: TableReader, job: str) -> Cron:
    check_cron, zone_of = _parse_cron()
    text, seconds = str(table["cron"]), table.get("seconds")
    zone, day_match = str(table.get("timezone", "UTC")), table.get("day_match", "or")
    try:
        zone_of(zone)
    except ValueError as error:
        reading.problem((*_AT, "timezone"), str(error))
        zone = "UTC"
    try:
        written, text = text, check_cron(text, seconds, zone, day_match, cell_key(job))
    except ValueError as error:
        from repeater.jobfile.hints import cron_hint

        reading.problem((*_AT, "cron"), str(error), cron_hint(text))
    else:
        if "*" in written:
            _warn_of_cron(written, seconds, reading)
    dst = table.get("dst", {})
    jitter = _jitter(table, reading)
    return Cron(text, seconds, zone, day_match, dst.get("gap", "next"), dst.get("fold", "first"), jitter)


def _warn_of_cron(text: str, seconds: Literal["first", "last"] | None, reading: TableReader) -> None:
    from repeater.schedule.cron_lint import doubts

    for doubt in doubts(text, seconds):
        reading.warning((*_AT, "cron"), doubt.message, doubt.hint)


def _jitter(table: Mapping[str, Any], reading: TableReader) -> Jitter | None:
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
        reading.bad_duration((*_AT, "jitter"), str(error), str(text))
        return None
