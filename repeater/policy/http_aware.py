"""What a server said about when to come again, found in a run's output: its push-back.

Read are the headers as `curl -i`, `curl -v`, `wget -S` and HTTPie print them, of the last answer that has any, and the
JSON in its body:

    Retry-After                               seconds, or a date (RFC 9110, 10.2.3); -Ms in milliseconds
    [X-]RateLimit-Reset[-After], when nothing remains     seconds, an instant, or a duration (`6m0s`)
    RateLimit: limit=…, remaining=0, reset=…  the IETF's older drafts; and its newer: "name";r=0;t=…
    retry_after, retryAfter, retryDelay, rate_limit.reset_in and such, anywhere in the JSON

`Retry-After` counts before the others, headers before JSON; of several limits that are used up the longest. A hint in
an answer that blames the request (400, 401, 404 and so on) is not believed unless the job says so; 403, 408, 425 and
429 are about time. The output comes from anywhere: nothing in it raises, and 64 KiB are read in bounded time. Pure;
called by `observe` with the kept end of a run's output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

from repeater.dataclass import dataclass
from repeater.model.spec import HttpAware
from repeater.model.units import LONGEST, format_duration, parse_duration

READ = 64 * 1024
"""Bytes of the end that are looked at."""

_STATUS = re.compile(r"[\s<*]*HTTP/[0-9.]{1,5}\s+([1-5][0-9]{2})\b", re.IGNORECASE)
_HEADER = re.compile(r"[\s<*]*([A-Za-z][A-Za-z0-9-]{3,60})[ \t]*:[ \t]*(.{1,500})")
_LIMIT_HEADER = re.compile(r"(?:x-)?rate-?limit(?:-(limit|remaining|reset-after|reset))?(?:-([a-z]{1,20}))?")
_ABOUT_TIME = frozenset({403, 408, 425, 429})
_FIELDS = (
    ("retry_after",), ("retryafter",), ("retry-after",), ("retry_after_seconds",), ("retryafterseconds",),
    ("retry_after_ms",), ("retryafterms",), ("retryafterinms",), ("retrydelay",), ("retry_delay",), ("retry_in",),
    ("rate_limit", "reset_in"), ("ratelimit", "resetin"), ("rate_limit", "reset_after"),
)  # fmt: skip
_RESETS = ("reset_in", "resetin", "reset_at", "resetat", "reset", "reset_after")
_MOST_NODES = 5000
_DEEPEST = 32
_AN_INSTANT = 1_000_000_000  # a number from here on is no delay but seconds since 1970, or milliseconds


@dataclass(frozen=True, slots=True)
class PushBack:
    """Not before `delay` from now. `reason` names what said so, in words of ours, never a text from the output."""

    delay: timedelta
    reason: str


def push_back(rule: HttpAware, output: bytes, now: datetime) -> PushBack | None:
    """What the output asks for, within the bounds of the rule; None if it asks for nothing.

    `now` is aware: when the output was complete. Never raises.
    """
    text = output[-READ:].decode(errors="replace")
    status, headers, body = _last_answer(text)
    believed = status is None or status < 400 or status >= 500 or status in _ABOUT_TIME or rule.trust_client
    if not believed:
        return None
    found = _in_headers(headers, now) if rule.headers else None
    if found is None and rule.json:
        found = _in_json(rule, body, now)
    if found is None:
        return None
    asked, source = found
    delay = min(rule.max_delay, max(rule.min_delay, asked))
    if delay <= timedelta(0):
        return None
    answer = "" if status is None else f" of an HTTP {status} answer"
    reason = f"`{source}`{answer} asks for {format_duration(asked)}"
    if delay != asked:
        reason += f", `{'max' if asked > delay else 'min'}_delay` makes it {format_duration(delay)}"
    return PushBack(delay, reason)


# --- headers ----------------------------------------------------------------------------------------------------


def _last_answer(text: str) -> tuple[int | None, dict[str, str], str]:
    """Status, headers (names in small letters) and the text after them, of the last answer in the output.

    A header without a status line before it counts too: scripts print what matters to them.
    """
    status: int | None = None
    headers: dict[str, str] = {}
    body = place = 0
    for line in text.splitlines(keepends=True):
        place += len(line)
        if (match := _STATUS.match(line)) is not None:
            status, headers, body = int(match[1]), {}, place
        elif (match := _HEADER.match(line)) is not None:
            name = match[1].lower()
            if name in ("date", "retry-after") or name.endswith("-ms") or "ratelimit" in name or "rate-limit" in name:
                headers[name] = match[2].strip()
    return status, headers, text[body:]


def _in_headers(headers: Mapping[str, str], now: datetime) -> tuple[timedelta, str] | None:
    for name, unit in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if name in headers:
            # a date is meant by the server's clock, which may not be ours
            delay = _delay(headers[name], _date(headers.get("date")) or now, unit)
            if delay is not None:
                return delay, _spelled(name)
    found = [one for name, text in headers.items() for one in _in_limit_header(name, text, headers, now)]
    return max(found, key=lambda one: one[0], default=None)


def _in_limit_header(
    name: str, text: str, headers: Mapping[str, str], now: datetime
) -> Iterator[tuple[timedelta, str]]:
    match = _LIMIT_HEADER.fullmatch(name)
    if match is None:
        return
    if match[1] is None and match[2] is None:
        for policy in text.split(",") if "=" in text and ";" in text else [text.replace(",", ";")]:
            said = dict(re.findall(r"([a-z]{1,10})\s{0,4}=\s{0,4}([0-9.]{1,20})", policy))
            if _is_zero(said.get("r", said.get("remaining"))):
                delay = _delay(said.get("t", said.get("reset")), now)
                if delay is not None:
                    yield delay, _spelled(name)
    elif match[1] in ("reset", "reset-after") and _is_zero(headers.get(_remaining(name, match[1]))):
        delay = _delay(text, now)
        if delay is not None:
            yield delay, _spelled(name)


def _remaining(name: str, part: str) -> str:
    return name.replace(part, "remaining")


def _is_zero(value: Any) -> bool:
    """Also with a parameter behind it: `0;w=21600`."""
    if isinstance(value, str):
        return re.fullmatch(r"0+(\.0*)?", re.split("[;,]", value[:64], maxsplit=1)[0].strip()) is not None
    return type(value) in (int, float) and value <= 0


def _spelled(name: str) -> str:
    """`X-RateLimit-Reset`, as it is usually written."""
    return name.title().replace("Ratelimit", "RateLimit")


# --- JSON -------------------------------------------------------------------------------------------------------


def _in_json(rule: HttpAware, body: str, now: datetime) -> tuple[timedelta, str] | None:
    own = tuple(tuple(part.lower() for part in field.split(".")) for field in rule.fields)
    for tree in _values(body):
        found = _search(tree, own, now) or _search(tree, _FIELDS, now)
        if found is not None:
            return found
    return None


def _values(body: str) -> Iterator[Any]:
    """The JSON values in a text, the last first: at most a dozen places are tried, none within what was read."""
    lines = [match.end() - 1 for match in re.finditer(r"(?m)^[ \t]{0,200}[{\[]", body)]
    anywhere = [match.start() for match in re.finditer(r"\{\s{0,100}\"", body)]
    decoder, values, place = json.JSONDecoder(), [], 0
    for start in sorted({*lines[:4], *lines[-4:], *anywhere[-4:]}):
        if start >= place:
            try:
                value, place = decoder.raw_decode(body, start)
                values.append(value)
            except (ValueError, RecursionError):
                continue
    yield from reversed(values)


def _search(tree: Any, fields: tuple[tuple[str, ...], ...], now: datetime) -> tuple[timedelta, str] | None:
    """The first delay under one of the fields, level by level; a field is the end of a path."""
    level: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen = 0
    for _ in range(_DEEPEST):
        below: list[tuple[tuple[str, ...], Any]] = []
        for path, node in level:
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            if fields is _FIELDS and isinstance(node, dict):
                found = _used_up(node, now)
                if found is not None:
                    return found
            for key, value in items:
                seen += 1
                if seen > _MOST_NODES:
                    return None
                here = (*path[-3:], key.lower()) if isinstance(key, str) else path
                field = next((field for field in fields if here[-len(field) :] == field), None)
                if field is not None and isinstance(key, str) and not isinstance(value, bool | dict | list):
                    delay = _delay(value, now, 1e-3 if key.lower().endswith("ms") else 1.0)
                    if delay is not None:
                        return delay, ".".join(field)
                if isinstance(value, dict | list):
                    below.append((here, value))
        level = below
    return None


def _used_up(node: Mapping[str, Any], now: datetime) -> tuple[timedelta, str] | None:
    """A table that says `remaining: 0` and when that will change, as GraphQL answers do."""
    if len(node) > 50:
        return None
    said = {key.lower(): value for key, value in node.items()}
    if not _is_zero(said.get("remaining")):
        return None
    for key in _RESETS:
        delay = _delay(said.get(key), now)
        if delay is not None:
            return delay, key
    return None


# --- values -----------------------------------------------------------------------------------------------------


def _delay(value: Any, now: datetime, unit: float = 1.0) -> timedelta | None:
    """The delay that a number of seconds (or of `unit`s), an instant, a date or a duration means; zero if it is past.

    None for anything else.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return _of_text(value.strip().strip('"'), now, unit)
    return _of_number(float(value), now, unit) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _of_text(text: str, now: datetime, unit: float) -> timedelta | None:
    if len(text) > 64:
        return None
    try:
        return _of_number(float(text), now, unit)
    except ValueError:
        pass
    try:
        return parse_duration(text, zero=True)
    except ValueError:
        date = _date(text)
        return None if date is None else max(timedelta(0), date - now)


def _of_number(number: float, now: datetime, unit: float) -> timedelta | None:
    if not isfinite(number) or number < 0:
        return None
    if number >= _AN_INSTANT and unit == 1:
        number = (number / 1000 if number >= 100 * _AN_INSTANT else number) - now.timestamp()
    seconds = max(0.0, number * unit)
    return LONGEST if seconds >= LONGEST.total_seconds() else timedelta(seconds=seconds)


def _date(text: str | None) -> datetime | None:
    """An HTTP date (RFC 9110, 5.6.7) or an RFC 3339 one, aware; None for anything else."""
    if text is None or len(text) > 64:
        return None
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
