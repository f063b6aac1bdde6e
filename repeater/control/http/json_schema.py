"""JSON schemas of the types of replies: TypedDict, Literal, list, dict, None, Annotated and plain values."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def name_of(shape: type) -> str:
    """The name of a TypedDict among the components of the document."""
    return shape.__name__.removesuffix("Item")


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of a type. A TypedDict becomes a reference to its component."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        keywords = {key: list(value) if isinstance(value, tuple) else value for key, value in hint.__metadata__}
        return {**schema_of(args[0]), **keywords}
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin in (Union, UnionType):
        (plain,) = (one for one in args if one is not NoneType)
        return _nullable(schema_of(plain))
    if origin is list:
        return {"type": "array", "items": schema_of(args[0])}
    if origin is dict:
        return {"type": "object"} if args[1] is Any else {"type": "object", "additionalProperties": schema_of(args[1])}
    if is_typeddict(hint):
        return ref(name_of(hint))
    return {} if hint is Any else {"type": _PLAIN[hint]}


def object_schema(shape: type) -> dict[str, Any]:
    """The schema of a TypedDict itself."""
    hints = get_type_hints(shape, include_extras=True)
    return {
        "type": "object",
        "required": [name for name in hints if name in shape.__required_keys__],  # type: ignore[attr-defined]
        "additionalProperties": False,
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
    }


def components(shapes: Iterable[Any]) -> dict[str, Any]:
    """The schemas of all TypedDicts in these types, by name."""
    found: dict[str, Any] = {}
    rest = list(shapes)
    while rest:
        hint = rest.pop()
        if is_typeddict(hint):
            if name_of(hint) not in found:
                found[name_of(hint)] = object_schema(hint)
                rest += get_type_hints(hint, include_extras=True).values()
        else:
            rest += [one for one in get_args(hint) if get_origin(hint) is not Literal]
    return dict(sorted(found.items()))


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}
