"""When a server wants the next request: the push-back in the last answer of a run's output.

Hints in headers, in this order:

    Retry-After and its variants              -Ms, X-RateLimit-Retry-After; of several lines the longest
    RateLimit, RateLimit-Reset and variants   of each limit of which nothing remains; of several limits the longest

then in JSON: `retry_after`, `retryDelay`, `rate_limit.reset_in` and such, and a table with `remaining: 0` and a reset.
JSON counts in an answer that refused, and where no status was printed; `json_on_success` lets it count always. A 429
whose limits say when they reset counts as used up, even if it does not say what remains. `http_times` says which values
can be read.

A hint that asks for no delay does not hide another one. A 429 or 503 without a hint that asks for a delay holds by
`holding`, which grows with each repetition. An answer that blames the request (400, 401, 404 ...) is ignored unless the
job trusts it; 403, 408, 413, 418, 420, 425 and 429 are about time. The output comes from anywhere: nothing in it
raises, and it is read in bounded time. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import HttpAware
from repeater.policy.http_answer import Answer
from repeater.policy.http_times import UNITS, delay_of, instant_of, longest_of, parts_of, unit_of

NO_HINT_DELAY = timedelta(seconds=1)
"""How long the first 429 or 503 without a hint holds, where `min_delay` says nothing."""

_REFUSED_FOR_NOW = frozenset({429, 503})
_ABOUT_TIME = frozenset({403, 408, 413, 418, 420, 425, 429})
_RETRY_AFTER = re.compile(r"(?:.*-)?retry-?after(?:-(ms|milliseconds|millis|s|seconds|minutes))?(?:-.*)?")
_LIMIT_HEADER = re.compile(r"(.*?rate-?limits?)((?:-[a-z0-9]+)*)")
_LIMIT_PART = re.compile(r"-(remaining|reset(?:-?(?:after|in|time|at|ms|seconds))?)(?=-|$)")
_GLUED_PART = re.compile(r"(remaining|reset)$")  # X-RateLimit-UserRemaining
_RETRY_FIELD = re.compile(
    r"(?:xms|xratelimit)?retry(?:after|delay|in)(?:in)?(ms|millis|milliseconds|s|secs?|seconds|mins?|minutes)?"
)
_RESET_FIELDS = (("ratelimit", "resetin"), ("ratelimit", "resetafter"), ("ratelimit", "retryafter"))
_RESETS = ("resetin", "resetafter", "resetat", "reset", "resettime", "resetseconds")
_UNIT_ENDS = (
    ("milliseconds", "ms"), ("millis", "ms"), ("msec", "ms"), ("microseconds", "us"), ("micros", "us"),
    ("nanoseconds", "ns"), ("nanos", "ns"), ("minutes", "m"), ("mins", "m"), ("_min", "m"), ("hours", "h"),
    ("hrs", "h"), ("_days", "d"), ("_us", "us"), ("_ns", "ns"), ("ms", "ms"),
)  # fmt: skip
_MOST_NODES = 5000
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class PushBack:
    """What a server asked for, and what the job gives it.

    `source` is the header or field that asked, empty where the status alone did; `status` that of the answer if it was
    printed; `asked` the delay that the hint names, None without a hint; `given` the delay within the bounds of the job,
    None where it depends on the repetitions: then `holding` says it.
    """

    source: str
    status: int | None
    asked: timedelta | None
    given: timedelta | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A hint whose value cannot be read. `value` is at most 60 printable characters of it."""

    source: str
    value: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says about the time of the next request."""

    push_back: PushBack | None = None
    unreadable: tuple[Unreadable, ...] = ()


def read_hints(rule: HttpAware, answer: Answer, now: datetime) -> Reading:
    """What the answer asks for, within the bounds of the rule. `now` is aware: when the output was complete.

    Never raises.
    """
    status = answer.status
    if status is not None and 400 <= status < 500 and status not in _ABOUT_TIME and not rule.trust_client:
        return Reading()
    # an instant is meant by the server's clock, which may not be ours
    hints = _Hints(instant_of(answer.headers.get("date", [""])[-1]) or now)
    if rule.headers:
        _read_headers(answer.headers, hints, refused=status == 429)
    if rule.json and not hints.asks and (status is None or status >= 400 or rule.json_on_success):
        _read_json(rule, answer.body, hints)
    unreadable = tuple(hints.unreadable)
    if not hints.asks and status in _REFUSED_FOR_NOW:
        return Reading(PushBack("", status, None, None), unreadable)
    if hints.best is None:
        return Reading(None, unreadable)
    asked, source = hints.best
    given = min(rule.max_delay, max(rule.min_delay, asked))
    if given <= timedelta(0):
        return Reading(None, unreadable)
    return Reading(PushBack(source, status, asked, given), unreadable)


def holding(rule: HttpAware, repetition: int) -> timedelta:
    """How long the `repetition`-th refusal in a row without a hint holds, from 1: doubled each time."""
    first = rule.min_delay or NO_HINT_DELAY
    return min(rule.max_delay, first * 2 ** min(repetition - 1, 40)) if first < rule.max_delay else rule.max_delay


class _Hints:
    """The longest delay so far, and what could not be read."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.best: tuple[timedelta, str] | None = None
        self.unreadable: list[Unreadable] = []

    @property
    def asks(self) -> bool:
        return self.best is not None and self.best[0] > timedelta(0)

    def take(self, delay: timedelta | None, source: str, value: object) -> bool:
        """Whether the value could be read. `source` is a name of ours or a header's."""
        if delay is None:
            text = "".join(sign if sign.isprintable() else "?" for sign in str(value)[:60])
            if len(self.unreadable) < 5 and Unreadable(source, text) not in self.unreadable:
                self.unreadable.append(Unreadable(source, text))
            return False
        if self.best is None or delay > self.best[0]:
            self.best = delay, source
        return True


