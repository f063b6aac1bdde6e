"""The part of `dataclasses` that repeater uses, with methods that are compiled on first use.

The module of the standard library takes 7 ms to import and compiles seven methods for each class. A one-off command
defines 125 such classes and uses few of their methods. Type checkers see the standard library's functions, so mypy
refuses to change a frozen object. Nothing refuses it at run time, because that makes filling an object three times as
slow (ADR 19). A test compares every class of repeater with what the standard library makes of it.

There is no inheritance of fields, no `ClassVar`, `InitVar` or `KW_ONLY`. This module imports nothing of repeater.
Plugins and the shim use the standard library's dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, is_dataclass, replace

__all__ = ["dataclass", "field", "fields", "is_dataclass", "replace"]

Write = Callable[[type[Any], dict[str, Any]], str]  # gives the source after the method's name; adds the names it uses
_MISSING: Any = object()
_BY_HAND = 3


class _Field:
    """The definition of one field."""

    __slots__ = ("compare", "default", "init", "make", "name", "repr")

    def __init__(self, name: str, default: Any, make: Any = None, **flags: bool) -> None:
        self.name = name
        self.default = default
        self.make = make
        self.init = flags.get("init", True)
        self.repr = flags.get("repr", True)
        self.compare = flags.get("compare", True)


def _field(*, default: Any = _MISSING, default_factory: Any = None, **flags: bool) -> Any:
    return _Field("", default, default_factory, **flags)


def _fields(of: Any) -> tuple[_Field, ...]:
    found: tuple[_Field, ...] = of.__fields__
    return found


def _is_dataclass(value: Any) -> bool:
    return hasattr(value, "__fields__")


def _replace(value: Any, /, **changes: Any) -> Any:
    return value.__replace__(**changes)


def _dataclass(
    *, frozen: bool = False, slots: bool = False, order: bool = False, eq: bool = True
) -> Callable[[Any], type[Any]]:
    def make(cls: Any) -> type[Any]:
        space = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        found = tuple(_named(name, space.pop(name, _MISSING)) for name in cls.__annotations__)
        late: dict[str, Write] = {
            "__init__": _write_init,
            "__repr__": _write_repr,
            "__replace__": _write_replace,
        }
        if eq:
            late["__eq__"] = _write_eq("==")
            space["__hash__"] = None
        if eq and frozen:
            late["__hash__"] = _write_hash
        if order:
            late |= {name: _write_eq(sign) for name, sign in _SIGNS.items()}
        if frozen and slots:
            space |= {"__getstate__": _getstate, "__setstate__": _setstate}
        if slots:
            space["__slots__"] = tuple(one.name for one in found)
        space |= {
            "__fields__": found,
            "__match_args__": tuple(one.name for one in found if one.init),
        }
        methods = {name: _LazyMethod(name, write) for name, write in late.items()}
        made: type[Any] = type(cls)(cls.__name__, cls.__bases__, space | methods)
        made.__qualname__ = cls.__qualname__
        for method in methods.values():
            method.cls = made
        return made

    return make


def _named(name: str, default: Any) -> _Field:
    if not isinstance(default, _Field):
        return _Field(name, default)
    default.name = name
    return default


class _LazyMethod:
    """A descriptor that compiles a method when it is first looked up, and puts the method in its own place.

    The first `_BY_HAND` objects of a class are filled without compiling `__init__`. Most classes have one or two
    objects, and compiling takes as long as filling ten.
    """

    __slots__ = ("cls", "filled", "name", "write")
    cls: type[Any]

    def __init__(self, name: str, write: Write) -> None:
        self.name = name
        self.write = write
        self.filled = 0

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if self.name == "__init__" and type(instance) is self.cls and self.filled < _BY_HAND:
            self.filled += 1
            return lambda *args, **named: self._fill(instance, args, named)
        return self._compiled().__get__(instance, owner)

    def _fill(self, instance: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Fill an object as the compiled `__init__` would, or call that method if the arguments are wrong."""
        given = dict(zip(self.cls.__match_args__, args, strict=False)) | named
        is_wrong = len(given) < len(args) + len(named)
        for one in self.cls.__fields__:
            if one.init and one.name in given:
                value = given.pop(one.name)
            else:
                value = one.default if one.make is None else one.make()
            is_wrong = is_wrong or value is _MISSING
            object.__setattr__(instance, one.name, value)
        if given or is_wrong:
            self._compiled()(instance, *args, **named)
        elif hasattr(self.cls, "__post_init__"):
            instance.__post_init__()

    def _compiled(self) -> Any:
        names: dict[str, Any] = {"__name__": self.cls.__module__}
        exec(f"def {self.name}{self.write(self.cls, names)}", names)  # noqa: S102 - the source comes from this module
        method = names[self.name]
        method.__qualname__ = f"{self.cls.__qualname__}.{self.name}"
        setattr(self.cls, self.name, method)
        return method


