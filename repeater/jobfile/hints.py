"""Hints: how to write here what other programs write in another way.

A hint never changes what a value means. It is looked for only when the value was refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from repeater.jobfile.document import shown
from repeater.model.units import format_duration, parse_duration

_UNITS = {
    "w": ("w", "wk", "wks", "week", "weeks"),
    "d": ("d", "day", "days"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "msecs", "millisecond", "milliseconds"),
}
_WORDS = {word: unit for unit, words in _UNITS.items() for word in words}
_PART = re.compile(r"(?:,|and)?\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)\s*")
_ISO = re.compile(
    r"p(?:([0-9]+)w)?(?:([0-9]+)d)?(?:t(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?)?", re.ASCII
)
_ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")
_NICKNAMES = frozenset({"yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"})


def duration_hint(text: str) -> str | None:
    """`5 min`, `1h 30m`, `PT5M`, `5M`: the same length as it is written here."""
    lowered = text.strip().lower()
    if lowered.isdecimal() and lowered.isascii():
        return f"write `{lowered}s` for seconds"
    iso = _ISO.fullmatch(lowered)
    if iso is not None and any(iso.groups()):
        written = "".join(f"{count}{unit}" for count, unit in zip(iso.groups(), "wdhms", strict=True) if count)
    else:
        written, at = "", 0
        while at < len(lowered):
            part = _PART.match(lowered, at)
            if part is None or part[2] not in _WORDS:
                return None
            written += part[1] + _WORDS[part[2]]
            at = part.end()
    try:
        parse_duration(written)
    except ValueError:
        return None
    return f"write `{written}`"


def cron_hint(text: str) -> str | None:
    """`@every 5m`, `TZ=… 0 3 * * *`, a column for the user, a field for the year."""
    every = re.fullmatch(r"@every\s+(.+)", text.strip())
    if every is not None:
        return every_hint(every[1])
    zone = _ZONE_PREFIX.fullmatch(text.strip())
    if zone is not None:
        return f'write `schedule = {{ cron = "{shown(zone[2])}", timezone = "{shown(zone[1])}" }}`'
    fields = text.split()
    if len(fields) > 5 and re.fullmatch(r"[a-z_][a-z0-9_-]*\$?", fields[5]) and not _is_day(fields[5]):
        return f'a user stands in its own key: `user = "{shown(fields[5])}"`, the rest in `command`'
    if len(fields) in (6, 7) and re.search(r"(?:19|20)[0-9]{2}", fields[-1]):
        return "there is no field for the year; `stop.until` ends a job, `schedule.at` starts it once"
    return None


def every_hint(text: str) -> str:
    """An interval as it is written in a `schedule`."""
    try:
        length = format_duration(parse_duration(text))
    except ValueError:
        hint = duration_hint(text)
        return f"write `every 5m`, not `@every`; {hint}" if hint else "write `every 5m`"
    return f"write `every {text if len(text) <= len(length) else length}`"


def schedule_hint(text: str) -> str | None:
    """A text that is neither a word, an interval nor a cron expression."""
    word = text.strip().lower()
    if word in _NICKNAMES:
        return f"write `@{word}`"
    try:
        parse_duration(word)
    except ValueError:
        zone = _ZONE_PREFIX.fullmatch(text.strip())
        return cron_hint(text) if zone is not None else None
    return f"write `every {word}`"


def _is_day(field: str) -> bool:
    return field[:3] in ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


# --- keys -------------------------------------------------------------------------------------------------------

_OTHER_NAMES = {
    "args": "command", "cmd": "command", "exec": "command", "run": "command", "script": "command",
    "depends_on": "needs", "after": "needs", "requires": "needs", "dependencies": "needs",
    "environment": "env", "envs": "env", "environment_file": "env_file", "envfile": "env_file",
    "working_dir": "cwd", "working_directory": "cwd", "workdir": "cwd", "dir": "cwd", "directory": "cwd",
    "interval": "schedule.every", "tz": "schedule.timezone", "time_zone": "schedule.timezone",
    "crontab": "schedule.cron", "splay": "schedule.jitter",
    "retries": "retry.attempts", "max_attempts": "retry.attempts", "max_retries": "retry.attempts",
    "restart_policy": "restart", "healthcheck": "ready", "readiness": "ready", "liveness": "live",
    "concurrency_policy": "overlap", "concurrency": "overlap", "max_runs": "stop.times", "runs": "stop.times",
    "tags": "labels", "uid": "user", "gid": "group", "loglevel": "output", "stdout": "output.file",
    "kill_timeout": "stop_timeout", "grace_period": "stop_timeout", "disabled": "enabled",
}  # fmt: skip
_LIMIT_KEYS = {"rate": "limits.NAME.rate", "shared": "limits.NAME.shared", "slots": "pools.NAME.slots"}


def key_hint(key: str, known: Any) -> str | None:
    """Where an unknown key of a table belongs; None if it is not known elsewhere. `known` are the keys of that table.

    Keys of other tables and names of other programs count only in a job.
    """
    if "jobs" in known:  # the top of the file
        place = key if key in _job_keys() else _places().get(key)
        return f"keys of jobs stand in `jobs.NAME` or `defaults`: `defaults.{place}`" if place else None
    if "command" in known:
        place = _places().get(key) or _OTHER_NAMES.get(key) or _LIMIT_KEYS.get(key)
        return f"write `{place}`" if place else None
    return f"`{shown(key)}` is a key of the job itself" if key in _job_keys() else None


@cache
def _job_keys() -> frozenset[str]:
    from repeater.jobfile.validate import schema

    return frozenset(schema()["definitions"]["keys"]["properties"])


@cache
def _places() -> dict[str, str]:
    """The keys of the tables of a job that are no keys of the job itself, with their places."""
    found: dict[str, str] = {}
    for place, key in _keys_of_tables():
        if key not in _job_keys():
            found.setdefault(key, f"{place}.{key}")
    return found


def _keys_of_tables() -> Iterator[tuple[str, str]]:
    from repeater.jobfile.validate import schema

    definitions = schema()["definitions"]
    for name in ("schedule_every", "schedule_cron", "schedule_at", "schedule_rate", "schedule_watch"):
        yield from (("schedule", key) for key in definitions[name]["properties"])
    for table in ("matrix", "output", "stop", "retry", "success", "hooks"):
        node = definitions["keys"]["properties"][table]
        node = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        yield from ((table, key) for key in node.get("properties", {}))
    yield from (("http_aware", key) for key in definitions["http_aware"].get("properties", {}))
    yield from (("needs.NAME", key) for key in definitions["need"].get("properties", {}))
    yield from (("ready", key) for key in ("http", "tcp"))
