"""Renames that happened while no supervisor ran: state, history and open rows follow the job to its new name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from repeater._lazy_dataclasses import replace
from repeater.model.reasons import Reason
from repeater.model.run import Progress, SlotRecord
from repeater.model.spec import JobSpec
from repeater.plan.diff import moves
from repeater.ports import Store, StoredState

_SUPERVISOR_GONE = Reason("supervisor_gone")


def follow_renames(
    remembered: StoredState, jobs: Iterable[JobSpec], store: Store, active: Collection[str], now: datetime
) -> StoredState:
    """What is remembered, under the names of `jobs`. Moves the same in the store.

    `active` are the jobs of the last generation: their state is preferred to that of jobs that were removed earlier. If
    a job takes the name of a removed job, the open rows of the removed job end now. The other job must not continue
    them.
    """
    known = {*remembered.progress, *(row.job for row in remembered.open_rows)}
    found = moves(known & set(active), {job.name: job for job in jobs}, known - set(active))
    if not found:
        return remembered
    new_names = {old: new for new, old in found.items()}
    for row in remembered.open_rows:
        if row.job in found and row.job not in new_names:
            _interrupt(row, remembered.progress.get(row.job), store, now)
    for old, new in new_names.items():
        store.move(old, new)
    former = remembered.progress
    progress = {name: one for name, one in former.items() if name not in new_names}
    progress |= {new: replace(former[old], job=new) for new, old in found.items() if old in former}
    rows = tuple(
        replace(row, job=new_names[row.job]) if row.job in new_names else row
        for row in remembered.open_rows
        if row.job in new_names or row.job not in found
    )
    return replace(remembered, progress=progress, open_rows=rows)


def _interrupt(row: SlotRecord, progress: Progress | None, store: Store, now: datetime) -> None:
    ended = max(now, row.started or row.due)  # the clock may have been set back
    record = replace(row, state="interrupted", reason=_SUPERVISOR_GONE, ended=ended)
    store.record(record, progress or Progress(row.job, row.nominal))
