"""The click group of `rpr`: commands from `cli.commands`, imported when used; errors with the nearest names."""

from __future__ import annotations

from importlib import import_module

import click

from repeater.cli.commands import COMMANDS, ONE_OFF, RENAMED, SECTIONS
from repeater.model.likeness import likely

SHORT = {short: name for name, row in COMMANDS.items() for short in row[3]}
_ALL = [
    *COMMANDS,
    *SHORT,
    *ONE_OFF,
    *(short for _, shorts in ONE_OFF.values() for short in shorts if len(short) > 2),
]


class LazyGroup(click.Group):
    """A group that imports only the module of the command in use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        row = COMMANDS.get(SHORT.get(cmd_name, cmd_name))
        if row is None:
            return None
        command = getattr(import_module(row[0]), row[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise UnknownCommand(args[0], ctx)
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, _rename_options(SHORT.get(args[0], args[0]), rest)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, table in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(", ".join((name, *row[3])), row[2]) for name, row in table.items()])
        with formatter.section("One-off commands, without a job file"):
            formatter.write_dl([(", ".join((name, *shorts)), words) for name, (words, shorts) in ONE_OFF.items()])


def _rename_options(command: str, args: list[str]) -> list[str]:
    """The arguments with the current names of options. Prints a warning to stderr for each former name."""
    renamed = RENAMED.get(command, {})
    found: list[str] = []
    for at, word in enumerate(args):
        if word == "--":
            return found + args[at:]
        option, sign, value = word.partition("=")
        if option in renamed:
            new = renamed[option]
            click.echo(f"rpr: warning: `{option}` is now called `{new}`; the former name works until 0.4", err=True)
            word = new + sign + value  # noqa: PLW2901 - the same argument
        found.append(word)
    return found


class UnknownCommand(click.UsageError):
    """There is no such command."""

    def __init__(self, name: str, ctx: click.Context) -> None:
        super().__init__(f"unknown command `{name}`", ctx)
        self.name = name


def explain(error: click.ClickException) -> tuple[str, str | None]:
    """The message and the hint for a click error."""
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "rpr"
    hint: str | None = f"see `{path} --help`"
    if isinstance(error, UnknownCommand):
        cause, hint = error.message, _command_hint(error.name)
    elif isinstance(error, click.NoSuchOption):
        cause = f"unknown option `{error.option_name}`"
        hint = _option_hint(error, path) or hint
    else:
        cause = error.format_message().rstrip(".")
        cause = cause[:1].lower() + cause[1:]
    return f"cannot run `{path}`: {cause}", hint


def _command_hint(name: str) -> str:
    from repeater.cli.foreign import command_hint

    known = command_hint(name)
    if known is not None:
        return known
    near = likely(name, _ALL, 0.5)
    return f"did you mean `rpr {near}`?" if near else "`rpr --help` lists all commands"


def _option_hint(error: click.NoSuchOption, path: str) -> str | None:
    from repeater.cli.foreign import option_hint

    command = error.ctx.command if error.ctx else None
    has = frozenset(flag for one in (command.params if command else ()) for flag in (*one.opts, *one.secondary_opts))
    hint = option_hint(path.rpartition(" ")[2], error.option_name, has)
    if hint is not None:
        return hint
    near = likely(error.option_name, has) if len(error.option_name) > 2 else None
    return f"did you mean `{near}`?" if near else None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: rpr apply jobs.toml",
)
@click.version_option("", "-V", "--version", message="")
def rpr() -> None:
    """Run repeat jobs from a file: exact schedules, services, hot reload."""
