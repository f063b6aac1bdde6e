"""JSON schemas of the types of replies."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import pytest

from repeater.control.http.json_schema import components, object_schema, schema_of
from repeater.model.json_types import Count, Time


class InnerItem(TypedDict):
    at: Time | None


class OuterItem(InnerItem, total=False):
    inner: list[InnerItem]
    state: Literal["on", "off"] | None


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (Count, {"type": "integer", "minimum": 0}),
        (int | None, {"type": ["integer", "null"]}),
        (dict[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (dict[str, Any], {"type": "object"}),
        (InnerItem | None, {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]}),
    ],
)
def test_a_type_has_a_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema


def test_keys_of_a_partial_type_are_optional() -> None:
    schema = object_schema(OuterItem)
    assert schema["required"] == ["at"]
    assert schema["properties"]["state"] == {"type": ["string", "null"], "enum": ["on", "off", None]}
    assert schema["properties"]["inner"] == {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}}


def test_components_contain_the_types_of_inner_values() -> None:
    assert list(components([OuterItem])) == ["Inner", "Outer"]
