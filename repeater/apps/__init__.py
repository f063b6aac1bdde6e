"""The composition root: with `repeater.apps.oneoff` the only place that sees the adapters. It puts parts together.

`files` walks the road over the real disk, `plugins` looks at those that files name, `assembly` runs what it gave until
nothing is left to do, `reaching` finds a supervisor that runs, `state` reads what one has left. Adapters are imported
inside the functions that use them, so that `rpr validate` pays for none of asyncio.
"""

from repeater.apps.backup import back_up, restore
from repeater.apps.doubts import machine_problems
from repeater.apps.identity import check_loaded, check_running, first_file
from repeater.apps.job_files import JOB_FILES, load_job_files
from repeater.apps.locate import (
    Records,
    SupervisorSelector,
    connect,
    connect_project,
    current_project,
    records,
    run_doctor,
)
from repeater.apps.options import HttpOptions, SupervisorOptions
from repeater.apps.plugins import installed_plugins, plugin_catalog
from repeater.apps.projects import Project, known_projects
from repeater.apps.reload_worker import load_selected
from repeater.apps.state import Stored, in_force, known_durations, nothing_applied, state_folder
from repeater.apps.supervisor import supervise, supervise_detached
from repeater.apps.unattended import (
    LiveRun,
    Unattended,
    end_unattended_runs,
    unattended_checks,
    unattended_runs,
)

__all__ = [
    "JOB_FILES",
    "HttpOptions",
    "LiveRun",
    "Project",
    "Records",
    "Stored",
    "SupervisorOptions",
    "SupervisorSelector",
    "Unattended",
    "back_up",
    "check_loaded",
    "check_running",
    "connect",
    "connect_project",
    "current_project",
    "end_unattended_runs",
    "first_file",
    "in_force",
    "installed_plugins",
    "known_durations",
    "known_projects",
    "load_job_files",
    "load_selected",
    "machine_problems",
    "nothing_applied",
    "plugin_catalog",
    "records",
    "restore",
    "run_doctor",
    "state_folder",
    "supervise",
    "supervise_detached",
    "unattended_checks",
    "unattended_runs",
]
