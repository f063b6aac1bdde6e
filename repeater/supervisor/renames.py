"""Renames that happened while no supervisor ran: state, history and open rows follow the job to its new name."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from repeater._lazy_dataclasses import replace
from repeater.model.spec import JobSpec
from repeater.plan.diff import moves
from repeater.ports import Store, StoredState


def follow_renames(
    remembered: StoredState, jobs: Iterable[JobSpec], store: Store, active: Collection[str] = ()
) -> StoredState:
    """What is remembered, under the names of `jobs`. Moves the same in the store.

    `active` are the jobs of the last generation: their state is preferred to that of jobs that were removed earlier.
    """
    known = {*remembered.progress, *(row.job for row in remembered.open_rows)}
    found = moves(known & set(active), {job.name: job for job in jobs}, known - set(active))
    if not found:
        return remembered
    new_names = {old: new for new, old in found.items()}
    for old, new in new_names.items():
        store.move(old, new)
    former = remembered.progress
    progress = {name: one for name, one in former.items() if name not in new_names}
    progress |= {new: replace(former[old], job=new) for new, old in found.items() if old in former}
    rows = tuple(replace(row, job=new_names[row.job]) if row.job in new_names else row for row in remembered.open_rows)
    return replace(remembered, progress=progress, open_rows=rows)
