"""Types of values in JSON replies. The pairs in `Annotated` are keywords of the JSON schema of the type."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from repeater.model.reasons import FIELDS

Time: TypeAlias = Annotated[str, ("format", "date-time")]
Count: TypeAlias = Annotated[int, ("minimum", 0)]
Seconds: TypeAlias = Annotated[float, ("minimum", 0)]
Base64: TypeAlias = Annotated[str, ("contentEncoding", "base64")]
Code: TypeAlias = Annotated[str, ("enum", tuple(FIELDS))]
Detail: TypeAlias = Annotated[
    dict[str, Any], ("description", "The fields of the reason; docs/reference/reasons.md names them.")
]
