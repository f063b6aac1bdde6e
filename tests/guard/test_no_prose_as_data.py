"""No code branches on, parses or strips an English sentence: it reads codes and fields (`model.reasons`).

A syntax check. It finds string methods, `in`, comparisons with a text and regular expressions that are applied to a
sentence. A sentence is what has the name of one (`NAMES`), what `sentence(...)` returns, the text of an exception, and
a local variable that was made of these. A wire message is a mapping; it may be asked for its keys.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import repeater

ROOT = Path(repeater.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))
NAMES = frozenset({
    "reason", "message", "detail", "fact", "facts", "sentence", "sentences", "problem", "problems", "trouble", "troubles",
    "warning", "warnings", "fault_sentence", "explanation", "complaint", "strerror",
})  # fmt: skip
MAKERS = frozenset({"sentence", "told", "text_of"})
"""Functions that return a sentence."""
METHODS = frozenset({
    "startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit", "find",
    "rfind", "index", "rindex", "count", "replace", "casefold", "lower", "upper", "strip", "lstrip", "rstrip",
})  # fmt: skip
SEARCHES = frozenset({"search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split"})
ALLOWED = frozenset({"store/format1.py", "jobfile/syntax_errors.py"})
"""The migration of state that version 0.1 wrote: a frozen table of its sentences. And the messages of the parsers of
TOML, JSON and YAML, which have no codes."""


def named(node: ast.expr, made: frozenset[str] = frozenset()) -> str | None:
    """`reason` for `reason`, `row.reason`, `str(row.reason)` and `(row.reason or "")`; None for anything else.

    `made` are the local variables that hold sentences.
    """
    match node:
        case ast.Name(id=name) if name in NAMES or name in made:
            return name
        case ast.Attribute(attr=name) if name in NAMES:
            return name
        case ast.NamedExpr(value=value):
            return named(value, made)
        case ast.Subscript(value=value, slice=ast.Constant(value=int())):
            return named(value, made)
        case ast.BoolOp(values=values):
            return next((found for value in values if (found := named(value, made)) is not None), None)
        case ast.Call(func=ast.Name(id=name)) if name in MAKERS:
            return name
        case ast.Call(func=ast.Name(id="str"), args=[argument]):
            return "str(error)" if is_exception(argument) else named(argument, made)
        case _:
            return None


def is_exception(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"error", "exception", "exc"}


def sentences_in(scope: ast.AST) -> frozenset[str]:
    """The local variables of a function that are assigned something made of a sentence."""
    found: frozenset[str] = frozenset()
    for _ in range(3):  # a variable may be made of another one
        for node in ast.walk(scope):
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.NamedExpr(target=ast.Name(id=name), value=value)
                ) if is_made_of_sentence(value, found):
                    found |= {name}
                case _:
                    pass
    return found


def is_made_of_sentence(value: ast.expr, made: frozenset[str]) -> bool:
    match value:
        case ast.JoinedStr(values=parts):
            inner = [part.value for part in parts if isinstance(part, ast.FormattedValue)]
            return any(named(one, made) is not None for one in inner)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_made_of_sentence(left, made) or is_made_of_sentence(right, made)
        case ast.IfExp(body=body, orelse=orelse):
            return is_made_of_sentence(body, made) or is_made_of_sentence(orelse, made)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr="join"), args=[parts_]):
            return any(isinstance(node, ast.expr) and named(node, made) is not None for node in ast.walk(parts_))
        case ast.Attribute(attr="reason" | "detail" | "message"):
            return False  # a reason, which is no text; a wire message
        case ast.Name(id=name):
            return name in made
        case _:
            return named(value, made) is not None and not isinstance(value, ast.Name)


def is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return bool(text)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(map(is_text, parts))
        case ast.JoinedStr():
            return True
        case _:
            return False


def mappings(tree: ast.AST) -> set[str]:
    """Names that are asked for a key somewhere: these are wire messages or the fields of a reason."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value=str())):
                found.add(ast.unparse(value))
            case ast.Call(func=ast.Attribute(value=value, attr="get" | "items" | "keys")):
                found.add(ast.unparse(value))
            case _:
                pass
    return found


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and source of each use of a sentence as data."""
    for scope in outermost_functions(tree):
        joined = words_joined_again(scope)
        known, made = mappings(scope), sentences_in(scope)
        for node in ast.walk(scope):
            if node not in joined and is_fault(node, known, made):
                yield node.lineno, ast.unparse(node)  # type: ignore[attr-defined]


def words_joined_again(scope: ast.AST) -> set[ast.AST]:
    """`" ".join(text.split())` makes one line of a text, and reads nothing of it."""
    found = set[ast.AST]()
    for node in ast.walk(scope):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=" "), attr="join"),
                args=[ast.Call(func=ast.Attribute(attr="split"), args=[]) as split],
            ):
                found.add(split)
            case _:
                pass
    return found


def outermost_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
        else:
            yield from outermost_functions(child)


def is_fault(node: ast.AST, known: set[str], made: frozenset[str]) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=args):
            if method in METHODS and named(value, made) is not None:
                return True
            return method in SEARCHES and any(named(argument, made) is not None for argument in args)
        case ast.Compare(left=left, ops=ops, comparators=[*_, right]):
            if isinstance(ops[-1], ast.In | ast.NotIn) and named(right, made) is not None:
                return is_text(left) and ast.unparse(right) not in known
            is_compared = isinstance(ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn)
            return is_compared and named(left, made) is not None and is_text(right)
        case ast.Match(subject=subject, cases=cases):
            return named(subject, made) is not None and any(
                isinstance(case.pattern, ast.MatchValue) and is_text(case.pattern.value) for case in cases
            )
        case _:
            return False


def test_no_module_reads_a_sentence() -> None:
    found = []
    for path in MODULES:
        name = str(path.relative_to(ROOT))
        if name not in ALLOWED:
            found += [f"{name}:{line}: {source}" for line, source in sorted(set(faults(ast.parse(path.read_text()))))]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        'row.reason.startswith("upstream_failed")',
        '(row.reason or "").partition(":")',
        'verdict.reason.endswith((" passed", " reached"))',
        '"does not exist" in reason',
        'error.message.removeprefix("cannot ")',
        're.search("until", row.reason)',
        'pattern.sub("", detail)',
        'row.reason == "success"',
        'row.reason in ("overlap", "superseded")',
        'str(fact.reason).split(": ")',
        'fact.replace(name, f"{name} (pid {pid})", 1)',
        '"run" in fact',
        'problems[0].split("\\n", 1)[0]',
        'sentence(rejected).split("\\n", 1)[0]',
        'sentence(reason, clock).partition(" until ")',
        '"maximum nesting depth" in str(error)',
        "error.strerror.lower()",
    ],
)
def test_the_check_finds_each_way_to_read_a_sentence(text: str) -> None:
    assert list(faults(ast.parse(f"def f():\n    return {text}")))


@pytest.mark.parametrize(
    "text",
    [
        'words = sentence(row.reason)\nreturn words.partition(" until ")',
        'words = ", ".join(part for part in (error.context, error.problem) if part)\nreturn "depth" in words',
        'line = f"it ended: {fact}"\nlast = line\nreturn last.startswith("it")',
        'if (told := sentence(reason)) == "success":\n    return told',
    ],
)
def test_the_check_follows_a_sentence_into_a_variable(text: str) -> None:
    body = "".join(f"    {line}\n" for line in text.splitlines())
    assert list(faults(ast.parse(f"def f():\n{body}")))


@pytest.mark.parametrize(
    "text",
    [
        'row.reason.code == "overlap"',
        'message["op"] == "spawn" and "code" in message',
        "reason == OVERLAP",
        '" ".join(str(error).split())',
        "replace(fact, reason=reason)",
    ],
)
def test_the_check_lets_codes_and_wire_messages_through(text: str) -> None:
    assert not list(faults(ast.parse(f"def f():\n    return {text}")))
