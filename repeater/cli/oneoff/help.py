"""`rpr interval --help`: the description of a command, its own options, then the common options."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator

from repeater.cli.commands import ONE_OFF
from repeater.cli.oneoff.options import COMMON, Command, Option

_COLUMN = 30


def help_text(command: Command) -> str:
    """The complete help of one command."""
    width = min(100, shutil.get_terminal_size().columns if os.isatty(1) else 100)
    lines = [f"Usage: rpr {command.name} {command.usage}", "", f"  {command.words}", *_more(command, width), ""]
    shorts = ONE_OFF[command.name][1]
    lines += [f"  Short: {', '.join(f'`rpr {short}`' for short in shorts)}", "", "Options:"]
    lines += _rows(command.own, width)
    shown = set(command.options) - set(command.own)
    for title, group in COMMON:
        options = tuple(option for option in (_shown(one, shown) for one in group) if option is not None)
        if options:
            lines += ["", f"{title}:", *_rows(options, width)]
    return "\n".join([*lines, "", f"Example: {command.example}"]) + "\n"


def _more(command: Command, width: int) -> Iterator[str]:
    text = "COMMAND starts at the first argument that is not an option. The rest is passed to it unchanged."
    if command.strategy:
        text = (
            "Runs COMMAND until it succeeds, at most `--attempts` times. The exit code is that of the last run: 124 "
            "timed out, 126 cannot be executed, 127 not found, 128 + n ended by signal n. " + text
        )
    elif command.name == "rate-limit":
        text = (
            "Starts run one after the other, without a delay, until the limit is reached; then the next start waits. "
            "`--even` spaces the starts over the window instead. " + text
        )
    elif command.name == "watch":
        text = "GLOB is a quoted pattern such as `'src/**/*.py'`. A change during a run causes one more run after it."
    yield ""
    yield from textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def _shown(option: Option, shown: set[Option]) -> Option | None:
    return next((one for one in shown if one.name == option.name and one.words == option.words), None)


def _rows(options: tuple[Option, ...], width: int) -> Iterator[str]:
    for option in options:
        flags = ", ".join(sorted(option.flags, key=len)) + (f" {option.metavar}" if option.metavar else "")
        words = option.words + ("  [required]" if option.needed else "")
        text = textwrap.wrap(words, width - _COLUMN - 2) or [""]
        if len(flags) > _COLUMN - 4:
            yield f"  {flags}"
        else:
            yield f"  {flags:<{_COLUMN - 2}}{text.pop(0)}"
        for line in text:
            yield " " * _COLUMN + line
