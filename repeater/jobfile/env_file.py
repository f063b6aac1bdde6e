r"""Env files: lines `NAME=value` by the grammar of docker compose, without interpolation.

https://docs.docker.com/reference/compose-file/services/#env_file-format and the reader `compose-go/dotenv`. `$` is an
ordinary character. A name without `=` is an error here, because nothing is taken from the environment.
docs/reference/job-file.md holds the grammar.
"""

from __future__ import annotations

import re

from repeater.model.spec import Pairs

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*[=:]")
_QUOTED = {
    "'": re.compile(r"'((?:[^'\\]|\\.)*)'[ \t]*(?=#|\n|\Z)", re.DOTALL),
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?=#|\n|\Z)', re.DOTALL),
}
_BLANK_LINES = re.compile(r"[ \t\n]*")
_BLANKS = re.compile(r"[ \t]*")
_REST = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"[ \t]#.*")
_ESCAPE = re.compile(r'\\(?:([abfnrtv"\\$])|(0[0-7]{0,3}))')
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def parse_env(content: bytes) -> Pairs:
    """The variables in the order of their first lines; the last value of a name applies. Raises ValueError that names
    the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (byte {error.start})") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    values: dict[str, str] = {}
    at = 0
    while (at := _end(_BLANK_LINES, text, at)) < len(text):
        if text[at] == "#":
            at = _end(_REST, text, at)
            continue
        name, value, end = _variable(text, at)
        if "\0" in value:
            raise ValueError(f"line {_line(text, at)} contains a zero character, not allowed in variables")
        values[name] = value
        at = end
    return tuple(values.items())


def _variable(text: str, at: int) -> tuple[str, str, int]:
    """The name and the value of the variable that begins at `at`, and the offset after them."""
    name = _NAME.match(text, at)
    if name is None:
        raise ValueError(f"line {_line(text, at)} is not `NAME=value`")
    start = _end(_BLANKS, text, name.end())
    quote = text[start : start + 1]
    if quote not in ("'", '"'):
        end = _end(_REST, text, name.end())
        return name[1], _COMMENT.sub("", text[name.end() : end]).strip(), end
    quoted = _QUOTED[quote].match(text, start)
    if quoted is None:
        if re.compile(rf"{quote}(?:[^{quote}\\]|\\.)*\Z", re.DOTALL).match(text, start):
            raise ValueError(f"line {_line(text, at)} has a quoted value without a closing quote")
        raise ValueError(f"line {_line(text, at)} is not `NAME=value`: found text after the closing quote")
    if quote == "'":
        return name[1], quoted[1].replace("\\'", "'"), quoted.end()
    return name[1], _ESCAPE.sub(_escaped, quoted[1]), quoted.end()


def _escaped(match: re.Match[str]) -> str:
    if match[2]:
        return chr(int(match[2], 8))
    return _ESCAPES.get(match[1], match[1])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
