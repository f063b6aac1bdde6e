"""Builds the `JobSpec` from a job's complete and valid table.

Checks what the schema cannot express: durations, instants, sizes, expressions, and combinations of keys. `cross_check`
checks what depends on other jobs. Built specs share their default parts, so ten thousand plain jobs need little memory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from repeater._lazy_dataclasses import dataclass
from repeater.jobfile.document import Path, Report, RunTemplate, describe
from repeater.jobfile.layers import ExpandedJob
from repeater.jobfile.schedules import read_backoff, read_schedule
from repeater.jobfile.table_reader import TableReader
from repeater.model.spec import (
    Always,
    CatchUp,
    Hooks,
    HttpAware,
    JobSpec,
    Keep,
    Need,
    Output,
    Overlap,
    Pairs,
    Plugin,
    Probe,
    ProcessSpec,
    Retry,
    Slowdown,
    Stop,
    Success,
    Termination,
    default_overlap,
)
from repeater.model.units import format_duration, parse_duration, parse_size

if TYPE_CHECKING:
    from repeater.model.plugins import Kind, PluginCatalog

_ONCE_TABLE: Mapping[str, Any] = {}
_DEFAULT = JobSpec("x", ProcessSpec(""))
_LEAST_KEPT = 4096  # bytes of the output of one run
_ENDING_KEYS = frozenset({"timeout", "stop_signal", "stop_timeout", "drain_timeout"})
_OVERLAP_KEYS = frozenset({"overlap", "queue_max", "max_instances"})
_DOUBTFUL_KEYS = frozenset({"env", "catch_up"})  # without them a job has no warnings
_CATCH_UP_KEYS = frozenset({"catch_up", "catch_up_window", "catch_up_max", "start_deadline"})
_SERVICE_KEYS = ("restart", "watch", "watch_ignore", "ready", "live")
OPEN: Any = ""
"""The condition of a need whose default depends on the needed job; `cross_check` sets it."""


class ReadEnv(Protocol):
    """Returns the variables of an env file, or the text of a problem; None for a missing file that is not
    required.
    """

    def __call__(self, path: str, /, *, required: bool) -> Pairs | str | None: ...


def no_env_files(_path: str, /, *, required: bool) -> Pairs:
    """A `ReadEnv` for jobs that were built earlier, or that have no env files."""
    del required
    return ()


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The context of a build. `catalog` has the installed plugins; None: do not check plugins."""

    folder: str
    read_env: ReadEnv
    catalog: PluginCatalog | None = None


def build_job(job: ExpandedJob, around: BuildContext, report: Report) -> JobSpec:
    """The spec. If an error was reported, the spec is used only for further checks."""
    table = job.table
    keys = table.keys()
    reading = TableReader(report, around.catalog)
    schedule = read_schedule(table.get("schedule", "once"), reading, job.name, job.stagger)
    if not isinstance(schedule, Always):
        _refuse_service_keys(job, reading)
    elif "timeout" in keys and _is_default(job, "timeout"):
        del table["timeout"]  # a default for jobs with a schedule; it would stop a service repeatedly
    overlap = default_overlap(schedule)
    if keys & _OVERLAP_KEYS:
        overlap = _overlap(table, overlap, reading)
    catch_up = _catch_up(table, reading) if keys & _CATCH_UP_KEYS else _DEFAULT.catch_up
    if keys & _DOUBTFUL_KEYS:
        from repeater.jobfile.lint import warn_of_doubts

        warn_of_doubts(table, schedule, overlap, catch_up, reading)
    return JobSpec(
        name=job.name,
        process=_process(table, reading, around),
        schedule=schedule,
        group=job.group,
        cell=job.cell,
        max_parallel=_parallel(job, reading),
        description=str(table.get("description", "")),
        labels=reading.pairs(table, "labels", ()),
        enabled=reading.boolean(table, "enabled", (), True),
        stop=_stop(table["stop"], reading) if "stop" in keys else _DEFAULT.stop,
        ending=_termination(table, reading) if keys & _ENDING_KEYS else _DEFAULT.ending,
        retry=_retry(table["retry"], reading) if "retry" in keys else _DEFAULT.retry,
        slowdown=_slowdown(table["slowdown"], reading) if "slowdown" in keys else None,
        success=_success(table["success"], reading) if "success" in keys else _DEFAULT.success,
        http_aware=_http_aware(table["http_aware"], reading) if "http_aware" in keys else None,
        overlap=overlap,
        catch_up=catch_up,
        delivery=table.get("delivery", "at-most-once"),
        limit=table.get("limit"),
        pool=table.get("pool"),
        needs=_needs(table["needs"], reading) if "needs" in keys else (),
        restart=table.get("restart", "always"),
        watch=reading.globs(table, "watch", ()) if "watch" in keys else (),
        watch_ignore=reading.globs(table, "watch_ignore", (), ignore=True) if "watch_ignore" in keys else (),
        ready=_probe(table["ready"], reading, ("ready",)) if "ready" in keys else None,
        live=_probe(table["live"], reading, ("live",)) if "live" in keys else None,
        output=_output(table["output"], reading, around.folder) if "output" in keys else _DEFAULT.output,
        hooks=_hooks(table["hooks"], reading) if "hooks" in keys else _DEFAULT.hooks,
        executor=_executor(table, reading) if "executor" in keys else None,
        moved_from=_moved_from(job) if "moved_from" in keys else None,
    )


