"""`rpr systemd-unit`: a systemd service for a job file."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import click

from repeater.cli.options import files_argument, project_option, set_option
from repeater.errors import UsageError

_UNIT = """\
# {name}
# as a user:  systemctl --user enable --now {name}     (and `loginctl enable-linger` to keep it running after logout)
# as root:    /etc/systemd/system/{name}, `WantedBy=multi-user.target`, and `User=`

[Unit]
Description=Recurring jobs of {project}
Documentation=man:crontab(5)

[Service]
# Before systemd 253: `Type=notify`, and `ExecReload=/bin/kill -HUP $MAINPID`.
Type=notify-reload
ExecStart={command}
WorkingDirectory={folder}
Restart=on-failure
RestartSec=2
WatchdogSec=60
# On stop, current runs may finish. Processes that are left after this time are killed.
TimeoutStopSec={grace}
KillMode=mixed
# Each service gets its own cgroup, so that all its processes end when it is stopped.
Delegate=yes
NotifyAccess=main

[Install]
WantedBy=default.target
"""


@click.command(epilog="Example: rpr systemd-unit jobs.toml > ~/.config/systemd/user/shop.service")
@files_argument
@set_option
@project_option
@click.option(
    "--grace",
    default="5min",
    show_default=True,
    metavar="LENGTH",
    help="Time for current runs to finish when the unit is stopped.",
)
def systemd_unit(
    files: tuple[str, ...], set_vars: tuple[tuple[str, str], ...], project: str | None, grace: str
) -> None:
    """Print a systemd unit that runs a supervisor for the given job files.

    The supervisor reports to systemd when it is ready, reloads and stops. systemd restarts it if it hangs or crashes.
    """
    from repeater.apps.job_files import load_job_files
    from repeater.jobfile.document import JsonText

    loaded = load_job_files(files, set_vars=dict(set_vars), project=project)
    words = [_program(), "apply", "--keep-alive", "--quiet"]
    words += ["--project", project] if project else []
    for key, value in set_vars:
        words += ["--set-json" if isinstance(value, JsonText) else "--set", f"{key}={value}"]
    words += [os.fspath(Path(name).absolute()) for name in (files or (loaded.name,))]
    named = loaded.jobfile.project
    text = _UNIT.format(
        name=f"{named}.service",
        project=named,
        command=" ".join((_quoted(words[0], is_program=True), *map(_quoted, words[1:]))),
        folder=_folder(loaded.folder),
        grace=_time_span(grace),
    )
    sys.stdout.write(text)


def _program() -> str:
    found = shutil.which("rpr") if os.path.basename(sys.argv[0]) != "rpr" else sys.argv[0]  # noqa: PTH119
    return os.fspath(Path(found or sys.argv[0]).absolute())


def _escaped(text: str) -> str:
    """Escape a value that systemd does not split into words: only specifiers are special."""
    return text.replace("%", "%%")


def _folder(path: str) -> str:
    """A path that is the complete value of a setting, where quotes are not supported. Raises UsageError."""
    if path != path.strip() or path.endswith("\\") or any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise UsageError(
            f"cannot write a unit for the directory `{path}`: systemd cannot read its name",
            hint="use a directory name without control characters, spaces at its ends or a `\\` at its end",
        )
    return _escaped(path)


def _time_span(text: str) -> str:
    """A duration in the format of systemd.time(7). Raises UsageError."""
    if re.fullmatch(r"infinity|[0-9]+|([0-9]+(\.[0-9]+)? ?[a-zA-Z]{1,9} ?)+", text) is None or text != text.strip():
        raise UsageError(f"cannot use `--grace {text}`: expected a time span of systemd such as `90s` or `5min 20s`")
    return text


def _quoted(word: str, *, is_program: bool = False) -> str:
    """Quote an argument for systemd.service(5). systemd does not expand variables in the name of the program."""
    word = _escaped(word)
    if not is_program:
        word = word.replace("$", "$$")
    if word and _PLAIN.fullmatch(word):
        return word
    return '"' + "".join(map(_quoted_char, word)) + '"'


_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@%$+~^-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quoted_char(char: str) -> str:
    """Escape a character within quotes: ends of lines and non-printable characters, see systemd.syntax(7)."""
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char == " " or char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
