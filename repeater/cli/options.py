"""Arguments and options that several commands share, spelled once."""

from __future__ import annotations

import click

from repeater.errors import UsageError

files_argument = click.argument("files", nargs=-1, metavar="[FILE]...")
set_option = click.option(
    "--set", "set_vars", multiple=True, metavar="KEY=VALUE", help="Override a value of `vars`; may be given again."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
state_dir_option = click.option(
    "--state-dir", metavar="DIR", envvar="RPR_STATE_DIR", help="Where the state is, if not in the project's own folder."
)


def assignments(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE` texts as pairs. Raises UsageError."""
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"cannot use `--set {text}`: expected `KEY=VALUE`")
        pairs.append((key.strip(), value))
    return tuple(pairs)
