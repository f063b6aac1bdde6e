"""Renders templates in parsed strings with a restricted Jinja2, imported only if a string contains `{{` or `{%`.

A template is a short expression, not a program: one level of loops, no macros or imports, a fixed set of filters and
methods, results of at most 1 MiB. This bounds memory and nearly all time; the worker process that loads the files
enforces a time limit. A text that is one expression keeps the type of its value.

Texts that refer to `run` are *run templates*, or late: all other names are replaced by their values at load, so
`render_late` needs only the run. The result equals that of rendering with all names known (property test).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from functools import cache, lru_cache
from typing import Any, TypeAlias

from repeater.jobfile.document import RunTemplate, quote_value
from repeater.jobfile.number_text import WrittenFloat, WrittenInt

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
_FILTERS_OF_TEXT = ("string", "lower", "upper", "title", "capitalize", "trim")
_METHODS: dict[type, list[str]] = {
    str: re.findall(r"\w+", """
        lower upper strip lstrip rstrip split rsplit startswith endswith title capitalize removeprefix removesuffix
        isdigit isalpha isalnum splitlines partition rpartition find count"""),
    dict: ["get", "items", "keys", "values"],
    list: ["index", "count"],
    datetime: ["isoformat", "timestamp", "date", "time", "weekday", "isoweekday"],
}  # fmt: skip


class TemplateFailed(Exception):
    """A template has no value; the text is the cause. `hint` is a probable correction."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Names(dict[str, Any]):
    """A table for templates, with its name for messages."""

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
                f"the environment has no variable `{quote_value(name)}`; "
                f'`env("{quote_value(name)}", "…")` gives a default'
            )
        return value


def render(text: str, names: Mapping[str, Any]) -> Any:
    """The value of one template; a `RunTemplate` if it refers to `run`.

    Raises TemplateFailed.
    """
    found = _replaced(text, names)
    if found is not _NOT_PLAIN:
        return found
    template, late = _compiled(text)
    try:
        if late:
            frozen = _freeze(text, names)
            _plain(_finish(template, {**names, "run": _SAMPLE}))
            return RunTemplate(frozen)
        return _plain(_finish(template, names))
    except TemplateFailed:
        raise
    except Exception as error:  # noqa: BLE001 - a template is user code, so it can raise any exception
        raise TemplateFailed(_cause(error)) from None


_NAME = re.compile(r"\{\{ *(vars|params|matrix|job)((?:\.[A-Za-z_][A-Za-z0-9_]*)+) *\}\}")
_MARK = re.compile(r"\{(?:[{%#]|\Z)|\r")
_NOT_PLAIN = object()


