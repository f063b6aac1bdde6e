"""A single table becomes a spec: the way of `rpr interval` and its kin onto the road, which they join at *check*.

What the table holds is meant literally, `{{ }}` too, for it was not read from a file. The same schema and the same
builder judge it as every job of a file.
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
    """The spec, and everything that is wrong; with faults the spec means nothing. Paths count from `folder`."""
    faults = list(check_job(table))
    sound: dict[str, Any] = dict(table)
    for fault in faults:
        sound = {"command": ["?"], **omit(sound, fault.path)}
    around = BuildContext(folder, no_env_files)

    def report(path: Path, message: str, hint: str | None, severity: Severity = "error", /) -> None:
        if severity == "error":
            faults.append(Fault(path, message, hint))

    return build_job(ExpandedJob(name, name, (), sound, ()), around, report), faults
