"""Queries of the history. They need no lock and create nothing, so any command can read while a supervisor writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from repeater.errors import StateUnavailable
from repeater.model.history_meta import GenerationStart, HistoryMeta, SupervisorRun
from repeater.model.run import LimitedStart, Progress, SlotRecord
from repeater.model.time import Instant, from_epoch_us, to_epoch_us, to_us
from repeater.policy.marks import ALGORITHM
from repeater.store import format1, format2
from repeater.store.database import connect_to_read
from repeater.store.history_database import FORMAT, check_format, check_present
from repeater.store.mapping import (
    COLUMNS,
    DamagedError,
    as_progress,
    as_record,
    as_start,
    meta_list,
    meta_value,
    to_epoch_us_or_none,
)
from repeater.store.state_dir import DATABASE, MARKER, RECOVERY_HINT, state_unavailable


class Reader:
    """What commands may ask, and the supervisor too: it only reads, on a connection of its own."""

    def __init__(self, db: sqlite3.Connection, *, format: int = FORMAT) -> None:  # noqa: A002
        self._db = db
        self._format = format
        if format < FORMAT:
            db.execute({1: format1.VIEW, 2: format2.VIEW}[format])

    def rows(
        self,
        jobs: Sequence[str] | None = None,
        most: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        outcomes: Sequence[str] = (),
    ) -> Iterator[SlotRecord]:
        """The newest rows first, one for each slot; at most `most` of them."""
        where, values = ["last"], list[Any](jobs or ())
        if jobs is not None:
            where.append(f"job IN ({', '.join('?' * len(values))})")
        if since is not None:
            where.append("nominal >= ?")
            values.append(to_epoch_us_or_none(since))
        if until is not None:
            where.append("nominal < ?")
            values.append(to_epoch_us_or_none(until))
        if outcomes:
            where.append("(" + " OR ".join(_OUTCOMES[outcome] for outcome in outcomes) + ")")
        query = (
            f"SELECT {COLUMNS} FROM runs WHERE {' AND '.join(where)} "  # noqa: S608 - constants
            "ORDER BY nominal DESC, job DESC LIMIT ?"
        )
        return iter([as_record(found) for found in self._db.execute(query, (*values, most))])

    def starts(
        self, jobs: Sequence[str], limits: Sequence[str], window: timedelta, now: Instant, boot: str
    ) -> list[LimitedStart]:
        """The starts that limits may count, as `ports.Store.starts` describes them. Format 2 only."""
        at, length = to_epoch_us(now.wall), to_us(window)
        of_jobs = f"job IN ({', '.join('?' * len(jobs))})"
        of_limits = f'"limit" IN ({", ".join("?" * len(limits))})'
        kept = self._db.execute(
            'SELECT run, job, "limit", at, mono, boot, "window", known FROM starts '  # noqa: S608 - constants
            f"WHERE ({of_jobs} OR {of_limits}) AND (NOT known OR CASE WHEN boot <> '' AND boot = ? "
            "THEN mono > ? ELSE at > ? END) ORDER BY number",
            (*jobs, *limits, boot, now.mono - length, at - length),
        )
        found = [as_start(values) for values in kept]
        rows = self._db.execute(
            "SELECT coalesce(run, ''), job, NULL, coalesce(CASE WHEN attempt = 1 THEN started END, ended, ?) AS began, "  # noqa: S608
            f"0, '', 0, 1 FROM runs WHERE {of_jobs} AND attempt > 0 AND state <> 'spawn_failed' AND began > ? "
            "AND NOT EXISTS (SELECT 1 FROM starts WHERE starts.run = runs.run)",
            (at, *jobs, at - length),
        )
        return [*found, *(as_start(values) for values in rows)]

    def history_meta(self) -> HistoryMeta:
        """The last supervisors and generations, and the progress of jobs."""
        return HistoryMeta(
            tuple(
                SupervisorRun(from_epoch_us(began), from_epoch_us(ended) if ended else None, pid)
                for began, ended, pid in self._list("lives")
            ),
            tuple(GenerationStart(number, from_epoch_us(began)) for number, began in self._list("generations")),
            self.progress(),
        )

    def _list(self, key: str) -> list[list[Any]]:
        return meta_list(self._db, key)

    def progress(self) -> dict[str, Progress]:
        """The progress of each job. Raises StateUnavailable that names the job of a damaged row."""
        found = {}
        for job, data in self._db.execute("SELECT job, data FROM progress"):
            try:
                found[job] = as_progress(format1.upgraded(data) if self._format == 1 else data)
            except DamagedError as error:
                (_, _, path), *_ = self._db.execute("PRAGMA database_list")
                raise state_unavailable(
                    Path(path), f"the progress of job `{job}` is damaged: {error}", RECOVERY_HINT
                ) from None
        return found

    def generation(self) -> int:
        return int(meta_value(self._db, "generation") or 0)

    def document(self) -> str:
        """The jobs of the last generation, as given to `begin`. Empty if there is none."""
        return meta_value(self._db, "document")

    def extras(self) -> str:
        """The `extras` that `begin` was given with the last generation; empty if there are none."""
        return meta_value(self._db, "extras")

    def salt(self) -> str | None:
        """The salt of the marks in the document; None if they have none, as those of 0.1.0."""
        return meta_value(self._db, "salt") if meta_value(self._db, "marks") == ALGORITHM else None

    def durations(self) -> dict[str, float]:
        """Median seconds of the last twenty runs of each job."""
        from statistics import median

        query = (
            "SELECT job, ended - started FROM (SELECT job, started, ended, row_number() OVER "
            "(PARTITION BY job ORDER BY nominal DESC) AS place FROM runs WHERE last "
            "AND state IN ('succeeded', 'failed') "
            "AND started IS NOT NULL AND ended IS NOT NULL) WHERE place <= 20"
        )
        found: dict[str, list[int]] = {}
        for job, length in self._db.execute(query):
            found.setdefault(job, []).append(length)
        return {job: median(lengths) / 1e6 for job, lengths in found.items()}

    def close(self) -> None:
        self._db.close()


_OUTCOMES = {  # as in `SlotRecord.outcome`
    "success": "state = 'succeeded'",
    "failed": "state IN ('failed', 'spawn_failed')",
    "running": "state IN ('claimed', 'running', 'retrying')",
    **{state: f"state = '{state}'" for state in ("skipped", "expired", "replaced", "cancelled", "interrupted")},
}


def open_reader(folder: Path) -> Reader | None:
    """A reader of the history in a directory, also while a supervisor writes. None if there is no history yet.

    Takes no lock and creates nothing. Raises StateUnavailable for a database that cannot be read.
    """
    path = folder / DATABASE
    if not path.exists():
        return None
    check_present(path, folder / MARKER)
    db = None
    try:
        db = connect_to_read(path)
        return Reader(db, format=check_format(db, path))
    except (sqlite3.Error, StateUnavailable) as error:
        if db is not None:
            db.close()
        if isinstance(error, StateUnavailable):
            raise
        raise state_unavailable(path, error, RECOVERY_HINT) from error
