"""Requests starts from the rate-limit daemon, through one connection that is opened when needed. This is the real
`ports.SharedRateLimiter`.

It works on any `ports.Loop`. Nothing blocks, and each wait has a timeout: a daemon that hangs counts as unreachable.
The client reconnects after growing random delays, so that many clients do not reconnect at the same time. Starts that
happened meanwhile are reported after the reconnection. The protocol is version 1.1 of `ratelimitd.protocol`, or 1.0
(`ratelimitd.client_v1`) for an older daemon.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from repeater.engine.actions import RequestSharedStart
from repeater.engine.facts import QuotaWarned, RateLimiterDown, RateLimiterUp, SharedLimitGranted, SharedLimitQueued
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import to_us
from repeater.model.units import Rate
from repeater.ports import Clock, EmitFact, Loop, TimerHandle
from repeater.ratelimitd.client_v1 import PREFIX, FirstAsker, Granted, Refused, Waits
from repeater.ratelimitd.protocol import LONGEST_ANSWER, encode
from repeater.ratelimitd.socket_path import open_daemon
from repeater.sentences import sentence
from repeater.wire.json_lines import BadMessage, LineBuffer, decode
from repeater.wire.trust import Untrusted
from repeater.wire.unix import cause_of

ANSWER_WITHIN = 5.0
"""Seconds that the daemon has for an answer."""
LOOK_EVERY = 20.0
"""Seconds after which a waiting request asks for its position. The answer shows that the daemon works."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 10.0
"""Maximum of the first random delay before a reconnection, and of all later ones, in seconds."""
_MOST_UNTOLD = 10_000
_MOST_WARNINGS = 100
_MOST_WITHDRAWN = 10_000


