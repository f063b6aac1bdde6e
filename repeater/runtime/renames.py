"""Renames that happened while no supervisor ran: state, history and open rows follow the job to its new name."""

from __future__ import annotations

from collections.abc import Iterable

from repeater.dataclass import replace
from repeater.model.spec import JobSpec
from repeater.plan.diff import moves
from repeater.ports import Remembered, Store


def follow_renames(remembered: Remembered, jobs: Iterable[JobSpec], store: Store) -> Remembered:
    """What is remembered, under the names of `jobs`; the store is told to move what it keeps."""
    known = {*remembered.progress, *(row.job for row in remembered.open_rows)}
    found = moves(known, {job.name: job for job in jobs})
    if not found:
        return remembered
    new_names = {old: new for new, old in found.items()}
    for old, new in new_names.items():
        store.move(old, new)
    progress = {
        new_names.get(name, name): replace(one, job=new_names.get(name, name))
        for name, one in remembered.progress.items()
    }
    rows = tuple(replace(row, job=new_names[row.job]) if row.job in new_names else row for row in remembered.open_rows)
    return replace(remembered, progress=progress, open_rows=rows)
