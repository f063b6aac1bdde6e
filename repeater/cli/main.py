"""`rpr`: which command is meant, and the one place that prints errors.

The tables of `cli.commands` are all that `rpr --help` needs; the module of a command is imported when the command is
used, click itself only after `--version` was answered. Nothing heavy may be imported at the top of this file, and no
command may print an error or call `sys.exit`: it raises, or it returns its exit code (None is 0).
"""

import os
import sys

from repeater.cli.commands import ONE_OFF

CLOSED_PIPE = 141  # as a shell shows a process that SIGPIPE ended


def main() -> None:
    """The entry point of the `rpr` script; ends the process with the exit code of the command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code. Every error is printed here, on standard error."""
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
    except Exception as error:  # noqa: BLE001 - the last line of defence: one clear line, no traceback
        return _print_error(error)
    return code


def _one_off(arguments: list[str]) -> list[str] | None:
    """The words with the name of a one-off command first, which options may stand before; None if there is none."""
    place = 0
    if arguments and arguments[0].startswith("-"):
        from repeater.cli.oneoff.parse import options_ahead

        place = options_ahead(arguments)
    word = arguments[place] if place < len(arguments) else ""
    if word in ONE_OFF or any(word in shorts for _, shorts in ONE_OFF.values()):
        return [word, *arguments[:place], *arguments[place + 1 :]]
    return None


def _invoke_one_off(arguments: list[str]) -> int:
    import gc

    gc.disable()  # until the first run: what is imported stays
    try:
        from repeater.cli.oneoff.run import run as run_one_off

        return run_one_off(arguments[0], arguments[1:])
    finally:
        gc.enable()


def _invoke(arguments: list[str]) -> int:
    import gc

    import click

    from repeater.cli.group import rpr

    gc.set_threshold(100_000, 20, 50)  # nearly all that a command makes stays until its end
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
        _report_crash(text, error.hint)
        return error.exit_code
    import click

    if isinstance(error, click.ClickException):
        from repeater.cli.group import explain

        message, hint = explain(error)
        _report_crash(f"rpr: {message}", hint)
        return 2
    if os.environ.get("RPR_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if _is_resource_exhaustion(error):
        cause = "out of memory" if isinstance(error, MemoryError) else os.strerror(getattr(error, "errno", 0))
        hint = "a system limit was reached; see `ulimit -a`"
        _report_crash(f"rpr: out of resources: {cause}", hint)
        return 1
    _report_crash(
        f"rpr: internal error: {type(error).__name__}: {error}",
        "this is a bug in rpr; please report it with the traceback shown by `RPR_DEBUG=1`",
    )
    return 1


def _is_resource_exhaustion(error: Exception) -> bool:
    """Whether something of the machine is used up, which is nobody's defect."""
    import errno

    shortages = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in shortages)


def _report_crash(text: str, hint: str | None) -> None:
    if hint:
        text += f"\nhint: {hint}"
    try:
        for line in text.split("\n"):
            if not line.isprintable():  # words of a command line, a file or another process are in it
                from repeater.output.terminal import visible_text

                line = visible_text(line)  # noqa: PLW2901
            print(line, file=sys.stderr)
    except OSError:
        pass  # nobody is left to tell


def _print_version(version: str) -> int:
    try:
        os.write(1, f"rpr {version}\n".encode())
    except OSError:
        return CLOSED_PIPE
    return 0


def _secure_streams() -> None:
    """Names of files may hold any bytes, and the streams may be closed: neither may end in a traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - lives as long as the process
        elif name == "stdout":
            stream.reconfigure(errors="backslashreplace")


def _leave_closed_pipe() -> int:
    # What is still buffered has nowhere to go; Python would complain about it at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return CLOSED_PIPE
