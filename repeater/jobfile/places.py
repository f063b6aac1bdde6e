"""Where each key of a TOML file stands: a small index by tokens, for messages and `render --explain`.

Built only for text that tomli has already accepted, so it need not judge: it walks headers, keys, arrays and inline
tables, and skips every other value. An array's item has the place of its first character, a key that of its first part.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from repeater.jobfile.document import Path, Place

_TOKEN = re.compile(
    r"""
      (?P<skip>[ \t]+|\#[^\n]*)
    | (?P<newline>\r?\n)
    | (?P<string>\"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<mark>[\[\]{},=])
    | (?P<dot>\.)
    | (?P<bare>[A-Za-z0-9_-]+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def toml_places(text: str) -> dict[Path, Place]:
    """The place of every key and item."""
    return _Index(text).places


def line_starts(text: str) -> list[int]:
    """The offsets at which lines begin."""
    return [0, *(match.end() for match in re.finditer("\n", text))]


class _Index:
    def __init__(self, text: str) -> None:
        self.places: dict[Path, Place] = {}
        self.lists: dict[Path, int] = {}
        self.starts = line_starts(text)
        self.tokens = _tokens(text)
        self.kind, self.text, self.at = "newline", "", 0
        self.step()
        prefix: Path = ()
        while self.kind != "end":
            if self.kind == "newline":
                self.step()
            elif self.text == "[" and self.kind == "mark":
                prefix = self.header()
            else:
                self.pair(prefix)

    def step(self) -> None:
        self.kind, self.text, self.at = next(self.tokens)

    def mark(self, path: Path, at: int) -> None:
        line = bisect_right(self.starts, at)
        self.places.setdefault(path, (line, at - self.starts[line - 1] + 1))

    def key(self) -> tuple[str, ...]:
        parts = []
        while self.kind in ("bare", "string", "dot"):
            if self.kind != "dot":
                parts.append(_unquote(self.text))
            self.step()
        return tuple(parts)

    def header(self) -> Path:
        at = self.at
        self.step()
        many = self.text == "["
        if many:
            self.step()
        path: Path = ()
        parts = self.key()
        for number, part in enumerate(parts):
            path += (part,)
            if path in self.lists:
                if many and number == len(parts) - 1:
                    self.lists[path] += 1
                path += (self.lists[path],)
            elif many and number == len(parts) - 1:
                self.mark(path, at)
                self.lists[path] = 0
                path += (0,)
            self.mark(path, at)
        while self.kind not in ("newline", "end"):
            self.step()
        return path

    def pair(self, prefix: Path) -> None:
        at = self.at
        path: Path = prefix
        for part in self.key():
            path += (part,)
            self.mark(path, at)
        self.step()  # the `=`
        self.value(path)

    def value(self, path: Path) -> None:
        if self.kind == "mark" and self.text == "[":
            self.step()
            count = 0
            while self.text != "]" or self.kind != "mark":
                if self.kind == "newline" or self.text == ",":
                    self.step()
                    continue
                self.mark((*path, count), self.at)
                self.value((*path, count))
                count += 1
            self.step()
        elif self.kind == "mark" and self.text == "{":
            self.step()
            while self.text != "}" or self.kind != "mark":
                if self.kind == "newline" or self.text == ",":
                    self.step()
                else:
                    self.pair(path)
            self.step()
        else:
            while self.kind not in ("newline", "mark", "end"):
                self.step()


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "skip":
            yield match.lastgroup or "other", match[0], match.start()
    while True:
        yield "end", "", len(text)


def _unquote(text: str) -> str:
    if text[:1] == "'":
        return text[1:-1]
    if text[:1] != '"':
        return text
    return re.sub(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|.)", _escape, text[1:-1])


def _escape(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if code[0] in "uUx" and len(code) > 1 else _ESCAPES.get(code, code)