# --- headers ----------------------------------------------------------------------------------------------------


def _read_headers(headers: Mapping[str, list[str]], hints: _Hints, *, refused: bool) -> None:
    found = [(match, name) for name in headers if (match := _RETRY_AFTER.fullmatch(name)) is not None]
    for match, name in sorted(found, key=lambda one: one[0][1] not in ("ms", "milliseconds", "millis")):
        unit = unit_of(match[1] or "s") or 1.0
        hints.take(longest_of(headers[name], hints.now, unit), _spelled(name), ", ".join(headers[name]))
        if hints.asks:  # milliseconds are the exact value of the seconds beside them
            return
    limits: dict[str, dict[str, str]] = {}
    for name in headers:
        matched = _LIMIT_HEADER.fullmatch(name)
        if matched is None:
            continue
        part = _LIMIT_PART.search(matched[2]) or _GLUED_PART.search(matched[2])
        if part is not None:
            limit = matched[1] + matched[2][: part.start()] + matched[2][part.end() :]
            limits.setdefault(limit, {})[part[1].replace("-", "")] = name
        elif matched[2] == "":
            _read_limit_list(name, ", ".join(headers[name]), hints)
    for parts in limits.values():
        _read_limit(parts, headers, hints, refused=refused)


def _read_limit(parts: Mapping[str, str], headers: Mapping[str, list[str]], hints: _Hints, *, refused: bool) -> None:
    """One limit, whose remaining count and reset stand in headers of their own, perhaps for several windows."""
    left = None
    if "remaining" in parts:
        left = [_is_zero(part) for value in headers[parts["remaining"]] for part in parts_of(value)]
        if not any(left):
            return
    elif not refused:
        return
    for kind in ("resetafter", "resetin", "resetms", "resetseconds", "reset", "resetat", "resettime"):
        if kind not in parts:
            continue
        name, unit = parts[kind], UNITS["ms"] if kind == "resetms" else 1.0
        resets = [part for value in headers[name] for part in parts_of(value)]
        if left is not None and len(left) == len(resets):
            resets = [reset for zero, reset in zip(left, resets, strict=True) if zero]
        if hints.take(longest_of(resets, hints.now, unit), _spelled(name), ", ".join(resets)):
            return


def _read_limit_list(name: str, value: str, hints: _Hints) -> None:
    """`RateLimit`, whose elements are limits: `"name";r=0;t=5` or `limit=100, remaining=0, reset=5`."""
    value = re.sub(r'"[^"]*"', '""', value[:4000])
    limit: dict[str, str] = {}
    for element in [*value.split(","), ""]:
        pairs = [
            (key.strip().lower(), one.strip())
            for key, is_pair, one in (p.partition("=") for p in element.split(";"))
            if is_pair
        ]
        first = pairs[0][0] if pairs else ""
        continues = first in ("remaining", "reset", "limit") and first not in limit and "r" not in limit
        if not continues or not element.strip():
            if _is_zero(limit.get("remaining", limit.get("r", ""))) and ("reset" in limit or "t" in limit):
                reset = limit.get("reset", limit.get("t", ""))
                hints.take(delay_of(reset, hints.now), _spelled(name), reset)
            limit = {}
        for key, one in pairs:
            limit.setdefault(key, one)


def _is_zero(value: Any) -> bool:
    """Also with a parameter behind it: `0;w=21600`."""
    if isinstance(value, str):
        return re.fullmatch(r"-\d{1,9}|0+(\.0*)?", value[:64].split(";", 1)[0].strip()) is not None
    return type(value) in (int, float) and value <= 0


