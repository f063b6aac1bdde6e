"""The history of a one-off command: that of a project of its own. Imported when it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from repeater.errors import ApplyRefused, LockHeld, StateUnavailable
from repeater.model.dump import dump_job
from repeater.model.reasons import Reason
from repeater.model.spec import JobFile
from repeater.policy.marks import Marks
from repeater.ports import Loop
from repeater.store.state_dir import state_folder
from repeater.store.store import SqliteStore

PROJECTS = "one-off"
"""Below it each job with a history is a project: `rpr history --project one-off/poll`."""


def open_history(name: str, loop: Loop, warn: Callable[[Reason], None]) -> SqliteStore:
    """The store of the job of this name. Raises ApplyRefused if another rpr has it, or it cannot be used."""
    folder = state_folder(f"{PROJECTS}/{name}", os.environ)
    try:
        return SqliteStore(folder, loop.call_soon_threadsafe, warn=warn)
    except LockHeld as error:
        who = "another rpr" if error.pid is None else f"process {error.pid}"
        hint = "choose another name with `--name`, or run without `--history`"
        raise ApplyRefused(f"cannot record the history of `{name}`: {who} is recording it", hint=hint) from None
    except StateUnavailable as error:
        raise StateUnavailable(error.message, hint="move its directory away, or run without `--history`") from None


def as_document(jobfile: JobFile, salt: str) -> str:
    """What a history keeps of the job, with marks in place of secrets; `salt` is that of its store."""
    hide = Marks(salt, os.environ).hide
    return json.dumps({job.name: dump_job(hide(job)) for job in jobfile.jobs}, ensure_ascii=False)
