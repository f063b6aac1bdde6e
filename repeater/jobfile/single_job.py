"""Builds the spec of a one-off command such as `rpr interval` from one table. Skips parsing and expansion.

The values of the table are literal, including `{{ }}`, because they were not read from a file. The table is validated
and built like a job of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repeater.errors import Severity
from repeater.jobfile.build import BuildContext, build_job, no_env_files
from repeater.jobfile.document import Path, omit
from repeater.jobfile.layers import ExpandedJob
from repeater.jobfile.validate import Fault, check_job
from repeater.model.spec import JobSpec


def build_single_job(name: str, table: Mapping[str, Any], folder: str) -> tuple[JobSpec, list[Fault]]:
    """The spec, and all problems; with problems the spec is not valid. Paths are relative to `folder`."""
    faults = list(check_job(table))
    sound: dict[str, Any] = dict(table)
    for fault in faults:
        sound = {"command": ["?"], **omit(sound, fault.path)}
    around = BuildContext(folder, no_env_files)

    def report(path: Path, message: str, hint: str | None, severity: Severity = "error", /) -> None:
        if severity == "error":
            faults.append(Fault(path, message, hint))

    return build_job(ExpandedJob(name, name, (), sound, ()), around, report), faults
