"""`rpr systemd-unit`: a service of systemd for a job file."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from repeater.cli.options import files_argument, project_option, set_option

_UNIT = """\
# {name}
# as a user:  systemctl --user enable --now {name}     (and `loginctl enable-linger` to go on after logging out)
# as root:    /etc/systemd/system/{name}, `WantedBy=multi-user.target`, and `User=`

[Unit]
Description=repeat jobs of {project}
Documentation=man:crontab(5)

[Service]
# Before systemd 253: `Type=notify`, and `ExecReload=/bin/kill -HUP $MAINPID`.
Type=notify-reload
ExecStart={command}
WorkingDirectory={folder}
Restart=on-failure
RestartSec=2
WatchdogSec=60
# Live runs may finish; what is left after this is killed.
TimeoutStopSec={grace}
KillMode=mixed
# Services get a cgroup each below ours, so that nothing of them outlives their stop.
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
    "--grace", default="5min", show_default=True, metavar="LENGTH", help="How long live runs may take to end."
)
def systemd_unit(
    files: tuple[str, ...], set_vars: tuple[tuple[str, str], ...], project: str | None, grace: str
) -> None:
    """Print a unit of systemd that keeps a supervisor of the job files running.

    It is told when the supervisor is ready, reloads and leaves, and starts it again if it hangs or dies.
    """
    from repeater.app import load_job_files
    from repeater.jobfile import JsonText

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
        command=" ".join(map(_quoted, words)),
        folder=_escaped(loaded.folder),
        grace=grace,
    )
    sys.stdout.write(text)


def _program() -> str:
    found = shutil.which("rpr") if os.path.basename(sys.argv[0]) != "rpr" else sys.argv[0]  # noqa: PTH119
    return os.fspath(Path(found or sys.argv[0]).absolute())


def _escaped(text: str) -> str:
    """For a value that systemd does not cut into words: only specifiers are special."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of a command line, as systemd.service(5) reads it."""
    word = _escaped(word).replace("$", "$$")
    if word and not any(mark in word for mark in " \t\n\"'\\;"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
