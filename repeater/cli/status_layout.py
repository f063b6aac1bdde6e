"""The layout of `rpr status`: the order of jobs, the totals, and a table or a list that fits the width. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from repeater._lazy_dataclasses import dataclass, replace

FAILING, HELD, REST, OFF = range(4)
LEAST_TABLE = 60
"""A terminal with fewer columns gets a list."""

_HEAD = ("JOB", "STATE", "LAST RUN", "NEXT START", "NOTE")
_GAP = "  "
_NAMES = (1000, 28, 20)  # longest name in the layouts that get narrower
_LEAST_NOTE = 20
_MOST_NOTE_LINES = 3
_STABLE = 60  # seconds
_FAILED = frozenset({"failed", "interrupted"})
_HELD = frozenset({"blocked", "paused", "stopping"})
_OFF = frozenset({"done", "stopped", "disabled"})
_COUNTED = ("blocked", "paused", "stopping", "stopped", "disabled", "down")
_RED, _GREEN, _MAGENTA, _DIM = "31", "32", "35", "2"  # yellow is hard to read on a light background
_COLORS = {
    "failed": _RED, "interrupted": _RED, "retrying": _RED, "throttled": _RED,
    "blocked": _MAGENTA, "paused": _MAGENTA, "down": _MAGENTA, "stopping": _MAGENTA,
    "running": _GREEN, "starting": _GREEN, "ok": _GREEN,
    "stopped": _DIM, "disabled": _DIM, "done": _DIM, "idle": _DIM,
}  # fmt: skip

Paint: TypeAlias = Callable[[str, str], str]
"""The text in an ANSI colour, or unchanged."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one job. `soon` is the short form of `next`."""

    group: int
    job: str
    state: str
    last: str
    next: str
    soon: str
    note: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """How to show the rows: the longest name, the form of the next start (full, short or left out)."""

    name: int
    next: str


def group_of(item: Mapping[str, Any]) -> int:
    """FAILING: the last run failed, or an internal error occurred. HELD: a start must wait, or a service is not ready.

    A service that has run for a minute since its last failure is not FAILING.
    """
    state, last = item["state"], item["last"]
    if state in ("disabled", "stopped"):
        return OFF
    failed = item["consecutive_failures"] or (last is not None and last["outcome"] in _FAILED)
    if item["service"] and any((run["seconds"] or 0) >= _STABLE for run in item["running"]):
        failed = False
    if failed or item.get("faults") or state in ("throttled", "retrying"):
        return FAILING
    if state in _HELD or (item["service"] and item["ready"] is False):
        return HELD
    return OFF if state in _OFF else REST


def has_label(item: Mapping[str, Any], label: str) -> bool:
    """Whether the job has the label `key=value`, or a label `key` with any value."""
    key, equals, value = label.partition("=")
    labels = item["labels"]
    return key in labels and (not equals or labels[key] == value)


def totals(items: Sequence[Mapping[str, Any]], jobs: int) -> str:
    """`60 jobs: 2 failing, 1 paused, 1 disabled`; `2 of 60 jobs: …` for a selection."""
    count = f"{len(items)} of {jobs}" if len(items) != jobs else str(jobs)
    states = Counter(item["state"] for item in items)
    failing = sum(group_of(item) == FAILING for item in items)
    parts = [f"{failing or 'none'} failing", *(f"{states[state]} {state}" for state in _COUNTED if states[state])]
    return f"{count} {'job' if jobs == 1 else 'jobs'}" + (f": {', '.join(parts)}" if items else "")


def status_lines(rows: Iterable[Row], width: int, height: int = 0, paint: Paint = lambda text, _: text) -> list[str]:
    """The jobs in their order: failing, held, the rest, switched off.

    `width` 0: no limit. `height` 0: no limit; otherwise jobs of the last two groups are left out if there are more
    lines, and the last line has their number.
    """
    ordered = sorted(rows, key=lambda row: row.group)
    if not ordered:
        return []
    layout = _choose(ordered, width)
    if width and (width < LEAST_TABLE or _room(ordered, layout, width) < min(_longest(ordered), _LEAST_NOTE)):
        return _fitting([], ordered, [_list_item(row, width, paint) for row in ordered], height)
    names = _short_names([row.job for row in ordered], layout.name)
    table = [_cells(replace(row, job=name), layout) for row, name in zip(ordered, names, strict=True)]
    head = _cells(Row(0, *_HEAD[:4], _HEAD[3], _HEAD[4]), layout)
    widths = [max(map(len, column)) for column in zip(head, *table, strict=True)][:-1]
    room = width - sum(widths) - len(_GAP) * len(widths) if width else 0
    blocks = [_table_lines(cells, widths, room, paint) for cells in table]
    return _fitting([_head_line(head, widths, paint)], ordered, blocks, height)


