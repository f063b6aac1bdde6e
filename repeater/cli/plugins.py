"""`rpr plugins`: the installed plugins, their descriptions, and the problems of broken ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.options import json_option
from repeater.cli.remote import print_json, print_table, printable
from repeater.errors import UsageError

if TYPE_CHECKING:
    from repeater.apps.plugins import Found

_COLORS = {"ok": "32", "broken": "31"}
_KINDS = {
    "schedule": "schedule = {{ plugin = {name} }}",
    "executor": "executor = {{ plugin = {name} }}",
    "output": "output.plugins = [{{ plugin = {name} }}]",
    "stop_condition": "stop.plugins = [{{ plugin = {name} }}]",
}


@click.command(epilog="Examples: rpr plugins; rpr plugins jsonl")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def plugins(names: tuple[str, ...], as_json: bool) -> int:
    """Show the installed plugins.

    Each plugin is loaded in a separate process. With NAME: shows the description and the keys of one plugin. Exit
    code 1: a plugin cannot be used.
    """
    from repeater.apps.plugins import installed_plugins

    found, warnings = installed_plugins(names)
    for warning in warnings:
        print(f"rpr: warning: {warning}", file=sys.stderr)
    missing = sorted(set(names) - {one.name for one in found})
    if missing:
        raise UsageError(
            f"cannot show plugin `{missing[0]}`: it is not installed", hint="`rpr plugins` lists the installed plugins"
        )
    if as_json:
        for one in found:
            print_json(_as_json(one))
    elif names:
        for one in found:
            _explain(one)
    elif not found:
        print("no plugins are installed")
    else:
        head = ("KIND", "NAME", "VERSION", "PACKAGE", "STATE", "DESCRIPTION")
        print_table(head, map(_row, found), paint=lambda column, cell: _COLORS.get(cell) if column == 4 else None)
    return 1 if any(one.description is None for one in found) else 0


def _row(one: Found) -> tuple[str, ...]:
    words = one.problem if one.description is None else one.description.description
    return one.kind, one.name, one.version or "-", one.distribution or "-", _state(one), words


def _state(one: Found) -> str:
    return "broken" if one.description is None else "ok"


def _as_json(one: Found) -> dict[str, Any]:
    known = one.description
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "package": one.distribution,
        "target": one.target,
        "state": _state(one),
        "problem": one.problem or None,
        "description": None if known is None else known.description,
        "schema": None if known is None else dict(known.schema),
    }


def _explain(one: Found) -> None:
    """The details of one plugin as text."""
    import json

    print(f"{one.name} {one.version}: {_words(one)}".rstrip())
    print(f"  from {one.target}" + (f" of {one.distribution}" if one.distribution else ""))
    if one.description is None:
        return
    print(f"  use: {_KINDS[one.kind].format(name=json.dumps(one.name))}")
    schema = one.description.schema
    for key, rule in schema.get("properties", {}).items():
        rule = rule if isinstance(rule, dict) else {}  # noqa: PLW2901 - `true` is a schema too
        kinds = rule.get("type", "")
        marks = [" or ".join(kinds) if isinstance(kinds, list) else str(kinds)]
        marks += ["required"] if key in schema.get("required", ()) else []
        marks += [f"default {json.dumps(rule['default'], ensure_ascii=False)}"] if "default" in rule else []
        marked = ", ".join(mark for mark in marks if mark)
        print(
            printable(f"  {key}" + (f" ({marked})" if marked else "") + f": {rule.get('description', '')}".rstrip(": "))
        )


def _words(one: Found) -> str:
    return printable(one.problem if one.description is None else one.description.description)
