"""Jinja2 on parsed strings, fenced in. The home of jinja2, imported only when a string holds `{{` or `{%`.

A template is a short expression, not a program: one level of loops, no macros or imports, a chosen set of filters and
methods, results of at most 1 MiB. That bounds memory and nearly all time; what is left is bounded by the process that
walks the road. A text that is one expression keeps the type of its value.

Texts that refer to `run` are *late*: everything else in them is replaced by its value at load, so a late text stands
for itself, and `render_late` needs nothing but the run.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from repeater.dataclass import replace
from repeater.jobfile.document import Late, shown
from repeater.model.spec import ProcessSpec

LONGEST_TEMPLATE = 64 * 1024
LONGEST_RESULT = 1 << 20
LONGEST_RANGE = 1_000
RUN_FIELDS = ("nominal", "due", "attempt", "id", "trigger")

_FILTERS = re.findall(
    r"\w+",
    """
    abs default d dictsort first float int items last length count list lower max min reject rejectattr reverse round
    select selectattr map sort string sum title capitalize trim truncate unique upper urlencode""",
)
_METHODS: dict[type, list[str]] = {
    str: re.findall(r"\w+", """
        lower upper strip lstrip rstrip split rsplit startswith endswith title capitalize removeprefix removesuffix
        isdigit isalpha isalnum splitlines partition rpartition find count"""),
    dict: ["get", "items", "keys", "values"],
    list: ["index", "count"],
    datetime: ["isoformat", "timestamp", "date", "time", "weekday", "isoweekday"],
}  # fmt: skip


class TemplateFailed(Exception):
    """A template that gives no value; the text says why."""


class Names(dict[str, Any]):
    """A table that templates see; it knows its own name, for messages."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.name = name


