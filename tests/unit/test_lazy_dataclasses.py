"""The lazy dataclasses behave as those of the standard library."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repeater import _lazy_dataclasses as ours

# Imports all of repeater and describes each dataclass in it: signature, slots, match arguments, repr, comparisons.
# With the argument `library` the standard library makes the classes.
DESCRIBE = r"""
import dataclasses, importlib, inspect, json, pkgutil, re, sys
if sys.argv[1] == "library":
    sys.modules["repeater._lazy_dataclasses"] = dataclasses
import repeater
if sys.argv[1] == "library":
    repeater._lazy_dataclasses = dataclasses

def result(call):
    try:
        return re.sub(" at 0x[0-9a-f]+", "", repr(call()))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

found = {}
for module in [one.name for one in pkgutil.walk_packages(repeater.__path__, "repeater.")]:
    if module in ("repeater._lazy_dataclasses", "repeater.__main__"):
        continue
    for cls in vars(importlib.import_module(module)).values():
        is_one = isinstance(cls, type) and cls.__module__ == module and hasattr(cls, "__match_args__")
        if not is_one or issubclass(cls, tuple):
            continue
        takes = inspect.signature(cls).parameters.values()
        one, two = ([f"{letter}{place}" for place, each in enumerate(takes) if each.default is each.empty] for letter in "ab")
        found[f"{module}.{cls.__qualname__}"] = {
            "takes": [(each.name, str(each.kind), each.default is each.empty) for each in takes],
            "holds": getattr(cls, "__slots__", None),
            "matches": cls.__match_args__,
            "shows": result(lambda: cls(*one)),
            "is equal": result(lambda: cls(*one) == cls(*one)),
            "differs": result(lambda: cls(*one) == cls(*two)),
            "is no other": result(lambda: cls(*one) == tuple(one)),
            "hashes": result(lambda: type(hash(cls(*one)))),
            "orders": result(lambda: cls(*one) < cls(*two)),
        }
print(json.dumps(found))
"""


def described(by: str) -> dict[str, Any]:
    command = [sys.executable, "-c", DESCRIBE, by]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_class_equals_what_the_library_makes() -> None:
    ours, library = described("ours"), described("library")
    assert len(ours) > 150
    assert {name: one for name, one in ours.items() if one != library[name]} == {}
    assert ours.keys() == library.keys()


def made(name: str, by: Any) -> Any:
    """One class, made by one module or the other."""
    body = {
        "__module__": __name__,
        "__annotations__": {"a": "int", "b": "list[int]", "c": "str"},
        "b": by.field(default_factory=list, compare=False),
        "c": by.field(default="c", repr=False),
    }
    return by.dataclass(frozen=True, slots=True, order=True)(type(name, (), body))


Frozen, Library = made("Frozen", ours), made("Library", dataclasses)


@ours.dataclass(slots=True)
class Open:
    a: int
    b: int = ours.field(default=2, init=False)


KINDS = pytest.mark.parametrize(("kind", "module"), [(Frozen, ours), (Library, dataclasses)])


@KINDS
def test_frozen_objects_compare_the_compared_fields(kind: Any, module: Any) -> None:
    assert kind(1) == kind(1, [9])
    assert kind(1) != kind(2)
    assert hash(kind(1)) == hash(kind(1, [9]))
    assert kind(1) < kind(2) <= kind(2)
    assert kind(1, c="d") > kind(1) >= kind(1)
    with pytest.raises(TypeError):
        assert kind(1) < (1, "c")


@KINDS
def test_objects_print_copy_pickle_and_match(kind: Any, module: Any) -> None:
    one = kind(a=2, b=[3])
    assert repr(one) == f"{kind.__name__}(a=2, b=[3])"
    assert module.replace(one, a=5) == kind(5)
    assert module.replace(one, a=5).b is one.b
    assert pickle.loads(pickle.dumps(one)) == one
    assert [each.name for each in module.fields(one)] == ["a", "b", "c"]
    assert (module.is_dataclass(kind), module.is_dataclass(one), module.is_dataclass(int)) == (True, True, False)
    match one:
        case Frozen(a, b) | Library(a, b):
            assert (a, b) == (2, [3])
        case _:
            pytest.fail("no match")


@KINDS
def test_wrong_arguments_raise_the_errors_of_a_function(kind: Any, module: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.__init__\(\) missing 1 required positional argument: 'a'"):
        kind()
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        kind(1, d=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        module.replace(kind(1), d=1)


def test_objects_that_are_not_frozen_change_and_have_no_hash() -> None:
    one = Open(1)
    one.a = 3
    assert (one.a, one.b, one == Open(3)) == (3, 2, True)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    with pytest.raises(TypeError):
        Open(1, 2)  # type: ignore[call-arg]


def test_the_signature_is_the_same_before_and_after_the_first_object() -> None:
    @ours.dataclass(slots=True)
    class New:
        a: int
        b: int = 2

    assert [*inspect.signature(New).parameters] == ["a", "b"]
    assert New(1).b == 2
    assert [*inspect.signature(New).parameters] == ["a", "b"]


@pytest.mark.parametrize("is_frozen", [True, False])
def test_the_first_objects_of_a_class_equal_later_ones(is_frozen: bool) -> None:
    @ours.dataclass(frozen=is_frozen, slots=True)
    class New:
        a: int
        b: list[int] = ours.field(default_factory=list)
        c: int = 2
        d: int = ours.field(default=5, init=False)

        def __post_init__(self) -> None:
            made.append(self.a)

    made: list[int] = []
    many = [New(number, c=number) for number in range(9)]
    assert [(one.a, one.b, one.c, one.d) for one in many] == [(number, [], number, 5) for number in range(9)]
    assert made == [*range(9)]
    assert len({id(one.b) for one in many}) == 9
    assert type(vars(New)["__init__"]).__name__ == "function"


@pytest.mark.parametrize("others", [0, 1, 6])
@pytest.mark.parametrize(
    ("args", "named", "words"),
    [
        ((), {"b": 1}, "missing 1 required positional argument: 'a'"),
        ((1,), {"a": 1}, "got multiple values for argument 'a'"),
        ((1, 2, 3), {}, "takes from 2 to 3 positional arguments but 4 were given"),
        ((1,), {"d": 1}, "got an unexpected keyword argument 'd'"),
    ],
)
def test_wrong_arguments_raise_the_same_error_at_any_count_of_objects(
    others: int, args: tuple[int, ...], named: dict[str, int], words: str
) -> None:
    @ours.dataclass(slots=True)
    class New:
        a: int
        b: int = 2

    for _ in range(others):
        New(1)
    with pytest.raises(TypeError, match=words):
        New(*args, **named)


def test_a_compiled_method_replaces_its_descriptor() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class Late:
        a: int

    assert type(vars(Late)["__init__"]).__name__ == "_LazyMethod"
    assert Late(1).a == 1
    assert Late.__init__ is vars(Late)["__init__"]
    assert Late.__init__.__qualname__.endswith("Late.__init__")