def _moved_from(job: ExpandedJob) -> str | tuple[str, ...] | None:
    """The former names. For a matrix job the key has its old group, and each cell takes the state of the old cell with
    the same values. If the old group is the name of the job itself, it was a job without a matrix.
    """
    given = job.table["moved_from"]
    names = [given] if isinstance(given, str) else list(given)
    if job.in_matrix:
        suffix = job.name[len(job.group) :]
        names = [name if "[" in name or name == job.group else name + suffix for name in names]
    return names[0] if len(names) == 1 else tuple(dict.fromkeys(names))


def _refuse_service_keys(job: ExpandedJob, reading: TableReader) -> None:
    for key in _SERVICE_KEYS:
        if key in job.table:
            if not _is_default(job, key):
                hint = (
                    "use a schedule `{ watch = […] }` to run a job when files change"
                    if key.startswith("watch")
                    else None
                )
                reading.problem((key,), f'found `{key}`, which is for services only: `schedule = "always"`', hint)
            else:
                del job.table[key]  # a default for services


def _is_default(job: ExpandedJob, key: str) -> bool:
    """Whether a key comes from `defaults` alone."""
    return bool(job.layers) and not any(key in layer.raw for layer in job.layers if layer.kind != "defaults")


def _parallel(job: ExpandedJob, reading: TableReader) -> int | None:
    value = job.max_parallel
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        reading.problem(("matrix", "max_parallel"), f"found {describe(value)}, expected a whole number of at least 1")
        return None
    return int(value)


# --- the process ------------------------------------------------------------------------------------------------


def _process(table: Mapping[str, Any], reading: TableReader, around: BuildContext) -> ProcessSpec:
    keys = table.keys()
    command = reading.command(table, "command", ())
    if command is None and table.get("executor", "local") == "local":
        reading.problem((), "missing `command`")
    if isinstance(command, str) and not command.strip():
        reading.problem(("command",), "found an empty text, expected a command")
    rest: dict[str, Any] = {}
    if "env_file" in keys:
        rest["env_file"], rest["env_from_files"] = _env_files(table["env_file"], reading, around)
    if "umask" in keys:
        rest["umask"] = reading.octal(table, "umask", ())
    if "shell" in keys:
        rest["shell"] = _shell(table["shell"])
    if "rlimits" in keys:
        rest["rlimits"] = tuple(sorted((name, _rlimit(name, one, reading)) for name, one in table["rlimits"].items()))
    if "secrets" in keys:
        rest["secrets"] = tuple(sorted(set(reading.strings(table, "secrets", ()))))
    for key in ("user", "group"):
        if key in keys:
            rest[key] = str(table[key])
    return ProcessSpec(
        command=command or "",
        cwd=_cwd(table.get("cwd"), around.folder),
        env=reading.pairs(table, "env", ()),
        env_mode=table.get("env_mode", "inherit"),
        stdin=str(table.get("stdin", "")),
        nice=reading.integer(table, "nice", (), 0),
        late=_run_templates(table, reading),
        **rest,
    )


def _cwd(path: str | None, folder: str) -> str:
    if not path:
        return folder
    joined = posixpath.join(folder, path)
    return joined if isinstance(path, RunTemplate) else posixpath.normpath(joined)


