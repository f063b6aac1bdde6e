"""The protocol of the rate-limit daemon: JSON objects, one per line. Sans-IO: lines in, checked values out.

The Go tool `patience` uses version 1.0, and the responses match its daemon byte for byte. Version 1.1 adds messages, so
both may be mixed on one connection. `docs/reference/daemon.md` describes every field.

    1.0   handshake   schedule_request   register_request   an object with the metrics of a run, without a type
    1.1   reserve_request   start_notice   release_request   push_back_notice   stats_request

Clients may be hostile. A field of a wrong type or size is refused with an error that names the field. Unknown fields
are ignored, so that later versions can add some. Notices are not answered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias

from repeater._lazy_dataclasses import dataclass
from repeater.model.units import format_duration
from repeater.wire.json_lines import BadMessage, clip, decode

VERSIONS = ("1.0", "1.1")
LONGEST = 64 * 1024
"""Bytes of one line to the daemon, without its newline."""
LONGEST_ANSWER = 16 << 20
"""Bytes of one line from the daemon. Statistics list every resource."""
LONGEST_NAME = 256
MOST_OFFSETS = 64
MOST_STARTS = 1_000_000
LONGEST_TIME = 36_525 * 86_400_000  # milliseconds
_PROBE = "test-connection"


@dataclass(frozen=True, slots=True)
class Handshake:
    """The version and the client. `name` is the program, `client` identifies its process."""

    version: str
    name: str
    client: str


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts in any `window` of microseconds."""

    count: int
    window: int

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(timedelta(microseconds=self.window))}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """1.0: request a start. `at` is in Unix seconds, `offsets` in microseconds, ascending. `probes`: a connection test.

    The Go client treats an error as permission to start in a minute, so its request is used as far as possible. A rate
    out of bounds becomes the nearest allowed rate, and unusable offsets are left out.
    """

    resource: str
    rate: Rate
    offsets: tuple[int, ...]
    at: int
    probes: bool


@dataclass(frozen=True, slots=True)
class Register:
    """1.0: announce attempts. Each is (resource, Unix seconds, Unix seconds of its expiry)."""

    attempts: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Reserve:
    """1.1: check the limit and reserve. `id` is chosen by the client; repeating it queries the state of the request.

    Without `rate` the rate of the resource applies. `reservation` requests the next attempt of that reservation.
    `forced` ignores the limit, but counts.
    """

    id: str
    resource: str
    rate: Rate | None
    offsets: tuple[int, ...] = (0,)
    reservation: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True)
class StartReport:
    """1.1: the granted attempt started `ago` microseconds ago, or, without `started`, it did not start.

    Without `reservation` it reports a start of `resource` that was not requested.
    """

    reservation: str | None
    resource: str | None
    rate: Rate | None
    ago: int
    started: bool


@dataclass(frozen=True, slots=True)
class Release:
    """1.1: give up a reservation, or a queued request by its `id`."""

    id: str | None
    reservation: str | None


@dataclass(frozen=True, slots=True)
class PushBackReport:
    """1.1: a server asks all clients to wait for `delay` microseconds."""

    resource: str
    rate: Rate | None
    delay: int
    reason: str