class Environ:
    """`env("NAME", default)`: a variable of the environment that rpr itself was started with."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values  # a name that no template may use

    def __call__(self, name: str, default: Any = None) -> Any:
        value = self._values.get(str(name), default)
        if value is None:
            raise TemplateFailed(
                f'the environment has no variable `{shown(name)}`; `env("{shown(name)}", "…")` gives a default'
            )
        return value


def render(text: str, names: Mapping[str, Any]) -> Any:
    """The value of one template; a `Late` text if it refers to `run`.

    Raises TemplateFailed.
    """
    found = _replaced(text, names)
    if found is not _NOT_PLAIN:
        return found
    template, late = _compiled(text)
    try:
        if late:
            frozen = _freeze(text, names)
            _plain(_finish(_compiled(frozen)[0], {"run": _SAMPLE}))
            return Late(frozen)
        return _plain(_finish(template, names))
    except TemplateFailed:
        raise
    except Exception as error:  # noqa: BLE001 - a template is a program that a user wrote; it may fail in any way
        raise TemplateFailed(_cause(error)) from None


_NAME = re.compile(r"\{\{ *(vars|params|matrix|job)((?:\.[A-Za-z_][A-Za-z0-9_]*)+) *\}\}")
_MARK = re.compile(r"\{(?:[{%#]|\Z)|\r")
_NOT_PLAIN = object()


def _replaced(text: str, names: Mapping[str, Any]) -> Any:
    """The value of a text whose templates are names and nothing more, without jinja, as jinja would give it.

    Most are, and compiling ten thousand of them takes nine seconds. `_NOT_PLAIN` for any other, and for names that
    are missing: the words for that are jinja's.
    """
    parts = _NAME.split(text)  # text, space, path, text, space, path, …, text
    out = []
    for number in range(0, len(parts), 3):
        if _MARK.search(parts[number]):
            return _NOT_PLAIN
        out.append(parts[number])
        if number + 1 == len(parts):
            break
        value = names.get(parts[number + 1])
        for name in parts[number + 2].split(".")[1:]:
            if not isinstance(value, dict) or name not in value:
                return _NOT_PLAIN
            value = value[name]
        if len(parts) == 4 and parts[0] == parts[3] == "":
            return value
        out.append(str(_text(value)))
    _cap(sum(map(len, out)))
    return "".join(out)


def render_late(process: ProcessSpec, run_names: Mapping[str, Any]) -> ProcessSpec:
    """The process with every late field rendered. `run_names` are the fields of `run`; see `RUN_FIELDS`.

    Raises TemplateFailed.
    """
    if not process.late:
        return process
    names = {"run": Names("run", run_names)}

    def text(field: str, template: str) -> str:
        if field not in process.late:
            return template
        try:
            return str(_plain(_finish(_compiled(template)[0], names)))
        except TemplateFailed:
            raise
        except Exception as error:  # noqa: BLE001
            raise TemplateFailed(_cause(error)) from None

    command = process.command
    return replace(
        process,
        command=text("command", command)
        if isinstance(command, str)
        else tuple(text(f"command[{number}]", word) for number, word in enumerate(command)),
        cwd=text("cwd", process.cwd),
        stdin=text("stdin", process.stdin),
        env=tuple((name, text(f"env.{name}", value)) for name, value in process.env),
        late=(),
    )


_SAMPLE = Names("run", {
    "nominal": datetime(2026, 1, 1, tzinfo=UTC), "due": datetime(2026, 1, 1, tzinfo=UTC),
    "attempt": 1, "id": "sample", "trigger": "schedule",
})  # fmt: skip


@cache
def _environment() -> Any:  # noqa: C901 - two small classes that need the imports
    from jinja2 import StrictUndefined, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    class Missing(StrictUndefined):
        """Says which name is missing, and the nearest one that is there."""

        @property
        def _undefined_message(self) -> str:
            name, owner = str(self._undefined_name), self._undefined_obj
            if self._undefined_hint:
                return self._undefined_hint
            if isinstance(owner, Names):
                import difflib

                near = difflib.get_close_matches(name, owner, 1)
                return f"`{owner.name}.{shown(name)}` is not defined" + (
                    f"; did you mean `{owner.name}.{near[0]}`?" if near else ""
                )
            return f"`{shown(name)}` is not defined"

    class Joined(NodeTransformer):
        """Turns `a ~ b` into the filter `join`, which knows how long its result may be."""

        def visit_Concat(self, node: Any) -> Any:  # noqa: N802 - the name is jinja's
            return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno)

    class Fence(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%", "+"})

        def getattr(self, obj: Any, attribute: str) -> Any:
            """A table's own keys come before its methods: `vars.items` is a variable."""
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if not callable(value):
                return super().is_safe_attribute(obj, attr, value)
            return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "+" and isinstance(left, str | list) and isinstance(right, str | list):
                _cap(len(left) + len(right))
            elif not (isinstance(left, int | float) and isinstance(right, int | float)):
                raise SecurityError(f"`{operator}` is only for numbers")
            elif operator == "**" and (abs(right) > 64 or abs(left) > 1 << 32):
                raise SecurityError("the power is too large")
            elif operator == "*" and len(f"{left}{right}") > 1000:
                raise SecurityError("the number is too large")
            return super().call_binop(context, operator, left, right)

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            return self.undefined(
                f"`{attribute}` of {type(obj).__name__} is not allowed in templates", exc=SecurityError
            )

        def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
            tree = super()._parse(source, name, filename)
            _check_shape(tree, nodes)
            return Joined().visit(tree)

        def wrap_str_format(self, value: Any) -> None:
            """Jinja would let `str.format` through, with a width of any size."""

    fence = Fence(undefined=Missing, autoescape=False, cache_size=0, keep_trailing_newline=True, finalize=_text)
    fence.filters = {name: fence.filters[name] for name in _FILTERS} | {
        "sh": _quote, "date": _date, "tojson": _to_json, "join": _join, "replace": _replace,
    }  # fmt: skip
    fence.globals = {"range": _range}
    fence.tests.pop("filter", None)
    fence.tests.pop("test", None)
    return fence


def _check_shape(tree: Any, nodes: Any) -> None:
    allowed = (nodes.If, nodes.For, nodes.Output)
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, allowed):
            raise TemplateFailed(f"the statement `{type(node).__name__.lower()}` is not allowed")
        if isinstance(node, nodes.For) and (
            node.recursive
            or any(isinstance(inner, nodes.For) or inner.find(nodes.For) for inner in (*node.body, *node.else_))
        ):
            raise TemplateFailed("a loop inside a loop is not allowed")


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[Any, bool]:
    """The compiled template, and whether it refers to `run`. Raises TemplateFailed."""
    if len(text) > LONGEST_TEMPLATE:
        raise TemplateFailed(f"the template has more than {LONGEST_TEMPLATE} characters")
    fence = _environment()
    from jinja2 import TemplateError, meta, nodes
    from jinja2.environment import TemplateExpression

    try:
        tree = fence.parse(text)
        late = "run" in meta.find_undeclared_variables(tree)
        body = tree.body
        single = len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1
        if single and not isinstance(body[0].nodes[0], nodes.TemplateData):
            wrapped = nodes.Template(
                [nodes.Assign(nodes.Name("result", "store"), body[0].nodes[0], lineno=1)], lineno=1
            )
            wrapped.set_environment(fence)
            return TemplateExpression(fence.from_string(wrapped), False), late
        return fence.from_string(text), late
    except TemplateFailed:
        raise
    except (TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise TemplateFailed(_cause(error)) from None


def _finish(template: Any, names: Mapping[str, Any]) -> Any:
    if hasattr(template, "root_render_func"):
        parts, size = [], 0
        for part in template.generate(dict(names)):
            size += len(part)
            _cap(size)
            parts.append(part)
        return "".join(parts)
    return template(dict(names))


def _plain(value: Any, budget: list[int] | None = None) -> Any:
    """The value as job-file data. Raises TemplateFailed for anything else, or when it is too large."""
    from jinja2 import Undefined

    budget = budget if budget is not None else [LONGEST_RESULT]
    budget[0] -= len(value) if isinstance(value, str) else 8
    if budget[0] < 0:
        raise TemplateFailed("the result is larger than 1 MiB")
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    if isinstance(value, str):
        if not value.isascii() and _HALF.search(value):
            raise TemplateFailed("the result holds half of a character (a lone surrogate), which is not text")
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(one, budget) for key, one in value.items()}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple) or hasattr(value, "__next__") or type(value).__name__.startswith("dict_"):
        return [_plain(one, budget) for one in value]
    if isinstance(value, range):
        return list(value)
    raise TemplateFailed("the expression gives no text, number, list or table")


