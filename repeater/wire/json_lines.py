"""JSON objects, one per line: the framing of all sockets of repeater. Sans-IO: bytes in, values out.

The peer may be hostile. A line has at most `LONGEST` bytes. Duplicate keys, NaN, infinite numbers and too deep nesting
are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from repeater.errors import RepeaterError

LONGEST = 1 << 20
"""Bytes of one line without its newline."""


class BadMessage(RepeaterError):
    """A line that is not a message of this protocol. `code` is sent to the peer."""

    exit_code = 2

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class LineBuffer:
    """Splits received bytes into lines. Never holds more than `longest` bytes and the last chunk."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._pending = bytearray()
        self._looked = 0

    @property
    def waiting(self) -> int:
        """Number of bytes that were fed and not taken."""
        return len(self._pending)

    def feed(self, data: bytes) -> None:
        self._pending += data

    def take(self) -> bytes | None:
        """The next whole line without its newline, or None. Raises BadMessage if the line is too long."""
        end = self._pending.find(b"\n", self._looked)
        if (len(self._pending) if end < 0 else end) > self._longest:
            raise BadMessage("too_long", f"cannot accept the message: it has more than {self._longest} bytes")
        if end < 0:
            self._looked = len(self._pending)
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._looked = 0
        return line


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as a line with its newline. Only ASCII, so that lone surrogates can be sent."""
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
    """A value for a message: short and without control characters."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "[[..."
    text = text[:200].encode("ascii", "backslashreplace").decode()
    text = "".join(char if char >= " " and char != "\x7f" else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= 60 else text[:57] + "..."
