"""The click group of `rpr`: commands from the table of `cli.main`, imported when used; nearest names for errors."""

from __future__ import annotations

import difflib
from importlib import import_module

import click

from repeater.cli.main import COMMANDS, CONTROL, ONE_OFF

_IN_MODULES = COMMANDS | CONTROL
SHORT = {short: name for name, row in _IN_MODULES.items() for short in row[3]}
_ALL = [
    *_IN_MODULES,
    *SHORT,
    *ONE_OFF,
    *(short for _, shorts in ONE_OFF.values() for short in shorts if len(short) > 2),
]


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_IN_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        row = _IN_MODULES.get(SHORT.get(cmd_name, cmd_name))
        if row is None:
            return None
        command = getattr(import_module(row[0]), row[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], _ALL, 1, 0.5)
            raise UnknownCommand(args[0], near[0] if near else None, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, table in (("Commands", COMMANDS), ("A running supervisor", CONTROL)):
            with formatter.section(title):
                formatter.write_dl([(", ".join((name, *row[3])), row[2]) for name, row in table.items()])
        with formatter.section("One command, without a file"):
            formatter.write_dl([(", ".join((name, *shorts)), words) for name, (words, shorts) in ONE_OFF.items()])


class UnknownCommand(click.UsageError):
    """There is no such command; `near` is the most similar one."""

    def __init__(self, name: str, near: str | None, ctx: click.Context) -> None:
        super().__init__(f"there is no command `{name}`", ctx)
        self.near = near


def explain(error: click.ClickException) -> tuple[str, str | None]:
    """A click error in our words: the message and a hint."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "rpr"
    hint = f"see `{path} --help`"
    if isinstance(error, UnknownCommand):
        cause = error.message
        hint = f"did you mean `rpr {error.near}`?" if error.near else "`rpr --help` lists the commands"
    elif isinstance(error, click.NoSuchOption):
        cause = f"there is no option `{error.option_name}`"
        if error.possibilities:
            hint = "did you mean " + " or ".join(f"`{name}`" for name in sorted(error.possibilities)) + "?"
    else:
        cause = error.format_message().rstrip(".")
        cause = cause[:1].lower() + cause[1:]
    return f"cannot run `{path}`: {cause}", hint


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: rpr apply jobs.toml",
)
@click.version_option("", "-V", "--version", message="")
def rpr() -> None:
    """Run repeat jobs from a file: exact schedules, services, hot reload."""