_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Lone surrogates, except those that stand for bytes of the environment that are not UTF-8 (PEP 383)."""
_CONSTANT_NAMES = ("vars", "params", "matrix", "job", "project", "env")


def _freeze(text: str, names: Mapping[str, Any]) -> str:
    """The late text with every name but `run` replaced by a literal of its value."""
    tokens = list(_environment().lex(text))
    out: list[str] = []
    at = 0
    while at < len(tokens):
        kind, word = tokens[at][1], tokens[at][2]
        before = next((t[2] for t in reversed(tokens[:at]) if t[1] != "whitespace"), "")
        if kind != "name" or word not in _CONSTANT_NAMES or before == "." or word not in names:
            out.append(word)
            at += 1
            continue
        value, at = _constant(tokens, at, names[word])
        out.append(_literal(value))
    return "".join(out)


def _constant(tokens: list[tuple[int, str, str]], at: int, value: Any) -> tuple[Any, int]:
    """The value of the name at `at` with its call or its first part, and the index after them."""
    after = [token[2] for token in tokens[at + 1 : at + 8] if token[1] != "whitespace"]
    if isinstance(value, Environ):
        end = at
        while end < len(tokens) and tokens[end][2] != ")":
            end += 1
        call = "".join(token[2] for token in tokens[at : end + 1])
        return _plain(_finish(_compiled("{{ " + call + " }}")[0], {"env": value})), end + 1
    if after[:1] == ["."] and isinstance(value, Names):
        name = after[1] if len(after) > 1 else ""
        end = next(n for n in range(at + 1, len(tokens)) if tokens[n][2] == name and tokens[n][1] == "name")
        if name in value:
            return value[name], end + 1
        return _plain(_finish(_compiled("{{ " + value.name + "." + name + " }}")[0], {value.name: value})), end
    return value, at + 1


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return ascii(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value)


# --- filters ----------------------------------------------------------------------------------------------------


def _text(value: Any) -> Any:
    """How a value reads inside a text: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else value


def _quote(value: Any) -> str:
    """`sh`: one word for a POSIX shell; a list becomes several words."""
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(str(_text(one))) for one in value)
    return shlex.quote(str(_text(value)))


def _date(value: Any, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """`date`: an instant by strftime(3), without widths."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise TemplateFailed("`date` is for instants such as `run.nominal`")
    if len(form) > 200 or re.search(r"%[^A-Za-z%-]|%-[^A-Za-z]", form):
        raise TemplateFailed(f"`date` does not know the form `{shown(form)}`")
    return str(value.strftime(form))


def _to_json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _join(values: Any, between: str = "", attribute: str | None = None) -> str:
    items = [str(_text(one if attribute is None else one[attribute])) for one in values]
    _cap(sum(map(len, items)) + len(items) * len(str(between)))
    return str(between).join(items)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    _cap(len(text) + text.count(old) * len(new))
    return text.replace(str(old), str(new), count)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise TemplateFailed(f"the range has more than {LONGEST_RANGE} numbers")
    return numbers


def _cap(size: int) -> None:
    if size > LONGEST_RESULT:
        raise TemplateFailed("the result is larger than 1 MiB")


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "the template is nested too deeply" + (", or needs too much memory" * isinstance(error, MemoryError))
    text = str(getattr(error, "message", None) or error).rstrip(".") or type(error).__name__
    return text[:1].lower() + text[1:160]
