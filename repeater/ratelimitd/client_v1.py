"""Client of protocol 1.0, for daemons without a newer version, such as `patienced` of the Go tool. Sans-IO.

Responses have no ids, so they are matched to requests by their order. A granted request is registered at once with all
its attempts. After that it cannot be reported or released, and instants are whole seconds. `system.ratelimit_client`
drives it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from repeater.model.time import Instant, from_rfc3339
from repeater.ratelimitd.protocol import encode

PREFIX = "1.0-"
"""Prefix of the ids of reservations that this client made up. The daemon does not have them."""
_NO_TIME = timedelta(minutes=1)
_SOONEST = timedelta(milliseconds=10)
_EXPIRES = 3600  # seconds


class Granted(NamedTuple):
    """The start may happen now. `line` registers it."""

    ask: str
    reservation: str
    line: bytes


class Waits(NamedTuple):
    """Ask again after `wait`."""

    ask: str
    wait: timedelta


class Refused(NamedTuple):
    """The daemon cannot carry out the request. `ask` is empty for a registration."""

    ask: str
    error: str


class _PendingRequest(NamedTuple):
    id: str
    resource: str
    offsets: tuple[int, ...]


class FirstAsker:
    """The requests of one connection."""

    def __init__(self) -> None:
        self._expected: deque[_PendingRequest | None] = deque()  # None: a registration
        self._given = 0

    def ask(self, ask: str, resource: str, rate: Mapping[str, int], offsets: Sequence[int], now: Instant) -> bytes:
        """The line that requests a start. `offsets` are microseconds, `rate` has the fields of the protocol."""
        rounded = tuple(-(-offset // 1000) for offset in offsets)
        self._expected.append(_PendingRequest(ask, resource, rounded))
        return encode(
            "schedule_request", resource_id=resource, **rate, retry_offsets=list(rounded),
            request_time=int(now.wall.timestamp()),
        )  # fmt: skip

    def started(self, resource: str, ago: float, now: Instant) -> bytes:
        """The line that registers a start without a request, `ago` seconds ago."""
        return self._register(resource, (0,), now.wall.timestamp() - ago)

    def take(self, message: Mapping[str, Any], now: Instant) -> Granted | Waits | Refused | None:
        """The meaning of a response. None if no action is needed."""
        kind = message.get("type")
        if kind not in ("schedule_response", "register_response", "error") or not self._expected:
            return None
        request = self._expected.popleft()
        if kind == "error":
            return Refused("" if request is None else request.id, str(message.get("error")))
        if request is None:
            return None
        if message.get("can_schedule") is True:
            self._given += 1
            line = self._register(request.resource, request.offsets, now.wall.timestamp())
            return Granted(request.id, f"{PREFIX}{self._given}", line)
        return Waits(request.id, max(_SOONEST, _wait(message.get("wait_until"), now)))

    def forget_registration(self) -> None:
        """Forget the last registration, because its line is not sent."""
        self._expected.pop()

    def _register(self, resource: str, offsets: Sequence[int], begin: float) -> bytes:
        self._expected.append(None)
        times = [int(begin + offset / 1000) for offset in offsets]
        requests = [
            {"id": f"{resource}-{int(begin)}-{number}", "resource_id": resource, "scheduled_at": at,
             "expires_at": at + _EXPIRES}
            for number, at in enumerate(times)
        ]  # fmt: skip
        return encode("register_request", requests=requests)


def _wait(text: Any, now: Instant) -> timedelta:
    try:
        until = from_rfc3339(str(text))
    except ValueError:
        return _NO_TIME
    return _NO_TIME if until is None else until - now.wall
