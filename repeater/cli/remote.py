"""Shared code of commands that connect to a running supervisor: options that select it, and output of answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from repeater.errors import UsageError
from repeater.model.time import from_rfc3339, offset_text
from repeater.model.units import parse_duration
from repeater.output.terminal import json_line

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector

F = TypeVar("F", bound=Callable[..., Any])

jobs_argument = click.argument("jobs", nargs=-1, metavar="[JOB]...")
some_jobs_argument = click.argument("jobs", nargs=-1, required=True, metavar="JOB...")


def supervisor_options(function: F) -> F:
    """Adds `--file`, `--project`, `--socket` and `--state-dir`, which the command receives as `where`."""

    @click.option(
        "--file", metavar="FILE", help="Job file that names the project. Default: the job file in this directory."
    )
    @click.option(
        "--project",
        metavar="NAME",
        envvar="RPR_PROJECT",
        help="Project name. Default: the project of the job file in this directory.",
    )
    @click.option("--socket", metavar="PATH", envvar="RPR_SOCKET", help="Path of the supervisor's socket.")
    @click.option(
        "--state-dir",
        metavar="DIR",
        envvar="RPR_STATE_DIR",
        help="Directory of the state. Default: a directory named after the project.",
    )
    @wraps(function)
    def command(
        *args: Any, file: str | None, project: str | None, socket: str | None, state_dir: str | None, **options: Any
    ) -> Any:
        from repeater.apps.locate import SupervisorSelector

        return function(*args, where=SupervisorSelector(project, socket, state_dir, file), **options)

    return command  # type: ignore[return-value]


def print_json(value: Mapping[str, Any]) -> None:
    """Print one line and flush, because a reader may follow the output."""
    print(json_line(value), flush=True)


def call_for_jobs(
    where: SupervisorSelector,
    verb: str,
    jobs: Sequence[str],
    *,
    as_json: bool,
    words: Callable[[Any], str],
    is_output: Callable[[Any], bool] = lambda _: False,
    **args: Any,
) -> list[dict[str, Any]]:
    """Send a command about single jobs and print one line for each job.

    `is_output` shows an item that is output of a run, and returns whether the item was one.
    """
    from repeater.apps.locate import connect

    items = []
    with connect(where) as client:
        for item in client.ask(verb, patience=None, jobs=list(jobs), **args):
            if is_output(item):
                continue
            items.append(item)
            if as_json:
                print_json(item)
                continue
            print(f"{printable(item['job'])}: {words(item)}", flush=True)
            if item.get("hint"):
                print(f"hint: {printable(item['hint'])}", file=sys.stderr)
    return items


def length_option(text: str | None, option: str) -> float | None:
    """Seconds of a duration on the command line. Raises UsageError that names the option."""
    if text is None:
        return None
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise UsageError(f"cannot use `{option}`: {error}") from None


def instant_option(text: str | None, option: str, *, ahead: bool = False) -> str | None:
    """An instant for a request, read as `cli.time_args` does."""
    from repeater.cli.time_args import parse_time_option
    from repeater.model.time import rfc3339

    return None if text is None else rfc3339(parse_time_option(option, text, ahead=ahead))


def instant(text: str | None) -> datetime | None:
    return from_rfc3339(text)


def clock(text: str | None, now: datetime | None = None) -> str:
    """A time in the local zone: only the time of day if it is today; `-` for none."""
    moment = from_rfc3339(text)
    return "-" if moment is None else clock_of(moment, now)


def clock_of(moment: datetime, now: datetime | None = None) -> str:
    """The same for an instant."""
    local = moment.astimezone()
    if local.date() == _local_date(now or datetime.now(UTC)):
        return local.isoformat(timespec="seconds")[11:19]
    return local.isoformat(" ", "minutes")[:16]


@lru_cache(maxsize=2)
def _local_date(now: datetime) -> date:
    return now.astimezone().date()


def reason_text(
    item: Mapping[str, Any],
    name: str = "reason",
    now: datetime | None = None,
    show: Callable[[datetime], str] | None = None,
) -> str:
    """The reason of an item as a sentence, with instants formatted by `show` or `clock`; empty for none.

    Built from `reason_code` and `detail`, because the sentence under `name` has instants in UTC.
    """
    code = item.get("reason_code")
    if code is None:
        return item.get(name) or ""
    from repeater.model.reasons import reason_from_json
    from repeater.sentences import sentence

    return sentence(reason_from_json(code, item["detail"]), show or (lambda instant: clock_of(instant, now)))


def printable(text: str) -> str:
    """A text from another program, with control characters escaped, so that it cannot control the terminal."""
    if text.isascii() and text.isprintable():
        return text
    from repeater.output.terminal import visible_text

    return visible_text(text)


def colors(stream: Any = None) -> bool:
    """Whether to colour standard output."""
    from repeater.output.terminal import wants_color

    try:
        fd = (stream or sys.stdout).fileno()
    except (OSError, ValueError):
        return False
    return wants_color(fd, os.environ)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, paint: Callable[[int, str], str | None]) -> None:
    """Columns as wide as their widest cell; `paint(column, cell)` gives an ANSI colour or None. The last is not padded.

    A terminal that is too narrow gets the last column cut.
    """
    table = [tuple(head), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padding = [*widths[:-1], 0]
    room, _ = screen_size()
    colored = colors()
    lines = []
    for number, row in enumerate(table):
        cells = []
        used = 0
        if not (colored or room):
            lines.append("  ".join(map(str.ljust, row, padding)).rstrip())
            continue
        for column, cell in enumerate(row):
            is_last = column == len(row) - 1
            text = _clip(cell, room - used) if is_last and room else cell
            used += widths[column] + 2
            code = paint(column, cell) if colored and number else "1" if colored else None
            padded = text if is_last else f"{text:<{widths[column]}}"
            cells.append(f"\x1b[{code}m{padded}\x1b[0m" if code and text else padded)
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


def screen_size() -> tuple[int, int]:
    """Columns and lines for output: `COLUMNS` and `LINES`, else those of the terminal. 0: no limit."""
    width, height = (_positive(os.environ.get(name, "")) for name in ("COLUMNS", "LINES"))
    try:
        terminal = os.get_terminal_size(sys.stdout.fileno()) if sys.stdout.isatty() else (0, 0)
    except (OSError, ValueError):
        terminal = (0, 0)
    return width or terminal[0], height or terminal[1]


def _positive(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


def zone_name(now: datetime, zone: tzinfo | None = None) -> str:
    """The zone of `clock`, or this one: `UTC`, or `CET, UTC+01:00`."""
    local = now.astimezone(zone)
    if not local.utcoffset():
        return "UTC"
    name, offset = local.tzname() or "", f"UTC{offset_text(local)}"
    return f"{name}, {offset}" if name.isalpha() else offset


def _clip(text: str, room: int) -> str:
    return text if len(text) <= max(room, 12) else text[: max(room, 12) - 1] + "…"