def _write_init(cls: type[Any], names: dict[str, Any]) -> str:
    takes, lines = ["self"], [" pass"]
    for one in cls.__fields__:
        name, value, default = one.name, one.name, ""
        if one.make is not None:
            names |= {f"__make_{name}": one.make, "__missing": _MISSING}
            default = "__missing"
            value = f"__make_{name}() if {name} is __missing else {name}" if one.init else f"__make_{name}()"
        elif one.default is not _MISSING:
            names[f"__default_{name}"] = one.default
            default = f"__default_{name}"
            value = name if one.init else default
        if one.init:
            takes.append(f"{name}={default}" if default else name)
        lines.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    return f"({', '.join(takes)}):\n" + "\n".join(lines)


def _write_replace(cls: type[Any], names: dict[str, Any]) -> str:
    names |= {"__missing": _MISSING}
    takes = [one.name for one in cls.__fields__ if one.init]
    head = f"(self, *{''.join(f', {name}=__missing' for name in takes)}):\n"
    given = [f"self.{name} if {name} is __missing else {name}" for name in takes]
    if hasattr(cls, "__post_init__") or len(takes) < len(cls.__fields__):
        return f"{head} return self.__class__({', '.join(given)})"
    names["__new"] = cls.__new__
    filled = "".join(f" new.{name} = {value}\n" for name, value in zip(takes, given, strict=True))
    return f"{head} new = __new(self.__class__)\n{filled} return new"


def _write_hash(cls: type[Any], _: dict[str, Any]) -> str:
    return f"(self):\n return hash({_fields_for_eq(cls, 'self')})"


def _write_eq(sign: str) -> Write:
    def write(cls: type[Any], _: dict[str, Any]) -> str:
        return (
            "(self, other):\n if other.__class__ is not self.__class__: return NotImplemented\n"
            f" return {_fields_for_eq(cls, 'self')} {sign} {_fields_for_eq(cls, 'other')}"
        )

    return write


def _fields_for_eq(cls: type[Any], value: str) -> str:
    return "(" + "".join(f"{value}.{one.name}," for one in cls.__fields__ if one.compare) + ")"


_SIGNS = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}


def _write_repr(cls: type[Any], names: dict[str, Any]) -> str:
    names["__shown"] = cls.__qualname__
    shown = ", ".join(f"{one.name}={{self.{one.name}!r}}" for one in cls.__fields__ if one.repr)
    return f"(self):\n return f'{{__shown}}({shown})'"


def _getstate(self: Any) -> list[Any]:
    """The values for pickle, which gives them to `_setstate`."""
    return [getattr(self, one.name) for one in self.__fields__]


def _setstate(self: Any, state: list[Any]) -> None:
    for one, value in zip(self.__fields__, state, strict=True):
        object.__setattr__(self, one.name, value)


if not TYPE_CHECKING:
    dataclass, field, fields, is_dataclass, replace = _dataclass, _field, _fields, _is_dataclass, _replace
