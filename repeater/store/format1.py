"""Format 1 of the database, of repeater 0.1.0: its migration to format 2, and how it is read without a migration.

Format 1 kept sentences. This module is the only place that reads them, and it is frozen: it describes what 0.1.0
wrote, so no later wording changes it. Rows of slots keep their sentence, which is shown as it was stored. Only their
success is mapped, because filters and needs ask for it. The done state and the pause of a job decide what happens next,
so their sentences are mapped to codes.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from typing import Any

from repeater.model.time import from_rfc3339, to_epoch_us, to_us
from repeater.model.units import parse_duration

_SUCCESS = "CASE WHEN state = 'ran' AND reason = 'success' THEN 'success' END"

_STATE = f"CASE WHEN state <> 'ran' THEN state WHEN {_SUCCESS} IS NULL THEN 'failed' ELSE 'succeeded' END"

VIEW = (
    "CREATE TEMP VIEW runs AS SELECT job, nominal, due, started, ended, "  # noqa: S608
    f"{_STATE} AS state, {_SUCCESS} AS reason_code, NULL AS detail, reason, "
    "run, attempt, exit, trigger, generation, pid, last, NULL AS command, NULL AS memory, NULL AS cpu FROM main.runs"
)
"""Shows the rows of a format-1 database with the columns of format 3, on a connection that only reads."""


def migrate(db: sqlite3.Connection) -> None:
    """Change the tables of format 1 to those of format 2, in the transaction that is open."""
    db.execute("ALTER TABLE runs ADD COLUMN reason_code TEXT")
    db.execute("ALTER TABLE runs ADD COLUMN detail TEXT")
    db.execute("ALTER TABLE runs ADD COLUMN command TEXT")
    db.execute(f"UPDATE runs SET reason_code = {_SUCCESS}, state = {_STATE}")  # noqa: S608
    found = db.execute("SELECT job, data FROM progress").fetchall()
    db.executemany("UPDATE progress SET data = ? WHERE job = ?", [(upgraded(data), job) for job, data in found])


def upgraded(data: str) -> str:
    """The progress of one job as format 2 keeps it. Any other text is returned unchanged."""
    try:
        kept = json.loads(data)
    except ValueError:
        return data
    if not isinstance(kept, dict):
        return data
    if isinstance(kept.get("done"), str):
        kept["done"] = _done(kept["done"])
    if isinstance(kept.get("paused"), str):
        kept["paused"] = _kept("paused", text="" if kept["paused"] == "paused" else kept["paused"])
    if isinstance(kept.get("adaptive"), dict):
        kept["adaptive"].pop("reason", None)  # the next decision makes a new one
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)


def _done(sentence: str) -> dict[str, Any]:
    """The reason for which a job was done. With `stop = { all = … }` the sentence is a list with commas."""
    one = _condition(sentence)
    if one is not None:
        return one
    parts = [_condition(part) for part in sentence.split(", ")]
    if all(part is not None for part in parts):
        return _kept("all_conditions", reasons=parts)
    return _kept("stop_plugin", plugin="", text=sentence)  # the only one with free text


def _condition(sentence: str) -> dict[str, Any] | None:
    for pattern, code in _DONE:
        found = re.fullmatch(pattern, sentence)
        if found is not None:
            fields = {name: _READ[name](text) for name, text in found.groupdict().items()}
            return None if None in fields.values() else _kept(code, **fields)
    return None


def _kept(code: str, **fields: Any) -> dict[str, Any]:
    detail = {name: value for name, value in fields.items() if value != ""}
    return {"code": code, "detail": detail} if detail else {"code": code}


def _length(text: str) -> int | None:
    try:
        return to_us(parse_duration(text))
    except ValueError:
        return None


def _instant(text: str) -> int | None:
    try:
        instant = from_rfc3339(text)
    except ValueError:
        return None
    return None if instant is None else to_epoch_us(instant)


_READ: dict[str, Callable[[str], Any]] = {"count": int, "length": _length, "until": _instant, "restart": str}
_DONE = (
    (r"(?P<count>\d+) runs?", "runs_reached"),
    (r"(?P<count>\d+) success(?:es)?", "successes_reached"),
    (r"(?P<count>\d+) failures?", "failures_reached"),
    (r"(?P<count>\d+) failures? in a row", "consecutive_failures"),
    (r"(?P<length>\S+) passed", "time_passed"),
    (r"(?P<until>\S+Z) reached", "instant_reached"),
    (r"a run succeeded", "run_succeeded"),
    (r"a run failed", "run_failed"),
    (r"output matched the stop pattern", "stop_pattern"),
    (r"its schedule has ended", "schedule_ended"),
    (r"it ended and `restart` is `(?P<restart>[a-z-]+)`", "service_ended"),
)
"""The sentences of 0.1.0 for a job that is done, and their codes. Frozen."""
