"""Converts a spec back to the keys of a job file. `rpr render` prints the result and `plan.diff` compares it.

The result is canonical: one spelling for each meaning, keys in the order of the reference page, no default values.
A property test checks that building a dump gives the same spec. The name and the matrix cell of a job are in its key
(`poll[region=eu]`), not in its table. This module does not depend on files, YAML or TOML.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from repeater.model.spec import (
    BACKOFF_FIELDS,
    DECORRELATED_MULTIPLIER,
    Adaptive,
    Always,
    At,
    Backoff,
    CatchUp,
    Cron,
    Every,
    Growing,
    HttpAware,
    Jitter,
    JobFile,
    JobSpec,
    Keep,
    Limit,
    LoadAware,
    Manual,
    Need,
    Once,
    OnceEver,
    OnChange,
    Output,
    Overlap,
    Plugin,
    Pool,
    Probe,
    ProcessSpec,
    RateLimited,
    Retry,
    ScheduleSpec,
    default_overlap,
)
from repeater.model.time import rfc3339
from repeater.model.units import format_duration, format_size

if TYPE_CHECKING:
    from fractions import Fraction

_DEFAULT = JobSpec("x", ProcessSpec(""))
_OF_PROCESS = tuple(
    (name, getattr(_DEFAULT.process, name))
    for name in ("shell", "cwd", "env", "env_file", "env_mode", "stdin", "user", "group")
)
NEVER = "never"  # no duration


def dump_job(spec: JobSpec) -> dict[str, Any]:
    """The job's table as plain data: every key that differs from its default."""
    return _escape_templates(_keys(spec), spec.process.late)


def dump_json(spec: JobSpec) -> str:
    """The same as JSON. Fast path: template marks occur in JSON only inside of strings, so one search in the whole text
    finds that a job, as most jobs, has no text to escape.
    """
    keys = _keys(spec)
    text = _encoded(keys)
    return _encoded(_escape_templates(keys, spec.process.late)) if _has_mark(text) else text


def _keys(spec: JobSpec) -> dict[str, Any]:
    keys: dict[str, Any] = {"description": spec.description or None}
    keys["labels"] = dict(spec.labels) or None
    keys["enabled"] = None if spec.enabled else False
    keys |= _process(spec.process)
    schedule = dump_schedule(spec.schedule)
    keys["schedule"] = None if schedule == "once" else schedule
    keys["matrix"] = {"max_parallel": spec.max_parallel} if spec.max_parallel is not None else None
    keys["stop"] = _non_default(spec.stop, _DEFAULT.stop) or None
    keys |= _non_default(spec.ending, _DEFAULT.ending)
    keys["retry"] = _retry(spec.retry, _DEFAULT.retry)
    if spec.slowdown is not None:
        keys["slowdown"] = _growth(spec.slowdown.backoff) | _plain("on_exit", spec.slowdown.on_exit)
    keys["success"] = _non_default(spec.success, _DEFAULT.success) or None
    keys["http_aware"] = None if spec.http_aware is None else _non_default(spec.http_aware, HttpAware()) or True
    keys |= _overlap(spec.overlap, default_overlap(spec.schedule)) | _catch_up(spec.catch_up)
    keys["delivery"] = None if spec.delivery == _DEFAULT.delivery else spec.delivery
    keys["limit"] = spec.limit
    keys["pool"] = spec.pool
    keys["needs"] = {need.job: _need(need) for need in spec.needs} or None
    keys["restart"] = None if spec.restart == _DEFAULT.restart else spec.restart
    keys["watch"] = list(spec.watch) or None
    keys["watch_ignore"] = list(spec.watch_ignore) or None
    keys["ready"] = _non_default(spec.ready, Probe()) if spec.ready else None
    keys["live"] = _non_default(spec.live, Probe()) if spec.live else None
    keys["output"] = _output(spec.output) or None
    if spec.executor is not None:
        keys["executor"] = _value(spec.executor)
        if not spec.process.command:
            del keys["command"]
    hooks = _non_default(spec.hooks, _DEFAULT.hooks)
    if spec.hooks.timeout is None:
        hooks["timeout"] = "never"
    keys["hooks"] = hooks or None
    keys["moved_from"] = _value(spec.moved_from)
    return {key: value for key, value in keys.items() if value is not None}


_encoded = json.JSONEncoder(ensure_ascii=False).encode
_WITH_RUN_TEMPLATES = ("command", "cwd", "stdin", "env")


def _has_mark(text: str) -> bool:
    return "{{" in text or "{%" in text or "{#" in text


