"""Writes job-file data as TOML, YAML or JSON text. Parsing the text gives the same data.

The writers are written by hand, because YAML 1.2 gives plain words another meaning than YAML 1.1 writers assume:
`0o17` is a number and `on` a text. Everything that is not certainly a plain word is quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_YAML = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_YAML_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def to_toml(data: Mapping[str, Any]) -> str:
    """TOML: plain values first, then a section for each table and each job."""
    lines = [f"{_toml_key(key)} = {_toml(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for key, table in data.items():
        if isinstance(table, dict):
            sections = table and all(isinstance(value, dict) for value in table.values())
            for name, value in table.items() if sections else [("", table)]:
                lines += ["", f"[{_toml_key(key)}{'.' + _toml_key(name) if sections else ''}]"]
                lines += [f"{_toml_key(one)} = {_toml(inner)}" for one, inner in value.items()]
    return "\n".join(lines) + "\n"


def to_yaml(data: Mapping[str, Any]) -> str:
    """YAML 1.2, block style."""
    return "\n".join(_yaml_table(data, "")) + "\n"


def to_json(data: Mapping[str, Any]) -> str:
    """JSON, indented."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {"toml": to_toml, "yaml": to_yaml, "json": to_json}


def toml_value(value: Any) -> str:
    """One value on one line, as TOML."""
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value, "\\u{:04x}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        inner = ", ".join(f"{_toml_key(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _quoted(key, "\\u{:04x}")


def _yaml_table(table: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in table.items():
        name = _yaml(key)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _yaml_table(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_yaml(value)}"


def _yaml(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN_YAML.fullmatch(value) and value.lower() not in _YAML_WORDS
        return value if plain else _quoted(value, "\\u{:04x}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_yaml(key)}: {_yaml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return "null" if value is None else repr(value)


def _quoted(text: str, form: str) -> str:
    """A text in double quotes, with non-printable characters escaped."""
    out = []
    for char in text:
        if char in _SHORT:
            out.append(_SHORT[char])
        elif char.isprintable():
            out.append(char)
        else:
            out.append(form.format(ord(char)) if ord(char) < 1 << 16 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'
