"""`rpr config`: every setting with its value and its origin."""

from __future__ import annotations

import click

from repeater.cli.options import json_option
from repeater.cli.settings import load_settings
from repeater.output.terminal import json_line
from repeater.settings import SETTINGS


@click.command(epilog="Example: rpr config")
@click.option("--config", "path", metavar="FILE", help="Configuration file to read instead of the default file.")
@json_option
def config(path: str | None, as_json: bool) -> None:
    """Show all settings, their values and their origin.

    Precedence, from the strongest: the option of a command, the `RPR_*` variable, the configuration file, the default.
    The file is `~/.config/repeater/config.toml`, or the file named by `--config` or `RPR_CONFIG`.
    """
    settings = load_settings(path)
    for setting, (name, value) in zip(SETTINGS, settings.items(), strict=True):
        if as_json:
            row = {"name": name, "value": value.text, "origin": value.origin}
            more = {"section": setting.section, "variable": setting.variables[0], "description": setting.words}
            print(json_line(row | more))
        else:
            print(f"{name:<18} {value.text if value.text is not None else '-':<12} {value.origin}")
