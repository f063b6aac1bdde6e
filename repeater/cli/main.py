"""The entry point of `rpr`: selects the command, and is the only module that prints errors.

`rpr --help` needs only the tables of `cli.commands`. The module of a command is imported when the command is used, and
click only after `--version` was handled. This file must not import slow modules at the top. A command must not print
errors or call `sys.exit`: it raises an error or returns its exit code (None is 0).
"""

import os
import sys

from repeater.cli.commands import ONE_OFF

CLOSED_PIPE = 141  # as from a shell after SIGPIPE


def main() -> None:
    """The entry point of the `rpr` script; exits with the exit code of the command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Errors are printed here, to stderr."""
    if arguments[:1] in (["--version"], ["-V"], ["-v"], ["version"]):
        from repeater import __version__

        return _print_version(__version__)
    _secure_streams()
    if any(name.startswith("RPR_") for name in os.environ):
        from repeater.cli.variables import warn_of_unknown

        warn_of_unknown(os.environ)
    try:
        one_off = _one_off(arguments)
        code = _invoke(arguments) if one_off is None else _invoke_one_off(one_off)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _leave_closed_pipe()
    except Exception as error:  # noqa: BLE001 - print one line instead of a traceback
        return _print_error(error)
    return code


def _one_off(arguments: list[str]) -> list[str] | None:
    """The arguments with the name of a one-off command moved before any options; None if there is no such name."""
    position = 0
    if arguments and arguments[0].startswith("-"):
        from repeater.cli.oneoff.parse import options_ahead

        position = options_ahead(arguments)
    word = arguments[position] if position < len(arguments) else ""
    if word in ONE_OFF or any(word in shorts for _, shorts in ONE_OFF.values()):
        return [word, *arguments[:position], *arguments[position + 1 :]]
    return None


def _invoke_one_off(arguments: list[str]) -> int:
    import gc

    gc.disable()  # until the first run, because imported modules stay in memory
    try:
        from repeater.cli.oneoff.run import run as run_one_off

        return run_one_off(arguments[0], arguments[1:])
    finally:
        gc.enable()


def _invoke(arguments: list[str]) -> int:
    import gc

    import click

    from repeater.cli.group import rpr

    gc.set_threshold(100_000, 20, 50)  # nearly all objects of a command live until its end
    try:
        code = rpr.main(arguments, prog_name="rpr", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _print_error(error: Exception) -> int:
    from repeater.errors import JobFileError, RepeaterError

    if isinstance(error, RepeaterError):
        text = error.message if isinstance(error, JobFileError) else f"rpr: {error.message}"
        _print_message(text, error.hint)
        return error.exit_code
    import click

    if isinstance(error, click.ClickException):
        from repeater.cli.group import explain

        message, hint = explain(error)
        _print_message(f"rpr: {message}", hint)
        return 2
    if os.environ.get("RPR_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if _is_resource_exhaustion(error):
        cause = "out of memory" if isinstance(error, MemoryError) else os.strerror(getattr(error, "errno", 0))
        hint = "a system limit was reached; see `ulimit -a`"
        _print_message(f"rpr: out of resources: {cause}", hint)
        return 1
    _print_message(
        f"rpr: internal error: {type(error).__name__}: {error}",
        "this is a bug in rpr; please report it with the traceback shown by `RPR_DEBUG=1`",
    )
    return 1


def _is_resource_exhaustion(error: Exception) -> bool:
    """Whether a resource of the machine is exhausted, which is not a bug."""
    import errno

    shortages = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in shortages)


def _print_message(text: str, hint: str | None) -> None:
    if hint:
        text += f"\nhint: {hint}"
    try:
        for line in text.split("\n"):
            if not line.isprintable():  # contains text of a command line, a file or another process
                from repeater.output.terminal import visible_text

                line = visible_text(line)  # noqa: PLW2901
            print(line, file=sys.stderr)
    except OSError:
        pass  # there is no reader for this error


def _print_version(version: str) -> int:
    try:
        os.write(1, f"rpr {version}\n".encode())
    except OSError:
        return CLOSED_PIPE
    return 0


def _secure_streams() -> None:
    """Prevent tracebacks for file names with invalid UTF-8 and for closed standard streams."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the process exits
        elif name == "stdout":
            stream.reconfigure(errors="backslashreplace")


def _leave_closed_pipe() -> int:
    # Discard buffered output; else Python reports an error at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return CLOSED_PIPE