@dataclass(frozen=True, slots=True)
class StatsRequest:
    """1.1: request statistics."""


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Metrics of a finished run, sent by `patience`, which expects no response."""

    command: str
    hash: str
    succeeded: bool
    seconds: float
    attempts: int
    failures: int


Message: TypeAlias = (
    Handshake | Schedule | Register | Reserve | StartReport | Release | PushBackReport | StatsRequest | RunMetrics
)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_message(line: bytes) -> Message:
    """The message of a line. Raises BadMessage; with the code `malformed` the following lines cannot be trusted."""
    fields = decode(line)
    kind = fields.get("type")
    if kind is None and "final_status" in fields:
        return _run_metrics(fields)
    read = _KINDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise BadMessage("unknown", f"cannot carry out `{clip(kind)}`: unknown message type")
    return read(fields)


def id_of(line: bytes) -> str | None:
    """The id of a refused request, for the error response; None if it has none."""
    try:
        request_id = decode(line).get("id")
    except BadMessage:
        return None
    return request_id if isinstance(request_id, str) and len(request_id) <= LONGEST_NAME else None


def _handshake(fields: Mapping[str, Any]) -> Handshake:
    version = fields.get("version")
    if version not in VERSIONS:
        raise BadMessage(
            "version",
            f"cannot use version `{clip(version)}` of the protocol: this daemon supports {' and '.join(VERSIONS)}",
        )
    name = fields.get("client", "")
    client = fields.get("client_id", "")
    return Handshake(str(version), *(clip(one) if isinstance(one, str) else "" for one in (name, client)))


def _schedule(fields: Mapping[str, Any]) -> Schedule:
    at = _integer(fields, "request_time", -(1 << 53), 1 << 53)
    resource = _resource_of_first(fields)
    probes = at <= 0 or resource == _PROBE
    count = _integer(fields, "rate_limit", 1, 1 << 53)
    window = _integer(fields, "window_ms", 0, 1 << 53)
    offsets = fields.get("retry_offsets") or [0]
    if not isinstance(offsets, list) or any(type(one) is not int for one in offsets):
        _wrong("retry_offsets", offsets, "a list of whole milliseconds")
    usable = sorted({one * 1000 for one in offsets if 0 <= one <= LONGEST_TIME})[:MOST_OFFSETS] or [0]
    rate = Rate(min(count, MOST_STARTS), min(max(window, 1), LONGEST_TIME) * 1000)
    return Schedule(resource, rate, tuple(usable), at, probes)


def _resource_of_first(fields: Mapping[str, Any]) -> str:
    """The resource of a 1.0 request. The Go client derives it from a command, so a long name is shortened by a hash."""
    value = fields.get("resource_id")
    if isinstance(value, str) and len(value) > LONGEST_NAME and _is_unicode(value):
        import hashlib

        return f"{value[:180]}-{hashlib.sha256(value.encode()).hexdigest()[:32]}"
    return _name(fields, "resource_id")


def _register(fields: Mapping[str, Any]) -> Register:
    requests = fields.get("requests")
    if not isinstance(requests, list) or len(requests) > MOST_OFFSETS:
        _wrong("requests", requests, f"a list of at most {MOST_OFFSETS} objects")
    attempts = []
    for request in requests:
        if not isinstance(request, dict):
            _wrong("requests", request, "an object")
        at = _integer(request, "scheduled_at", 0, 1 << 53)
        expires = _integer(request, "expires_at", 0, 1 << 53, at + 3600)
        attempts.append((_resource_of_first(request), at, min(expires, at + LONGEST_TIME // 1000)))
    return Register(tuple(attempts))


def _reserve(fields: Mapping[str, Any]) -> Reserve:
    return Reserve(
        _name(fields, "id"),
        _name(fields, "resource_id"),
        _rate_if_given(fields),
        _offsets(fields),
        _name_if_given(fields, "reservation"),
        _flag(fields, "force", default=False),
    )


def _start_notice(fields: Mapping[str, Any]) -> StartReport:
    reservation, resource = _name_if_given(fields, "reservation"), _name_if_given(fields, "resource_id")
    if reservation is None and resource is None:
        _wrong("reservation", None, "the key, or `resource_id`")
    ago = fields.get("ago_ms", 0)
    if type(ago) not in (int, float) or not 0 <= ago <= LONGEST_TIME or not math.isfinite(ago):
        _wrong("ago_ms", ago, "milliseconds, 0 or more")
    started = _flag(fields, "started", default=True)
    return StartReport(reservation, resource, _rate_if_given(fields), int(ago * 1000), started)


def _release(fields: Mapping[str, Any]) -> Release:
    request_id, reservation = _name_if_given(fields, "id"), _name_if_given(fields, "reservation")
    if request_id is None and reservation is None:
        _wrong("reservation", None, "the key, or `id`")
    return Release(request_id, reservation)


def _push_back(fields: Mapping[str, Any]) -> PushBackReport:
    delay = _integer(fields, "delay_ms", 0, LONGEST_TIME)
    reason = _name(fields, "reason") if fields.get("reason") else ""
    return PushBackReport(_name(fields, "resource_id"), _rate_if_given(fields), delay * 1000, reason)


def _run_metrics(fields: Mapping[str, Any]) -> RunMetrics:
    status = fields.get("final_status")
    if status not in ("succeeded", "failed"):
        _wrong("final_status", status, "`succeeded` or `failed`")
    seconds = fields.get("total_duration_seconds", 0)
    if type(seconds) not in (int, float) or not 0 <= seconds < 1e12:
        _wrong("total_duration_seconds", seconds, "seconds, 0 or more")
    command, hash_ = fields.get("command", ""), fields.get("command_hash", "")
    if not isinstance(command, str) or not isinstance(hash_, str):
        _wrong("command", command, "a text")
    return RunMetrics(
        clip(command),
        clip(hash_),
        status == "succeeded",
        float(seconds),
        _integer(fields, "total_attempts", 0, 1 << 53, 0),
        _integer(fields, "failed_attempts", 0, 1 << 53, 0),
    )


_KINDS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "handshake": _handshake,
    "schedule_request": _schedule,
    "register_request": _register,
    "reserve_request": _reserve,
    "start_notice": _start_notice,
    "release_request": _release,
    "push_back_notice": _push_back,
    "stats_request": lambda _: StatsRequest(),
}


# --- fields ----------------------------------------------------------------------------------------------------------


def _wrong(name: str, value: Any, expected: str) -> NoReturn:
    found = "nothing" if value is None else f"`{clip(value)}`"
    raise BadMessage("field", f"cannot use `{name}`: found {found}, expected {expected}")


def _name(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME or not _is_unicode(value):
        _wrong(name, value, f"a text of 1 to {LONGEST_NAME} characters")
    return value


def _is_unicode(text: str) -> bool:
    """Whether the text can be stored. JSON can contain half of a surrogate pair, which cannot be encoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _name_if_given(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _name(fields, name)


def _integer(fields: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    value = fields.get(name, default)
    if type(value) is not int or not low <= value <= high:
        _wrong(name, value, f"a whole number from {low} to {high}")
    return value


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        _wrong(name, value, "true or false")
    return value


def _rate(fields: Mapping[str, Any]) -> Rate:
    count = _integer(fields, "rate_limit", 1, MOST_STARTS)
    return Rate(count, _integer(fields, "window_ms", 1, LONGEST_TIME) * 1000)


def _rate_if_given(fields: Mapping[str, Any]) -> Rate | None:
    return _rate(fields) if "rate_limit" in fields or "window_ms" in fields else None


def _offsets(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Offsets in microseconds, ascending; (0,) if there are none."""
    offsets = fields.get("retry_offsets")
    if offsets is None or offsets == []:
        return (0,)
    fits = isinstance(offsets, list) and len(offsets) <= MOST_OFFSETS
    if not fits or any(type(one) is not int or not 0 <= one <= LONGEST_TIME for one in offsets):
        _wrong("retry_offsets", offsets, f"at most {MOST_OFFSETS} whole milliseconds, none negative")
    return tuple(sorted(one * 1000 for one in offsets))


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(kind: str, **fields: Any) -> bytes:
    """A line. The fields have the order of the arguments, because 1.0 responses must match byte for byte."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def say_handshake(version: str) -> bytes:
    extra = {} if version == "1.0" else {"version": version}
    return encode("handshake_response", status="ok", message="handshake successful", **extra)


def say_schedule(*, can: bool, reason: str, wait_until: str) -> bytes:
    """`wait_until` in RFC 3339."""
    return encode("schedule_response", status="ok", can_schedule=can, reason=reason, wait_until=wait_until)


def say_registered(message: str) -> bytes:
    return encode("register_response", status="ok", success=True, message=message)


def encode_error(message: str, request: str | None = None) -> bytes:
    return encode("error", error=message[:4096], **({} if request is None else {"id": request}))
