"""`rpr schema`: the schema of job files, for editors and other tools."""

from __future__ import annotations

import click


@click.command(epilog="Example: rpr schema > jobs.schema.json")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "markdown"]),
    default="json",
    help="Output format: the JSON schema, or a Markdown reference.",
)
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document of the HTTP API instead.")
def schema(form: str, openapi: bool) -> None:
    """Print the JSON schema (draft-07) of job files, or the reference of all keys as Markdown."""
    if openapi:
        import json

        from repeater.control.http.openapi import openapi as document

        click.echo(json.dumps(document(), indent=2))
        return
    from repeater.jobfile.schema import schema_text

    if form == "json":
        click.echo(schema_text(), nl=False)
        return
    from repeater.jobfile.reference_docs import reference

    click.echo(reference(), nl=False)
