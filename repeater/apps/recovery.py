"""The parent of the processes of a supervisor, and the processes that an earlier supervisor left.

The parent is the shim where it can run, else the supervisor itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from repeater.apps.state import hiding
from repeater.engine.facts import SurvivingRun
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobFile
from repeater.ports import EmitFact, Loop, RunSink, Spawner, StoredState

if TYPE_CHECKING:
    from repeater.store.store import SqliteStore

OnDeath: TypeAlias = Literal["kill", "keep"]
Cgroups: TypeAlias = Literal["off", "services", "all"]
Warn: TypeAlias = Callable[[Reason], None]
SHIM_FOLDER = "keeper"
"""In the state folder: where a supervisor finds the shim of an earlier one."""


def make_spawner(
    tell: EmitFact, sink: RunSink, loop: Loop, warn: Warn, *, state: Path | None, on_death: OnDeath, cgroups: Cgroups
) -> Spawner:
    """The spawner of `rpr apply`. `warn` reports once what is weaker without a shim. `state` is the state directory;
    this process holds its lock.
    """
    from repeater.processes.shim_client import ShimUnavailable
    from repeater.processes.shim_spawner import ShimSpawner

    folder = None if state is None else state / SHIM_FOLDER
    try:
        return ShimSpawner(tell, sink, loop, warn=warn, folder=folder, on_death=on_death, cgroups=cgroups)
    except ShimUnavailable as why:
        from repeater.processes.local_spawner import LocalSpawner

        warn(because("shim_missing", error=str(why)))
        return LocalSpawner(tell, sink, loop)


def recover_runs(
    spawner: Spawner, former: StoredState, remembered: StoredState, store: SqliteStore, jobfile: JobFile, warn: Warn
) -> tuple[Mapping[str, SurvivingRun], frozenset[str]]:
    """The live runs of open records, and the services among them that were changed. Called before the first plan.

    `former` is what was stored, and `remembered` is the same after the renames. All other processes of an earlier
    supervisor are ended, so that a new run does not overlap with an old one.
    """
    from repeater.shim import process_tree

    jobs = {job.name for job in jobfile.jobs}
    survivors = spawner.surviving_runs()
    open_runs = {row.run: row.job for row in remembered.open_rows if row.run is not None}
    living = {run: one for run, one in survivors.items() if open_runs.get(run) in jobs}
    leftovers = {row.run: 0 for row in former.open_rows if row.run is not None and row.run not in living}
    if leftovers and any(True for _ in process_tree.find_by_run_id(leftovers)):
        warn(Reason("left_over_ended"))
        if process_tree.kill(leftovers):
            warn(Reason("left_over_alive"))
    spawner.kill_unclaimed(survivors.keys() - living.keys())
    return living, changed_services(store, jobfile) if living else frozenset()


def changed_services(store: SqliteStore, jobfile: JobFile) -> frozenset[str]:
    """Services whose definition is not that of the last generation any more, in a way that they are restarted for."""
    from repeater.jobfile.load import rebuild
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