def _escape_templates(keys: dict[str, Any], late: tuple[str, ...]) -> dict[str, Any]:
    """Escape the texts that the loader would treat as templates, except run templates."""
    return {
        key: _escape_value(value, key, late) if late and key in _WITH_RUN_TEMPLATES else _literal(value)
        for key, value in keys.items()
    }


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return "{{ " + ascii(value) + " }}" if _has_mark(value) else value
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list) else value


def literal_of(text: str) -> str | None:
    """The inverse of `_literal`; None for any other template."""
    if not (text.startswith("{{ ") and text.endswith(" }}")):
        return None
    import ast  # rarely needed

    try:
        found = ast.literal_eval(text[3:-3])
    except (ValueError, SyntaxError):
        return None
    return found if isinstance(found, str) and _literal(found) == text else None


def _escape_value(value: Any, key: str, late: tuple[str, ...]) -> Any:
    """Escape the texts of a value, except run templates."""
    if isinstance(value, dict):
        return {name: _escape_value(item, f"{key}.{name}", late) for name, item in value.items()}
    if isinstance(value, list):
        return [_escape_value(item, f"{key}[{number}]", late) for number, item in enumerate(value)]
    return value if key in late else _literal(value)


def dump_file(jobfile: JobFile) -> dict[str, Any]:
    """The whole job file as one document without templates, includes and variables."""
    document: dict[str, Any] = {"version": 1, "project": jobfile.project}
    if jobfile.limits:
        document["limits"] = {limit.name: dump_limit(limit) for limit in jobfile.limits}
    if jobfile.pools:
        document["pools"] = {pool.name: dump_pool(pool) for pool in jobfile.pools}
    document["jobs"] = {job.name: dump_job(job) for job in jobfile.jobs}
    return document


def dump_pool(pool: Pool) -> dict[str, Any]:
    """The table of a pool."""
    return {"slots": pool.slots}


def dump_limit(limit: Limit) -> dict[str, Any]:
    """The table of a limit."""
    table: dict[str, Any] = {"rate": str(limit.rate)}
    if limit.shared:
        table["shared"] = True
    if limit.fail != "open":
        table["fail"] = limit.fail
    return table


def dump_schedule(schedule: ScheduleSpec) -> str | dict[str, Any]:
    """The value of the key `schedule`."""
    match schedule:
        case Once() | OnceEver():
            return "once" if isinstance(schedule, Once) else "once-ever"
        case Manual():
            return "manual"
        case Always():
            return "always"
        case Every():
            keys: dict[str, Any] = {"every": format_duration(schedule.every)}
            keys |= {"after_end": True} if schedule.after_end else {}
            keys |= {} if schedule.immediate else {"immediate": False}
            keys |= {"offset": format_duration(schedule.offset)} if schedule.offset else {}
            return keys | _jitter(schedule.jitter)
        case Cron():
            keys = {"cron": schedule.expression} | _plain("seconds", schedule.seconds)
            for key, default in (("timezone", "UTC"), ("day_match", "or")):
                if getattr(schedule, key) != default:
                    keys[key] = getattr(schedule, key)
            dst: dict[str, Any] = {} if schedule.gap == "next" else {"gap": schedule.gap}
            dst |= {} if schedule.fold == "first" else {"fold": schedule.fold}
            return keys | ({"dst": dst} if dst else {}) | _jitter(schedule.jitter)
        case At():
            return {"at": rfc3339(schedule.at)}
        case OnChange():
            return {"watch": list(schedule.globs)} | _non_default(schedule, OnChange(schedule.globs), skip="globs")
        case Growing():
            return {"backoff": schedule.backoff.kind} | _backoff(schedule.backoff)
        case Adaptive() | LoadAware() | RateLimited():
            return _paced(schedule)
        case Plugin():
            return {"plugin": schedule.name, **schedule.table()}


def _paced(schedule: Adaptive | LoadAware | RateLimited) -> dict[str, Any]:
    match schedule:
        case Adaptive():
            return {"adaptive": _shares(_non_default(schedule, Adaptive()))}
        case LoadAware():  # without `min` it is `base`
            return {"load": _shares(_non_default(schedule, LoadAware(min=schedule.base)))}
        case RateLimited():
            pattern = {"retry_pattern": _value(schedule.retry_pattern)} if schedule.retry_pattern else {}
            return {"rate": str(schedule.rate)} | pattern


