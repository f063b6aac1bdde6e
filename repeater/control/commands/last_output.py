"""The last lines that a run printed, for `status` and `why` of a job that failed. From memory, else from disk."""

from __future__ import annotations

from functools import partial

from repeater.control.context import Busy, ControlContext, aside
from repeater.output.run_reader import RunReader, last_lines_of

FAILURES = ("failed", "interrupted")
"""Outcomes of runs whose last lines are shown."""
_LONGEST = 500  # characters of a line


async def last_output(desk: ControlContext, job: str, run: str | None, most: int) -> list[str]:
    """The last lines of a run; of the last failed run of the job if none is named. Empty if they cannot be read."""
    if run is not None and (data := desk.kept.tail(run)):
        return cut(last_lines_of(data, most))
    if desk.outputs is None:
        return []
    reader = RunReader(desk.outputs.folder.parent, [job])
    try:
        return await aside(partial(last_output_on_disk, reader, job, run, most))
    except (Busy, OSError):  # the answer without these lines is still useful
        return []


def last_output_on_disk(reader: RunReader, job: str, run: str | None, most: int) -> list[str]:
    """The same from disk alone. Reads files."""
    found = reader.outputs([job], run=run or "", failed=run is None)
    return cut(reader.last_lines(found[-1], most)) if found else []


def cut(lines: list[str]) -> list[str]:
    """Long lines without their ends."""
    return [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines]
