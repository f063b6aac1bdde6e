"""From the text of job files to specs. Pure: the disk is reached only through the `Files` that is handed in.

The names below are imported when they are first used: one-off commands need the builder alone, and at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repeater.jobfile.document import CannotRead, Caps, Files, JsonText, Missing
    from repeater.jobfile.project import default_project, project_of
    from repeater.jobfile.road import Loaded, load, rebuild

__all__ = [
    "CannotRead",
    "Caps",
    "Files",
    "JsonText",
    "Loaded",
    "Missing",
    "default_project",
    "load",
    "project_of",
    "rebuild",
]

_HOMES = {
    "Missing": "document",
    "CannotRead": "document",
    "Caps": "document",
    "Files": "document",
    "JsonText": "document",
    "default_project": "project",
    "project_of": "project",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'road')}"), name)