def _process(process: ProcessSpec) -> dict[str, Any]:
    keys: dict[str, Any] = {"command": _value(process.command)}
    for name, default in _OF_PROCESS:
        value = getattr(process, name)
        if value != default:
            keys[name] = dict(value) if name == "env" else _value(value)
    keys |= {} if process.umask is None else {"umask": f"{process.umask:03o}"}
    keys |= {"nice": process.nice} if process.nice else {}
    if process.rlimits:
        keys["rlimits"] = {name: _rlimit(*pair) for name, pair in process.rlimits}
    keys |= {"secrets": list(process.secrets)} if process.secrets else {}
    return keys


def _rlimit(soft: int, hard: int) -> Any:
    words = ["unlimited" if one == -1 else one for one in (soft, hard)]
    return words[0] if soft == hard else words


def _jitter(jitter: Jitter | None) -> dict[str, Any]:
    if jitter is None:
        return {}
    amount = format_duration(jitter.span) if jitter.span is not None else _share(jitter.share or 0)
    return {"jitter": amount} | ({"jitter_mode": jitter.mode} if jitter.mode != "stable" else {})


def _shares(keys: dict[str, Any]) -> dict[str, Any]:
    from fractions import Fraction

    return {key: _share(value) if isinstance(value, Fraction) else value for key, value in keys.items()}


def _share(share: Fraction | int) -> str:
    percent = share * 100
    if percent.denominator == 1:
        return f"{percent.numerator}%"
    return f"{float(percent):.6f}".rstrip("0") + "%"


def _retry(retry: Retry, default: Retry) -> dict[str, Any] | None:
    if retry is default or retry == default:
        return None
    return {"attempts": retry.attempts} | _growth(retry.backoff) | _plain("on_exit", retry.on_exit)


def _growth(backoff: Backoff) -> dict[str, Any]:
    return ({} if backoff.kind == Backoff().kind else {"backoff": backoff.kind}) | _backoff(backoff)


def _backoff(backoff: Backoff) -> dict[str, Any]:
    is_random = backoff.kind == "decorrelated-jitter"
    default = Backoff(multiplier=DECORRELATED_MULTIPLIER) if is_random else Backoff()
    keys = _non_default(backoff, default, skip="kind")
    return {key: value for key, value in keys.items() if key in BACKOFF_FIELDS[backoff.kind]}


def _overlap(overlap: Overlap, default: Overlap) -> dict[str, Any]:
    if overlap is default:
        return {}
    keys = {} if overlap.kind == default.kind else {"overlap": overlap.kind}
    return keys | _plain("queue_max", overlap.queue_max) | _plain("max_instances", overlap.max_instances)


def _catch_up(catch_up: CatchUp) -> dict[str, Any]:
    default = _DEFAULT.catch_up
    keys: dict[str, Any] = {}
    if catch_up is default:
        return keys
    for key, name in (("catch_up", "kind"), ("catch_up_window", "window"), ("catch_up_max", "most")):
        if getattr(catch_up, name) != getattr(default, name):
            keys[key] = _value(getattr(catch_up, name))
    return keys | _plain("start_deadline", catch_up.start_deadline)


def _need(need: Need) -> dict[str, Any]:
    keys: dict[str, Any] = {"condition": need.condition}
    rest = _non_default(need, Need(need.job, need.condition), skip="condition")
    if "hold" in rest:
        rest["while"] = rest.pop("hold")
    if need.timeout is None:
        rest["timeout"] = NEVER
    return keys | rest


def _output(output: Output) -> dict[str, Any]:
    keys = _with_sizes(_non_default(output, _DEFAULT.output, skip="keep"), "max_size", "capture")
    if output.keep is None:
        return keys | {"keep": False}
    keep = _with_sizes(_non_default(output.keep, Keep()), "size")
    return keys | {"keep": keep} if keep else keys


def _with_sizes(keys: dict[str, Any], *sizes: str) -> dict[str, Any]:
    return {key: format_size(value) if key in sizes else value for key, value in keys.items()}


def _non_default(value: Any, default: Any, *, skip: str = "") -> dict[str, Any]:
    """The fields that differ from the default, in their order, as job-file values; None is left out."""
    found: dict[str, Any] = {}
    if value is default or value == default:
        return found  # the most frequent case
    for name in value.__match_args__:
        field = getattr(value, name)
        if field != getattr(default, name) and field is not None and name != skip:
            found[name.rstrip("_")] = _value(field)
    return found


def _plain(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: _value(value)}


def _value(value: Any) -> Any:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Plugin):
        keys = value.table()
        return {"plugin": value.name, **keys} if keys else value.name
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return value
