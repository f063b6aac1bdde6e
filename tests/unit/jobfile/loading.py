"""The road over files in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.errors import JobFileError
from repeater.jobfile.document import InputLimits
from repeater.jobfile.load import Loaded, load
from repeater.model.spec import JobSpec
from tests.fakes.filesystem import MemoryDisk


def road(text: str, *, name: str = "jobs.toml", more: Mapping[str, str] | None = None, **options: object) -> Loaded:
    """Loads `text` as the file `name` in `/p`, beside the files `more`."""
    files = {f"/p/{name}": text, **{f"/p/{one}": content for one, content in (more or {}).items()}}
    links = options.pop("links", None)
    return load([name], files=MemoryDisk(files, links), folder="/p", **options)  # type: ignore[arg-type]


def jobs(text: str, **options: object) -> dict[str, JobSpec]:
    return {job.name: job for job in road(text, **options).jobfile.jobs}  # type: ignore[arg-type]


def job(keys: str, **options: object) -> JobSpec:
    """The one job `a` with these keys; its command is `true` if it has none."""
    command = "" if "command" in keys or "extends" in keys else 'command = "true"\n'
    return jobs(f"[jobs.a]\n{command}{keys}\n", **options)["a"]


def problems(text: str, **options: object) -> list[str]:
    try:
        road(text, **options)  # type: ignore[arg-type]
    except JobFileError as error:
        return [str(problem) for problem in error.problems]
    return []


SMALL = InputLimits(file_size=1000, total_size=1500, depth=10, jobs=5)
