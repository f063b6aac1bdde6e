"""`rpr validate`: check job files without running anything."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click

from repeater.cli.options import files_argument, project_option, set_option
from repeater.errors import JobFileError, Problem, by_place
from repeater.output.terminal import json_line


@click.command(epilog="Example: rpr validate jobs.toml")
@files_argument
@set_option
@project_option
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github"]), default="text", help="Format of the report."
)
@click.option("--each", is_flag=True, help="Check each FILE separately, not all files together.")
def validate(
    files: tuple[str, ...], set_vars: tuple[tuple[str, str], ...], project: str | None, form: str, each: bool
) -> int:
    """Check job files and report all problems with their position.

    Nothing is run or changed. Exit code 0: no errors; 2: at least one error. Warnings do not change the exit code.
    """
    from repeater.apps.doubts import machine_problems
    from repeater.apps.job_files import load_job_files
    from repeater.jobfile.limit_capacity import overfull_warnings

    settings, now = dict(set_vars), datetime.now(UTC)
    jobs = 0
    names: list[tuple[str, int]] = []
    errors: list[Problem] = []
    found: list[Problem] = []
    for group in [(name,) for name in files] if each and files else [files]:
        try:
            loaded = load_job_files(group, set_vars=settings, project=project)
            jobs += len(loaded.jobfile.jobs)
            here = list(machine_problems(loaded, os.environ, now))
            found += [*loaded.warnings, *overfull_warnings(loaded), *(one for one in here if one.severity == "warning")]
            if broken := [one for one in here if one.severity == "error"]:
                raise JobFileError(broken)
            names.append((group[0] if len(group) == 1 else loaded.name, len(loaded.jobfile.jobs)))
        except JobFileError as error:
            errors += error.problems
    warnings = by_place(found)
    if form == "json":
        problems, doubts = ([_as_json(one) for one in group] for group in (errors, warnings))
        click.echo(json_line({"ok": not errors, "jobs": jobs, "problems": problems, "warnings": doubts}))
    elif form == "github":
        for problem in (*errors, *warnings):
            click.echo(_as_annotation(problem))
    else:
        for name, count in names:
            click.echo(f"{name}: {count} {'job' if count == 1 else 'jobs'}, ok")
        for warning in warnings:
            click.echo(str(warning), err=True)
        if errors:
            raise JobFileError(errors)
    return 2 if errors else 0


def _as_json(problem: Problem) -> dict[str, str | int | None]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
    }


def _as_annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions; https://docs.github.com/actions/reference/workflow-commands."""
    place = f"file={_escaped(problem.file, ':,')}"
    place += f",line={problem.line}" if problem.line else ""
    place += f",col={problem.column}" if problem.column else ""
    return f"::{problem.severity} {place}::{_escaped(problem.text(), '')}"


def _escaped(text: str, more: str) -> str:
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text
