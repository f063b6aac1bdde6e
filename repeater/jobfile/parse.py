"""Parses bytes to a `Document`: TOML 1.1, YAML 1.2 core or JSON. Each syntax error is one line with its position.

Only the syntax is interpreted. TOML dates become text, so that the three languages have the same data model. tomli and
json are recursive, so nesting deeper than `Caps.depth` is rejected for all three.
"""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import date, datetime, time
from typing import Any

from repeater.errors import JobFileError, Problem
from repeater.jobfile.document import Document, InputLimits, Path, Place, Places, dotted
from repeater.jobfile.number_text import WrittenInt, written_float, written_int

SYNTAXES = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def read_document(name: str, content: bytes, caps: InputLimits, *, syntax: str | None = None) -> Document:
    """The document in `content`. `syntax` None: detect by the suffix of `name`, or else by the text.

    Raises JobFileError.
    """
    text = _decode(name, content)
    if syntax is None:
        suffix = re.search(r"\.[a-z]+$", name.lower())
        syntax = SYNTAXES.get(suffix[0] if suffix else "") or _guess(text)
    if not text.strip(" \t\r\n"):
        raise _syntax_error(name, "the file is empty", hint="`rpr init` writes a starter file")
    data, find_places = _READERS[syntax](name, text, caps)
    if not isinstance(data, dict):
        found = "only comments" if data is None else "a list" if isinstance(data, list) else "one value"
        raise _syntax_error(name, f"found {found}, expected a table with `jobs`", 1, 1)
    document = Document(name, data, find_places)
    check_tree(document, caps.depth)
    return document


def _decode(name: str, content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[:4] == b"\0\0\xfe\xff":
        raise _syntax_error(name, "the text is UTF-16 or UTF-32, expected UTF-8", 1, 1)
    zero = content.find(b"\0")
    if zero >= 0:
        if zero <= 1 and content[:64].count(0) * 3 >= len(content[:64]):
            raise _syntax_error(name, "the text is UTF-16, expected UTF-8", 1, 1)
        raise _syntax_error(name, "found a zero byte, expected text", *_byte_place(content, zero))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if content[:3] == b"\xef\xbb\xbf" else 0)
        cause = f"byte {start} (`0x{content[start]:02x}`) is not UTF-8"
        raise _syntax_error(name, cause, *_byte_place(content, start)) from None
    return text


def _byte_place(content: bytes, offset: int) -> Place:
    before = content[:offset].decode("utf-8-sig", "replace")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _guess(text: str) -> str:
    """The syntax of a text whose name does not identify it, such as standard input."""
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            if line.startswith("{"):
                return "json"
            return "toml" if re.match(r"\[|[A-Za-z0-9_.\"' -]+=", line) else "yaml"
    return "toml"


def _read_toml(name: str, text: str, caps: InputLimits) -> tuple[Any, Any]:
    if sys.version_info >= (3, 15):
        import tomllib as tomli
    else:
        import tomli
    try:
        data = tomli.loads(text, parse_float=written_float)
    except tomli.TOMLDecodeError as error:
        from repeater.jobfile.syntax_errors import toml_broken

        cause = re.sub(
            r"\(('.*'),?\)", lambda path: "`" + re.sub("'(.*?)'(, )?", r"\1.", path[1]).rstrip(".") + "`", error.msg
        )
        broken = toml_broken(error.doc, error.pos, error.msg)
        if broken is not None:
            raise _syntax_error(
                name, f"not TOML: {broken.cause}", *_place_at(error.doc, broken.at), broken.hint
            ) from None
        raise _syntax_error(name, f"not TOML: {_as_plain_values(cause)}", error.lineno, error.colno) from None
    except RecursionError:
        from repeater.jobfile.toml_positions import toml_depth_place

        line, column = toml_depth_place(text, caps.depth)
        raise _syntax_error(name, f"not TOML: more than {caps.depth} levels of nesting", line, column) from None
    except ValueError:  # a number with more digits than Python accepts
        found = re.search(r"[0-9_]{4000,}", text)
        line, column = _place_at(text, found.start() if found else 0)
        raise _syntax_error(name, f"not TOML: a number of more than {_MOST_DIGITS} digits", line, column) from None
    text = text.replace("\r\n", "\n")
    if _ODD_TOML.search(text):
        _keep_texts(data, text)

    def find_places() -> Places:
        from repeater.jobfile.toml_positions import toml_positions

        return toml_positions(text)

    return data, find_places


