"""Hints: the equivalent here of values in the syntax of other programs.

A hint never changes the meaning of a value. It is searched only after the value was rejected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from repeater.jobfile.document import quote_value
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
_ONE = {
    "second": "1s", "minute": "1m", "hour": "1h", "day": "1d", "week": "1w", "other day": "2d", "half hour": "30m",
    "quarter": "15m", "sec": "1s", "min": "1m",
}  # fmt: skip
_NUMBERS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "ten": 10, "twelve": 12,
    "fifteen": 15, "twenty": 20, "thirty": 30,
}  # fmt: skip
_SCHEDULES = {
    **dict.fromkeys(
        ("service", "daemon", "forever", "continuous", "keepalive", "running", "permanent", "true"), '"always"'
    ),
    **dict.fromkeys(
        ("never", "none", "off", "disabled", "on-demand", "ondemand", "on demand", "trigger", "false"), '"manual"'
    ),
    **dict.fromkeys(
        ("reboot", "boot", "startup", "start", "onstart", "now", "immediately", "oneshot", "once"), '"once"'
    ),
    **dict.fromkeys(("change", "on-change", "onchange", "on change", "watch"), '{ watch = ["src/**"] }'),
    **dict.fromkeys(("minutely", "every minute"), '"every 1m"'),
    **dict.fromkeys(("once ever", "once_ever", "only once", "exactly once", "first start"), '"once-ever"'),
    "always": '"always"',
    "manual": '"manual"',
}
_DAYS = {"day": "*", "daily": "*", "weekday": "1-5", "weekend": "0,6", "night": "*", "nightly": "*", "midnight": "*"}
_DAILY = re.compile(
    r"(?P<day>day|daily|night|nightly|weekdays?|weekends?|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:days?)?)?"
    r"\s*(?P<at>at|@)?\s*(?:(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{2}))?(?::00)?\s*(?P<half>am|pm)?)?"
)
LONG = '"…"'
"""Placeholder for a text that is too long for a hint."""
_NICKNAMES = frozenset({"yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"})


def literal(value: Any) -> str:
    """A value as in TOML and JSON; `"…"` if it is too long for a hint."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        text = "[" + ", ".join(map(literal, value)) + "]"
        return text if len(text) <= 60 else f"[{LONG}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str) or len(value) > 60 or not value.isprintable():
        return LONG
    return json.dumps(value, ensure_ascii=False)


