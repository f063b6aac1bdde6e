"""`rpr graph`: the jobs and their dependencies, as a tree or for a drawing tool."""

from __future__ import annotations

from collections.abc import Iterator

import click

from repeater.cli.options import files_argument, project_option, set_option
from repeater.model.dump import dump_schedule
from repeater.model.spec import JobFile, JobSpec, Need
from repeater.output.terminal import json_line


@click.command(epilog="Example: rpr graph jobs.toml --format dot | dot -Tsvg > jobs.svg")
@files_argument
@set_option
@project_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "dot", "json"]),
    default="tree",
    help="Output format: a tree, Mermaid or Graphviz DOT.",
)
def graph(files: tuple[str, ...], set_vars: tuple[tuple[str, str], ...], project: str | None, form: str) -> None:
    """Show the jobs, their schedules and their dependencies.

    In the tree, a job is listed below each job that it needs. A job that appears again is shown by its name only.
    """
    from repeater.apps.job_files import load_job_files

    jobfile = load_job_files(files, set_vars=dict(set_vars), project=project).jobfile
    draw = {"tree": _tree, "mermaid": _mermaid, "dot": _dot, "json": _json}[form]
    for line in draw(jobfile):
        click.echo(line)


def schedule_words(job: JobSpec) -> str:
    """A short form of the schedule: `every 30s`, `cron 0 3 * * *`, `always`."""
    schedule = dump_schedule(job.schedule)
    if isinstance(schedule, str):
        return schedule
    key, value = next(iter(schedule.items()))
    return f"{key} {', '.join(value) if isinstance(value, list) else value}"


def _edges(jobfile: JobFile) -> Iterator[tuple[JobSpec, JobSpec, Need]]:
    """(needed job, job that needs it, need). A need of a matrix job applies to all its cells."""
    members: dict[str, list[JobSpec]] = {}
    for job in jobfile.jobs:
        members.setdefault(job.name, []).append(job)
        if job.group not in (job.name, ""):
            members.setdefault(job.group, []).append(job)
    for job in jobfile.jobs:
        for need in job.needs:
            for target in members.get(need.job, ()):
                yield target, job, need


def _label(need: Need) -> str:
    words: list[str] = [need.condition]
    words += ["triggers"] if need.trigger else []
    words += ["holds"] if need.hold else []
    words += [] if need.required else ["optional"]
    return ", ".join(words)


def _tree(jobfile: JobFile) -> Iterator[str]:
    below: dict[str, list[tuple[JobSpec, Need]]] = {}
    dependent = set()
    for target, job, need in _edges(jobfile):
        below.setdefault(target.name, []).append((job, need))
        dependent.add(job.name)
    seen: set[str] = set()
    yield jobfile.project
    # (job, prefix of its line, whether it is the last of its siblings, label of its edge)
    roots = [job for job in jobfile.jobs if job.name not in dependent]
    waiting = [(job, "", number == len(roots), "") for number, job in enumerate(roots, 1)][::-1]
    while waiting:
        job, prefix, last, label = waiting.pop()
        new, children = job.name not in seen, below.get(job.name, [])
        seen.add(job.name)
        words = f"  {schedule_words(job)}" if new else "  …" if children else ""
        yield f"{prefix}{'└' if last else '├'}─ {job.name}{words}{label}"
        if new:
            deeper = prefix + ("   " if last else "│  ")
            lines = [
                (child, deeper, number == len(children), f"  ({_label(need)})")
                for number, (child, need) in enumerate(children, 1)
            ]
            waiting += lines[::-1]


def _mermaid(jobfile: JobFile) -> Iterator[str]:
    yield "flowchart LR"
    ids = {job.name: f"j{number}" for number, job in enumerate(jobfile.jobs)}
    for job in jobfile.jobs:
        text = f"{job.name}<br/>{schedule_words(job)}".replace('"', "#quot;")
        yield f'  {ids[job.name]}["{text}"]'
    for target, job, need in _edges(jobfile):
        arrow = "-->" if need.required else "-.->"
        yield f"  {ids[target.name]} {arrow}|{_label(need)}| {ids[job.name]}"


def _dot(jobfile: JobFile) -> Iterator[str]:
    yield f"digraph {_quoted(jobfile.project)} {{"
    yield "  rankdir=LR; node [shape=box];"
    for job in jobfile.jobs:
        yield f"  {_quoted(job.name)} [label={_quoted(job.name + chr(10) + schedule_words(job))}];"
    for target, job, need in _edges(jobfile):
        style = "" if need.required else ", style=dashed"
        yield f"  {_quoted(target.name)} -> {_quoted(job.name)} [label={_quoted(_label(need))}{style}];"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _json(jobfile: JobFile) -> Iterator[str]:
    nodes = [
        {"job": job.name, "group": job.group, "schedule": dump_schedule(job.schedule), "service": job.is_service,
         "pool": job.pool}
        for job in jobfile.jobs
    ]  # fmt: skip
    edges = [
        {"from": target.name, "to": job.name, "condition": need.condition, "trigger": need.trigger,
         "required": need.required, "while": need.hold}
        for target, job, need in _edges(jobfile)
    ]  # fmt: skip
    yield json_line({"project": jobfile.project, "nodes": nodes, "edges": edges})