def _spelled(name: str) -> str:
    """`X-RateLimit-Reset` with its usual capitals."""
    return name.title().replace("Ratelimit", "RateLimit")


# --- JSON -------------------------------------------------------------------------------------------------------


def _read_json(rule: HttpAware, body: str, hints: _Hints) -> None:
    own = [_own_field(field) for field in rule.fields]
    for tree in _values(body):
        _search(tree, own, hints)
        if not hints.asks:
            _search(tree, None, hints)
        if hints.asks:
            return


def _own_field(field: str) -> tuple[tuple[str, ...], float]:
    """The path of a field of the job, and the length of its unit: `quota.wait:ms`, `wait_ms`, `quota.wait`."""
    path, colon, unit = field.rpartition(":")
    path = path if colon and unit in UNITS else field
    keys = tuple(part.lower() for part in path.split("."))
    return keys, UNITS[unit] if path != field else UNITS[_unit_at_end(path.split(".")[-1])]


def _unit_at_end(name: str) -> str:
    return next((unit for end, unit in _UNIT_ENDS if name.lower().endswith(end)), "s")


def _values(body: str) -> Iterator[Any]:
    """The JSON values in a text, the last first: at most sixteen places are tried, none within what was read."""
    lines = [match.end() - 1 for match in re.finditer(r"(?m)^[ \t]{0,200}[{\[]", body)]
    anywhere = [match.start() for match in re.finditer(r"\{\s{0,100}\"", body)]
    decoder, values, place = json.JSONDecoder(), [], 0
    for start in sorted({*lines[:4], *lines[-4:], *anywhere[:4], *anywhere[-4:]}):
        if start >= place:
            try:
                value, place = decoder.raw_decode(body, start)
                values.append(value)
            except (ValueError, RecursionError):
                continue
    yield from reversed(values)


def _search(tree: Any, own: list[tuple[tuple[str, ...], float]] | None, hints: _Hints) -> None:
    """Take the first delay under one of the fields, level by level; a field is the end of a path.

    `own` None: the usual fields.
    """
    level: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen = 0
    for _ in range(_DEEPEST):
        below: list[tuple[tuple[str, ...], Any]] = []
        for path, node in level:
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            if own is None and isinstance(node, dict):
                _take_used_up(node, hints)
            for key, value in items:
                seen += 1
                if seen > _MOST_NODES:
                    return
                here = (*path[-7:], key.lower()) if isinstance(key, str) else path
                if isinstance(value, dict | list):
                    below.append((here, value))
                elif isinstance(key, str) and not isinstance(value, bool) and value is not None:
                    field = _usual_field(here) if own is None else _listed_field(here, own)
                    if field is not None:
                        hints.take(delay_of(value, hints.now, field[1]), field[0], value)
            if hints.asks:
                return
        level = below


def _listed_field(path: tuple[str, ...], own: list[tuple[tuple[str, ...], float]]) -> tuple[str, float] | None:
    return next(((".".join(keys), unit) for keys, unit in own if path[-len(keys) :] == keys), None)


def _usual_field(path: tuple[str, ...]) -> tuple[str, float] | None:
    """The name for messages, and the length of the unit, if the path ends in one of the usual fields."""
    if "re" not in path[-1]:
        return None
    last = tuple(re.sub(r"[_-]", "", key) for key in path[-2:])
    match = _RETRY_FIELD.fullmatch(last[-1])
    if match is not None:
        return path[-1], unit_of(match[1] or "s") or 1.0
    return (".".join(path[-2:]), 1.0) if last in _RESET_FIELDS else None


def _take_used_up(node: Mapping[str, Any], hints: _Hints) -> None:
    """A table that says `remaining: 0` and when that will change, as GraphQL answers do."""
    if len(node) > 50:
        return
    said = {re.sub(r"[_-]", "", key.lower()): value for key, value in node.items()}
    if not _is_zero(said.get("remaining")):
        return
    for key in _RESETS:
        value = said.get(key)
        if value is not None and not isinstance(value, bool | dict | list):
            hints.take(delay_of(value, hints.now), key, value)
            return


def reason_of(found: PushBack, given: timedelta) -> Reason:
    """The reason names the source of the delay. It never contains text of the output."""
    if found.asked is None:
        return because("server_refused", status=found.status, delay=given)
    bound = None if given == found.asked else "max_delay" if found.asked > given else "min_delay"
    asked, status = found.asked, found.status
    return because("server_push_back", source=found.source, status=status, asked=asked, delay=given, bound=bound)
