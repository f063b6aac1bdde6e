"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from repeater.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

files_argument = click.argument("files", nargs=-1, metavar="[FILE]...")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
state_dir_option = click.option(
    "--state-dir",
    metavar="DIR",
    envvar="RPR_STATE_DIR",
    help="Directory of the state. Default: a directory named after the project.",
)


def _use_utc(_context: click.Context, _option: click.Parameter, value: bool) -> None:
    """Make UTC the local zone of this process, so all times of one answer are in the same zone."""
    if value:
        os.environ["TZ"] = "UTC"
        time.tzset()


utc_option = click.option(
    "--utc", is_flag=True, is_eager=True, expose_value=False, callback=_use_utc, help="Show times in UTC."
)


project_option = click.option(
    "--project", metavar="NAME", envvar="RPR_PROJECT", help="Project name. Overrides the key `project` of the files."
)


def set_option(command: Command) -> Command:
    """Adds `--set` and `--set-json`, which the command receives as `set_vars`: pairs of a key and a text."""

    @functools.wraps(command)
    def with_settings(*args: Any, set_texts: tuple[str, ...], set_json: tuple[str, ...], **options: Any) -> Any:
        return command(*args, set_vars=(*_assignments("--set", set_texts), *_json_assignments(set_json)), **options)

    text = click.option(
        "--set",
        "set_texts",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a variable, or a key such as `jobs.a.timeout`, with a text. Repeatable.",
    )
    json = click.option(
        "--set-json",
        "set_json",
        multiple=True,
        metavar="KEY=JSON",
        help="Override a variable or a key with a JSON value. Repeatable.",
    )
    return text(json(with_settings))  # type: ignore[return-value]


def _assignments(option: str, texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"cannot use `{option} {text}`: expected `KEY={'JSON' if 'json' in option else 'VALUE'}`")
        yield key.strip(), value


def _json_assignments(texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if not texts:
        return
    import json

    from repeater.jobfile.document import JsonText

    for key, text in _assignments("--set-json", texts):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(
                f"cannot use `--set-json {key}={text}`: the value is not JSON", hint="a text in JSON needs quotes"
            ) from None
        yield key, JsonText(text)