def _run_templates(table: Mapping[str, Any], reading: TableReader) -> tuple[str, ...]:
    """The fields with a run template. In other fields such a template is reported as a problem."""
    found: list[str] = []
    for key, value in table.items():
        if type(value) is str:
            continue
        if isinstance(value, RunTemplate):
            if key in ("command", "cwd", "stdin"):
                found.append(key)
            else:
                _reject_run_templates((key,), reading)
        elif key == "command" and isinstance(value, list):
            found += [f"command[{number}]" for number, word in enumerate(value) if isinstance(word, RunTemplate)]
        elif key == "env" and isinstance(value, dict):
            found += [f"env.{name}" for name, one in value.items() if isinstance(one, RunTemplate)]
        elif isinstance(value, dict | list):
            _find_run_templates(value, (key,), reading)
    return tuple(sorted(found)) if found else ()


def _find_run_templates(tree: Any, at: Path, reading: TableReader) -> None:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if type(value) is str:
            continue
        if isinstance(value, RunTemplate):
            _reject_run_templates((*at, key), reading)
        elif isinstance(value, dict | list):
            _find_run_templates(value, (*at, key), reading)


def _reject_run_templates(path: Path, reading: TableReader) -> None:
    reading.problem(path, "found a template over `run`, expected it only in `command`, `env`, `cwd` and `stdin`")


def _shell(value: str | list[str]) -> tuple[str, ...]:
    import shlex

    words = tuple(map(str, value)) if isinstance(value, list) else tuple(shlex.split(value)) or _DEFAULT.process.shell
    return (*words, "-c") if len(words) == 1 else words


def _env_files(value: Any, reading: TableReader, around: BuildContext) -> tuple[tuple[str, ...], Pairs]:
    """The absolute paths of the env files, and their variables, without optional files that are missing."""
    paths: list[str] = []
    values: dict[str, str] = {}
    many = isinstance(value, list)
    for number, entry in enumerate(value if many else [value]):
        at: Path = ("env_file", number) if many else ("env_file",)
        keys = entry if isinstance(entry, dict) else {"path": entry}
        path = posixpath.join(around.folder, str(keys.get("path", "")))
        found = around.read_env(path, required=reading.boolean(keys, "required", at, True))
        if isinstance(found, str):
            reading.problem(at, found)
        elif found is not None:
            paths.append(path)
            values.update(found)
    return tuple(paths), tuple(sorted(values.items()))


def _rlimit(name: str, value: Any, reading: TableReader) -> tuple[int, int]:
    def one(part: Any) -> int:
        if part == "unlimited":
            return -1
        if isinstance(part, int):
            return int(part)
        try:
            return parse_size(str(part))
        except ValueError as error:
            reading.problem(("rlimits", name), f"{error}, or `unlimited`")
            return 0

    soft, hard = map(one, value) if isinstance(value, list) and len(value) == 2 else (one(value),) * 2
    if hard != -1 and (soft == -1 or soft > hard):
        reading.problem(("rlimits", name), "found a soft limit above the hard limit")
    return soft, hard


# --- the rest ---------------------------------------------------------------------------------------------------


def _stop(table: Mapping[str, Any], reading: TableReader) -> Stop:
    at: Path = ("stop",)
    return Stop(
        **{
            key: reading.optional_integer(table, key, at)
            for key in ("times", "successes", "failures", "consecutive_failures")
        },
        for_=reading.duration(table, "for", at, timedelta(1)) if "for" in table else None,
        until=reading.instant(table, "until", at) if "until" in table else None,
        on_success=reading.boolean(table, "on_success", at, False),
        on_failure=reading.boolean(table, "on_failure", at, False),
        pattern=reading.pattern(table, "pattern", at),
        plugins=_plugins("stop_condition", table, reading, at) if "plugins" in table else (),
        all=reading.boolean(table, "all", at, False),
        on_exit=_exits(table, "on_exit", reading, at),
        except_exit=_exits(table, "except_exit", reading, at),
    )


