"""`rpr init`: a commented starter job file."""

from __future__ import annotations

from pathlib import Path

import click

from repeater.errors import UsageError

STARTER = """\
#:schema https://raw.githubusercontent.com/repeater-rpr/repeater/main/schemas/jobs.schema.json
# A job file for rpr. Commands to try:   rpr validate · rpr next · rpr simulate --for 1h · rpr apply
# `rpr apply` applies changes when you save the file. Reference of all keys: `rpr schema --format markdown`.

version = 1

[defaults]                      # for all jobs; a job may override them
timeout = "1m"

# Every 30 seconds. The first run starts immediately.
[jobs.hello]
command = "echo hello, the time is $(date +%T)"
schedule = "every 30s"

# A cron expression of five fields, or a nickname such as `@daily`. Daylight saving time is handled.
[jobs.nightly]
command = "echo nightly work"
schedule = { cron = "0 3 * * *", timezone = "Europe/Berlin" }
retry = { attempts = 3, base = "10s" }
catch_up = "latest"             # if the run at 03:00 was missed, run once as soon as possible

# A service: rpr keeps it running and restarts it when it exits.
# [jobs.web]
# command = "python3 -m http.server 8000"
# schedule = "always"
# ready = { http = "http://localhost:8000/" }

# A job that runs when files change:
# [jobs.test]
# command = "make test"
# schedule = { watch = ["src/**"] }
"""


@click.command(epilog="Example: rpr init")
@click.argument("file", default="jobs.toml")
def init(file: str) -> None:
    """Write a commented starter job file. FILE defaults to `jobs.toml`. Never overwrites an existing file."""
    if not file.endswith(".toml"):
        raise UsageError(f"cannot write `{file}`: the starter file is TOML, so its name must end in `.toml`")
    try:
        with Path(file).open("x", encoding="utf-8") as out:
            out.write(STARTER)
    except FileExistsError:
        raise UsageError(f"cannot write `{file}`: the file already exists", hint="name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write `{file}`: {error.strerror or error}") from None
    click.echo(f"wrote {file}; to run it: `rpr apply{'' if file == 'jobs.toml' else ' ' + file}`")
