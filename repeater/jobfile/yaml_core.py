"""Loads YAML 1.2 core from parse events, in one pass and without recursion. The only module that imports PyYAML.

PyYAML's own loader reads YAML 1.1 (`on` is true, `22:00:00` is 79200), keeps the last of duplicate keys, and its C
composer crashes on deep nesting. So only the events of its parsers are used: scalars are resolved by the core schema
(https://yaml.org/spec/1.2.2/#103-core-schema), every key is text, duplicate keys and deep nesting are errors, and the
expanded size of aliases is limited. Merge keys (`<<`) are not part of YAML 1.2.
"""

from __future__ import annotations

import re
from typing import Any

from repeater.jobfile.document import Path, Place
from repeater.jobfile.number_text import written_float, written_int

MOST_NODES = 2_000_000  # after expansion of aliases; 10 000 jobs have a tenth of it

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


class YamlSyntaxError(Exception):
    """The text is not valid YAML 1.2 core. The position counts from 1. `index` is the offset in characters of a text
    that may need quotes; None if quotes would not help.
    """

    def __init__(self, message: str, line: int, column: int, hint: str | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.hint, self.index = message, line, column, hint, index


def read_yaml(text: str, depth: int, places: dict[Path, Place] | None = None) -> Any:
    """The data of the one document in `text`; None if it is empty. Fills `places` if given. Raises NotYaml."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree = _Tree(depth, places)
    try:
        for event in yaml.parse(text, Loader=loader):
            tree.take(event)
    except yaml.MarkedYAMLError as error:
        raise _explained(text, error, depth, tree.quoted) from None
    except yaml.reader.ReaderError as error:
        at = text.find(chr(error.character)) if isinstance(error.character, int) else -1
        at = max(at, 0)  # the position of the error counts bytes or characters, depending on the parser
        raise YamlSyntaxError(f"character #x{ord(text[at]):02x} is not allowed", *_place(text, at)) from None
    except YamlSyntaxError as error:
        raise _quoted(text, error) from None
    return tree.root


def _explained(text: str, error: Any, depth: int, quoted: tuple[int, int] | None) -> YamlSyntaxError:
    """An explanation of the parser's error. `quoted` is the extent of the last text in quotes."""
    from repeater.jobfile.syntax_errors import yaml_broken

    mark = error.problem_mark or error.context_mark
    message = ", ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return YamlSyntaxError(message, 0, 0)
    if _brackets(text, mark.index) > depth:
        # newer parsers look ahead for a key and fail before our own limit
        return YamlSyntaxError(f"more than {depth} levels of nesting", mark.line + 1, mark.column + 1)
    context = error.context_mark.index if error.context_mark else None
    broken = yaml_broken(text, mark.index, context, message, quoted)
    if broken is None:
        return YamlSyntaxError(message, mark.line + 1, mark.column + 1)
    return YamlSyntaxError(broken.cause, *_place(text, broken.at), broken.hint)


def _quoted(text: str, error: YamlSyntaxError) -> YamlSyntaxError:
    """The error, with a hint about quotes if missing quotes may be the cause."""
    from repeater.jobfile.syntax_errors import yaml_indicator

    broken = None if error.index is None else yaml_indicator(text, error.index)
    if broken is None or error.hint is not None:
        return error
    if broken.is_template:
        return YamlSyntaxError(broken.cause, *_place(text, broken.at), broken.hint)
    return YamlSyntaxError(error.message, error.line, error.column, broken.hint)


def _place(text: str, at: int) -> Place:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _brackets(text: str, end: int) -> int:
    """The number of open brackets at an offset, ignoring quotes and comments."""
    return sum(text.count(one, 0, end) for one in "[{") - sum(text.count(one, 0, end) for one in "]}")


class _Tree:
    """Handles events one by one; `open` has the unfinished collections, the outermost first."""

    def __init__(self, depth: int, places: dict[Path, Place] | None) -> None:
        self.root: Any = None
        self.depth = depth
        self.places = places
        self.open: list[_Open] = []
        self.anchors: dict[str, _Anchored] = {}
        self.documents = 0
        self.nodes = 0
        self.quoted: tuple[int, int] | None = None

    def take(self, event: Any) -> None:
        name = type(event).__name__
        if name == "ScalarEvent":
            plain = event.implicit[0]
            if event.style in ("'", '"'):
                self.quoted = event.start_mark.index, event.end_mark.index
            if self.awaits_key():
                if event.anchor:
                    self.anchors[event.anchor] = _Anchored(_resolve(event, plain), 1, event.value)
                self.key(event.value, event.start_mark, merges=plain)
                return
            self.put(_resolve(event, plain), event)
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self.open) >= self.depth:
                raise _not_yaml(f"more than {self.depth} levels of nesting", event.start_mark)
            if self.awaits_key():
                raise _not_yaml("a key must be text", event.start_mark, quotable=True)
            _known_tag(event, "map" if name[0] == "M" else "seq")
            value: Any = {} if name[0] == "M" else []
            before = self.nodes
            path = self.put(value, event)
            self.open.append(_Open(value, path, event.anchor, before))
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            done = self.open.pop()
            if done.anchor:
                self.anchors[done.anchor] = _Anchored(done.value, self.nodes - done.before, None)
        elif name == "AliasEvent":
            self.alias(event)
        elif name == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise _not_yaml("found a second document, expected one", event.start_mark)

    def awaits_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def key(self, text: str, mark: Any, *, merges: bool) -> None:
        top = self.open[-1]
        if text == "<<" and merges:
            hint = "use `extends`, `defaults`, or an alias as a value"
            raise _not_yaml("merge keys (`<<`) are not part of YAML 1.2", mark, hint)
        if text in top.value:
            raise _not_yaml(f"duplicate key `{text}`", mark)
        top.key = text
        if self.places is not None:
            self.places[(*top.path, text)] = (mark.line + 1, mark.column + 1)

    def put(self, value: Any, event: Any, size: int = 1) -> Path:
        self.nodes += size
        if self.nodes > MOST_NODES:
            raise _not_yaml(f"aliases expand to more than {MOST_NODES} values", event.start_mark)
        if event.anchor and size == 1:
            self.anchors[event.anchor] = _Anchored(value, 1, getattr(event, "value", None))
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
        is_open = any(one.anchor == event.anchor for one in self.open)
        if is_open or event.anchor not in self.anchors:
            cause = f"the alias `*{event.anchor}` has no anchor above it"
            raise _not_yaml(cause, event.start_mark, quotable=not is_open)
        anchored = self.anchors[event.anchor]
        if not self.awaits_key():
            self.put(anchored.value, event, anchored.size + 1)
        elif anchored.text is None:
            raise _not_yaml("a key must be text", event.start_mark, quotable=True)
        else:
            self.key(anchored.text, event.start_mark, merges=False)


