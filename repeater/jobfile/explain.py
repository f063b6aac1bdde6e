"""Finds the origin of a value: the layers that set it, with file and line, and the names in their templates.

Expansion does not record origins; the layers are built again on demand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.errors import UsageError
from repeater.jobfile.document import Document, Path, dotted, has_template, join_key, path_of, quote_value
from repeater.jobfile.expand import Expansion, nearest
from repeater.jobfile.layers import ExpandedJob, Layer, taken_back
from repeater.jobfile.schema import schema

_NAME = re.compile(r"\b(vars|params|matrix)\.([A-Za-z_][A-Za-z0-9_]*)|\benv\(\s*[\"']([^\"']+)[\"']")


@dataclass(frozen=True, slots=True)
class Step:
    """One source of a value. Stronger sources come later.

    `source` is `default`, `defaults`, `template NAME`, `job`, `--set`, `vars.NAME`, `params.NAME`, `matrix.NAME`,
    `env NAME` or `include`; `place` is `file:line:col`, empty if it has none.
    """

    source: str
    place: str
    value: Any
    in_force: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """`found` is false if neither a layer nor a default sets the key."""

    key: str
    value: Any
    found: bool
    steps: tuple[Step, ...]


def explain(expansion: Expansion, key: str) -> Explanation:
    """The sources of a key such as `jobs.api.timeout` or `jobs.poll[region=eu].schedule.every`.

    Raises UsageError if the job does not exist.
    """
    job, path = _find(expansion, key)
    at = dotted(path)
    default = _default(path)
    steps = [] if default is None else [Step("default", "", default, False)]
    for layer in job.layers:
        for number, taken in taken_back(layer):
            if taken and path[: len(taken)] == taken:
                place = _place(layer.document, (*layer.base, "unset", number))
                steps.append(Step(layer.kind, place, "(unset)", False))
        value, depth = _default_step(layer.raw, path)
        if depth == len(path):
            steps += _names(expansion, layer, value)
            steps += _include(layer.document)
            steps.append(Step(layer.kind, _place(layer.document, (*layer.base, *path)), value, False))
    value, depth = _default_step(job.table, path)
    found = depth == len(path)
    sources = [number for number, one in enumerate(steps) if one.source.split()[0] in _LAYERS]
    if sources:
        last = steps[sources[-1]]
        steps[sources[-1]] = Step(last.source, last.place, last.value, True)
    return Explanation(f"jobs.{job.name}.{at}", value if found else default, found or bool(steps), tuple(steps))


_LAYERS = ("default", "defaults", "template", "job", "--set")


def _find(expansion: Expansion, key: str) -> tuple[ExpandedJob, Path]:
    rest = key.removeprefix("jobs.")
    names = sorted(expansion.jobs, key=len, reverse=True)
    for name in names:
        if not rest.startswith(name):
            continue
        cells = list(expansion.cells(name))
        job = next((one for one in cells if rest.startswith(f"{one.name}.")), None)
        if job is None and rest.startswith(f"{name}.") and cells:
            job = cells[0]
            rest = job.name + rest.removeprefix(name)
        if job is not None:
            return job, path_of(rest.removeprefix(f"{job.name}."))
    hint = nearest(rest.partition(".")[0], expansion.jobs)
    raise UsageError(f"cannot explain `{quote_value(key)}`: expected `jobs.NAME.KEY` of a job in the file", hint=hint)


def _default_step(tree: Any, path: Path) -> tuple[Any, int]:
    for depth, part in enumerate(path):
        below = join_key(tree, part)
        if below is None:
            return None, depth
        tree = below
    return tree, len(path)


def _default(path: Path) -> Any:
    """The built-in default of a key, from the schema; None if it has none."""
    node = schema()["definitions"]["keys"]
    for part in path:
        node = _resolved(node).get("properties", {}).get(part, {})
    return node.get("default", _resolved(node).get("default"))


def _resolved(node: Any) -> Any:
    while "$ref" in node:
        node = schema()["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def _names(expansion: Expansion, layer: Layer, value: Any) -> Iterator[Step]:
    if not has_template(value):
        return
    for match in _NAME.finditer(str(value)):
        space, name, variable = match.groups()
        if variable:
            yield Step(f"env {variable}", "", expansion.environ(variable, "") or None, False)
            continue
        known = layer.names.get(space) or {}
        place = ""
        if space == "vars":
            holders = [one for one in expansion.documents if name in (one.data.get("vars") or {})]
            place = _place(holders[-1], ("vars", name)) if holders else ""
        yield Step(f"{space}.{name}", place, known.get(name), False)


def _include(document: Document) -> Iterator[Step]:
    if document.included_by is not None:
        parent, path = document.included_by
        yield from _include(parent)
        yield Step("include", _place(parent, path), document.name, False)


def _place(document: Document, path: Path) -> str:
    line, column = document.position(path)
    return f"{document.name}:{line}:{column}" if line else document.name