def _keep_texts(data: Any, text: str) -> None:
    """Integers keep their text, like numbers with a fraction. In `env`, dates and times also keep their text."""
    from repeater.jobfile.toml_positions import toml_texts

    for path, word in toml_texts(text).items():
        holder = data
        for part in path[:-1]:
            holder = holder[part]
        value = holder[path[-1]]
        if type(value) is int:
            if str(value) != word:
                holder[path[-1]] = WrittenInt(value, word)
        elif "env" in path and isinstance(value, datetime | date | time):
            holder[path[-1]] = word


def _read_yaml(name: str, text: str, caps: InputLimits) -> tuple[Any, Any]:
    from repeater.jobfile.yaml_core import YamlSyntaxError, read_yaml

    try:
        data = read_yaml(text, caps.depth)
    except YamlSyntaxError as error:
        raise _syntax_error(name, f"not YAML: {error.message}", error.line, error.column, error.hint) from None

    def find_places() -> Places:
        places: dict[Path, Place] = {}
        read_yaml(text, caps.depth, places)
        return places

    return data, find_places


def _read_json(name: str, text: str, caps: InputLimits) -> tuple[Any, Any]:
    from repeater.jobfile.toml_positions import JsonFault, check_json, json_places

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) < len(items):
            raise ValueError("duplicate key")  # `check_json` reports the error
        return table

    def constant(word: str) -> Any:
        raise ValueError(f"`{word}` is not a number")

    try:
        data = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_int=written_int, parse_float=written_float
        )
    except json.JSONDecodeError as error:
        from repeater.jobfile.syntax_errors import json_broken

        broken = json_broken(text, error.pos, error.msg)
        if broken is not None:
            raise _syntax_error(name, f"not JSON: {broken.cause}", *_place_at(text, broken.at), broken.hint) from None
        raise _syntax_error(name, f"not JSON: {_as_plain_values(error.msg)}", error.lineno, error.colno) from None
    except (RecursionError, ValueError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        line, column = 0, 0
        try:
            check_json(text, caps.depth, _MOST_DIGITS)
        except JsonFault as fault:
            cause, (line, column) = fault.message, fault.place
        raise _syntax_error(name, f"not JSON: {cause}", line, column) from None
    if _SURROGATE.search(text):
        try:
            check_json(text, caps.depth, _MOST_DIGITS)
        except JsonFault as fault:
            raise _syntax_error(name, f"not JSON: {fault.message}", *fault.place) from None
    return data, lambda: json_places(text)


_MOST_DIGITS = 300
_ODD_TOML = re.compile(r"[=\[,]\s*(?:[+-]?[0-9]+_|\+[0-9]|-0|0[xob]|[0-9]{4}-[0-9]{2}-|[0-9]{2}:)")
_HUGE = 10**_MOST_DIGITS
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_READERS = {"toml": _read_toml, "yaml": _read_yaml, "json": _read_json}


def check_tree(document: Document, depth: int) -> None:
    """Check depth and numbers, convert dates to text. Parts shared by YAML aliases are visited once."""
    level: list[tuple[Path, Any]] = [((), document.data)]
    seen: set[int] = set()
    for _ in range(depth):
        below: list[tuple[Path, Any]] = []
        for path, tree in level:
            if id(tree) in seen:
                continue
            seen.add(id(tree))
            for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
                kind = type(value)
                if kind is str or kind is bool:
                    continue
                if kind is dict or kind is list:
                    below.append(((*path, key), value))
                elif isinstance(value, int):
                    if not -_HUGE < value < _HUGE:
                        cause = f"a number of more than {_MOST_DIGITS} digits"
                        raise JobFileError([document.problem((*path, key), cause)])
                elif isinstance(value, float):
                    if not math.isfinite(value):
                        cause = f"found `{value}`, expected a finite number"
                        raise JobFileError([document.problem((*path, key), cause)])
                elif isinstance(value, datetime | date | time):
                    tree[key] = value.isoformat().replace("+00:00", "Z")
        if not below:
            return
        level = below
    path, _ = level[0]
    line, column = document.position(path)
    cause = f"more than {depth} levels of nesting"
    raise JobFileError([Problem(document.name, line, column, dotted(path[:4]), cause)])


def _place_at(text: str, at: int) -> Place:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _as_plain_values(text: str) -> str:
    return text[:1].lower() + text[1:]


def _syntax_error(name: str, cause: str, line: int = 0, column: int = 0, hint: str | None = None) -> JobFileError:
    return JobFileError([Problem(name, line, column, "", cause, hint)])