def _termination(table: Mapping[str, Any], reading: TableReader) -> Termination:
    return Termination(
        timeout=reading.duration_or_never(table, "timeout", (), None),
        stop_signal=str(table.get("stop_signal", "TERM")).removeprefix("SIG"),
        stop_timeout=reading.duration(table, "stop_timeout", (), _DEFAULT.ending.stop_timeout, zero=True),
        drain_timeout=reading.duration(table, "drain_timeout", (), _DEFAULT.ending.drain_timeout, zero=True),
    )


def _retry(table: Mapping[str, Any], reading: TableReader) -> Retry:
    at: Path = ("retry",)
    attempts = reading.integer(table, "attempts", at, 1)
    return Retry(attempts, read_backoff(table, reading, at), _exits(table, "on_exit", reading, at))


def _slowdown(table: Mapping[str, Any], reading: TableReader) -> Slowdown:
    at: Path = ("slowdown",)
    return Slowdown(read_backoff(table, reading, at), _exits(table, "on_exit", reading, at))


def _exits(table: Mapping[str, Any], key: str, reading: TableReader, at: Path) -> tuple[int, ...] | None:
    return reading.numbers(table, key, at) if key in table else None


def _success(table: Mapping[str, Any], reading: TableReader) -> Success:
    at: Path = ("success",)
    return Success(
        exit_codes=reading.numbers(table, "exit_codes", at) if "exit_codes" in table else (0,),
        pattern=reading.pattern(table, "pattern", at),
        failure_pattern=reading.pattern(table, "failure_pattern", at),
        ignore_case=reading.boolean(table, "ignore_case", at, False),
        stderr=reading.boolean(table, "stderr", at, False),
    )


def _http_aware(value: Any, reading: TableReader) -> HttpAware | None:
    at, default = ("http_aware",), HttpAware()
    if not isinstance(value, dict):
        return default if reading.boolean({"http_aware": value}, "http_aware", (), False) else None
    rule = HttpAware(
        max_delay=reading.duration(value, "max_delay", at, default.max_delay),
        min_delay=reading.duration(value, "min_delay", at, default.min_delay, zero=True),
        headers=reading.boolean(value, "headers", at, True),
        json=reading.boolean(value, "json", at, True),
        json_on_success=reading.boolean(value, "json_on_success", at, False),
        fields=reading.strings(value, "fields", at),
        trust_client=reading.boolean(value, "trust_client", at, False),
    )
    if rule.min_delay > rule.max_delay:
        most = f"`max_delay`, `{format_duration(rule.max_delay)}`"
        reading.problem((*at, "min_delay"), f"found `{format_duration(rule.min_delay)}`, expected at most {most}")
    if not rule.headers and not rule.json:
        reading.problem((*at, "json"), "found neither `headers` nor `json`, expected at least one of them")
    if rule.json_on_success and not rule.json:
        reading.problem((*at, "json_on_success"), "found `json_on_success` without `json`")
    if rule.fields:
        _check_fields(rule.fields, reading, (*at, "fields"))
    return rule


def _check_fields(fields: tuple[str, ...], reading: TableReader, at: Path) -> None:
    from repeater.policy.http_times import UNITS  # few jobs name fields

    for number, field in enumerate(fields):
        path, colon, unit = field.rpartition(":")
        if colon and (not path or unit not in UNITS):
            units = ", ".join(f"`{unit}`" for unit in UNITS)
            reading.problem((*at, number), f"found the unit `{unit}` of a field, expected one of {units}")


def _overlap(table: Mapping[str, Any], default: Overlap, reading: TableReader) -> Overlap:
    name = table.get("overlap", default.kind)
    for key, needed in (("queue_max", "queue"), ("max_instances", "allow")):
        if key in table and name != needed:
            reading.problem((key,), f'found `{key}`, which is only for `overlap = "{needed}"`')
    return Overlap(
        name, reading.optional_integer(table, "queue_max", ()), reading.optional_integer(table, "max_instances", ())
    )


def _catch_up(table: Mapping[str, Any], reading: TableReader) -> CatchUp:
    name = table.get("catch_up", "skip")
    return CatchUp(
        kind=name,
        window=reading.duration(table, "catch_up_window", (), _DEFAULT.catch_up.window),
        most=reading.integer(table, "catch_up_max", (), _DEFAULT.catch_up.most),
        start_deadline=reading.duration(table, "start_deadline", (), timedelta(1))
        if "start_deadline" in table
        else None,
    )