class RateLimitClient:
    """`place` returns the path of the daemon. It is called for each connection."""

    def __init__(self, tell: EmitFact, loop: Loop, clock: Clock, place: Callable[[], Path], name: str = "rpr") -> None:
        self._tell = tell
        self._loop = loop
        self._clock = clock
        self._place = place
        self._name = name
        self._draw = random.Random()  # noqa: S311
        self._path = Path()
        self._sock: socket.socket | None = None
        self._lines = LineBuffer(LONGEST_ANSWER)
        self._asks: dict[str, RequestSharedStart] = {}
        self._unanswered: set[str] = set()
        self._untold: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MOST_UNTOLD)
        self._patience: TimerHandle | None = None
        self._look: TimerHandle | None = None
        self._retry: TimerHandle | None = None
        self._tries = 0
        self._old: FirstAsker | None = None  # the daemon supports version 1.0 only
        self._warned: set[tuple[str, str]] = set()
        self._is_lost = self._is_closed = False
        self._withdrawn: deque[str] = deque(maxlen=_MOST_WITHDRAWN)
        self._is_suspect = False  # it violated the protocol, and has granted nothing since

    # --- what the engine asks ------------------------------------------------------------------------------------

    def request(self, ask: RequestSharedStart) -> None:
        if self._is_lost:  # reported already
            return
        self._asks[ask.id] = ask
        if self._sock is None:
            self._connect()
        if self._sock is not None:
            self._send_ask(ask)
            self._watch()

    def withdraw(self, ask: str) -> None:
        if self._asks.pop(ask, None) is not None:
            self._withdrawn.append(ask)
            self._unanswered.discard(ask)
            if self._old is None:
                self._send(encode("release_request", id=ask))
            self._watch()

    def report_start(self, limit: str, rate: Rate, reservation: str | None, *, started: bool) -> None:
        if reservation is not None and reservation.startswith(PREFIX):  # it was registered when it was granted
            return
        fields = {"reservation": reservation, "resource_id": limit, **_rate(rate)}
        if not started:
            if reservation is not None:
                self._send(encode("start_notice", **fields, started=False))
            return
        if reservation is None:
            del fields["reservation"]
        if not self._send(self._start_notice(fields, 0)):
            self._untold.append((self._clock.now().mono, fields))
            self._schedule_reconnect()

    def _start_notice(self, fields: dict[str, Any], ago: int) -> bytes:
        """A start that happened `ago` microseconds ago."""
        if self._old is not None:
            return self._old.started(fields["resource_id"], ago / 1e6, self._clock.now())
        return encode("start_notice", **fields, **({"ago_ms": ago / 1000} if ago else {}))

    def release(self, reservation: str) -> None:
        if self._old is None and not reservation.startswith(PREFIX):
            self._send(encode("release_request", reservation=reservation))

    def push_back(self, limit: str, rate: Rate, delay: timedelta, reason: Reason) -> None:
        delay_ms = to_us(delay) // 1000
        told = encode(
            "push_back_notice", resource_id=limit, **_rate(rate), delay_ms=delay_ms, reason=sentence(reason)[:200]
        )
        if self._sock is None and not self._is_lost:
            self._connect()
        if self._old is None:  # version 1.0 has no such message
            self._send(told)

    def close(self) -> None:
        self._is_closed = True
        self._asks.clear()
        for alarm in (self._patience, self._look, self._retry):
            if alarm is not None:
                alarm.cancel()
        self._disconnect()

    # --- the connection ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Try once to connect. A failure is reported."""
        self._path = self._place()
        try:
            sock = open_daemon(self._path, 0.0)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self._on_connection_lost("none is running", quietly=not self._asks)
            return
        except BlockingIOError:
            self._on_connection_lost("connection refused by its access rules", quietly=not self._asks)
            return
        except Untrusted as error:
            self._on_connection_lost(str(error), quietly=not self._asks)
            return
        except OSError as error:
            self._on_connection_lost(cause_of(error).lower(), quietly=not self._asks)
            return
        self._sock, self._lines = sock, LineBuffer(LONGEST_ANSWER)
        self._loop.add_reader(sock.fileno(), self._readable)
        self._unanswered.add("")
        version = "1.1" if self._old is None else "1.0"
        self._send(encode("handshake", version=version, client=self._name, client_id=f"{self._name}-{os.getpid()}"))
        self._watch()

    def _fall_back(self) -> None:
        """The daemon does not support version 1.1: connect again with 1.0, and repeat the open requests."""
        self._disconnect()
        self._old = FirstAsker()
        self._connect()
        for ask in tuple(self._asks.values()) if self._sock is not None else ():
            self._send_ask(ask)
        self._watch()

    def _disconnect(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._unanswered.clear()

    def _send(self, line: bytes) -> bool:
        """Whether it was sent. A daemon that takes nothing more is as good as none."""
        if self._sock is None:
            return False
        try:
            sent = self._sock.send(line)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has closed the connection; its earlier messages are read first
            return False
        if sent < len(line):
            self._on_connection_lost("it accepts no more messages")
            return False
        return True

    def _send_ask(self, ask: RequestSharedStart) -> None:
        self._unanswered.add(ask.id)
        if self._old is not None:
            if ask.reservation is not None and ask.reservation.startswith(PREFIX):  # all its attempts are registered
                self._loop.call_later(0, self._grant_registered, ask.id, ask.reservation)
                return
            now = self._clock.now()
            self._send(self._old.ask(ask.id, ask.limit, _rate(ask.rate), ask.offsets, now))
            return
        fields: dict[str, Any] = {"id": ask.id, "resource_id": ask.limit, **_rate(ask.rate)}
        if ask.offsets != (0,):
            fields["retry_offsets"] = [-(-offset // 1000) for offset in ask.offsets]
        if ask.reservation is not None:
            fields["reservation"] = ask.reservation
        self._send(encode("reserve_request", **fields))

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        self._lines.feed(data)
        try:
            while self._sock is not None and (line := self._lines.take()) is not None:
                self._take(decode(line))
        except BadMessage as error:
            self._on_connection_lost(f"protocol mismatch: {error.message}")
        self._watch()

    def _ended(self) -> None:
        """The end of the connection. Requests that only met it are sent again, if a daemon is there."""
        met_the_end = bool(self._asks) and "" not in self._unanswered and self._unanswered >= set(self._asks)
        if not met_the_end:
            self._on_connection_lost("it has exited", quietly=not self._asks)
            return
        if self._is_suspect:
            self._distrust("it exited without an answer")
            return
        self._is_suspect = True  # once is an end that the requests met, twice in a row is a fault
        self._disconnect()
        self._old = None
        self._connect()
        for ask in tuple(self._asks.values()) if self._sock is not None else ():
            self._send_ask(ask)
        self._watch()

    # --- what the daemon says ------------------------------------------------------------------------------------

    def _take(self, told: dict[str, Any]) -> None:
        kind, ask = told.get("type"), str(told.get("id", ""))
        if "" in self._unanswered and self._old is None and _is_of_1_0(told):
            self._fall_back()
        elif kind == "handshake_response":
            self._unanswered.discard("")
            self._begin()
        elif self._old is not None and "" not in self._unanswered:
            self._take_old(self._old, told)
        elif kind == "reserve_response":
            self._unanswered.discard(ask)
            if told.get("status") == "granted":
                self._granted(ask, str(told.get("reservation")))
            elif ask in self._asks:
                self._is_suspect = False
                wait = told.get("wait_ms")
                length = timedelta(milliseconds=wait) if isinstance(wait, int | float) and 0 <= wait < 1e12 else None
                if length is not None:
                    said = told.get("reason")
                    self._tell(SharedLimitQueued(ask, length, because("text", text=str(said)) if said else None))
        elif kind == "warning_notice":
            if told.get("warning"):  # the daemon may have another version, so its sentence is shown unchanged
                self._warn(because("text", text=str(told["warning"])[:400]))
        elif kind == "error":
            self._refused(str(told.get("error")), ask)

    def _take_old(self, old: FirstAsker, told: dict[str, Any]) -> None:
        match old.take(told, self._clock.now()):
            case Granted(ask, reservation, line):
                self._unanswered.discard(ask)
                if ask in self._asks:
                    self._send(line)
                    self._granted(ask, reservation)
                else:
                    old.forget_registration()
            case Waits(ask, wait):
                self._unanswered.discard(ask)
                if ask in self._asks:
                    self._tell(SharedLimitQueued(ask, wait))
                    self._loop.call_later(wait.total_seconds(), self._ask_again, ask)
            case Refused(ask, error):
                if ask in self._asks:
                    self._on_connection_lost(f"it answers: {error}")

    def _ask_again(self, ask: str) -> None:
        if self._old is not None and self._sock is not None and ask in self._asks and ask not in self._unanswered:
            self._send_ask(self._asks[ask])
            self._watch()

    def _grant_registered(self, ask: str, reservation: str) -> None:
        self._unanswered.discard(ask)
        if ask in self._asks:
            self._granted(ask, reservation)
        self._watch()

    def _warn(self, reason: Reason) -> None:
        """Report each warning once, and at most `_MOST_WARNINGS` of them."""
        key = (reason.code, repr(reason.detail))
        if key not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(key)
            self._tell(QuotaWarned(reason))

    def _begin(self) -> None:
        """The daemon is there, and speaks our language."""
        if not self._is_suspect:
            self._tries = 0
        now = self._clock.now().mono
        untold, self._untold = self._untold, deque(maxlen=_MOST_UNTOLD)
        for at, fields in untold:
            self._send(self._start_notice(fields, max(0, now - at)))
        if self._old is not None:
            self._warn(because("old_daemon", path=str(self._path)))
        if self._is_lost:
            self._is_lost = False
            self._tell(RateLimiterUp())

    def _granted(self, ask: str, reservation: str) -> None:
        if self._asks.pop(ask, None) is not None:
            self._is_suspect, self._tries = False, 0
            self._tell(SharedLimitGranted(ask, reservation))
        elif ask in self._withdrawn:
            self._withdrawn.remove(ask)  # a second grant of it would be a fault
            self.release(reservation)
        else:
            self._distrust(f"it grants `{ask[:60]}`, which was not requested")

    def _distrust(self, cause: str) -> None:
        """The daemon breaks the protocol. To answer would make it go on, and to ask again at once too."""
        self._is_suspect = True
        self._on_connection_lost(cause)

    def _refused(self, error: str, ask: str) -> None:
        """An error about a request; what a notice met needs no answer."""
        wanted = self._asks.get(ask)
        if wanted is not None and wanted.reservation is not None:  # it was of an earlier life of the daemon
            again = self._asks[ask] = RequestSharedStart(wanted.id, wanted.limit, wanted.rate)
            self._send_ask(again)
        elif wanted is not None or "" in self._unanswered:
            self._on_connection_lost(f"it answers: {error}")

    # --- waiting -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """While an answer is due the daemon has little time; while requests wait they ask now and then."""
        for alarm in (self._patience, self._look):
            if alarm is not None:
                alarm.cancel()
        self._patience = self._look = None
        if self._sock is None:
            return
        if self._unanswered:
            self._patience = self._loop.call_later(ANSWER_WITHIN, self._on_connection_lost, "it does not answer")
        elif self._asks:
            self._look = self._loop.call_later(LOOK_EVERY, self._check_deadline)

    def _check_deadline(self) -> None:
        try:
            for ask in tuple(self._asks.values()):
                self._send_ask(ask)
        finally:
            self._watch()

    def _on_connection_lost(self, cause: str, *, quietly: bool = False) -> None:
        """The connection has failed. Quietly: no request was open, so nothing is reported."""
        self._disconnect()
        self._old = None  # the next daemon may be newer
        self._asks.clear()
        self._watch()
        if self._is_closed:
            return
        if not quietly and not self._is_lost:
            self._is_lost = True
            self._tell(RateLimiterDown(because("quota_unreachable", path=str(self._path), error=cause)))
        if self._is_lost or self._untold:
            self._schedule_reconnect()

    def _schedule_reconnect(self) -> None:
        """Try again some time from now."""
        if self._retry is not None or self._is_closed:
            return
        longest = min(LONGEST_RETRY, FIRST_RETRY * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        self._retry = self._loop.call_later(self._draw.uniform(0.02, longest), self._reconnect)

    def _reconnect(self) -> None:
        self._retry = None
        if self._sock is None:
            self._connect()


def _is_of_1_0(told: dict[str, Any]) -> bool:
    """Whether the answer to a handshake of version 1.1 is one of a daemon that does not speak it."""
    kind = told.get("type")
    return kind == "error" or (kind == "handshake_response" and told.get("version") != "1.1")


def _rate(rate: Rate) -> dict[str, int]:
    """In whole milliseconds; a window between two of them is the longer one."""
    return {"rate_limit": rate.count, "window_ms": -(-to_us(rate.window) // 1000)}
