"""A desk before the book: clients that send messages as the daemon gets them, at instants of a virtual clock."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from repeater.model.time import Instant, Mono
from repeater.ratelimitd.broker import Broker
from repeater.ratelimitd.protocol import read_message
from repeater.wire.json_lines import BadMessage

BEGAN = datetime(2026, 11, 23, 15, 33, 57, tzinfo=UTC)


class Desk:
    """Times are milliseconds from the beginning."""

    def __init__(self, book: Broker | None = None, at: float = 0) -> None:
        self.book = book or Broker("r")
        self.at = at
        self.heard: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.raw: list[bytes] = []
        self._known: set[int] = set()

    @property
    def now(self) -> Instant:
        return Instant(BEGAN + timedelta(milliseconds=self.at), Mono(10**12 + round(self.at * 1000)))

    def tell(self, client: int, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Send a message; what the client hears at once."""
        return self.send(client, json.dumps({"type": kind, **fields}))

    def send(self, client: int, line: str) -> list[dict[str, Any]]:
        if client not in self._known:
            self._known.add(client)
            self.book.connect(client)
        before = len(self.heard[client])
        self.book.handle(client, read_message(line.encode()), self.now)
        self._deliver()
        return self.heard[client][before:]

    def ask(self, client: int, request: str, resource: str = "api", *, rate: str = "", **fields: Any) -> Any:
        """A reservation id if it is granted at once, else the answer."""
        if rate:
            count, window = rate.split("/")
            fields |= {"rate_limit": int(count), "window_ms": int(window)}
        heard = self.tell(client, "reserve_request", id=request, resource_id=resource, **fields)
        return heard[-1]["reservation"] if heard[-1]["status"] == "granted" else heard[-1]

    def refused(self, client: int, kind: str, **fields: Any) -> str:
        try:
            self.tell(client, kind, **fields)
        except BadMessage as error:
            return error.message
        raise AssertionError("it was not refused")

    def leave(self, client: int) -> None:
        self._known.discard(client)
        self.book.disconnect(client, self.now)
        self._deliver()

    def run_to(self, at: float) -> None:
        """Let time pass; whatever is due happens in time."""
        while (due := self.book.next_due()) is not None and (due - 10**12) / 1000 <= at:
            self.at = max(self.at, (due - 10**12) / 1000)
            before = due
            self.book.advance_to(self.now)
            self._deliver()
            after = self.book.next_due()
            assert after is None or after > before or after > self.now.mono, "it stands still"
        self.at = at

    def granted(self, client: int) -> list[str]:
        return [one["reservation"] for one in self.heard[client] if one.get("status") == "granted"]

    def figures(self, resource: str = "api") -> dict[str, Any]:
        return next(one for one in self.book.stats(self.now)["resources"] if one["resource_id"] == resource)

    def _deliver(self) -> None:
        for client, line in self.book.outbox:
            self.raw.append(line)
            self.heard[client].append(json.loads(line))
        self.book.outbox = []
