"""Bytes to a `Document`: TOML, YAML or JSON, with every way in which a file can be broken told in one line.

Nothing is interpreted here but the syntax. Dates of TOML become text, so that the three languages carry the same
model. tomli and json are recursive but guarded; what nests deeper than `Caps.depth` is refused for all three.
"""

from __future__ import annotations

import json
import math
import re
import sys
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any

from repeater.errors import JobFileError, Problem
from repeater.jobfile.document import Caps, Document, Path, Place, Places, dotted

SYNTAXES = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def read_document(name: str, content: bytes, caps: Caps, *, syntax: str | None = None) -> Document:
    """The document in `content`. `syntax` None goes by the suffix of `name`, or else by the looks of the text.

    Raises JobFileError.
    """
    text = _decode(name, content)
    if syntax is None:
        suffix = re.search(r"\.[a-z]+$", name.lower())
        syntax = SYNTAXES.get(suffix[0] if suffix else "") or _guess(text)
    if not text.strip():
        raise _broken(name, "the file is empty", hint="`rpr init` writes a starter")
    data, find_places = _READERS[syntax](name, text, caps)
    if not isinstance(data, dict):
        found = "only comments" if data is None else "a list" if isinstance(data, list) else "one value"
        raise _broken(name, f"found {found}, expected a table with `jobs`", 1, 1)
    document = Document(name, data, find_places)
    check_tree(document, caps.depth)
    return document


def _decode(name: str, content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[:4] == b"\0\0\xfe\xff":
        raise _broken(name, "the text is UTF-16 or UTF-32, expected UTF-8")
    if b"\0" in content[:4096]:
        cause = "the text is UTF-16, expected UTF-8" if content[1:2] == b"\0" else "found a zero byte, expected text"
        raise _broken(name, cause)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if content[:3] == b"\xef\xbb\xbf" else 0)
        line = content.count(b"\n", 0, start) + 1
        raise _broken(name, f"byte {start} (`0x{content[start]:02x}`) is not UTF-8", line) from None
    return text


def _guess(text: str) -> str:
    """The syntax of text without a telling name, such as standard input."""
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            if line.startswith("{"):
                return "json"
            return "toml" if re.match(r"\[|[A-Za-z0-9_.\"' -]+=", line) else "yaml"
    return "toml"


def _read_toml(name: str, text: str, caps: Caps) -> tuple[Any, Any]:
    if sys.version_info >= (3, 15):
        import tomllib as tomli
    else:
        import tomli
    del caps
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line, column = getattr(error, "lineno", 0), getattr(error, "colno", 0)
        cause = re.sub(r" \(at .*\)$", "", str(error))
        cause = re.sub(
            r"\(('.*'),?\)", lambda path: "`" + re.sub("'(.*?)'(, )?", r"\1.", path[1]).rstrip(".") + "`", cause
        )
        raise _broken(name, f"not TOML: {cause[:1].lower()}{cause[1:]}", line, column) from None
    except RecursionError:
        raise _broken(name, "not TOML: nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits
        raise _broken(name, f"not TOML: {error}") from None

    def find_places() -> Places:
        from repeater.jobfile.places import toml_places

        return toml_places(text.replace("\r\n", "\n"))

    return data, find_places


def _read_yaml(name: str, text: str, caps: Caps) -> tuple[Any, Any]:
    from repeater.jobfile.yaml_core import NotYaml, read_yaml

    try:
        data = read_yaml(text, caps.depth)
    except NotYaml as error:
        raise _broken(name, f"not YAML: {error.message}", error.line, error.column, error.hint) from None
    return data, lambda: _yaml_places(text, caps)


def _read_json(name: str, text: str, caps: Caps) -> tuple[Any, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) < len(items):
            keys = [key for key, _ in items]
            raise ValueError(f"the key `{next(key for key in keys if keys.count(key) > 1)}` stands twice")
        return table

    def constant(word: str) -> Any:
        raise ValueError(f"`{word}` is not a number")

    try:
        data = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise _broken(name, f"not JSON: {_lowered(error.msg)}", error.lineno, error.colno) from None
    except RecursionError:
        raise _broken(name, "not JSON: nested too deeply") from None
    except ValueError as error:
        line, column = _json_place(text, caps)
        raise _broken(name, f"not JSON: {error}", line, column) from None
    if _SURROGATE.search(text):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _broken(name, "not JSON: an escape `\\ud…` stands for half of a character") from None
    return data, lambda: _yaml_places(text.replace("\t", " "), caps)


def _json_place(text: str, caps: Caps) -> Place:
    """Where the YAML reader, which keeps places, sees a duplicate key of JSON."""
    from repeater.jobfile.yaml_core import NotYaml, read_yaml

    try:
        read_yaml(text.replace("\t", " "), caps.depth)
    except NotYaml as error:
        return error.line, error.column
    return 0, 0


def _yaml_places(text: str, caps: Caps) -> Places:
    from repeater.jobfile.yaml_core import NotYaml, read_yaml

    places: dict[Path, Place] = {}
    with suppress(NotYaml):  # JSON that YAML does not know: messages go without the places that were not reached
        read_yaml(text, caps.depth, places)
    return places


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_READERS = {"toml": _read_toml, "yaml": _read_yaml, "json": _read_json}


def check_tree(document: Document, depth: int) -> None:
    """Depth, numbers that are none, dates to text. Shared parts, as YAML's aliases give, are visited once."""
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
                if kind is str or kind is int or kind is bool:
                    continue
                if kind is dict or kind is list:
                    below.append(((*path, key), value))
                elif kind is float and not math.isfinite(value):
                    problem = document.problem((*path, key), f"found `{value}`, expected a finite number")
                    raise JobFileError([problem])
                elif isinstance(value, datetime | date | time):
                    tree[key] = value.isoformat().replace("+00:00", "Z")
        if not below:
            return
        level = below
    raise JobFileError([Problem(document.name, 0, 0, dotted(level[0][0][:4]), f"more than {depth} levels deep")])


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _broken(name: str, cause: str, line: int = 0, column: int = 0, hint: str | None = None) -> JobFileError:
    return JobFileError([Problem(name, line, column, "", cause, hint)])
