"""The changes to a source text: one operator, number, condition or statement at a time.

Not changed are texts, annotations, decorators, assertions and what only a type checker reads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Change: TypeAlias = tuple[int, int, bytes]
"""Replaces the bytes of the source from the first to before the second offset."""


class Mutant(NamedTuple):
    """A change of `path`. `lines` are the statement's, or its header's; `start`, `end` and `text` the change itself."""

    path: str
    lines: tuple[int, int]
    start: int
    end: int
    text: bytes

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text + source[self.end :]

    def line(self, source: bytes) -> int:
        return source.count(b"\n", 0, self.start) + 1

    def difference(self, source: bytes) -> tuple[str, str]:
        """The lines that change, before and after, with spaces made one."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        last = len(source) if last < 0 else last
        after = source[first : self.start] + self.text + source[self.end : last]
        return _flat(source[first:last]), _flat(after)


def _flat(text: bytes) -> str:
    return " ".join(text.decode().split())


OPERATORS: dict[type[ast.cmpop | ast.operator], tuple[str, str]] = {
    ast.Lt: (r"<", "<="),
    ast.LtE: (r"<=", "<"),
    ast.Gt: (r">", ">="),
    ast.GtE: (r">=", ">"),
    ast.Eq: (r"==", "!="),
    ast.NotEq: (r"!=", "=="),
    ast.Is: (r"is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: (r"in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
    ast.Add: (r"\+", "-"),
    ast.Sub: (r"-", "+"),
    ast.Mult: (r"\*", "//"),
    ast.Div: (r"/", "*"),
    ast.FloorDiv: (r"//", "*"),
    ast.Mod: (r"%", "//"),
    ast.Pow: (r"\*\*", "*"),
    ast.BitOr: (r"\|", "&"),
    ast.BitAnd: (r"&", "|"),
    ast.LShift: (r"<<", ">>"),
    ast.RShift: (r">>", "<<"),
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
SKIPPED = (ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)


def mutants(path: str, source: bytes) -> list[Mutant]:
    """All of them, in the order of the source, each once."""
    found = dict.fromkeys(_Walk(path, source).module())
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


class _Walk:
    def __init__(self, path: str, source: bytes) -> None:
        self.path = path
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def module(self) -> Iterator[Mutant]:
        yield from self.block(ast.parse(self.source).body)

    def block(self, statements: Sequence[ast.stmt], at_end_of: str = "") -> Iterator[Mutant]:
        """`at_end_of` a loop or a function, `continue` or `return` changes nothing."""
        for statement in statements:
            if isinstance(statement, SKIPPED) or _is_for_types(statement):
                continue
            outer = at_end_of if statement is statements[-1] else ""
            match statement:
                case ast.Continue() if outer == "loop":
                    continue
                case ast.Return(value=None) if outer == "function":
                    continue
                case ast.For() | ast.AsyncFor() | ast.While():
                    outer = "loop"
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    outer = "function"
                case ast.Try(orelse=[_, *_]) | ast.Try(finalbody=[_, *_]) | ast.ClassDef():
                    outer = ""
                case _:
                    pass
            inner = [block for name in ("body", "orelse", "finalbody") if (block := getattr(statement, name, None))]
            handlers = getattr(statement, "handlers", None) or getattr(statement, "cases", None) or []
            end = statement.end_lineno or statement.lineno
            if inner or handlers:
                bodies = [*inner, *(handler.body for handler in handlers)]
                end = max(statement.lineno, min(body[0].lineno for body in bodies) - 1)
            for start, stop, text in self.changes(statement):
                yield Mutant(self.path, (statement.lineno, end), start, stop, text)
            for block in inner:
                yield from self.block(block, outer)
            for handler in handlers:
                if guard := getattr(handler, "guard", None):
                    for start, stop, text in self.condition(guard):
                        yield Mutant(self.path, (guard.lineno, guard.lineno), start, stop, text)
                yield from self.block(handler.body, outer)

    def changes(self, statement: ast.stmt) -> Iterator[Change]:
        """Those of the statement itself, without the blocks in it."""
        match statement:
            case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
                for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
                    yield from self.expression(default)
            case ast.ClassDef():
                pass
            case ast.If(test=test) | ast.While(test=test):
                yield from self.condition(test)
            case ast.For(iter=over) | ast.AsyncFor(iter=over):
                yield from self.expression(over)
            case ast.With(items=items) | ast.AsyncWith(items=items):
                for item in items:
                    yield from self.expression(item.context_expr)
            case ast.Match(subject=subject):
                yield from self.expression(subject)
            case ast.Try():
                pass
            case ast.AnnAssign(value=value):
                if value is not None:
                    yield from self.removed(statement)
                    yield from self.expression(value)
            case _:
                yield from self.removed(statement)
                if isinstance(statement, ast.AugAssign):
                    yield from self.between(statement.target, statement.value, statement.op)
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        yield from self.expression(child)

    def removed(self, statement: ast.stmt) -> Iterator[Change]:
        """The statement left out, if a later one does not need a name of it."""
        match statement:
            case ast.Expr(value=ast.Constant()):
                return
            case ast.Expr() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break() | ast.Return(value=None):
                pass
            case ast.AugAssign():
                pass
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AnnAssign(target=ast.Subscript()):
                pass
            case _:
                return
        yield *self.span(statement), b"pass"

    def condition(self, test: ast.expr) -> Iterator[Change]:
        if not isinstance(test, ast.Constant | ast.UnaryOp | ast.Compare):  # these have a change of their own
            start, end = self.span(test)
            yield start, end, b"not (" + self.source[start:end] + b")"
        yield from self.expression(test)

    def expression(self, node: ast.AST) -> Iterator[Change]:
        match node:
            case ast.JoinedStr() | ast.Lambda(body=ast.Constant(value=None)):
                return
            case ast.Compare(left=left, ops=operators, comparators=rights):
                for operator, one, other in zip(operators, [left, *rights], rights, strict=False):
                    yield from self.between(one, other, operator)
            case ast.BinOp(left=left, op=operator, right=right):
                yield from self.between(left, right, operator)
            case ast.BoolOp(op=operator, values=values):
                old, new = (r"\band\b", "or") if isinstance(operator, ast.And) else (r"\bor\b", "and")
                for one, other in pairwise(values):
                    yield from self.replaced(one, other, old, new)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                start, end = self.span(node)
                if found := re.match(rb"not\s*|-", self.source[start:end]):
                    yield start, start + found.end(), b""
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                yield from self.condition(test)
                yield from self.expression(body)
                yield from self.expression(otherwise)
                return
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield *self.span(test), b"True"
            case ast.Constant(value=bool() as value):
                yield *self.span(node), str(not value).encode()
            case ast.Constant(value=int() | float() as value):
                yield *self.span(node), str(value + 1).encode()
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name) as called) if name in NAMES:
                _, end = self.span(called)
                yield end - len(name), end, NAMES[name].encode()
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr | ast.comprehension | ast.keyword):
                yield from self.expression(child)

    def between(self, left: ast.expr, right: ast.expr, operator: ast.cmpop | ast.operator) -> Iterator[Change]:
        if found := OPERATORS.get(type(operator)):
            yield from self.replaced(left, right, *found)

    def replaced(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Change]:
        """The operator between two expressions, not one in a comment there."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = re.sub(rb"#.*", lambda comment: b" " * len(comment[0]), self.source[start:end])
        if found := re.search(old.encode(), gap):
            yield start + found.start(), start + found.end(), new.encode()

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset)


def _is_for_types(statement: ast.stmt) -> bool:
    match statement:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case (
            ast.AnnAssign(annotation=ast.Name(id="TypeAlias"))
            | ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")])
        ):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "NewType" | "ParamSpec"))):
            return True
        case ast.ClassDef(bases=bases):
            return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases)
        case _:
            return False
