"""`rpr render`: the expanded jobs, and the origin of each value."""

from __future__ import annotations

import click

from repeater.cli.options import files_argument, project_option, set_option
from repeater.errors import UsageError
from repeater.output.terminal import json_line


@click.command(epilog="Examples: rpr render jobs.toml; rpr render jobs.toml --explain jobs.api.timeout")
@files_argument
@set_option
@project_option
@click.option(
    "--format", "form", type=click.Choice(["toml", "yaml", "json"]), default="toml", help="Format of the job file."
)
@click.option("--explain", "key", metavar="KEY", help="Show the origin of one value.")
@click.option("--job", "jobs", multiple=True, metavar="GLOB", help="Print only jobs whose name matches this glob.")
def render(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    form: str,
    key: str | None,
    jobs: tuple[str, ...],
) -> None:
    """Print the expanded jobs, without variables, templates, includes and matrices.

    The result is an equivalent job file. With `--explain jobs.NAME.KEY`: prints the value of the key and all places
    that set it, and marks the place that counts. `--format json` prints this as one object.
    """
    from fnmatch import fnmatchcase

    from repeater.apps.job_files import load_job_files
    from repeater.jobfile.write import WRITERS
    from repeater.model.dump import dump_file

    loaded = load_job_files(files, set_vars=dict(set_vars), project=project)
    if key is not None:
        assert loaded.expansion is not None
        _explain(loaded.expansion, key, as_json=form == "json")
        return
    document = dump_file(loaded.jobfile)
    if jobs:
        document["jobs"] = {
            name: table for name, table in document["jobs"].items() if any(fnmatchcase(name, glob) for glob in jobs)
        }
        if not document["jobs"]:
            raise UsageError(f"cannot render: no job matches `{jobs[0]}`")
    click.echo(WRITERS[form](document), nl=False)


def _explain(expansion: object, key: str, *, as_json: bool) -> None:
    from repeater.jobfile.expand import Expansion
    from repeater.jobfile.explain import explain
    from repeater.jobfile.write import toml_value

    assert isinstance(expansion, Expansion)
    explained = explain(expansion, key)
    if not explained.found:
        raise UsageError(f"cannot explain `{key}`: it has no value and no default")
    if as_json:
        steps = [
            {"source": one.source, "place": one.place, "value": one.value, "in_force": one.in_force}
            for one in explained.steps
        ]
        click.echo(json_line({"key": explained.key, "value": explained.value, "steps": steps}))
        return
    click.echo(f"{explained.key} = {toml_value(explained.value)}")
    places = max((len(one.place) for one in explained.steps), default=0)
    sources = max((len(one.source) for one in explained.steps), default=0)
    for one in explained.steps:
        mark = "*" if one.in_force else " "
        value = "not set" if one.value is None else toml_value(one.value)
        click.echo(f"{mark} {one.source:{sources}}  {one.place:{places}}  {value}")
