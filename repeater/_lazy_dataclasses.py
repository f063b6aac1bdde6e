"""Dataclasses as the standard library has them, quick to make and quick to fill; what repeater uses of them, no more.

The library's module takes 7 ms to import and compiles seven methods for each class, and a one-off command knows 125
classes. Here a method is compiled when it is needed. Type checkers see the library's own, so they refuse a
change of a frozen object; at run time it is refused in Python's development mode and in the tests, for what refuses
takes three times as long to fill (ADR 19). A test holds every class of repeater against what the library makes of it.
There is no inheritance of fields, no `ClassVar`, `InitVar` or `KW_ONLY`.

Nothing here may import another module of repeater. What authors of plugins see is the library's; the keeper needs none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, is_dataclass, replace

__all__ = ["dataclass", "field", "fields", "is_dataclass", "replace"]

guards = bool(sys.flags.dev_mode)
"""Whether frozen objects of classes made from now on refuse to change."""
Write = Callable[[type[Any], dict[str, Any]], str]  # the text of a method behind its name; adds the names that it uses
_MISSING: Any = object()
_BY_HAND = 3


class _Field:
    """What is known of one field."""

    __slots__ = ("compare", "default", "init", "make", "name", "repr")

    def __init__(self, name: str, default: Any, make: Any = None, **said: bool) -> None:
        self.name = name
        self.default = default
        self.make = make
        self.init = said.get("init", True)
        self.repr = said.get("repr", True)
        self.compare = said.get("compare", True)


def _field(*, default: Any = _MISSING, default_factory: Any = None, **said: bool) -> Any:
    return _Field("", default, default_factory, **said)


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
            "__init__": _init_guarded if frozen and guards else _init,
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
        if frozen and guards:
            space |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
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
    """A method that is compiled when it is looked up, and from then on stands in its class itself.

    The first objects of a class are filled without: most have one or two, and to compile takes as long as to fill ten.
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
        """What the compiled method would do; to refuse wrong arguments is left to it."""
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
        exec(f"def {self.name}{self.write(self.cls, names)}", names)  # noqa: S102 - our own text
        method = names[self.name]
        method.__qualname__ = f"{self.cls.__qualname__}.{self.name}"
        setattr(self.cls, self.name, method)
        return method


def _init(cls: type[Any], names: dict[str, Any]) -> str:
    return _write_init(cls, names, lambda name, value: f" self.{name} = {value}")


def _init_guarded(cls: type[Any], names: dict[str, Any]) -> str:
    names["__set"] = object.__setattr__
    return _write_init(cls, names, lambda name, value: f" __set(self, {name!r}, {value})")


def _write_init(cls: type[Any], names: dict[str, Any], set_to: Callable[[str, str], str]) -> str:
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
        lines.append(set_to(name, value))
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    return f"({', '.join(takes)}):\n" + "\n".join(lines)


def _write_replace(cls: type[Any], names: dict[str, Any]) -> str:
    names |= {"__missing": _MISSING}
    takes = [one.name for one in cls.__fields__ if one.init]
    head = f"(self, *{''.join(f', {name}=__missing' for name in takes)}):\n"
    given = [f"self.{name} if {name} is __missing else {name}" for name in takes]
    if "__setattr__" in vars(cls) or hasattr(cls, "__post_init__") or len(takes) < len(cls.__fields__):
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


def _refuse_to_set(self: Any, name: str, _: Any) -> NoReturn:
    raise AttributeError(f"cannot set `{name}` of a frozen {type(self).__qualname__}")


def _refuse_to_delete(self: Any, name: str) -> NoReturn:
    raise AttributeError(f"cannot delete `{name}` of a frozen {type(self).__qualname__}")


def _getstate(self: Any) -> list[Any]:
    """For pickle, which fills a new object by `_restore`."""
    return [getattr(self, one.name) for one in self.__fields__]


def _setstate(self: Any, state: list[Any]) -> None:
    for one, value in zip(self.__fields__, state, strict=True):
        object.__setattr__(self, one.name, value)


if not TYPE_CHECKING:
    dataclass, field, fields, is_dataclass, replace = _dataclass, _field, _fields, _is_dataclass, _replace