def _replaced(text: str, names: Mapping[str, Any]) -> Any:
    """The value of a text whose templates are only names, computed without jinja but equal to its result.

    Most texts are of this kind, and jinja needs nine seconds to compile ten thousand of them. `_NOT_PLAIN` for any
    other text, and for missing names, for which jinja makes the message.
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
        out.append(str(as_text(value)))
    cap_result(sum(map(len, out)))
    return "".join(out)


def render_at_start(template: str, run: Mapping[str, Any]) -> str:
    """The text of one late field. `run` has the fields `RUN_FIELDS`.

    Raises TemplateFailed. A template may take any time: in a supervisor, see `jobfile.run_templates`.
    """
    names = {"run": Names("run", run), "env": Environ({})}
    try:
        return str(as_text(_plain(_finish(_compiled(template)[0], names))))
    except TemplateFailed:
        raise
    except Exception as error:  # noqa: BLE001
        raise TemplateFailed(_cause(error)) from None


_SAMPLE = Names("run", {
    "nominal": datetime(2026, 1, 1, tzinfo=UTC), "due": datetime(2026, 1, 1, tzinfo=UTC),
    "attempt": 1, "id": "sample", "trigger": "schedule",
})  # fmt: skip


@cache
def _environment() -> Any:  # noqa: C901 - two small classes that need the imports
    from jinja2 import StrictUndefined, nodes
    from jinja2.compiler import CodeGenerator
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    class Missing(StrictUndefined):
        """Reports the missing name and the nearest existing one."""

        @property
        def _undefined_message(self) -> str:
            name, owner = str(self._undefined_name), self._undefined_obj
            if self._undefined_hint:
                return self._undefined_hint
            if isinstance(owner, Names):
                import difflib

                near = difflib.get_close_matches(name, owner, 1)
                return f"`{owner.name}.{quote_value(name)}` is not defined" + (
                    f"; did you mean `{owner.name}.{near[0]}`?" if near else ""
                )
            return f"`{quote_value(name)}` is not defined"

    class Joined(NodeTransformer):
        """Converts `a ~ b` to the filter `join`, which limits the length of its result."""

        def visit_Concat(self, node: Any) -> Any:  # noqa: N802 - the name is jinja's
            return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno)

    class Unfolded(CodeGenerator):
        def _output_child_to_const(self, node: Any, frame: Any, finalize: Any) -> str:
            if isinstance(node, nodes.TemplateData):
                return super()._output_child_to_const(node, frame, finalize)
            raise nodes.Impossible

    class Fence(ImmutableSandboxedEnvironment):
        code_generator_class = Unfolded
        intercepted_binops = frozenset({"*", "**", "%", "+"})

        def getattr(self, obj: Any, attribute: str) -> Any:
            """The keys of a table have precedence over its methods: `vars.items` is a variable."""
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if not callable(value):
                return super().is_safe_attribute(obj, attr, value)
            return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "+" and isinstance(left, str | list) and isinstance(right, str | list):
                cap_result(len(left) + len(right))
            elif not (isinstance(left, int | float) and isinstance(right, int | float)):
                raise SecurityError(f"`{operator}` is allowed only for numbers")
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
            """Block `str.format`, which jinja allows with any width."""

    # No optimizer: jinja would evaluate constants at compile time, also in branches that are not executed.
    fence = Fence(
        undefined=Missing, autoescape=False, cache_size=0, keep_trailing_newline=True, finalize=as_text, optimized=False
    )
    fence.filters = {name: fence.filters[name] for name in _FILTERS} | {
        **{name: _of_text(fence.filters[name]) for name in _FILTERS_OF_TEXT},
        "sh": filter_sh, "date": filter_date, "tojson": filter_json, "join": _join, "replace": _replace,
        "round": _round,
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
        marks = re.search(r"\{[{%#]", _LITERAL_TEXT.sub("", text))
        opening = marks[0] if marks else "{{"
        if opening == "{#" and "#}" not in text:
            cause = "`{#` begins a comment that has no closing `#}`"
            raise TemplateFailed(cause, _how_to_write("{#")) from None
        raise TemplateFailed(_cause(error), _how_to_write(opening)) from None


_LITERAL_TEXT = re.compile(r"""\{\{ *(?:'[^'\\]*'|"[^"\\]*") *\}\}""")


def _how_to_write(mark: str) -> str:
    return f"to write `{mark}` itself, use `{{{{ '{mark}' }}}}`"


def _finish(template: Any, names: Mapping[str, Any]) -> Any:
    if hasattr(template, "root_render_func"):
        parts, size = [], 0
        for part in template.generate(dict(names)):
            size += len(part)
            cap_result(size)
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
            raise TemplateFailed("the result contains half of a character (a lone surrogate), which is not text")
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
    raise TemplateFailed("the value of the expression is not a text, number, list or table")


_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Lone surrogates, except those that stand for bytes of the environment that are not UTF-8 (PEP 383)."""
_CONSTANT_NAMES = ("vars", "params", "matrix", "job", "project", "env")


def _freeze(text: str, names: Mapping[str, Any]) -> str:
    """The late text with every name except `run` replaced by a literal of its value.

    An undefined name becomes an undefined expression, so that `default` and `is defined` give the same result later.
    Raises TemplateFailed for a missing name if the text does not test whether names are defined.
    """
    tokens = [(kind, word) for _, kind, word in _environment().lex(text)]
    words = {word for kind, word in tokens if kind == "name"}
    strict = not words & {"default", "d", "defined", "undefined"}
    constants = [name for name in _CONSTANT_NAMES if name in names and name in words - _loop_variables(text)]
    out: list[str] = []
    at = 0
    while at < len(tokens):
        kind, word = tokens[at]
        before = next((word for kind, word in reversed(tokens[:at]) if kind != "whitespace"), "")
        if kind != "name" or word not in constants or before in (".", "|"):
            out.append(word)
            at += 1
        elif word == "env":
            literal, at = _frozen_call(tokens, at, names, strict=strict)
            out.append(literal)
        else:
            literal, at = _frozen_name(tokens, at, names[word], strict=strict)
            out.append(literal)
    return "".join(out)


def _loop_variables(text: str) -> set[str]:
    from jinja2 import nodes

    tree = _environment().parse(text)
    return {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}


def _names_of(text: str) -> set[str]:
    from jinja2 import meta

    return set(meta.find_undeclared_variables(_environment().parse(text)))


_Tokens: TypeAlias = list[tuple[str, str]]


def _frozen_name(tokens: _Tokens, at: int, value: Any, *, strict: bool) -> tuple[str, int]:
    """The literal for the name at `at`, with its first attribute if it is a `Names`; the index after both."""
    after = [number for number in range(at + 1, len(tokens)) if tokens[number][0] != "whitespace"][:2]
    if isinstance(value, Names) and len(after) == 2 and tokens[after[0]][1] == ".":
        name = tokens[after[1]][1]
        if name in value:
            end = after[1] + 1
            return _literal(_written(tokens, at, end, value[name])), end
        if name not in _METHODS[dict]:
            if strict:
                _finish(_compiled("{{ " + value.name + "." + name + " }}")[0], {value.name: value})
            return "({})", at + 1  # `({}).name` is not defined
    return _literal(value), at + 1


def _written(tokens: _Tokens, at: int, end: int, value: Any) -> Any:
    """The text of a number that keeps its text, if the name is the whole expression; else the value."""
    if not isinstance(value, WrittenInt | WrittenFloat):
        return value
    before = next((kind for kind, _ in reversed(tokens[:at]) if kind != "whitespace"), "")
    after = next((kind for kind, _ in tokens[end:] if kind != "whitespace"), "")
    return str(value) if (before, after) == ("variable_begin", "variable_end") else value


def _frozen_call(tokens: _Tokens, at: int, names: Mapping[str, Any], *, strict: bool) -> tuple[str, int]:
    """The literal for a call of `env` whose arguments are known at load; the index after it.

    A call that fails at load remains a call, which fails with the same message if it is evaluated. Raises
    TemplateFailed for arguments that depend on the run.
    """
    first = next((number for number in range(at + 1, len(tokens)) if tokens[number][0] != "whitespace"), at)
    if tokens[first][1] != "(":
        return tokens[at][1], at + 1
    depth, end = 0, first
    for end in range(first, len(tokens)):
        kind, word = tokens[end]
        depth += (word in "([{") - (word in ")]}") if kind == "operator" else 0
        if depth == 0:
            break
    call = "".join(word for _, word in tokens[at : end + 1])
    template, _ = _compiled("{{ " + call + " }}")
    if not _names_of("{{ " + call + " }}") <= set(names):
        raise TemplateFailed(
            "the arguments of `env` cannot depend on `run` or on a loop: the environment is read at load time"
        )
    try:
        return _literal(_plain(_finish(template, names))), end + 1
    except TemplateFailed:
        if strict:
            raise
        return call, end + 1


def _literal(value: Any) -> str:
    """The value as an expression that is valid in any context."""
    if isinstance(value, str):
        return ascii(value)
    if isinstance(value, dict):
        return "({" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "})"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"({value!r})" if value < 0 or isinstance(value, float) else repr(value)


# --- filters ----------------------------------------------------------------------------------------------------


def as_text(value: Any) -> Any:
    """The value as text: texts and numbers unchanged, an instant as RFC 3339, everything else as JSON."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        return _plain(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return value if _is_undefined(value) else filter_json(value)


def _is_undefined(value: Any) -> bool:
    from jinja2 import Undefined

    return isinstance(value, Undefined)


def _of_text(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of texts that converts other values with `as_text`."""
    return lambda value, *args, **named: filter_(as_text(value), *args, **named)


def filter_sh(value: Any) -> str:
    """`sh`: one word for a POSIX shell; a list becomes several words."""
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(str(as_text(one))) for one in value)
    return shlex.quote(str(as_text(value)))


def filter_date(value: Any, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """`date`: an instant by strftime(3), without widths."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise TemplateFailed("`date` is for instants such as `run.nominal`")
    if len(form) > 200 or re.search(r"%[^A-Za-z%-]|%-[^A-Za-z]", form):
        raise TemplateFailed(f"unknown format `{quote_value(form)}` for `date`")
    return str(value.strftime(form))


def filter_json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _join(values: Any, between: str = "", attribute: str | None = None) -> str:
    items = [str(as_text(one if attribute is None else one[attribute])) for one in values]
    cap_result(sum(map(len, items)) + len(items) * len(str(between)))
    return str(between).join(items)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(as_text(value))
    cap_result(len(text) + text.count(old) * len(new))
    return text.replace(str(old), str(new), count)


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not isinstance(precision, int) or abs(precision) > 100:  # jinja computes 10**precision
        raise TemplateFailed("`round` takes at most 100 digits")
    from jinja2.filters import do_round

    return do_round(value, precision, method)  # type: ignore[arg-type]


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise TemplateFailed(f"the range has more than {LONGEST_RANGE} numbers")
    return numbers


def cap_result(size: int) -> None:
    if size > LONGEST_RESULT:
        raise TemplateFailed("the result is larger than 1 MiB")


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "the template is nested too deeply" + (", or needs too much memory" * isinstance(error, MemoryError))
    text = str(getattr(error, "message", None) or error).rstrip(".") or type(error).__name__
    return text[:1].lower() + text[1:160]
