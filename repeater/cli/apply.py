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
@click.option(
    "--only",
    multiple=True,
    metavar="JOB",
    help="Apply only these jobs: a name, a glob, or a label as `key=value`. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes without applying them.")
@click.option(
    "-d", "--detach", is_flag=True, help="Run in the background; return when the supervisor is ready or has failed."
)
@click.option("--no-watch", is_flag=True, help="Do not reload when job files change.")
@click.option("--keep-alive", is_flag=True, help="Keep running when all jobs are done.")
@click.option("--allow-removals", is_flag=True, help="Allow a changed file to remove more than half of the jobs.")
@click.option(
    "--state-dir",
    metavar="DIR",
    envvar="RPR_STATE_DIR",
    help="Directory of the state. Default: a directory named after the project.",
)
@click.option("--ephemeral", is_flag=True, help="Store no state on disk.")
@click.option(
    "--http",
    metavar="ADDR",
    envvar="RPR_HTTP",
    help="Serve the HTTP API, health checks and metrics on PORT or HOST:PORT.",
)
@click.option(
    "--allow-remote", is_flag=True, help="Allow `--http` to listen on addresses that other machines can reach."
)
@click.option(
    "--http-host",
    "http_hosts",
    multiple=True,
    metavar="NAME",
    help="Additional `Host` name to accept on `--http`. Repeatable.",
)
@click.option(
    "--http-token-file",
    metavar="FILE",
    envvar="RPR_HTTP_TOKEN_FILE",
    help="File with the bearer token. Default: a token in the state directory.",
)
@click.option(
    "--on-crash",
    "on_death",
    type=click.Choice(["kill", "keep"]),
    help="If this supervisor is killed: `kill` its jobs, or `keep` them running until the next supervisor takes over. "
    "[default: kill; with --detach: keep]",
)
@click.option(
    "--cgroups",
    type=click.Choice(["off", "services", "all"]),
    default="services",
    show_default=True,
    envvar="RPR_CGROUPS",
    help="Run these jobs in their own cgroup, if a cgroup is delegated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every start and exit.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="RPR_LOG_FORMAT",
    help="Format of rpr's own log messages.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colour the output: `auto`, `always` or `never`.",
)
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
    """Run the jobs of job files and apply changes of the files.

    If this project already has a supervisor, the files are handed to it and the command returns.

    Otherwise the command runs in the foreground until all jobs are done. Ctrl-C stops services and lets other runs
    finish. A second Ctrl-C stops all runs; a third kills them. Job output goes to stdout and stderr, prefixed with the
    job name.
    """
    from repeater.apps.identity import first_file
    from repeater.apps.locate import connect_project
    from repeater.apps.options import HttpOptions, SupervisorOptions
    from repeater.apps.reload_worker import load_selected
    from repeater.cli.lifecycle import hand_over
    from repeater.cli.plan import print_plan, read_plan

    for option, given in (("--allow-remote", allow_remote), ("--http-host", http_hosts)):
        if given and not http:
            raise UsageError(f"cannot use `{option}`: it requires `--http`", hint="add `--http ADDR`")
    if not (verbose or quiet):
        level = _log_level()
        verbose, quiet = level == "debug", level in ("warn", "error")
    if ephemeral and on_death == "keep":
        raise UsageError(
            "cannot combine `--on-crash keep` with `--ephemeral`: the next supervisor needs the state",
            hint="leave out one of the two options",
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
        from repeater.apps.supervisor import supervise

        return supervise(options, loaded)
    from repeater.apps.detach import supervise_detached

    words, code = supervise_detached(options, loaded)
    if words and not quiet:
        print(f"running in the background: {words}", file=sys.stderr)
    return code


def _log_level() -> str:
    """The log level of the settings."""
    from repeater.cli.settings import load_settings

    return (load_settings()["log_level"].text or "").lower()
