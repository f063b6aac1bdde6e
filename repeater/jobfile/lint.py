"""Warnings: valid definitions that are probably mistakes. A warning changes nothing.

This module has the warnings that depend on several keys or on the text of a value. Warnings about one expression, such
as a cron expression, are reported where the expression is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from repeater.jobfile.table_reader import TableReader
from repeater.model.spec import CatchUp, Cron, Overlap, Plugin, ScheduleSpec

_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}|([A-Za-z_][A-Za-z0-9_]*))")
_NOT_EXPANDED = frozenset({"PATH", "HOME", "USER", "PWD"})


def warn_of_doubts(
    table: Mapping[str, Any], schedule: ScheduleSpec, overlap: Overlap, catch_up: CatchUp, reading: TableReader
) -> None:
    """Report the warnings of one job."""
    if "env" in table:
        _warn_of_references(table["env"], reading)
    if catch_up.kind == "all" and isinstance(schedule, Cron | Plugin):
        _warn_of_lost_slots(overlap, catch_up, reading)


def _warn_of_references(env: Any, reading: TableReader) -> None:
    for name, value in env.items() if isinstance(env, dict) else ():
        if type(value) is not str or "$" not in value:
            continue
        for match in _REFERENCE.finditer(value):
            referred = match[1] or match[2]
            if referred == name or referred in _NOT_EXPANDED:
                message = f"found `{match[0]}`, which is not expanded: the job gets the literal text"
                reading.warning(("env", name), message, f"write `{{{{ env('{referred}') }}}}`")
                break


def _warn_of_lost_slots(overlap: Overlap, catch_up: CatchUp, reading: TableReader) -> None:
    """All missed slots are due at the same time, so `overlap` decides about all except the first."""
    at = ("catch_up",)
    hint = 'use `overlap = "queue"`'
    if overlap.kind not in ("queue", "allow"):
        found = f'found `all` with `overlap = "{overlap.kind}"`, which runs only some of the missed starts'
        reading.warning(at, found, hint)
        return
    key, room = (
        ("queue_max", overlap.queue_max) if overlap.kind == "queue" else ("max_instances", overlap.max_instances)
    )
    waits = 1 if overlap.kind == "queue" else 0
    if room is not None and room + waits < catch_up.most:
        found = f"found `all`, but `{key}` `{room}` drops missed starts: `catch_up_max` is `{catch_up.most}`"
        reading.warning(at, found, f"lower `catch_up_max` or raise `{key}`")