def _needs(value: Any, reading: TableReader) -> tuple[Need, ...]:
    table = dict.fromkeys(value, _ONCE_TABLE) if isinstance(value, list) else value
    if len(table) < len(value):
        reading.problem(("needs",), "found a job twice")
    needs = []
    for name, keys in table.items():
        at: Path = ("needs", name)
        needs.append(Need(
            job=name,
            condition=keys.get("condition", OPEN),
            within=_recency(keys, reading, at),
            trigger=reading.boolean(keys, "trigger", at, False),
            required=reading.boolean(keys, "required", at, True),
            hold=reading.boolean(keys, "while", at, False),
            timeout=reading.duration_or_never(keys, "timeout", at, timedelta(minutes=5)),
        ))  # fmt: skip
    return tuple(sorted(needs, key=lambda need: need.job))  # the order of keys means nothing


def _recency(table: Mapping[str, Any], reading: TableReader, at: Path) -> Any:
    value = table.get("within", "ever")
    if value in ("ever", "same_slot"):
        return str(value)
    try:
        return parse_duration(str(value))
    except ValueError:
        cause = f"found {describe(value)}, expected `same_slot`, `ever`, or a duration like `24h`"
        reading.problem((*at, "within"), cause)
        return "ever"


def _probe(table: Mapping[str, Any], reading: TableReader, at: Path) -> Probe:
    default = Probe()
    http, tcp = table.get("http"), table.get("tcp")
    if http is not None or tcp is not None:
        from repeater.model.address import parse_address, parse_http_url

        for key, text, parse in (("http", http, parse_http_url), ("tcp", tcp, parse_address)):
            if text is not None:
                try:
                    parse(str(text))
                except ValueError as error:
                    reading.problem((*at, key), str(error))
    return Probe(
        http=http,
        tcp=tcp,
        exec=reading.command(table, "exec", at),
        log=reading.pattern(table, "log", at),
        every=reading.duration(table, "every", at, default.every),
        timeout=reading.duration(table, "timeout", at, default.timeout),
        failures=reading.integer(table, "failures", at, default.failures),
    )


def _output(table: Mapping[str, Any], reading: TableReader, folder: str) -> Output:
    at: Path = ("output",)
    file = table.get("file")
    if file is None and (table.keys() & {"max_size", "backups"}):
        key = "max_size" if "max_size" in table else "backups"
        reading.problem((*at, key), f"found `{key}` without `file`")
    return Output(
        mode=table.get("mode", "stream"),
        file=posixpath.normpath(posixpath.join(folder, file)) if file else None,
        max_size=reading.size(table, "max_size", at, _DEFAULT.output.max_size),
        backups=reading.integer(table, "backups", at, _DEFAULT.output.backups),
        timestamps=reading.boolean(table, "timestamps", at, False),
        capture=reading.size(table, "capture", at, _DEFAULT.output.capture),
        keep=_keep(table["keep"], reading, (*at, "keep")) if "keep" in table else _DEFAULT.output.keep,
        plugins=_plugins("output", table, reading, at) if "plugins" in table else (),
    )


def _keep(value: Any, reading: TableReader, at: Path) -> Keep | None:
    default = Keep()
    if isinstance(value, bool):
        return default if value else None
    return Keep(
        runs=reading.integer(value, "runs", at, default.runs),
        failures=reading.duration(value, "failures", at, default.failures, zero=True),
        size=max(_LEAST_KEPT, reading.size(value, "size", at, default.size)),
    )


def _executor(table: Mapping[str, Any], reading: TableReader) -> Plugin | None:
    if table["executor"] == "local":
        return None
    from repeater.jobfile.plugins import read_plugin

    return read_plugin("executor", table["executor"], reading, ("executor",))


def _plugins(kind_: Kind, table: Mapping[str, Any], reading: TableReader, at: Path) -> tuple[Plugin, ...]:
    from repeater.jobfile.plugins import read_plugins

    return read_plugins(kind_, table, reading, at)


def _hooks(table: Mapping[str, Any], reading: TableReader) -> Hooks:
    at: Path = ("hooks",)
    commands = {key: reading.command(table, key, at) for key in table if key != "timeout"}
    return Hooks(**commands, timeout=reading.duration_or_never(table, "timeout", at, _DEFAULT.hooks.timeout))