def length(value: Any, default: str) -> str:
    """A duration in the syntax of job files. A number without a unit means seconds."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) and not isinstance(value, bool):
        text += "s"
    try:
        parse_duration(text)
    except ValueError:
        hint = duration_hint(text)
        return hint.partition("`")[2].partition("`")[0] if hint else default
    return text


def duration_hint(text: str) -> str | None:
    """Converts `5 min`, `1h 30m`, `PT5M`, `5M` to the syntax of job files."""
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
    form = _SCHEDULES.get(text.strip().lower().removeprefix("@"))
    if form is not None and text.strip() != "@reboot":
        return f"write `schedule = {form}`"
    zone = _ZONE_PREFIX.fullmatch(text.strip())
    if zone is not None:
        return f'write `schedule = {{ cron = "{quote_value(zone[2])}", timezone = "{quote_value(zone[1])}" }}`'
    fields = text.split()
    if len(fields) > 5 and re.fullmatch(r"[a-z_][a-z0-9_-]*\$?", fields[5]) and not _is_day(fields[5]):
        return f'the user has its own key: `user = "{quote_value(fields[5])}"`, the rest in `command`'
    if len(fields) in (6, 7) and re.search(r"(?:19|20)[0-9]{2}", fields[-1]):
        return "cron has no field for the year; `stop.until` ends a job, `schedule.at` starts it once"
    return None


def every_hint(text: str) -> str:
    """An interval in the syntax of `schedule`."""
    return f'write `schedule = "every {_every(text) or "5m"}"`'


def _every(text: str) -> str | None:
    """`5 minutes`, `minute`, `five minutes` as a duration."""
    text = text.strip().lower()
    if text in _ONE:
        return _ONE[text]
    first, _, rest = text.partition(" ")
    if first in _NUMBERS and rest:
        text = f"{_NUMBERS[first]} {rest}"
    try:
        shortest = format_duration(parse_duration(text))
    except ValueError:
        return length(text, "") or None
    return text if len(text) <= len(shortest) else shortest


def schedule_hint(text: str) -> str | None:
    """A text that is neither a word, an interval nor a cron expression."""
    word = text.strip().lower()
    if word.startswith("every"):
        rest = word.removeprefix("every").strip()
        return _daily(rest) or every_hint(rest)
    form = _SCHEDULES.get(word) or (f'"@{word}"' if word in _NICKNAMES else None)
    if form is not None:
        return f"write `schedule = {form}`"
    if _ZONE_PREFIX.fullmatch(text.strip()) is not None:
        return cron_hint(text)
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", word):
        return 'write `schedule = { at = "2027-01-01T00:00:00Z" }`'
    found = _daily(word)
    if found is not None:
        return found
    if len(word.split()) == 4 and all(re.fullmatch(r"[-*/,0-9a-z?#]+", one) for one in word.split()):
        fields = "a cron expression has five fields: minute, hour, day of month, month, day of week"
        return f'{fields}; write `schedule = "{quote_value(word)} *"`'
    every = _every(word)
    return None if every is None else f'write `schedule = "every {every}"`'


def _daily(text: str) -> str | None:
    """`at 03:00`, `daily at 3am`, `monday`, `weekdays at 8:30` as a cron expression."""
    match = _DAILY.fullmatch(text)
    if match is None or not (match["day"] or match["hour"]):
        return None
    day = match["day"] or "day"
    hour, minute = int(match["hour"] or 0), int(match["minute"] or 0)
    if match["half"]:
        hour = hour % 12 + (12 if match["half"] == "pm" else 0)
    elif match["hour"] and match["minute"] is None and not match["at"]:
        return None
    if hour > 23 or minute > 59:
        return None
    week = _DAYS.get(day.rstrip("s") if day not in _DAYS else day) or (day[:3] if _is_day(day) else "*")
    return f'write `schedule = "{minute} {hour} * * {week}"`'


def rate_of(text: str) -> str | None:
    """`5000/hour`, `10 per minute`, `10/min`, `5` as a rate; None for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})\s*(?:(?:/|per|an|a)\s*(.+))?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        return None
    window = "1s" if match[2] is None else _every(match[2])
    return f"{match[1]}/{window}" if window else None


def rate_hint(text: str) -> str | None:
    """A rate in the syntax of job files."""
    rate = rate_of(text)
    return None if rate is None else f'write `rate = "{rate}"`'


def _is_day(field: str) -> bool:
    return field[:3] in ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


# --- keys -------------------------------------------------------------------------------------------------------

_LIMIT_KEYS = {"shared": "limits.NAME.shared", "slots": "pools.NAME.slots"}


def key_hint(key: str, known: Any) -> str | None:
    """The table to which an unknown key belongs; None if no table has it. `known` are the keys of the current table.

    Keys of other tables count only in a job.
    """
    if "jobs" in known:  # the top of the file
        place = key if key in _job_keys() else _places().get(key)
        return f"keys of jobs belong in `jobs.NAME` or `defaults`: `defaults.{place}`" if place else None
    if "command" in known:
        place = _places().get(key) or _LIMIT_KEYS.get(key)
        return f"write `{place}`" if place else None
    return f"`{quote_value(key)}` is a key of the job itself" if key in _job_keys() else None


@cache
def _job_keys() -> frozenset[str]:
    from repeater.jobfile.schema import schema

    return frozenset(schema()["definitions"]["keys"]["properties"])


@cache
def _places() -> dict[str, str]:
    """The keys of the tables of a job that are not keys of the job itself, with their paths."""
    found: dict[str, str] = {}
    for place, key in _keys_of_tables():
        if key not in _job_keys():
            found.setdefault(key, f"{place}.{key}")
    return found


def _keys_of_tables() -> Iterator[tuple[str, str]]:
    from repeater.jobfile.schema import schema

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
