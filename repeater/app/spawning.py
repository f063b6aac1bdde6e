"""Who owns the processes of a supervisor, and what becomes of those that an earlier one left.

A keeper owns them where one can be had, else the supervisor itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from repeater.app.state import hiding
from repeater.engine.facts import Living
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobFile
from repeater.ports import Loop, Remembered, Sink, Spawner, Tell

if TYPE_CHECKING:
    from repeater.adapters.sqlite import SqliteStore

OnDeath: TypeAlias = Literal["kill", "keep"]
Cgroups: TypeAlias = Literal["off", "services", "all"]
Warn: TypeAlias = Callable[[Reason], None]
_MEETING = "keeper"  # in the state folder


def make_spawner(
    tell: Tell, sink: Sink, loop: Loop, warn: Warn, *, state: Path | None, on_death: OnDeath, cgroups: Cgroups
) -> Spawner:
    """The spawner of `rpr apply`; `warn` is told, once, what is weaker without a keeper. `state` is the state folder,
    whose lock is ours.
    """
    from repeater.adapters.keeper import KeeperSpawner
    from repeater.adapters.line import CannotKeep

    folder = None if state is None else state / _MEETING
    try:
        return KeeperSpawner(tell, sink, loop, warn=warn, folder=folder, on_death=on_death, cgroups=cgroups)
    except CannotKeep as why:
        from repeater.adapters.spawn import ProcessSpawner

        warn(because("shim_missing", error=str(why)))
        return ProcessSpawner(tell, sink, loop)


def recover(
    spawner: Spawner, remembered: Remembered, store: SqliteStore, jobfile: JobFile, warn: Warn
) -> tuple[Mapping[str, Living], frozenset[str]]:
    """Before time is accepted: the runs of open rows that go on, and the services among them that were changed.

    Whatever else is left of an earlier supervisor is ended: no run may overlap with its own ghost.
    """
    from repeater.keeper import tree

    jobs = {job.name for job in jobfile.jobs}
    survivors = spawner.survivors()
    open_runs = {row.run: row.job for row in remembered.open_rows if row.run is not None}
    living = {run: one for run, one in survivors.items() if open_runs.get(run) in jobs}
    ghosts = {run: 0 for run in open_runs if run not in living}
    if ghosts and any(True for _ in tree.members(ghosts)):
        warn(Reason("left_over_ended"))
        if tree.kill(ghosts):
            warn(Reason("left_over_alive"))
    spawner.disown(survivors.keys() - living.keys())
    return living, changed_services(store, jobfile) if living else frozenset()


def changed_services(store: SqliteStore, jobfile: JobFile) -> frozenset[str]:
    """Services whose definition is not that of the last generation any more, in a way that they are restarted for."""
    from repeater.jobfile import rebuild
    from repeater.model.dump import dump_job
    from repeater.plan.diff import diff, effects
    from repeater.plan.extras import aligned, extras_of, load_extras

    with store.reader() as reader:
        document, salt, stored = reader.document(), reader.salt(), load_extras(reader.extras())
    marks = hiding(salt)
    now = rebuild({job.name: dump_job(marks.hide(job)) for job in jobfile.jobs})
    extras = extras_of(jobfile, marks)
    before = {
        name: aligned(job, now.get(name), stored, extras)
        for name, job in (rebuild(json.loads(document)) if document else {}).items()
    }
    plan = diff(before, now.values())
    return frozenset(entry.job for entry in plan.jobs if entry.job in now and effects(entry, now[entry.job])[1])
