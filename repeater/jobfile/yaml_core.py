"""YAML 1.2 core, from parse events, in one pass and without recursion.

PyYAML's own loader reads YAML 1.1 (`on` is true, `22:00:00` is 79200), keeps the last of duplicate keys, and its C
composer dies of deep nesting; its parsers are sound. So only their events are used: scalars are resolved as the core
schema says (https://yaml.org/spec/1.2.2/#103-core-schema), every key is text, duplicate keys and deep nesting are
errors, and what aliases unfold to is counted. Merge keys (`<<`) are not part of YAML 1.2. The home of PyYAML.
"""

from __future__ import annotations

import re
from typing import Any

from repeater.jobfile.document import Path, Place

MOST_NODES = 2_000_000  # after aliases were unfolded; 10 000 jobs have a tenth of it

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


class NotYaml(Exception):
    """The text is not YAML as we read it. The place counts from 1."""

    def __init__(self, message: str, line: int, column: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.hint = message, line, column, hint


def read_yaml(text: str, depth: int, places: dict[Path, Place] | None = None) -> Any:
    """The data of the one document in `text`; None if it is empty. Fills `places` if given. Raises NotYaml."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree = _Tree(depth, places)
    try:
        for event in yaml.parse(text, Loader=loader):
            tree.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        if "maximum nesting depth" in words:  # newer parsers look ahead for a key, and give up before our own limit
            words = f"more than {depth} levels deep"
        raise NotYaml(words, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotYaml(f"character #x{error.character:02x} is not allowed", line, 0) from None
    return tree.root


class _Tree:
    """Takes events one by one; `open` holds the collections that are not finished, the outermost first."""

    def __init__(self, depth: int, places: dict[Path, Place] | None) -> None:
        self.root: Any = None
        self.depth = depth
        self.places = places
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.documents = 0
        self.nodes = 0

    def take(self, event: Any) -> None:
        name = type(event).__name__
        if name == "ScalarEvent":
            plain = event.implicit[0]
            if self.awaits_key():
                self.key(event.value, event.start_mark)
                return
            value = event.value if not plain and event.tag in (None, "!") else _resolve(event, plain)
            self.put(value, event)
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self.open) >= self.depth:
                raise _not_yaml(f"more than {self.depth} levels deep", event.start_mark)
            if self.awaits_key():
                raise _not_yaml("a key must be text", event.start_mark)
            _known_tag(event, "map" if name[0] == "M" else "seq")
            value = {} if name[0] == "M" else []
            before = self.nodes
            path = self.put(value, event)
            self.open.append(_Open(value, path, event.anchor, before))
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            done = self.open.pop()
            if done.anchor:
                self.anchors[done.anchor] = (done.value, self.nodes - done.before)
        elif name == "AliasEvent":
            self.alias(event)
        elif name == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise _not_yaml("a second document begins; a job file is one document", event.start_mark)

    def awaits_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def key(self, text: str, mark: Any) -> None:
        top = self.open[-1]
        if text == "<<":
            hint = "use `extends`, `defaults`, or an alias as a value"
            raise _not_yaml("merge keys (`<<`) are not part of YAML 1.2", mark, hint)
        if text in top.value:
            raise _not_yaml(f"the key `{text}` stands here twice", mark)
        top.key = text
        if self.places is not None:
            self.places[(*top.path, text)] = (mark.line + 1, mark.column + 1)

    def put(self, value: Any, event: Any, size: int = 1) -> Path:
        self.nodes += size
        if self.nodes > MOST_NODES:
            raise _not_yaml(f"aliases unfold to more than {MOST_NODES} values", event.start_mark)
        if event.anchor and size == 1:
            self.anchors[event.anchor] = (value, 1)
        if not self.open:
            self.root = value
            return ()
        top = self.open[-1]
        if isinstance(top.value, dict):
            path = (*top.path, top.key or "")
            top.value[top.key] = value
            top.key = None
        else:
            path = (*top.path, len(top.value))
            top.value.append(value)
            if self.places is not None:
                self.places[path] = (event.start_mark.line + 1, event.start_mark.column + 1)
        return path

    def alias(self, event: Any) -> None:
        if self.awaits_key():
            raise _not_yaml("a key must be text", event.start_mark)
        if event.anchor not in self.anchors or any(one.anchor == event.anchor for one in self.open):
            raise _not_yaml(f"the alias `*{event.anchor}` refers to nothing above it", event.start_mark)
        value, size = self.anchors[event.anchor]
        self.put(value, event, size + 1)


class _Open:
    __slots__ = ("anchor", "before", "key", "path", "value")

    def __init__(self, value: Any, path: Path, anchor: str | None, before: int) -> None:
        self.value, self.path, self.anchor, self.before = value, path, anchor, before
        self.key: str | None = None


def _resolve(event: Any, plain: bool) -> Any:
    text: str = event.value
    tag = event.tag
    if plain and tag in (None, "!"):
        if text in _NULL:
            return None
        first = text[0]
        if first in "tTfF":
            return _BOOL.get(text, text)
        if first in "-+.0123456789":
            return _number(text, event.start_mark)
        return text
    if tag == _TAG + "str":
        return text
    if tag in (_TAG + "int", _TAG + "float"):
        number = _number(text, event.start_mark)
        if not isinstance(number, str):
            return float(number) if tag == _TAG + "float" else number
    if tag == _TAG + "bool" and text in _BOOL:
        return _BOOL[text]
    if tag == _TAG + "null" and text in _NULL:
        return None
    raise _not_yaml(f"the tag `{tag.removeprefix(_TAG)}` does not fit `{text[:40]}`, or is not known", event.start_mark)


def _number(text: str, mark: Any) -> Any:
    if _INT.fullmatch(text):
        if len(text) > 300:
            raise _not_yaml("a number of more than 300 digits", mark)
        return int(text, 8) if text[:2] == "0o" else int(text, 16) if text[:2] == "0x" else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _ODD_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _known_tag(event: Any, name: str) -> None:
    if event.tag not in (None, "!", _TAG + name):
        raise _not_yaml(f"the tag `{event.tag.removeprefix(_TAG)}` is not known", event.start_mark)


def _not_yaml(message: str, mark: Any, hint: str | None = None) -> NotYaml:
    return NotYaml(message, mark.line + 1, mark.column + 1, hint)
