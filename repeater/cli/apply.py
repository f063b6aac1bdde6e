"""`rpr apply`: become the supervisor of job files, in the foreground."""

from __future__ import annotations

import sys
from typing import Literal

import click

from repeater.cli.options import files_argument, project_option, set_option
from repeater.cli.settings import load_settings
from repeater.errors import UsageError
from repeater.model.units import parse_size


@click.command(epilog="Example: rpr apply jobs.toml")
@files_argument
@set_option
@project_option
@click.option("--only", multiple=True, metavar="JOB", help="Only these: a name, a glob, or a label as `key=value`.")
@click.option("--dry-run", is_flag=True, help="Show what would happen, and do nothing at all.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when it is ready, or has failed.")
@click.option("--no-watch", is_flag=True, help="Do not follow changes of the files.")
@click.option("--keep-alive", is_flag=True, help="Stay when every job is done.")
@click.option("--allow-removals", is_flag=True, help="Let a changed file remove more than half of the jobs.")
@click.option(
    "--state-dir", metavar="DIR", envvar="RPR_STATE_DIR", help="Keep state there, not in the project's own folder."
)
@click.option("--ephemeral", is_flag=True, help="Keep no state at all.")
@click.option(
    "--http", metavar="ADDR", envvar="RPR_HTTP", help="Serve the HTTP API, health and metrics at PORT or HOST:PORT."
)
@click.option("--allow-remote", is_flag=True, help="Let `--http` listen where others can reach it.")
@click.option("--http-host", "http_hosts", multiple=True, metavar="NAME", help="Another name that `--http` goes by.")
@click.option(
    "--http-token-file", metavar="FILE", envvar="RPR_HTTP_TOKEN_FILE", help="The token, if not one in the state folder."
)
@click.option(
    "--on-death",
    type=click.Choice(["kill", "keep"]),
    help="What becomes of the jobs if this supervisor is killed: `kill` them, or `keep` them running for the next one. "
    "[default: kill; with --detach: keep]",
)
@click.option(
    "--cgroups",
    type=click.Choice(["off", "services", "all"]),
    default="services",
    show_default=True,
    envvar="RPR_CGROUPS",
    help="Which jobs get a cgroup of their own, where one is delegated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell every start and every end.")
@click.option("-q", "--quiet", is_flag=True, help="Tell only what went wrong.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="RPR_LOG_FORMAT",
    help="How rpr words its own messages.",
)
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour the output.")
def apply(
    files: tuple[str, ...],
    set_vars: tuple[tuple[str, str], ...],
    project: str | None,
    only: tuple[str, ...],
    dry_run: bool,
    detach: bool,
    no_watch: bool,
    keep_alive: bool,
    allow_removals: bool,
    state_dir: str | None,
    ephemeral: bool,
    http: str | None,
    allow_remote: bool,
    http_hosts: tuple[str, ...],
    http_token_file: str | None,
    on_death: Literal["kill", "keep"] | None,
    cgroups: Literal["off", "services", "all"],
    verbose: bool,
    quiet: bool,
    log_format: Literal["text", "json"],
    color: str,
) -> int:
    """Run job files, and follow their changes.

    If a supervisor of this project is running already, it takes the files over, and this returns.

    Else runs in the foreground until every job is done. Ctrl-C lets live runs finish and stops services; a second
    Ctrl-C stops everything, a third kills it. Output of the jobs goes to standard output and error, behind their names.
    """
    from repeater.apps import (
        HttpOptions,
        SupervisorOptions,
        connect_project,
        first_file,
        load_selected,
        supervise,
        supervise_detached,
    )
    from repeater.cli.lifecycle import hand_over
    from repeater.cli.plan import print_plan, read_plan

    for option, given in (("--allow-remote", allow_remote), ("--http-host", http_hosts)):
        if given and not http:
            raise UsageError(f"cannot use `{option}`: nothing is served", hint="`--http ADDR` serves")
    if not (verbose or quiet):
        level = _log_level()
        verbose, quiet = level == "debug", level in ("warn", "error")
    if ephemeral and on_death == "keep":
        raise UsageError(
            "cannot keep jobs without state: the next supervisor would know nothing of them",
            hint="leave out `--ephemeral` or `--on-death keep`",
        )
    settings = load_settings()
    options = SupervisorOptions(
        files=files,
        set_vars=set_vars,
        only=only,
        watch=not no_watch,
        keep_alive=keep_alive,
        allow_removals=allow_removals,
        state_dir=state_dir,
        ephemeral=ephemeral,
        on_death=on_death or ("keep" if detach and not ephemeral else "kill"),
        cgroups=cgroups,
        project=project,
        verbose=verbose,
        quiet=quiet,
        color=color,
        log_format=log_format,
        http=HttpOptions(http, allow_remote, http_hosts, http_token_file) if http else None,
        daemon=settings["daemon_socket"].text,
        output_size=parse_size(settings["output_size"].text or "0B"),
    )
    loaded = load_selected(files, options.set_vars, only, project=project)
    running = None if ephemeral else connect_project(loaded.jobfile.project, state_dir, guests=False)
    if running is not None:
        with running:
            hand_over(running, options, first_file(loaded.name), dry_run=dry_run)
        return 0
    if dry_run or not quiet:
        planned = read_plan(loaded, state_dir=state_dir, ephemeral=ephemeral, for_people=True)
        print_plan(planned, err=not dry_run, brief=not dry_run)
    if dry_run:
        return 0
    if not detach:
        return supervise(options, loaded)
    words, code = supervise_detached(options, loaded)
    if words and not quiet:
        print(f"running in the background: {words}", file=sys.stderr)
    return code


def _log_level() -> str:
    """That of the settings."""
    from repeater.cli.settings import load_settings

    return (load_settings()["log_level"].text or "").lower()
