"""`rpr init`: a commented starter job file."""

from __future__ import annotations

from pathlib import Path

import click

from repeater.errors import UsageError

STARTER = """\
#:schema https://raw.githubusercontent.com/repeater-rpr/repeater/main/schemas/jobs.schema.json
# A job file for rpr. Try it:   rpr validate · rpr next · rpr simulate --for 1h · rpr apply
# While `rpr apply` runs, edit and save: changes take effect at once. Every key: `rpr schema --format markdown`.

version = 1

[defaults]                      # for every job that does not say otherwise
timeout = "1m"

# Every 30 seconds, on a fixed grid, the first time at once.
[jobs.hello]
command = "echo hello, the time is $(date +%T)"
schedule = "every 30s"

# Five cron fields, or `@daily`; the time zone's changes of the clock are taken care of.
[jobs.nightly]
command = "echo nightly work"
schedule = { cron = "0 3 * * *", timezone = "Europe/Berlin" }
retry = { attempts = 3, base = "10s" }
catch_up = "latest"             # if nothing ran at three, run once when possible

# A service is kept running, and started again when it ends:
# [jobs.web]
# command = "python3 -m http.server 8000"
# schedule = "always"
# ready = { http = "http://localhost:8000/" }

# Runs when files change:
# [jobs.test]
# command = "make test"
# schedule = { watch = ["src/**"] }
"""


@click.command(epilog="Example: rpr init")
@click.argument("file", default="jobs.toml")
def init(file: str) -> None:
    """Write a commented starter job file, `jobs.toml` if FILE is not given. An existing file is left alone."""
    if not file.endswith(".toml"):
        raise UsageError(f"cannot write `{file}`: the starter is TOML, so its name must end in `.toml`")
    try:
        with Path(file).open("x", encoding="utf-8") as out:
            out.write(STARTER)
    except FileExistsError:
        raise UsageError(f"cannot write `{file}`: it exists already", hint="name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write `{file}`: {error.strerror or error}") from None
    click.echo(f"wrote {file}; now try `rpr apply{'' if file == 'jobs.toml' else ' ' + file}`")