def frame(lines: Sequence[str], height: int) -> str:
    """The text that replaces the content of a terminal of `height` lines. The last line stays empty for the cursor."""
    shown = lines[: height - 1] if height else lines
    return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J"


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width`, broken between words only. A longer word is shortened in the middle. 0: one line."""
    if not width:
        return [text]
    words = (shorten(word, width - len(indent)) for word in text.split())
    return textwrap.wrap(
        " ".join(words), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and its end with `…` between them."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail] + "…" + text[len(text) - tail :]


def _short_names(names: Sequence[str], most: int) -> list[str]:
    """Names shortened to `most` characters, or to as many as keep them different."""
    while True:
        short = [shorten(name, most) for name in names]
        if len(set(short)) == len(set(names)):
            return short
        most += 1


def _choose(rows: Sequence[Row], width: int) -> _Layout:
    """The widest layout in which the notes fit on one line. The narrowest one wraps them, and has no next start if
    they would need more than two lines.
    """
    layouts = [
        _Layout(_NAMES[0], "full"),
        _Layout(_NAMES[1], "full"),
        _Layout(_NAMES[1], "short"),
        _Layout(_NAMES[2], "short"),
    ]
    if not width:
        return layouts[0]
    longest = _longest(rows)
    for layout in layouts:
        if _room(rows, layout, width) >= longest:
            return layout
    if _room(rows, layouts[-1], width) >= max(_LEAST_NOTE, longest / 2):
        return layouts[-1]
    return _Layout(_NAMES[2], "none")


def _longest(rows: Sequence[Row]) -> int:
    return max(len(_HEAD[-1]), *(len(row.note) for row in rows))


def _room(rows: Sequence[Row], layout: _Layout, width: int) -> int:
    """Columns that are left for the note."""
    names = _short_names([row.job for row in rows], layout.name)
    columns = [max(map(len, names)), *(max(len(getattr(row, key)) for row in rows) for key in ("state", "last"))]
    columns = [max(size, len(head)) for size, head in zip(columns, _HEAD, strict=False)]
    if layout.next != "none":
        key = "next" if layout.next == "full" else "soon"
        columns.append(max(len(_HEAD[3]), *(len(getattr(row, key)) for row in rows)))
    return width - sum(columns) - len(_GAP) * len(columns)


def _cells(row: Row, layout: _Layout) -> tuple[str, ...]:
    following = {"full": (row.next,), "short": (row.soon,), "none": ()}[layout.next]
    return row.job, row.state, row.last, *following, row.note


def _table_lines(cells: Sequence[str], widths: Sequence[int], room: int, paint: Paint) -> list[str]:
    note = wrap(cells[-1], room) or [""]
    if len(note) > _MOST_NOTE_LINES:
        note = [
            *note[: _MOST_NOTE_LINES - 1],
            textwrap.shorten(" ".join(note[_MOST_NOTE_LINES - 1 :]), room, placeholder=" …"),
        ]
    parts = [
        _painted(f"{cell:<{size}}", cell if column in (1, 2) else "", paint)
        for column, (cell, size) in enumerate(zip(cells, widths, strict=False))
    ]
    indent = " " * (sum(widths) + len(_GAP) * len(widths))
    return [_GAP.join([*parts, note[0]]).rstrip(), *(indent + line for line in note[1:])]


def _head_line(head: Sequence[str], widths: Sequence[int], paint: Paint) -> str:
    padded = [f"{cell:<{size}}" for cell, size in zip(head, widths, strict=False)]
    return paint(_GAP.join([*padded, head[-1]]).rstrip(), "1")


def _list_item(row: Row, width: int, paint: Paint) -> list[str]:
    """The parts of one job one after the other, as many on a line as fit. The name is alone if it is long."""
    parts = [shorten(row.job, width), row.state]
    parts += [row.last] if row.last not in ("never", "-") else []
    parts += [f"next {row.soon}"] if row.soon != "-" else []
    lines: list[list[str]] = [[]]
    for part in [*parts, *wrap(row.note, width - len(_GAP))]:
        used = len(_GAP.join(lines[-1])) + (len(_GAP) if len(lines) > 1 else 0)
        if lines[-1] and used + len(_GAP) + len(part) > width:
            lines.append([])
        lines[-1].append(part)
    shown = [_GAP.join(_painted(part, part, paint) if part != parts[0] else part for part in line) for line in lines]
    return [shown[0], *(_GAP + line for line in shown[1:])]


def _painted(text: str, cell: str, paint: Paint) -> str:
    code = _COLORS.get(cell.partition(" ")[0])
    return text if code is None else paint(text, code)


def _fitting(head: list[str], rows: Sequence[Row], blocks: Sequence[list[str]], height: int) -> list[str]:
    """Head and blocks in at most `height` lines, if that is possible without failing and held jobs."""
    if not height or len(head) + sum(map(len, blocks)) <= height:
        return [*head, *(line for block in blocks for line in block)]
    lines = [*head]
    for number, (row, block) in enumerate(zip(rows, blocks, strict=True)):
        if row.group >= REST and len(lines) + len(block) >= height:
            left = len(rows) - number
            return [*lines, f"… and {left} more; `rpr status --all`"]
        lines += block
    return lines
