"""Indexes of the position of each key of a TOML or JSON file, for messages and `render --explain`.

The TOML index is built only for text that tomli has accepted, so it does not validate: it parses headers, keys, arrays
and inline tables, and skips other values. The JSON index also finds errors that the JSON parser reports without a
position. The position of an array item is that of its first character; that of a key is its first part.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

from repeater.jobfile.document import Path, Place, quote_value

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


def toml_positions(text: str) -> dict[Path, Place]:
    """The position of every key and item of a TOML file."""
    return _Index(text).places


def toml_texts(text: str) -> dict[Path, str]:
    """The text of every value of a TOML file that is not a table, a list or a string."""
    return _Index(text).texts


def toml_depth_place(text: str, depth: int) -> Place:
    """The position where brackets of a TOML file exceed `depth` levels; (0, 0) if they do not."""
    level = 0
    for kind, word, at in _tokens(text):
        if kind == "end":
            break
        if kind == "mark":
            level += 1 if word in "[{" else -1 if word in "]}" else 0
            if level > depth:
                return _Lines(text).place(at)
    return (0, 0)


class _Lines:
    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, at: int) -> Place:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1


class _Index:
    def __init__(self, text: str) -> None:
        self.places: dict[Path, Place] = {}
        self.texts: dict[Path, str] = {}
        self.whole = text
        self.lists: dict[Path, int] = {}
        self.lines = _Lines(text)
        self.tokens = _tokens(text)
        self.kind, self.text, self.at = "newline", "", 0
        self.end = 0
        with suppress(RecursionError):  # too deep for a job file, so a partial index is sufficient
            self.walk()

    def walk(self) -> None:
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
        self.end = self.at + len(self.text)
        self.kind, self.text, self.at = next(self.tokens)

    def mark(self, path: Path, at: int) -> None:
        self.places.setdefault(path, self.lines.place(at))

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
            start, is_text = self.at, self.kind == "string"
            while self.kind not in ("newline", "mark", "end"):
                self.step()
            if not is_text:
                self.texts[path] = self.whole[start : self.end]


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


# --- JSON -------------------------------------------------------------------------------------------------------

_JSON_TOKEN = re.compile(
    r'[ \t\r\n]+|(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[\[\]{}:,])|(?P<other>[^\s\[\]{}:,"]+)', re.DOTALL
)
_HALF = re.compile("[\ud800-\udfff]")


class JsonFault(Exception):
    """Content of a JSON file that the grammar or this program does not allow. The position counts from 1."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message, self.place = message, place


def json_places(text: str) -> dict[Path, Place]:
    """The position of every key and item of a valid JSON file."""
    places: dict[Path, Place] = {}
    _walk_json(text, places, None)
    return places


def check_json(text: str, depth: int, most_digits: int) -> None:
    """Raise JsonFault for the first of: a duplicate key, `NaN` and infinity, a long number, a lone surrogate, more than
    `depth` levels. Any other syntax error ends the search.
    """
    with suppress(IndexError, ValueError, TypeError):
        _walk_json(text, {}, (depth, most_digits))


def _walk_json(text: str, places: dict[Path, Place], bounds: tuple[int, int] | None) -> None:
    lines = _Lines(text)
    open_: list[set[str] | int] = []  # the keys of a table, or the number of items of a list
    path: list[str | int] = []
    awaits_key = False
    for match in _JSON_TOKEN.finditer(text):
        kind, word, at = match.lastgroup, match[0], match.start()
        if kind is None:
            continue
        if kind == "mark" and word in ":,}]":
            if word in "}]":
                open_.pop()
                del path[len(open_) :]
            awaits_key = word == "," and isinstance(open_[-1], set)
            continue
        if bounds is not None:
            _judge_json(kind, word, lines, at, bounds)
        if awaits_key:
            awaits_key = False
            keys = open_[-1]
            assert isinstance(keys, set)
            key = json.loads(word)
            if bounds is not None and key in keys:
                raise JsonFault(f"duplicate key `{quote_value(key)}`", lines.place(at))
            keys.add(key)
            path[len(open_) - 1 :] = [key]
            places.setdefault(tuple(path), lines.place(at))
            continue
        if open_ and isinstance(open_[-1], int):
            path[len(open_) - 1 :] = [open_[-1]]
            open_[-1] += 1
            places[tuple(path)] = lines.place(at)
        if kind == "mark":
            open_.append(set() if word == "{" else 0)
            awaits_key = word == "{"
            if bounds is not None and len(open_) > bounds[0]:
                raise JsonFault(f"more than {bounds[0]} levels of nesting", lines.place(at))


def _judge_json(kind: str, word: str, lines: _Lines, at: int, bounds: tuple[int, int]) -> None:
    if kind == "string":
        half = _HALF.search(json.loads(word)) if "\\u" in word else None
        if half is not None:
            raise JsonFault(f"the escape `\\u{ord(half[0]):04x}` is half of a surrogate pair", lines.place(at))
    elif word in ("NaN", "Infinity", "-Infinity"):
        raise JsonFault(f"`{word}` is not a number", lines.place(at))
    elif word.lstrip("-").isdigit() and len(word) > bounds[1]:
        raise JsonFault(f"a number of more than {bounds[1]} digits", lines.place(at))
