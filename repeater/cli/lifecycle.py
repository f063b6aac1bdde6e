"""`rpr reload` and `rpr down`, and the part of `rpr apply` that passes job files to a running supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repeater.cli.change_classes import SIGNS, WORDS
from repeater.cli.options import json_option
from repeater.cli.remote import print_json, printable, supervisor_options
from repeater.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from repeater.apps.locate import SupervisorSelector
    from repeater.apps.options import SupervisorOptions
    from repeater.control.client import Answer, Client

_SHOWN = 40


@click.command(epilog="Example: rpr reload")
@click.option("--allow-removals", is_flag=True, help="Apply even if more than half of the jobs would be removed.")
@json_option
@supervisor_options
def reload(allow_removals: bool, as_json: bool, where: SupervisorSelector) -> None:
    """Reload the job files.

    Use it with `--no-watch`, or to see why the current files were rejected. Exit code 2: a file is not valid. Exit
    code 5: the change was refused.
    """
    from repeater.apps.locate import connect

    with connect(where) as client:
        print_apply_result(client.ask("reload", patience=120.0, allow_removals=allow_removals), as_json=as_json)


@click.command(epilog="Example: rpr down")
@click.option("--now", is_flag=True, help="Stop running jobs now instead of waiting for them to finish.")
@click.option("--kill", is_flag=True, help="Kill all runs with SIGKILL.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@supervisor_options
def down(now: bool, kill: bool, quiet: bool, where: SupervisorSelector) -> None:
    """Shut down the supervisor and wait until it has exited.

    Services are stopped; other runs may finish. When the command returns, no process of any job is left. Ctrl-C ends
    the command but not the shutdown. If the supervisor was killed and its runs continue, the command stops them.
    """
    from repeater.apps.locate import connect

    try:
        client = connect(where)
    except Unreachable as error:
        _end_unattended(where, error, kill=kill, quiet=quiet)
        return
    with client:
        result = client.call("down", level="kill" if kill else "stop" if now else "")
        waiting = result["waiting"]
        if waiting and not quiet:
            names = ", ".join(f"`{printable(name)}`" for name in waiting[:5]) + (" …" if len(waiting) > 5 else "")
            print(f"waiting for {names}", file=sys.stderr, flush=True)
        client.wait_for_end()


def _end_unattended(where: SupervisorSelector, error: Unreachable, *, kill: bool, quiet: bool) -> None:
    """Stop the runs that continue without a supervisor. Raises `error` if there are none."""
    from repeater.apps.locate import records
    from repeater.apps.unattended import end_unattended_runs

    with records(where) as found:
        runs = () if found is None else end_unattended_runs(found, kill=kill)
    if not runs:
        raise error
    if not quiet:
        names = ", ".join(f"`{printable(one.job or one.run)}` (pid {one.pid})" for one in runs[:5])
        print(f"no supervisor was running; ended {names}{' …' if len(runs) > 5 else ''}", file=sys.stderr)


def hand_over(client: Client, options: SupervisorOptions, file: str, *, dry_run: bool) -> None:
    """Request the running supervisor to apply the files, and print the changes.

    `file` is the absolute path of the first file. Without a named file, the supervisor reloads its own files.
    """
    for name, value in (
        ("--no-watch", not options.watch),
        ("--keep-alive", options.keep_alive),
        ("--cgroups", options.cgroups != (os.environ.get("RPR_CGROUPS") or "services")),
        ("--http", options.http is not None and options.http.address != os.environ.get("RPR_HTTP")),
    ):
        if value:
            raise UsageError(f"cannot use `{name}`: the supervisor is already running", hint="run `rpr down` first")
    if "-" in options.files:
        raise UsageError(
            "cannot hand standard input to a running supervisor: it can only read files",
            hint="save the input to a file",
        )
    answer = client.ask(
        "apply",
        patience=120.0,
        only=list(options.only),
        allow_removals=options.allow_removals,
        dry_run=dry_run,
        **files_and_settings(client, options.files, options.set_vars, file),
    )
    print_apply_result(answer, as_json=False, dry_run=dry_run, quiet=options.quiet)


def files_and_settings(
    client: Client, files: tuple[str, ...], set_vars: tuple[tuple[str, str], ...], file: str
) -> dict[str, Any]:
    """The arguments of the request that select the files. Without a file, the supervisor reloads its own files; `file`
    is the absolute path of the file that was found here.
    """
    from repeater.jobfile.document import JsonText

    names = [os.fspath(Path(name).absolute()) for name in files]
    if not names:
        from repeater.apps.identity import check_running

        found = client.call("status", jobs=[])
        check_running(found, file)
        names = found["files"]
    return {
        "files": names,
        "set": [list(pair) for pair in set_vars if not isinstance(pair[1], JsonText)],
        "set_json": [list(pair) for pair in set_vars if isinstance(pair[1], JsonText)],
    }


def print_apply_result(answer: Answer, *, as_json: bool, dry_run: bool = False, quiet: bool = False) -> None:
    """Print an answer of `apply` or `reload`."""
    items = list(answer)
    result = answer.result()
    if as_json:
        print_json({**result, "jobs": items})
        return
    if quiet:
        return
    width = max((len(item["job"]) for item in items[:_SHOWN]), default=0)
    for item in items[:_SHOWN]:
        print(f"{SIGNS[item['class']]} {printable(item['job']):<{width}}  {_describe_change(item)}")
    if len(items) > _SHOWN:
        print(f"  and {len(items) - _SHOWN} more")
    for kind, key in (("pool", "pools"), ("limit", "limits")):
        for one in result[key]:
            sign = "+" if one["old"] is None else "-" if one["new"] is None else "~"
            print(f"{sign} {kind} {printable(one['name'])}")
    changed = result["changed"] + len(result["pools"]) + len(result["limits"])
    counts = [f"{changed} changed" if changed else "no changes"]
    if result["unchanged"]:
        counts.append(f"{result['unchanged']} unchanged")
    state = "would be active" if dry_run else "is active"
    print(f"generation {result['generation']} {state}: {', '.join(counts)}")


def _describe_change(item: Mapping[str, Any]) -> str:
    words = WORDS[item["class"]]
    if item["from"]:
        words += f" from {printable(item['from'])}"
    keys = ", ".join(change["key"] for change in item["changes"])
    return f"{words} ({printable(keys)})" if keys else words
