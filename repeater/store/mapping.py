"""Rows of the database from records and back. Instants are whole microseconds since 1970 in UTC."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from repeater.model.reasons import Reason, ReasonCode
from repeater.model.run import LimitedStart, Progress, SlotRecord, Usage
from repeater.model.time import Mono, from_epoch_us, to_epoch_us

_KEPT = (
    "job, nominal, due, started, ended, state, reason_code, detail, run, attempt, exit, trigger, generation, "
    "memory, cpu"
)
COLUMNS = f"{_KEPT}, command, reason"
_INSERT = f"INSERT INTO runs ({_KEPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
CLAIM = f"INSERT INTO runs ({_KEPT}, command) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
SET_COMMAND = "UPDATE runs SET command = ? WHERE job = ? AND nominal = ? AND attempt = ?"
UPSERT = (
    _INSERT + " ON CONFLICT (job, nominal, attempt) DO UPDATE SET due = excluded.due, started = excluded.started, "
    "ended = excluded.ended, state = excluded.state, reason_code = excluded.reason_code, "
    "detail = excluded.detail, reason = NULL, run = excluded.run, "
    "exit = excluded.exit, trigger = excluded.trigger, generation = excluded.generation, "
    "memory = excluded.memory, cpu = excluded.cpu"
)
BEGAN = "SELECT 1 FROM runs WHERE job = ? AND nominal = ? AND attempt > 0"
STARTED = "UPDATE runs SET state = ?, started = ?, pid = ? WHERE job = ? AND nominal = ? AND attempt = ?"
KEEP_START = (
    'INSERT INTO starts (run, job, "limit", at, mono, boot, "window", known) VALUES (?, ?, ?, ?, ?, ?, ?, ?) '
    "ON CONFLICT (run) DO UPDATE SET at = excluded.at, mono = excluded.mono, boot = excluded.boot, "
    '"window" = excluded."window", known = excluded.known'
)
DROP_START = "DELETE FROM starts WHERE run = ?"
DROP_OLD_STARTS = (
    "DELETE FROM starts WHERE number <= (SELECT max(number) FROM starts) - :most AND CASE "
    'WHEN boot <> \'\' AND boot = :boot THEN mono <= :mono - "window" ELSE at <= :at - "window" END'
)
"""Starts that no limit counts any more, beyond the last `most` of all."""
KEEP_PROGRESS = "INSERT INTO progress VALUES (?, ?) ON CONFLICT (job) DO UPDATE SET data = excluded.data"
PUT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
SUPERSEDE = (
    "UPDATE runs SET last = 0, state = CASE WHEN state IN ('claimed', 'running') THEN 'interrupted' ELSE state END "
    "WHERE job = ? AND nominal = ? AND attempt < ?"
)


def to_epoch_us_or_none(instant: datetime | None) -> int | None:
    return None if instant is None else to_epoch_us(instant)


def from_epoch_us_or_none(number: int | None) -> datetime | None:
    return None if number is None else from_epoch_us(number)


def as_values(row: SlotRecord) -> tuple[Any, ...]:
    return (
        row.job,
        to_epoch_us_or_none(row.nominal),
        to_epoch_us_or_none(row.due),
        to_epoch_us_or_none(row.started),
        to_epoch_us_or_none(row.ended),
        row.state,
        None if row.reason is None else row.reason.code,
        _detail(row.reason),
        row.run,
        row.attempts,
        row.exit,
        row.trigger,
        row.generation,
        row.usage.memory,
        row.usage.cpu,
    )


def _detail(reason: Reason | None) -> str | None:
    """ASCII, because SQLite holds UTF-8 and a field may quote a path that is not."""
    return json.dumps(reason.detail) if reason is not None and reason.detail else None


def _reason(code: ReasonCode | None, detail: str | None, text: str | None) -> Reason | None:
    """A row of format 1 has a text alone."""
    if code is not None:
        return Reason(code, json.loads(detail)) if detail else Reason(code)
    return None if text is None else Reason("legacy", {"text": text})


def as_record(values: Sequence[Any]) -> SlotRecord:
    job, nominal, due, started, ended, state, code, detail, run, attempt, exit_, trigger, generation, *rest = values
    memory, cpu, command, text = rest
    return SlotRecord(
        job=job,
        nominal=from_epoch_us(nominal),
        due=from_epoch_us(due),
        started=from_epoch_us_or_none(started),
        ended=from_epoch_us_or_none(ended),
        state=state,
        reason=_reason(code, detail, text),
        run=run,
        attempts=attempt,
        exit=exit_,
        trigger=trigger,
        generation=generation,
        command=command,
        usage=Usage(memory, cpu),
    )


def start_values(start: LimitedStart) -> tuple[Any, ...]:
    at = to_epoch_us(start.at)
    return start.run, start.job, start.limit, at, start.mono, start.boot, start.window, start.is_known


def as_start(values: Sequence[Any]) -> LimitedStart:
    run, job, limit, at, mono, boot, window, known = values
    return LimitedStart(run, job, limit, from_epoch_us(at), Mono(mono), boot, window, bool(known))


def meta_value(db: sqlite3.Connection, key: str) -> str:
    """A text of `meta`; empty if it is not there."""
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(found[0]) if found else ""


def meta_list(db: sqlite3.Connection, key: str) -> list[list[Any]]:
    """A short list that is kept as JSON; empty if it is not there or not what we wrote."""
    try:
        value = json.loads(meta_value(db, key) or "[]")
    except ValueError:
        return []
    return value if isinstance(value, list) else []


def put_list(db: sqlite3.Connection, key: str, value: list[list[Any]]) -> None:
    db.execute(PUT_META, (key, json.dumps(value[-200:])))


def as_progress(data: str) -> Progress:
    """Raises DamagedError for a text that no version wrote."""
    try:
        progress = Progress.from_json(json.loads(data))
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise DamagedError(str(error)) from None
    for name, kind in _KINDS.items():
        if not isinstance(getattr(progress, name), kind):
            raise DamagedError(f"`{name}` is {getattr(progress, name)!r:.60}")
    return progress


class DamagedError(sqlite3.DatabaseError):
    """A text of the database is not what any version wrote."""


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("job", "schedule", "stop"), str),
    **dict.fromkeys(("runs", "successes", "failures", "streak", "refusals", "skipped"), int),
    "anchor": datetime,
    **dict.fromkeys(
        ("cursor", "first_start", "last_start", "last_end", "last_success", "paused_until", "pushed_until", "began"),
        datetime | None,
    ),
    **dict.fromkeys(("done", "paused", "pushed"), Reason | None),
    "adaptive": dict | None,
    "clock": int | None,
    **dict.fromkeys(("boot", "pause_rides"), str | None),
}


_encoded = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dumped(progress: Progress) -> str:
    return _encoded(progress.as_json())
