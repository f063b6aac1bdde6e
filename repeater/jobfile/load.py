"""The load pipeline: files -> documents -> expanded jobs -> checked -> specs. The entry point of the package.

The problems of all files are collected and raised together. Nothing of a file with an error is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from repeater._lazy_dataclasses import dataclass, field, replace
from repeater.errors import JobFileError, Problem, Severity, by_place
from repeater.jobfile.build import BuildContext, build_job, no_env_files
from repeater.jobfile.cross_check import check_jobs
from repeater.jobfile.document import (
    Document,
    Files,
    Findings,
    InputLimits,
    Missing,
    Path,
    Report,
    RunTemplate,
    TooManyProblems,
    Unreadable,
    dotted,
    has_template,
    join_key,
    omit,
)
from repeater.jobfile.env_file import parse_env
from repeater.jobfile.expand import Expansion
from repeater.jobfile.include import IncludedDocuments, gather, read_beside
from repeater.jobfile.layers import ExpandedJob
from repeater.jobfile.matrix import parse_cell
from repeater.jobfile.plugins import named_plugins
from repeater.jobfile.project import NameProject, name_project
from repeater.jobfile.validate import check_job, check_shell, check_strategy
from repeater.model.dump import literal_of
from repeater.model.plugins import Description, PluginCatalog
from repeater.model.spec import JobFile, JobSpec, Limit, Pairs, Pool
from repeater.model.units import parse_rate


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded job file and its sources.

    `name` is the name given by the user. `files` maps the absolute path of each file that was read (job files,
    includes, env files) to the SHA-256 of its content; `globs` are the absolute patterns of its includes. Relative
    paths are relative to `folder`. `expansion` finds the lines of values. `plugins` are the plugins of its jobs, if a
    catalog was given. `warnings` are sorted by position.
    """

    jobfile: JobFile
    files: Mapping[str, str]
    folder: str
    name: str = ""
    globs: tuple[str, ...] = ()
    expansion: Expansion | None = field(default=None, repr=False, compare=False)
    plugins: tuple[Description, ...] = ()
    warnings: tuple[Problem, ...] = field(default=(), compare=False)


def load(  # noqa: PLR0913 - the sources, and the ports
    names: Sequence[str],
    *,
    files: Files,
    folder: str,
    set_vars: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    caps: InputLimits | None = None,
    catalog: PluginCatalog | None = None,
    name: NameProject = name_project,
) -> Loaded:
    """Load job files. `names` are the paths as the user wrote them, at least one; `-` is `stdin`.

    `folder` is the current directory. Without a `catalog`, plugins are not checked. Raises JobFileError with all
    problems; its `files` are those that were read. `name` returns the project.
    """
    caps = caps or InputLimits()
    gathered = gather(names, files, caps, folder=folder, stdin=stdin)
    findings = Findings(dict.fromkeys(gathered.problems))
    try:
        for document in gathered.documents:
            _check_document(document, findings)
        settings, environ = set_vars or {}, environ or {}
        expansion = Expansion(
            gathered.documents,
            findings,
            settings=settings,
            environ=environ,
            caps=caps,
            folder=gathered.folder,
            name=name,
        )
        road = _Loader(expansion, gathered, files, caps, catalog)
        if catalog is not None:
            _expect_plugins(gathered.documents, catalog)
        jobs = check_jobs(road.load(), expansion.pools, road.report, expansion.jobs, expansion.limits)
        pools, limits = _pools(expansion), _limits(expansion)
    except TooManyProblems:
        hint = f"more than {Findings.MOST} problems; only the first ones are shown"
        raise JobFileError(list(findings), files=tuple(gathered.seen), hint=hint) from None
    for warning in catalog.warnings if catalog is not None else ():
        findings.add(gathered.documents[0].problem((), warning, severity="warning"))
    if findings:
        raise JobFileError(list(findings), files=tuple(gathered.seen))
    return Loaded(
        JobFile(expansion.project, tuple(jobs), pools, limits),
        gathered.seen,
        gathered.folder,
        names[0],
        tuple(gathered.globs),
        expansion,
        () if catalog is None else catalog.used,
        by_place(findings.warnings),
    )


def _expect_plugins(documents: Iterable[Document], catalog: PluginCatalog) -> None:
    """Load several plugins in parallel."""
    named = dict.fromkeys(plugin for document in documents for plugin in named_plugins(document.data))
    if len(named) > 1:
        catalog.expect(named)


def _check_document(document: Document, findings: Findings) -> None:
    for fault in check_shell(document.data, included=document.included_by is not None):
        findings.add(document.problem(fault.path, fault.message, fault.hint))
    jobs = document.data.get("jobs")
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        if isinstance(job, dict):
            for fault in check_strategy(job):
                findings.add(document.problem(("jobs", name, *fault.path), fault.message, fault.hint))


