"""`rpr examples`: common uses, ready to paste."""

from __future__ import annotations

import click

from repeater.cli.oneoff.options import COMMANDS

_FILES = """\
# A job file
rpr init                                   # a commented example file
rpr apply jobs.toml                        # run it and apply changes
rpr plan jobs.toml                         # what would change
rpr next jobs.toml -n 3                    # the next starts
rpr simulate jobs.toml --for 24h           # a day in a second
"""

_PIPES = """\
# In scripts and pipes
rpr c -t 20 -- curl -so /dev/null -w '%{time_total}\\n' localhost:8000 | sort -n | tail -1
rpr i -e 2s --until-success --for 1m -q -- curl -fsS localhost:8000/health && ./deploy.sh
rpr exp --attempts 5 -- pg_isready && ./migrate.sh
rpr c -t 100 -p 4 --stats-only -- ./bench.sh
rpr d --for 1h -e 5m --timestamps -o disk.log -- df -h /
"""

_TO_FILE = """\
# From a command to a job file
rpr i -e 30s -T 10s --as-job -- ./poll.sh > jobs.toml
"""


@click.command(epilog="Example: rpr examples cron")
@click.argument("name", required=False, metavar="[COMMAND]")
def examples(name: str | None) -> None:
    """Show examples of common uses, or of one command."""
    from repeater.cli.oneoff.run import NAMES
    from repeater.errors import UsageError

    if name is None:
        ones = "".join(f"{command.example}\n" for command in COMMANDS.values())
        print(f"{_FILES}\n# One-off commands, without a job file\n{ones}\n{_PIPES}\n{_TO_FILE}", end="")
    elif name in NAMES:
        full = NAMES[name]
        words = (f"rpr {one} " for one in (name, full, *(short for short, long in NAMES.items() if long == full)))
        starts = tuple(words)
        more = [line for line in _PIPES.splitlines() if line.startswith(starts)]
        print("\n".join([COMMANDS[full].example, *more]))
    else:
        raise UsageError(f"cannot show examples: `{name}` is not a one-off command", hint="`rpr examples`")
