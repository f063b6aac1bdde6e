"""The composition root: with `repeater.once` the only place that sees the adapters. It puts parts together.

`files` walks the road over the real disk, `plugins` looks at those that files name, `assembly` runs what it gave until
nothing is left to do, `reaching` finds a supervisor that runs, `state` reads what one has left. Adapters are imported
inside the functions that use them, so that `rpr validate` pays for none of asyncio.
"""

from repeater.app.assembly import HttpOptions, Supervision, supervise, supervise_detached
from repeater.app.doubts import machine_problems
from repeater.app.files import JOB_FILES, load_job_files
from repeater.app.identity import check_loaded, check_running, first_file
from repeater.app.plugins import asked_plugins, installed_plugins
from repeater.app.projects import Project, known_projects
from repeater.app.reaching import Records, Whereabouts, current_project, examine, reach, reach_project, records
from repeater.app.reader import load_selected
from repeater.app.state import Stored, in_force, known_durations, nothing_applied, state_folder

__all__ = [
    "JOB_FILES",
    "HttpOptions",
    "Project",
    "Records",
    "Stored",
    "Supervision",
    "Whereabouts",
    "asked_plugins",
    "check_loaded",
    "check_running",
    "current_project",
    "examine",
    "first_file",
    "in_force",
    "installed_plugins",
    "known_durations",
    "known_projects",
    "load_job_files",
    "load_selected",
    "machine_problems",
    "nothing_applied",
    "reach",
    "reach_project",
    "records",
    "state_folder",
    "supervise",
    "supervise_detached",
]