class _Anchored:
    """The value of an anchor; `text` is that of a scalar, None for a collection."""

    __slots__ = ("size", "text", "value")

    def __init__(self, value: Any, size: int, text: str | None) -> None:
        self.value, self.size, self.text = value, size, text


class _Open:
    __slots__ = ("anchor", "before", "key", "path", "value")

    def __init__(self, value: Any, path: Path, anchor: str | None, before: int) -> None:
        self.value, self.path, self.anchor, self.before = value, path, anchor, before
        self.key: str | None = None


def _resolve(event: Any, plain: bool) -> Any:
    text: str = event.value
    tag = event.tag
    if tag == "!" or (tag is None and not plain):
        return text
    if tag is None:
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
    cause = f"the tag `{tag.removeprefix(_TAG)}` does not match `{text[:40]}`, or is unknown"
    raise _not_yaml(cause, event.start_mark, quotable=not tag.startswith(_TAG))


def _number(text: str, mark: Any) -> Any:
    if _INT.fullmatch(text):
        if len(text) > 300:
            raise _not_yaml("a number of more than 300 digits", mark)
        return written_int(text, 8 if text[:2] == "0o" else 16 if text[:2] == "0x" else 10)
    if _FLOAT.fullmatch(text):
        return written_float(text)
    if _ODD_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _known_tag(event: Any, name: str) -> None:
    if event.tag not in (None, "!", _TAG + name):
        raise _not_yaml(f"unknown tag `{event.tag.removeprefix(_TAG)}`", event.start_mark)


def _not_yaml(message: str, mark: Any, hint: str | None = None, *, quotable: bool = False) -> YamlSyntaxError:
    return YamlSyntaxError(message, mark.line + 1, mark.column + 1, hint, mark.index if quotable else None)
