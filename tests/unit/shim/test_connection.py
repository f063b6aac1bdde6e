"""A keeper's end of the line: what goes out when."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from repeater.shim.connection import ClientConnection
from repeater.shim.protocol import Frames


class Ends:
    """A link, and the client at the other end of it."""

    def __init__(self) -> None:
        theirs, self.client = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client.setblocking(False)
        self.poll = select.epoll()
        self.link = ClientConnection(theirs, self.poll)

    def frames(self) -> list[list[dict[str, Any]]]:
        """What has arrived, frame by frame."""
        try:
            return [messages for messages, _ in Frames().feed(self.client.recv(1 << 16))]
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.link.close()
        self.poll.close()
        self.client.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock shows."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_message_that_is_not_urgent_is_sent_with_the_next_one(ends: Ends, clock: list[float]) -> None:
    ends.link.send({"op": "started"}, hurries=False)
    assert ends.link.flush()
    assert ends.frames() == []
    clock[0] += 0.004
    ends.link.send({"op": "exited"})
    assert ends.link.flush()
    assert ends.frames() == [[{"op": "started"}, {"op": "exited"}]]


def test_a_message_that_is_not_urgent_is_sent_soon_without_a_next_one(ends: Ends, clock: list[float]) -> None:
    ends.link.send({"op": "started"}, hurries=False)
    assert ends.link.next_flush == clock[0] + 0.005
    clock[0] += 0.004
    ends.link.send({"op": "started"}, hurries=False)
    assert ends.link.flush()
    assert ends.frames() == []
    clock[0] += 0.001
    assert ends.link.flush()
    assert ends.frames() == [[{"op": "started"}, {"op": "started"}]]
    assert ends.link.next_flush is None
