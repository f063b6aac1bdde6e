"""Parses the arguments after `rpr interval` into options and a command. Values are checked later, by the loader.

Does not use click, because its import takes longer than the rest of the program, and because the command must be
passed through unchanged: it starts at the first argument that is not an option, and includes everything after it.
"""

from __future__ import annotations

from collections.abc import Iterator

from repeater._lazy_dataclasses import dataclass
from repeater.cli.oneoff.options import COMMON, Command, Option
from repeater.errors import UsageError


@dataclass(frozen=True, slots=True)
class ParsedArgs:
    """A parsed command line. `words` are the options in order with their values (None for flags), `globs` are the globs
    of `watch`.
    """

    command: Command
    words: tuple[tuple[Option, str | None], ...]
    globs: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()

    def has(self, flag: str) -> bool:
        return any(flag in option.flags for option, _ in self.words)

    def text(self, flag: str) -> str | None:
        """The last value of an option, None if it was not given."""
        return next((text for option, text in reversed(self.words) if flag in option.flags), None)


def parse(command: Command, arguments: list[str]) -> ParsedArgs:
    """Parse a command line. Raises UsageError that names the wrong argument."""
    flags = {flag: option for option in command.options for flag in option.flags}
    left = iter(arguments)
    words: list[tuple[Option, str | None]] = []
    globs: list[str] = []
    argv: tuple[str, ...] = ()
    for word in left:
        if word == "--":
            argv = tuple(left)
        elif word.startswith("--"):
            words.append(_long(word, flags, left, command))
        elif word.startswith("-") and len(word) > 1:
            words += _short(word, flags, left, command)
        elif command.name == "watch":
            globs.append(word)
        else:
            argv = (word, *left)
    return ParsedArgs(command, tuple(words), tuple(globs), argv)


def options_ahead(arguments: list[str]) -> int:
    """The number of leading arguments that are common options; the number of all if another option is found."""
    flags = {flag: option for _, group in COMMON for option in group for flag in option.flags}
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        name, equals, _ = arguments[position].partition("=")
        if name not in flags:
            return len(arguments)
        position += 2 if flags[name].metavar and not equals else 1
    return position


def check(given: ParsedArgs, *, has_interval: bool) -> None:
    """Raise UsageError if a required argument is missing. `has_interval`: the settings have an interval."""
    command = given.command
    for option in command.own:
        if option.needed and not given.has(option.name) and not (option.name == "--every" and has_interval):
            raise _usage(command, f"missing `{option.name} {option.metavar}`", f"for example `{command.example}`")
    if command.name == "duration" and not (given.has("--for") or given.has("--until")):
        raise _usage(command, "missing `--for DURATION` or `--until TIME`", f"for example `{command.example}`")
    if command.name == "watch" and not given.globs:
        raise _usage(command, "no files to watch given", f"for example `{command.example}`")
    if not given.argv:
        raise _usage(command, "no command given", f"the command comes last, for example `{command.example}`")


def _long(word: str, flags: dict[str, Option], left: Iterator[str], command: Command) -> tuple[Option, str | None]:
    name, equals, text = word.partition("=")
    option = flags.get(name)
    if option is None:
        raise _unknown(name, flags, command)
    if not option.metavar:
        if equals:
            raise _usage(command, f"`{name}` takes no value, found `{text}`")
        return option, None
    return option, text if equals else _value(name, option, left, command)


def _short(
    word: str, flags: dict[str, Option], left: Iterator[str], command: Command
) -> Iterator[tuple[Option, str | None]]:
    """`-qv`, `-t 5`, `-t5`, `-qt5`."""
    for index in range(1, len(word)):
        name, rest = "-" + word[index], word[index + 1 :]
        option = flags.get(name)
        if option is None:
            raise _unknown(name, flags, command)
        if option.metavar:
            yield option, rest.removeprefix("=") if rest else _value(name, option, left, command)
            return
        yield option, None


def _value(name: str, option: Option, left: Iterator[str], command: Command) -> str:
    text = next(left, None)
    if text is None or text == "--":
        raise _usage(command, f"`{name}` needs a value: `{name} {option.metavar}`")
    return text


def _unknown(name: str, flags: dict[str, Option], command: Command) -> UsageError:
    from repeater.cli.foreign import option_hint
    from repeater.model.likeness import likely

    hint = option_hint(command.name, name, flags)
    near = likely(name, flags, 0.5) if hint is None and len(name) > 2 else None
    if near is not None:
        hint = f"did you mean `{near}`?"
    return _usage(command, f"unknown option `{name}`", hint)


def _usage(command: Command, cause: str, hint: str | None = None) -> UsageError:
    return UsageError(f"cannot run `rpr {command.name}`: {cause}", hint=hint or f"see `rpr {command.name} --help`")
