"""The number of requests and of streams that a server answers at once, and their limits.

A stream is an answer without end, such as `logs --follow`. It keeps its place for as long as its reader wants, so
streams are counted apart: however many are open, requests are answered.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from repeater.wire.json_lines import BadMessage

Kind: TypeAlias = Literal["request", "stream"]

MOST: dict[Kind, int] = {"request": 64, "stream": 64}


class Load:
    """What is being answered by one server."""

    def __init__(self) -> None:
        self._open: dict[Kind, int] = {"request": 0, "stream": 0}

    def admit(self, kind: Kind) -> Place:
        """A place for a request or a stream. Raises BadMessage `busy` if all are taken."""
        if self._open[kind] >= MOST[kind]:
            raise BadMessage("busy", f"cannot answer more than {MOST[kind]} {kind}s at once", hint="try again later")
        self._open[kind] += 1
        return Place(self._open, kind)


class Place:
    """One request or stream that is being answered, until `leave`."""

    def __init__(self, open_: dict[Kind, int], kind: Kind) -> None:
        self._open = open_
        self._kind: Kind | None = kind

    def become_stream(self) -> None:
        """The request turned out to ask for a stream. Raises BadMessage `busy` if all places of streams are taken."""
        if self._open["stream"] >= MOST["stream"]:
            raise BadMessage(
                "busy", f"cannot answer more than {MOST['stream']} streams at once", hint="try again later"
            )
        self._open["stream"] += 1
        self.leave()
        self._kind = "stream"

    def leave(self) -> None:
        """Give the place back; once more does nothing."""
        if self._kind is not None:
            self._open[self._kind] -= 1
            self._kind = None
