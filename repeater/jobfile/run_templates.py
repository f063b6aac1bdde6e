"""Plain run templates, which are rendered in the event loop without jinja2.

A text is plain if each of its templates is `run.FIELD`, an attribute of an instant (`run.nominal.year`) or a literal,
with any number of the filters `date`, `sh`, `tojson` and `default` whose arguments are literals. Its length bounds the
time to parse and render it. Any other text is user code and is rendered in a separate process with a time limit
(`ports.RunTemplateRenderer`). `template.render_late` returns the same text for both.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias

from repeater._lazy_dataclasses import dataclass, replace
from repeater.jobfile.template import (
    RUN_FIELDS,
    TemplateFailed,
    cap_result,
    filter_date,
    render_at_start,
)
from repeater.model.spec import ProcessSpec

LONGEST_PLAIN = 8192
"""Maximum number of characters of a job's run templates that are rendered in the loop."""
RENDER_LIMIT = 0.25
"""Maximum CPU time in seconds for all other run templates of a run."""
_PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")
_OTHER_SYNTAX = re.compile(r"\{(?:[{%#]|\Z)|\r")
_TOKEN = re.compile(
    r"""\s*(?: (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*") | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))
    | (?P<name>[A-Za-z_]\w*) | (?P<end>\}\}) | (?P<mark>[\[\]{}(),:.|]) )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"true": True, "false": False, "none": None, "True": True, "False": False, "None": None}
_FILTERS = ("date", "sh", "tojson", "default", "d")


@dataclass(frozen=True, slots=True)
class _Expression:
    """`path` is the field of `run` and its attributes, () for the literal `value`; then the filters, in order."""

    path: tuple[str, ...]
    value: Any
    filters: tuple[tuple[str, tuple[Any, ...]], ...]


_Part: TypeAlias = str | _Expression


def is_plain(process: ProcessSpec) -> bool:
    """Whether all run templates of the process are plain, and short in total."""
    texts = [text for _, text in _late_texts(process)]
    return sum(map(len, texts)) <= LONGEST_PLAIN and all(_parsed(text) is not None for text in texts)


def render_plain(process: ProcessSpec, run: Mapping[str, Any]) -> ProcessSpec:
    """The process with all run templates rendered; `is_plain` must be true. `run` has the fields `RUN_FIELDS`.

    Raises TemplateFailed.
    """
    texts = {field: _rendered(text, run) for field, text in _late_texts(process)}
    return with_texts(process, texts)


def render_all(process: ProcessSpec, run: Mapping[str, Any]) -> ProcessSpec:
    """The same for any run templates, with jinja2. The time is not bounded. Raises TemplateFailed."""
    return with_texts(process, {field: render_at_start(text, run) for field, text in _late_texts(process)})


def with_texts(process: ProcessSpec, texts: Mapping[str, str]) -> ProcessSpec:
    """The process with the rendered text of each late field, named as in `ProcessSpec.late`."""
    command = process.command
    return replace(
        process,
        command=texts.get("command", command)
        if isinstance(command, str)
        else tuple(texts.get(f"command[{number}]", word) for number, word in enumerate(command)),
        cwd=texts.get("cwd", process.cwd),
        stdin=texts.get("stdin", process.stdin),
        env=tuple((name, texts.get(f"env.{name}", value)) for name, value in process.env),
        late=(),
    )


def _late_texts(process: ProcessSpec) -> Iterator[tuple[str, str]]:
    late, command = frozenset(process.late), process.command
    if isinstance(command, str):
        found = [("command", command)]
    else:
        found = [(f"command[{number}]", word) for number, word in enumerate(command)]
    found += [("cwd", process.cwd), ("stdin", process.stdin)]
    found += [(f"env.{name}", value) for name, value in process.env]
    return ((field, text) for field, text in found if field in late)


def _rendered(text: str, run: Mapping[str, Any]) -> str:
    parts = _parsed(text)
    assert parts is not None
    try:
        out = [part if isinstance(part, str) else _shown(_value(part, run)) for part in parts]
    except TemplateFailed:
        raise
    except Exception as error:  # noqa: BLE001 - such as a date of the year 0
        raise TemplateFailed(f"{type(error).__name__}: {error}"[:160]) from None
    cap_result(sum(map(len, out)))
    return "".join(out)


def _value(expression: _Expression, run: Mapping[str, Any]) -> Any:
    value = expression.value
    if expression.path:
        value = run[expression.path[0]]
        for name in expression.path[1:]:
            value = getattr(value, name)
    for name, args in expression.filters:
        if name == "date":
            value = filter_date(value, *args)
        elif name == "sh":
            value = _quoted(value)
        elif name == "tojson":
            value = _json(value)
        elif (
            len(args) > 1 and args[1] and not value
        ):  # all fields of `run` are defined, so only `boolean` has an effect
            value = args[0]
    return value


def _shown(value: Any) -> str:
    """The value as text, as in `template.as_text`."""
    if isinstance(value, str) or type(value) in (int, float):
        return str(value)
    return _iso(value) if isinstance(value, datetime) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(_iso(value) if isinstance(value, datetime) else value, ensure_ascii=False)


def _iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _quoted(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(shlex.quote(_shown(one)) for one in value)
    return shlex.quote(_shown(value))


class _OtherSyntax(Exception):
    """The template is not plain."""


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[_Part, ...] | None:
    """The parts of a plain text; None if the text is not plain."""
    if len(text) > LONGEST_PLAIN:
        return None
    parts: list[_Part] = []
    at = 0
    try:
        while (start := text.find("{{", at)) >= 0:
            _add(parts, text[at:start])
            if text[start + 2 : start + 3] in ("-", "+"):  # whitespace control
                raise _OtherSyntax
            reader = _Reader(text, start + 2)
            parts.append(reader.expression())
            at = reader.at
        _add(parts, text[at:])
    except _OtherSyntax:
        return None
    return tuple(parts)


def _add(parts: list[_Part], text: str) -> None:
    if _OTHER_SYNTAX.search(text):
        raise _OtherSyntax
    if text:
        parts.append(text)


class _Reader:
    """Parses one expression up to the end of its template. Raises _OtherSyntax if it is not plain."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.kind, self.word = "", ""
        self._next()

    def expression(self) -> _Expression:
        path: tuple[str, ...] = ()
        value = None
        if self.kind == "name" and self.word == "run":
            self._next()
            path = self._path()
        else:
            value = self._literal(0)
        filters = []
        while self._takes("|"):
            filters.append(self._filter())
        if self.kind != "end":
            raise _OtherSyntax
        return _Expression(path, value, tuple(filters))

    def _path(self) -> tuple[str, ...]:
        self._expect(".")
        names = [self._name()]
        while self._takes("."):
            names.append(self._name())
        if names[0] not in RUN_FIELDS or len(names) > 2:
            raise _OtherSyntax
        if len(names) == 2 and (names[0] not in ("nominal", "due") or names[1] not in _PARTS):
            raise _OtherSyntax
        return tuple(names)

    def _filter(self) -> tuple[str, tuple[Any, ...]]:
        name = self._name()
        if name not in _FILTERS:
            raise _OtherSyntax
        args: list[Any] = []
        if self._takes("("):
            while not self._takes(")"):
                args.append(self._literal(0))
                if not self._takes(","):
                    self._expect(")")
                    break
        most, needs_text = {"date": (1, True), "sh": (0, False), "tojson": (0, False)}.get(name, (2, False))
        if len(args) > most or (needs_text and not all(isinstance(one, str) for one in args)):
            raise _OtherSyntax
        return name, tuple(args)

    def _literal(self, depth: int) -> Any:
        kind, word = self.kind, self.word
        if depth > 10:
            raise _OtherSyntax
        if kind == "string":
            self._next()
            try:
                return word[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
            except UnicodeDecodeError:
                raise _OtherSyntax from None
        if kind == "number":
            self._next()
            if len(word) > 300:
                raise _OtherSyntax
            return float(word) if "." in word else int(word)
        if kind == "name" and word in _WORDS:
            self._next()
            return _WORDS[word]
        if self._takes("("):
            value = self._literal(depth + 1)
            self._expect(")")
            return value
        if self._takes("["):
            return list(self._items("]", depth))
        if self._takes("{"):
            return dict(self._pairs(depth))
        raise _OtherSyntax

    def _items(self, end: str, depth: int) -> Iterator[Any]:
        while not self._takes(end):
            yield self._literal(depth + 1)
            if not self._takes(","):
                self._expect(end)
                return

    def _pairs(self, depth: int) -> Iterator[tuple[str, Any]]:
        while not self._takes("}"):
            key = self._literal(depth + 1)
            if not isinstance(key, str):
                raise _OtherSyntax
            self._expect(":")
            yield key, self._literal(depth + 1)
            if not self._takes(","):
                self._expect("}")
                return

    def _name(self) -> str:
        if self.kind != "name":
            raise _OtherSyntax
        word = self.word
        self._next()
        return word

    def _takes(self, mark: str) -> bool:
        if self.kind != "mark" or self.word != mark:
            return False
        self._next()
        return True

    def _expect(self, mark: str) -> None:
        if not self._takes(mark):
            raise _OtherSyntax

    def _next(self) -> None:
        if self.kind == "end":
            raise _OtherSyntax
        found = _TOKEN.match(self.text, self.at)
        if found is None or found.lastgroup is None:
            raise _OtherSyntax
        self.at, self.kind, self.word = found.end(), found.lastgroup, found[found.lastgroup]
