"""The changes that `make mutate` makes to a source text."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.measure import ROOT
from tests.mutate import operators
from tests.mutate.operators import mutants


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = a and b or c", ["x = a or b or c", "x = a and b and c"]),
        ("x = not (a or b)", ["x = (a or b)", "x = not (a and b)"]),
        ("x = min(a, 1)", ["x = max(a, 1)", "x = min(a, 2)"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("x = [i for i in y if i]", ["x = [i for i in y if True]"]),
        ("x += 1.5", ["pass", "x -= 1.5", "x += 2.5"]),
        ("x.y = True", ["pass", "x.y = False"]),
        ("call(x)", ["pass"]),
        ("if x: pass", ["if not (x): pass"]),
        ("if x == y: pass", ["if x != y: pass"]),
        ("x: int | None = y", []),
        ("x = 'a' + f'{b + 1}'", ["x = 'a' - f'{b + 1}'"]),
        ("é = (a  # <\n < b)", ["<= b)"]),
        ("for x in y:\n if x: continue\n call()", ["if not (x): continue", "if x: pass", "pass"]),
        ("for x in y:\n try: call()\n except E: continue", ["try: pass"]),
        ("def f():\n while x:\n  return\n if x: return", ["while not (x):", "pass", "if not (x): return"]),
        ("assert x > 1", []),
        ("'text'", []),
    ],
)
def test_each_operator_number_and_condition_changes_once(line: str, changed: list[str]) -> None:
    source = f"\n{line}\n".encode()
    found = mutants("a.py", source)
    assert sorted(one.difference(source)[1] for one in found) == sorted(changed)
    assert all(one.applied(source) != source for one in found)


def test_each_pattern_of_sources_and_tests_finds_files() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutate"]
    assert [pattern for pattern in table["sources"] if not any(ROOT.glob(pattern))] == []
    assert [path for path in table["tests"] if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", [Path(__file__), Path(operators.__file__)], ids=["tests", "operators"])
def test_each_mutant_can_be_compiled(path: Path) -> None:
    source = path.read_bytes()
    found = mutants(str(path), source)
    assert found
    for one in found:
        ast.parse(one.applied(source))
