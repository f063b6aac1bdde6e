"""The composition roots: they assemble the programs from decisions and adapters. No other package imports adapters.

`supervisor` runs job files, `ratelimitd` the rate-limit daemon, `oneoff` one command. The names of this module are
for commands that read job files or reach a supervisor. They import asyncio and the adapters only when they need them.
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
    "unattended_checks",
    "unattended_runs",
]