class _Loader:
    """Builds the spec of each expanded job."""

    def __init__(
        self,
        expansion: Expansion,
        gathered: IncludedDocuments,
        files: Files,
        caps: InputLimits,
        catalog: PluginCatalog | None,
    ) -> None:
        self.expansion = expansion
        self.gathered = gathered
        self.files = files
        self.caps = caps
        self.catalog = catalog
        self.env_files: dict[str, Pairs | str | Missing] = {}

    def load(self) -> list[JobSpec]:
        around = BuildContext(self.gathered.folder, self.read_env, self.catalog)
        built = []
        for job in self.expansion.expand():
            for fault in check_job(job.table):
                if fault.path or ("jobs", job.group) not in self.expansion.torn:
                    hint = fault.hint or _hint_for_nothing(job, fault.path)
                    self.expansion.report_job(job, fault.path, fault.message, hint)
                # The job is checked further without its broken keys, to find more problems.
                job = replace(job, table={"command": "?", **omit(job.table, fault.path)})  # noqa: PLW2901
            built.append(build_job(job, around, self.reporter(job)))
        return built

    def reporter(self, job: ExpandedJob) -> Report:
        return partial(self.expansion.report_job, job)

    def report(
        self, spec: JobSpec, path: Path, message: str, hint: str | None, severity: Severity = "error", /
    ) -> None:
        """A problem of a job that was already built. Its layers are built again to find the position."""
        entry = spec.name if spec.name in self.expansion.jobs else spec.group
        for job in self.expansion.cells(entry):
            if job.name == spec.name:
                self.expansion.report_job(job, path, message, hint, severity)

    def read_env(self, path: str, *, required: bool) -> Pairs | str | None:
        if path not in self.env_files:
            try:
                self.env_files[path] = parse_env(read_beside(self.gathered, path, self.files, self.caps))
            except Missing as error:
                self.env_files[path] = error
                self.gathered.globs.append(path)  # the file may be created later
            except (Unreadable, ValueError) as error:
                self.env_files[path] = f"cannot read `{path}`: {error}"
        found = self.env_files[path]
        if isinstance(found, Missing):
            return f"cannot read `{path}`: {found}" if required else None
        return found


def _hint_for_nothing(job: ExpandedJob, path: Path) -> str | None:
    """The hint for `null`, which TOML does not have: how to unset an inherited value."""
    value: Any = job.table
    for part in path:
        if not (part in value if isinstance(value, dict) else join_key(value, part) is not None):
            return None
        value = join_key(value, part)
    return f'`unset = ["{dotted(path)}"]` removes an inherited value' if value is None and path else None


def _pools(expansion: Expansion) -> tuple[Pool, ...]:
    pools = []
    for name, (_, table) in sorted(expansion.pools.items()):
        slots = table.get("slots") if isinstance(table, dict) else None
        if isinstance(slots, int) and not isinstance(slots, bool):
            pools.append(Pool(name, int(slots)))
    return tuple(pools)


def _limits(expansion: Expansion) -> tuple[Limit, ...]:
    limits = []
    for name, (document, table) in sorted(expansion.limits.items()):
        text = table.get("rate") if isinstance(table, dict) else None
        if isinstance(text, str):
            try:
                limits.append(Limit(name, parse_rate(text), **_sharing(table)))
            except ValueError as error:
                from repeater.jobfile.hints import rate_hint

                expansion.report(document, ("limits", name, "rate"), str(error), rate_hint(text))
    return tuple(limits)


def _sharing(table: Mapping[str, Any]) -> dict[str, Any]:
    """The other valid keys of a limit. Invalid ones were reported by the schema check."""
    shared, fail = table.get("shared"), table.get("fail")
    return {
        **({"shared": shared} if isinstance(shared, bool) else {}),
        **({"fail": fail} if fail in ("open", "closed") else {}),
    }


def _ignore(*_: object) -> None:
    """A report for tables that were valid when they were written."""


def _read_back(value: Any) -> Any:
    """The value in a dump. A text that is still a template is a run template."""
    if isinstance(value, str):
        if not has_template(value):
            return value
        text = literal_of(value)
        return RunTemplate(value) if text is None else text
    if isinstance(value, dict):
        return {key: _read_back(one) for key, one in value.items()}
    return [_read_back(one) for one in value] if isinstance(value, list) else value


def rebuild(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, JobSpec]:
    """Specs by name from the output of `model.dump.dump_job`, without those that this version cannot read.

    Data that a dump does not contain (the content of env files, the matrix of a cell) is empty.
    """
    around = BuildContext("/", no_env_files)
    specs = {}
    for name, table in tables.items():
        group, cell = parse_cell(name) or (name, ())
        matrix = table.get("matrix")
        parallel = matrix.get("max_parallel") if isinstance(matrix, dict) else None
        job = ExpandedJob(name, group, cell, {key: _read_back(value) for key, value in table.items()}, (), parallel)
        spec = None if list(check_job(job.table)) else build_job(job, around, _ignore)
        if spec is not None:
            specs[name] = spec
    return specs
