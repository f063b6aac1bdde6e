"""Expands a matrix of values to its cells, with their order and names.

Axes are in the order of the file; the last one varies fastest. The name of a cell is stable: it contains only the axes,
so a new value of an axis does not rename other cells.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from repeater._lazy_dataclasses import dataclass
from repeater.jobfile.document import Path, describe, quote_value
from repeater.model.spec import Pairs

RESERVED = ("include", "exclude", "max_parallel", "stagger")
LONGEST_VALUE = 100
LONGEST_CELL = 400
"""Maximum length of the part of a cell's name in brackets, as in the schema of job files."""
_VALUE = re.compile(r"[^\s\[\],=\x00-\x1f\x7f]{1,100}")
_NOT_IN_VALUE = re.compile(r"[\s\[\],=\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Cell:
    """`axes` are the texts in the name. `values` are for templates, including keys added by `include`."""

    axes: Pairs
    values: Mapping[str, Any]

    def name(self, group: str) -> str:
        """`poll[region=eu,size=1]`."""
        return f"{group}[{','.join(f'{axis}={value}' for axis, value in self.axes)}]"


class BadMatrix(Exception):
    """`path` is relative to the matrix."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message


def unfold(matrix: Mapping[str, Any], most: int) -> list[Cell]:
    """The cells of a rendered matrix, between 1 and `most`. Raises BadMatrix."""
    axes: dict[str, list[Any]] = {}
    for axis, values in matrix.items():
        if axis in RESERVED:
            continue
        if not isinstance(values, list) or not values:
            found = "an empty list" if values == [] else describe(values)
            raise BadMatrix((axis,), f"found {found}, expected a list of values, or a template whose value is a list")
        known: dict[str, int] = {}
        for number, value in enumerate(values):
            text = _text(value, (axis, number))
            if text in known:
                first = f"`{axis}[{known[text]}]`"
                raise BadMatrix(
                    (axis, number), f"found `{quote_value(value)}` twice, also in {first}: both name the same cell"
                )
            known[text] = number
        axes[axis] = values
    count = math.prod(map(len, axes.values()))
    if count > most:
        raise BadMatrix((), f"{count} cells, more than the limit of {most} jobs")
    combined = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    excluded = _tables(matrix, "exclude")
    for number, entry in enumerate(excluded):
        for key in entry:
            if key not in axes:
                raise BadMatrix(("exclude", number, key), f"`{quote_value(key)}` is not an axis of this matrix")
        if not any(_fits(cell, entry) for cell in combined):
            raise BadMatrix(("exclude", number), _fits_nothing(entry, axes))
    cells = [cell for cell in combined if not any(_fits(cell, entry) for entry in excluded)]
    added = _tables(matrix, "include")
    names = list(axes) or list(dict.fromkeys(key for entry in added for key in entry))
    for number, entry in enumerate(added):
        own = {key: value for key, value in entry.items() if key in names}
        fitting = [cell for cell in cells if _fits(cell, own)] if axes else []
        for cell in fitting:
            cell.update({key: value for key, value in entry.items() if key not in names})
        if not fitting:
            missing = [axis for axis in names if axis not in entry]
            if missing:
                raise BadMatrix(("include", number), f"the cell has no value for the axis `{missing[0]}`")
            cells.append(dict(entry))
    if not cells:
        raise BadMatrix((), "the matrix has no cells")
    return _named(names, cells)


def parse_cell(name: str) -> tuple[str, Pairs] | None:
    """The group and the axes of a cell's name; None for any other name."""
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)\[([^\[\]]+)\]", name)
    if not match:
        return None
    pairs = tuple(tuple(part.split("=")) for part in match[2].split(","))
    if any(len(pair) != 2 or not all(map(_VALUE.fullmatch, pair)) for pair in pairs):
        return None
    return match[1], pairs


def _named(names: list[str], cells: list[dict[str, Any]]) -> list[Cell]:
    found: dict[Pairs, Cell] = {}
    for cell in cells:
        axes = tuple((axis, _text(cell[axis], (axis,))) for axis in names)
        if axes in found:
            shown_axes = ", ".join(f"`{axis}` = `{value}`" for axis, value in axes)
            raise BadMatrix((), f"found two cells with {shown_axes}, expected each combination of values once")
        size = len(Cell(axes, cell).name("")) - 2
        if size > LONGEST_CELL:
            raise BadMatrix(
                (), f"found a cell whose axes and values have {size} characters, expected at most {LONGEST_CELL}"
            )
        found[axes] = Cell(axes, cell)
    return list(found.values())


def _fits_nothing(entry: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> str:
    """Why an entry of `exclude` matches no cell: its axis does not have the value, or the cell does not exist."""
    for axis, value in entry.items():
        if not any(_same(value, one) for one in axes[axis]):
            values = ", ".join(f"`{quote_value(one)}`" for one in axes[axis][:10])
            more = ", …" if len(axes[axis]) > 10 else ""
            return (
                f"found `{quote_value(value)}`, which is not a value of the axis `{quote_value(axis)}`: {values}{more}"
            )
    return "the entry matches no cell of this matrix"


def _tables(matrix: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = matrix.get(key, [])
    if not isinstance(value, list):
        raise BadMatrix((key,), f"found {describe(value)}, expected a list of tables")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict) or not entry:
            raise BadMatrix((key, number), f"found {describe(entry)}, expected a table of axes and values")
    return value


def _fits(cell: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    return all(key in cell and _same(cell[key], value) for key, value in entry.items())


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal as values of a job file, where `true` is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _text(value: Any, path: Path) -> str:
    """The value inside the cell's name."""
    if isinstance(value, str | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if _VALUE.fullmatch(text):
            return text
        if len(text) > LONGEST_VALUE:
            raise BadMatrix(path, f"found {len(text)} characters, expected at most {LONGEST_VALUE}: {_NAMES_A_JOB}")
        odd = _NOT_IN_VALUE.search(text)
        found = describe(value)
        if odd is not None:
            found += f", which contains {'a space' if odd[0].isspace() else f'`{quote_value(odd[0])}`'}"
    else:
        found = describe(value)
    expected = "a number or a text without spaces, commas, `=` and brackets"
    raise BadMatrix(path, f"found {found}, expected {expected}: {_NAMES_A_JOB}")


_NAMES_A_JOB = "the value is part of the name of the cell"
