"""From the text of job files to specs. Pure: the disk is reached only through the `Files` that is handed in."""

from repeater.jobfile.document import CannotRead, Caps, Files
from repeater.jobfile.road import Loaded, load, rebuild

__all__ = ["CannotRead", "Caps", "Files", "Loaded", "load", "rebuild"]
