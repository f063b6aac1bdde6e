"""JSON objects, one a line, as all sockets of repeater carry them. Sans-IO: bytes in, values out.

What comes is taken from somebody who may be hostile: a line has at most `LONGEST` bytes, duplicate keys, NaN, numbers
without end and nests without bottom are refused. Called by `control` and `daemon`; what a message means is theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from repeater.errors import RepeaterError

LONGEST = 1 << 20
"""Bytes of one line, its end not counted."""


class BadMessage(RepeaterError):
    """A line that is no message of this protocol. `code` is told to the other end."""

    exit_code = 2

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class LineBuffer:
    """Cuts what comes into lines. Never holds more than `longest` bytes and what came last."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._held = bytearray()
        self._looked = 0

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not taken."""
        return len(self._held)

    def feed(self, data: bytes) -> None:
        self._held += data

    def take(self) -> bytes | None:
        """The next whole line without its end, None if there is none yet. Raises BadMessage if it is too long."""
        end = self._held.find(b"\n", self._looked)
        if (len(self._held) if end < 0 else end) > self._longest:
            raise BadMessage("too_long", f"cannot accept the message: it has more than {self._longest} bytes")
        if end < 0:
            self._looked = len(self._held)
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked = 0
        return line


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a line, its end included; only ASCII, so that any text can be carried."""
    return _encoded(message).encode("ascii") + b"\n"


_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def decode(line: bytes) -> dict[str, Any]:
    """The object of one line. Raises BadMessage."""
    try:
        message = _decoded(line.decode("utf-8"))
    except RecursionError:
        raise BadMessage("malformed", "cannot read the message: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadMessage("malformed", "cannot read the message: it is not valid UTF-8") from None
    except ValueError as error:
        raise BadMessage("malformed", f"cannot read the message: {error}") from None
    if not isinstance(message, dict):
        raise BadMessage("malformed", "cannot read the message: not a JSON object")
    return message


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"duplicate key `{clip(twice)}`")
    return found


def _reject_constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not a number")


_decoded = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_reject_constant).decode


def clip(value: Any) -> str:
    """A value for a message: short, and nothing in it that a terminal would obey."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "[[..."
    text = text[:200].encode("ascii", "backslashreplace").decode()
    text = "".join(char if char >= " " and char != "\x7f" else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= 60 else text[:57] + "..."
