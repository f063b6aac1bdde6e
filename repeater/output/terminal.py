r"""What may reach a terminal, and in which colour. Pure text in, pure text out.

Output of jobs is not trusted: an escape sequence could retitle the window, hide lines or answer for the user. So all
control characters but newline and tab are shown as `\x1b`, C1 ones as `\x9b`, and those that turn the reading
direction as `\u202e`; bytes that are no UTF-8 as `\xff`. Colours of jobs go the same way: they are escape sequences,
and a program whose output is captured writes none by itself. Files and pipes get the bytes as they were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from zlib import crc32

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # no red: that is for what went wrong
_RESET = "\x1b[0m"


def visible(data: bytes) -> bytes:
    r"""The same text with everything that could steer a terminal made visible; `\r\n` is one end of line."""
    text = data.decode("utf-8", "backslashreplace")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(_shown, text).encode("utf-8", "backslashreplace")


def visible_text(text: str) -> str:
    """`visible` for names and messages, which have no lines."""
    return _UNSAFE.sub(_shown, text.replace("\n", "\\n")).encode("utf-8", "backslashreplace").decode()


def visible_lines(text: str) -> str:
    """`visible` for messages of several lines."""
    return visible(text.encode("utf-8", "backslashreplace")).decode()


def json_line(value: object) -> str:
    """The value as JSON in one line, whatever its reader takes for an end of line; it steers no terminal either."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def cut_here(data: bytes) -> int:
    """How much of `data` can be shown without cutting a UTF-8 character in two: its length, or up to 3 less."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of a character that needs more
            wanted = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if wanted > back else len(data)
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
    """Whether somebody looks at `fd` directly; False for one that is closed."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def colored(text: str, name: str) -> str:
    """The text in the colour of a name, which is the same in every run of every rpr."""
    return f"\x1b[{_COLORS[crc32(name.encode()) % len(_COLORS)]}m{text}{_RESET}"
