"""The JSON schema of job files, as text and as data."""

from __future__ import annotations

import json
import posixpath
from functools import cache
from typing import Any

from repeater.errors import RepeaterError


@cache
def schema_text() -> str:
    """The text of the schema of job files, from the repository in a checkout, or from the installed package."""
    package = posixpath.dirname(posixpath.dirname(posixpath.abspath(__file__)))
    for folder in (package, posixpath.dirname(package)):
        try:
            with open(f"{folder}/schemas/jobs.schema.json", encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            continue
    raise RepeaterError("cannot find `jobs.schema.json`, a part of repeater", hint="reinstall repeater")


@cache
def schema() -> dict[str, Any]:
    """The schema as data. Callers must not change it."""
    loaded: dict[str, Any] = json.loads(schema_text())
    return loaded
