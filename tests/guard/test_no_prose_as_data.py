"""No code branches on, parses or strips an English sentence: it reads codes and fields (`model.reasons`).

A syntax check. It finds string methods, `in`, comparisons with a text and regular expressions that are applied to
something named `reason`, `message` or `detail`. A wire message is a mapping; it may be asked for its keys.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import repeater

ROOT = Path(repeater.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))
NAMES = frozenset({"reason", "message", "detail"})
METHODS = frozenset({
    "startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit", "find",
    "rfind", "index", "rindex", "count", "replace", "casefold", "lower", "upper", "strip", "lstrip", "rstrip",
})  # fmt: skip
SEARCHES = frozenset({"search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split"})
ALLOWED = frozenset({"adapters/sqlite/format1.py"})
"""The migration of state that version 0.1 wrote: a frozen table of its sentences."""


def named(node: ast.expr) -> str | None:
    """`reason` for `reason`, `row.reason`, `str(row.reason)` and `(row.reason or "")`; None for anything else."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            return name
        case ast.BoolOp(values=values):
            return next((found for value in values if (found := named(value)) is not None), None)
        case ast.Call(func=ast.Name(id="str"), args=[argument]):
            return named(argument)
        case _:
            return None


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
        known = mappings(scope)
        for node in ast.walk(scope):
            if is_fault(node, known):
                yield node.lineno, ast.unparse(node)  # type: ignore[attr-defined]


def outermost_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
        else:
            yield from outermost_functions(child)


def is_fault(node: ast.AST, known: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=args):
            if method in METHODS and named(value) is not None:
                return True
            return method in SEARCHES and any(named(argument) is not None for argument in args)
        case ast.Compare(left=left, ops=ops, comparators=[*_, right]):
            if isinstance(ops[-1], ast.In | ast.NotIn) and named(right) is not None:
                return is_text(left) and ast.unparse(right) not in known
            is_compared = isinstance(ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn)
            return is_compared and named(left) is not None and is_text(right)
        case ast.Match(subject=subject, cases=cases):
            return named(subject) is not None and any(
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
    ],
)
def test_the_check_finds_each_way_to_read_a_sentence(text: str) -> None:
    assert list(faults(ast.parse(f"def f():\n    return {text}")))


@pytest.mark.parametrize(
    "text", ['row.reason.code == "overlap"', 'message["op"] == "spawn" and "code" in message', "reason == OVERLAP"]
)
def test_the_check_lets_codes_and_wire_messages_through(text: str) -> None:
    assert not list(faults(ast.parse(f"def f():\n    return {text}")))
