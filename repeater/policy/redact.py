"""Hiding secret values in a stream of bytes, also across the borders of its chunks.

A seat belt, not a vault: a job that prints a secret in pieces, or in a form not listed here, shows it. Values shorter
than `SHORTEST` are not hidden, because hiding `1` or `yes` would hide everything else too. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

SHORTEST = 4
STARS = b"***"


def secret_forms(values: Iterable[str]) -> tuple[bytes, ...]:
    """Every form in which these values are hidden: unchanged, line by line, base64, and quoted for a URL."""
    forms: set[bytes] = set()
    for value in values:
        for text in (value, *value.splitlines()):
            raw = text.encode("utf-8", "surrogateescape")
            forms |= {raw, base64.b64encode(raw), quote(text, safe="").encode()}
    return tuple(sorted((form for form in forms if len(form) >= SHORTEST), key=lambda form: (-len(form), form)))


class Mask:
    """One stream. `feed` gives what may be shown by now; the end of a chunk that could begin a secret is held back."""

    __slots__ = ("_forms", "_held", "_pattern")

    def __init__(self, forms: tuple[bytes, ...]) -> None:
        self._forms = forms
        self._pattern = re.compile(b"|".join(map(re.escape, forms))) if forms else None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if self._pattern is None:
            return data
        data = self._pattern.sub(STARS, self._held + data)
        hold = self._beginning(data)
        self._held = data[len(data) - hold :]
        return data[: len(data) - hold]

    def flush(self) -> bytes:
        """What was held back; the stream is over."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, data: bytes) -> int:
        """How many of the last bytes are the beginning of a secret."""
        longest = min(len(data), len(self._forms[0]) - 1)
        tail = data[len(data) - longest :]
        for length in range(longest, 0, -1):
            end = tail[longest - length :]
            if any(form.startswith(end) for form in self._forms):
                return length
        return 0


def mask_text(text: str, forms: tuple[bytes, ...]) -> str:
    """A whole text with every form hidden."""
    for form in forms:
        text = text.replace(form.decode("utf-8", "surrogateescape"), STARS.decode())
    return text
