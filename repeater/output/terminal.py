r"""Escapes output for a terminal, and colours names. Pure text in, pure text out.

Output of jobs is not trusted: an escape sequence could retitle the window, hide lines or answer for the user. Control
characters except newline and tab appear as `\x1b`, C1 characters as `\x9b`, characters that change the reading
direction as `\u202e`, and bytes that are not valid UTF-8 as `\xff`. Colours of jobs are escaped too: they are escape
sequences, and most programs write none when their output is captured. Files and pipes get the raw bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from zlib import crc32

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Of the palette with 256 colours: each is readable on a light and on a dark background. Red is for failures.
_COLORS = (30, 64, 133, 32, 130, 97, 29, 62, 136, 67)
_RESET = "\x1b[0m"


def visible(data: bytes) -> bytes:
    r"""The same text with control characters escaped. `\r\n` becomes a newline."""
    text = data.decode("utf-8", "backslashreplace")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(_shown, text).encode("utf-8", "backslashreplace")


def visible_text(text: str) -> str:
    """`visible` for names and messages of a single line."""
    return _UNSAFE.sub(_shown, text.replace("\n", "\\n")).encode("utf-8", "backslashreplace").decode()


def visible_lines(text: str) -> str:
    """`visible` for messages of several lines."""
    return visible(text.encode("utf-8", "backslashreplace")).decode()


def json_line(value: object) -> str:
    """The value as JSON in one line. Control characters and Unicode line separators are escaped."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def cut_here(data: bytes) -> int:
    """Number of bytes of `data` that can be shown without splitting a UTF-8 character: all, or up to 3 less."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of a character of several bytes
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if length > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def wants_color(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether to colour what goes to `fd`: https://no-color.org, then https://force-color.org, then a terminal."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_terminal(fd) and environ.get("TERM") != "dumb"


def is_terminal(fd: int) -> bool:
    """Whether `fd` is a terminal. False for a closed descriptor."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def colored(text: str, code: str) -> str:
    """The text in an ANSI colour."""
    return f"\x1b[{code}m{text}{_RESET}"


RED = "31"


class NameColors:
    """The colours of names. The first ten names have ten different colours.

    A name prefers the same colour in every process. If another name has it already, it gets the next free one.
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def code(self, name: str) -> str:
        """The ANSI code of the colour of a name."""
        place = self._taken.get(name)
        if place is None:
            place = crc32(name.encode()) % len(_COLORS)
            if len(self._taken) < len(_COLORS):
                while place in self._taken.values():
                    place = (place + 1) % len(_COLORS)
            self._taken[name] = place
        return f"38;5;{_COLORS[place]}"
