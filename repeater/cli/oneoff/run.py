"""Runs a one-off command such as `rpr interval`, from its arguments to its exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from repeater.cli.commands import ONE_OFF
from repeater.cli.oneoff.document import JobTable, table_of
from repeater.cli.oneoff.options import COMMANDS
from repeater.cli.oneoff.parse import ParsedArgs, check, parse
from repeater.cli.settings import load_settings
from repeater.errors import UsageError
from repeater.model.spec import JobSpec, Limit
from repeater.settings import Settings

if TYPE_CHECKING:
    from repeater.apps.oneoff import HttpPorts

NAMES: dict[str, str] = {word: name for name, (_, shorts) in ONE_OFF.items() for word in (name, *shorts)}


def run(word: str, arguments: list[str]) -> int:
    """Run one command line. `word` is the command or its short form. Raises UsageError."""
    command = COMMANDS[NAMES[word]]
    given = parse(command, arguments)
    if given.has("--help"):
        from repeater.cli.oneoff.help import help_text

        print(help_text(command), end="")
        return 0
    settings = load_settings(given.text("--config"))
    check(given, has_interval=settings["default_interval"].text is not None)
    _warn_of_shares(given)
    table = table_of(given, settings)
    spec = build_spec(table, _cwd(given.text("--working-dir")))
    limits = limits_of(table)
    if given.has("--as-job"):
        from repeater.cli.oneoff.show import as_job

        print(as_job(table), end="")
        return 0
    if given.has("--dry-run"):
        from repeater.cli.oneoff.show import planned

        print(planned(spec), end="")
        return 0
    return _run(spec, limits, given, settings)


def _cwd(working_dir: str | None) -> str:
    """The current directory, to which paths are relative. Raises UsageError if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - importing pathlib takes a tenth of the start-up time
    except OSError as error:
        if working_dir is not None and working_dir.startswith("/"):
            return working_dir
        cause = os.strerror(error.errno or 0)
        raise UsageError(
            f"cannot run in the current directory: {cause}", hint="choose another directory with `-C DIR`"
        ) from None


def build_spec(table: JobTable, folder: str) -> JobSpec:
    """The spec. Raises UsageError that lists all problems, each with the option that caused it."""
    from repeater.jobfile.single_job import build_single_job

    spec, faults = build_single_job(table.name, table.job, folder)
    if faults:
        lines = dict.fromkeys(_as_usage_error(table, fault.path, fault.message) for fault in faults)
        raise UsageError("\nrpr: ".join(lines), hint=next((fault.hint for fault in faults if fault.hint), None))
    return spec


def _as_usage_error(table: JobTable, path: tuple[str | int, ...], message: str) -> str:
    """The option that set the value at `path`, or the nearest one."""
    for end in range(len(path), 0, -1):
        words = table.sources.get(tuple(map(str, path[:end])))
        if words is not None:
            value = _at(table.job, path)
            shown = f" {value}" if isinstance(value, str | int | float) and words.startswith("-") else ""
            return f"cannot use `{words}{shown}`: {message}"
    return f"cannot use `{'.'.join(map(str, path))}`: {message}"


def _at(job: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        job = job.get(part) if isinstance(job, dict) else None
    return None if isinstance(job, bool) else job


def limits_of(table: JobTable) -> tuple[Limit, ...]:
    """The limits that the job uses. Raises UsageError."""
    if not table.limits:
        return ()
    from repeater.cli.oneoff.limits import build_limit

    return tuple(build_limit(name, one) for name, one in table.limits.items())


def _run(spec: JobSpec, limits: tuple[Limit, ...], given: ParsedArgs, settings: Settings) -> int:
    if given.has("--stdin") and os.isatty(0):
        raise UsageError(
            "cannot use `--stdin`: standard input is a terminal, and each run has its own session",
            hint="redirect standard input from a file or a pipe",
        )
    from repeater.apps.oneoff import OneOff, run_once

    strategy = given.command.strategy
    wants_success = strategy or given.has("--until-success")
    return run_once(
        OneOff(
            spec,
            goal="a failure" if given.has("--until-failure") else "a success" if wants_success else "no failure",
            passes_code=bool(strategy),
            kill_at_end=given.has("--kill-at-end"),
            stdin=given.has("--stdin"),
            verbose=given.has("--verbose") or (settings["log_level"].text or "").lower() == "debug",
            shows_pace=given.has("--show-metrics") or given.has("--show-next"),
            stats_only=given.has("--stats-only"),
            log_file=given.text("--log-file"),
            history=given.has("--history"),
            shows=_http_ports(given, settings),
            limits=limits,
            daemon=given.text("--daemon-socket") or settings["daemon_socket"].text,
            log_json=_logs_json(given),
        )
    )


def _logs_json(given: ParsedArgs) -> bool:
    """Whether messages are JSON: `--log-format`, or else `RPR_LOG_FORMAT`, which `rpr apply` reads too."""
    option, text = "--log-format", given.text("--log-format")
    if text is None:
        option, text = "RPR_LOG_FORMAT", os.environ.get("RPR_LOG_FORMAT") or "text"
    if text not in ("text", "json"):
        raise UsageError(f"cannot use `{option} {text}`: expected `text` or `json`")
    return text == "json"


def _warn_of_shares(given: ParsedArgs) -> None:
    """Warn about `1`, which could mean 1% or 100%."""
    for option, text in given.words:
        if option.kind == "share" and text == "1":
            message = f"rpr: warning: `{option.name} 1` means 100%; write `1%` or `100%`"
            print(message, file=sys.stderr)


def _http_ports(given: ParsedArgs, settings: Settings) -> HttpPorts:
    """The ports of the metrics and health servers. An explicit port also enables its server."""
    from repeater.apps.oneoff import HttpPorts

    ports: dict[str, int | None] = {}
    must = set()
    for what, enabled, port in (
        ("metrics", "metrics_enabled", "metrics_port"),
        ("health", "health_enabled", "health_check_port"),
    ):
        named = given.text(f"--{what}-port")
        if given.has(f"--{what}") or named is not None:
            must.add(what)
        wanted = what in must or settings[enabled].text in ("true", "1")
        ports[what] = (
            _port(f"--{what}-port", named if named is not None else settings[port].text or "") if wanted else None
        )
    return HttpPorts(ports["metrics"], ports["health"], frozenset(must))


def _port(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise UsageError(f"cannot use `{option} {text}`: expected a port from 1 to 65535")
    return int(text)
