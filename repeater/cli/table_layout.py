"""A table that fits the width: long text is continued on the next line, and optional columns are left out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from repeater.cli.status_layout import shorten, wrap

_GAP = "  "
_LEAST_TEXT = 24
_LONGEST_NAME = 20

Paint = Callable[[int, str, str], str]
"""The padded text of a cell in a colour: column, cell, padded text. The column of the head is -1."""


def table_lines(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    name: int,
    text: int,
    optional: int,
    paint: Paint = lambda _column, _cell, padded: padded,
) -> list[str]:
    """The lines of a table.

    If the text has no room, the column `name` is shortened in the middle, and then the column `optional` is left out.
    The column `text` is continued on the next line. If it still has no room, each row is a list entry. 0: no limit.
    """
    table = [tuple(head), *map(tuple, rows)]
    if not width:
        return [*_lines(table, 0, text, paint)]
    if _room(table, width, text) < min(_LEAST_TEXT, _longest(table, text)):
        table = [(*row[:name], shorten(row[name], _LONGEST_NAME), *row[name + 1 :]) for row in table]
    if _room(table, width, text) < min(_LEAST_TEXT, _longest(table, text)):
        table = [(*row[:optional], *row[optional + 1 :]) for row in table]
        text -= text > optional
    room = _room(table, width, text)
    if room < min(_LEAST_TEXT, _longest(table, text)):
        return [line for row in table[1:] for line in _entry(row, width, text, paint)]
    return [*_lines(table, room, text, paint)]


def _longest(table: Sequence[Sequence[str]], column: int) -> int:
    return max(len(row[column]) for row in table)


def _room(table: Sequence[Sequence[str]], width: int, text: int) -> int:
    columns = len(table[0])
    others = sum(_longest(table, column) for column in range(columns) if column != text)
    return width - others - len(_GAP) * (columns - 1)


def _lines(table: Sequence[Sequence[str]], room: int, text: int, paint: Paint) -> Iterator[str]:
    widths = [_longest(table, column) for column in range(len(table[0]))]
    if room:
        widths[text] = min(widths[text], room)
    indent = " " * sum(size + len(_GAP) for size in widths[:text])
    for number, row in enumerate(table):
        first, *more = wrap(row[text], room) or [""]
        cells = [*row[:text], first, *row[text + 1 :]]
        padded = [f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=True)]
        padded[-1] = cells[-1]
        if number:
            padded = [paint(column, cells[column], part) for column, part in enumerate(padded)]
            yield _GAP.join(padded).rstrip()
        else:
            yield paint(-1, "", _GAP.join(padded).rstrip())
        yield from (indent + line for line in more)


def _entry(row: Sequence[str], width: int, text: int, paint: Paint) -> Iterator[str]:
    """A row as a list entry: its cells, as many on a line as fit, and then its text."""
    line = ""
    size = 0
    for column, cell in enumerate(row):
        if column == text or not cell:
            continue
        part = shorten(cell, width - len(_GAP))
        if size and size + len(_GAP) + len(part) > width:
            yield line
            line, size = "", 0
        gap = _GAP if size or column else ""
        line += gap + paint(column, cell, part)
        size += len(gap) + len(part)
    yield line
    yield from (_GAP + one for one in wrap(row[text], width - len(_GAP)))
