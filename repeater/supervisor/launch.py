"""From a spec and a run to what the operating system is asked for: argv, environment, working folder.

Plain templates over `run` are rendered here, at the last moment. It decides nothing and starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from repeater._lazy_dataclasses import replace
from repeater.errors import RepeaterError
from repeater.model.run import Run, RunKind, SlotRecord
from repeater.model.spec import JobSpec, Plugin, ProcessSpec
from repeater.model.time import rfc3339
from repeater.ports import LaunchRequest, Users

if TYPE_CHECKING:
    from repeater.model.plugins import Plugins

CLEAN = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")
"""What a job with `env_mode = "clean"` still inherits."""


class BaseEnvironment:
    """What every child gets of our own environment, by `env_mode`: one object for all that inherit alike."""

    __slots__ = ("_of_users", "_users", "clean", "trace", "whole")

    def __init__(self, environ: Mapping[str, str], users: Users = lambda _: {}) -> None:
        self.whole = environ
        self.clean = {name: environ[name] for name in CLEAN if name in environ}
        self.trace = trace_of(environ.get("TRACEPARENT"))
        self._users = users
        self._of_users: dict[tuple[str, str], Mapping[str, str]] = {}

    def of(self, process: ProcessSpec) -> Mapping[str, str]:
        """The variables that the process inherits. A job with `user` gets those of that user over ours."""
        own = self.whole if process.env_mode == "inherit" else self.clean
        if process.user is None:
            return own
        base = {**own, **self._users(process.user)}
        known = self._of_users.get((process.user, process.env_mode))
        if base == known:
            return known
        self._of_users[process.user, process.env_mode] = base
        return base


def launch_for(
    spec: JobSpec,
    run: Run,
    inherited: BaseEnvironment,
    *,
    now: datetime,
    last_success: datetime | None,
    plugins: Plugins | None = None,
    process: ProcessSpec | None = None,
) -> LaunchRequest:
    """The launch of one attempt. `process` is the one of `spec` with late texts rendered; None: they are rendered here.

    Raises RepeaterError when a template over `run` cannot be rendered, or there is no such executor plugin.
    """
    slot = run.slot
    nominal = rfc3339(slot.nominal) or ""
    facts = {
        "RPR_JOB": spec.name,
        "RPR_RUN_ID": run.id,
        "RPR_ATTEMPT": str(run.attempt),
        "RPR_NOMINAL_TIME": nominal,
        "RPR_DUE_TIME": nominal if slot.due is slot.nominal else rfc3339(slot.due) or "",
        "RPR_START_TIME": rfc3339(now) or "",
        "RPR_TRIGGER": slot.trigger,
        "RPR_LAST_SUCCESS": rfc3339(last_success) or "",
        "RPR_GENERATION": str(run.generation),
        "TRACEPARENT": traceparent(inherited.trace, run.id),
    }
    process = rendered(spec.process, run) if process is None else process
    launch = _launch(run.id, process, inherited, facts)
    if spec.executor is not None:
        launch = _executor_launch(launch, process, run, spec.executor, plugins)
    ending = spec.ending
    if run.attempt == 1 and ending.timeout is None and not spec.is_service:
        return launch
    return replace(
        launch,
        attempt=run.attempt,
        timeout=ending.timeout,
        stop_signal=ending.stop_signal,
        stop_timeout=ending.stop_timeout,
        is_service=spec.is_service,
    )


def names_of(run: Run) -> dict[str, Any]:
    """What a template over `run` sees."""
    slot = run.slot
    return {
        "nominal": slot.nominal,
        "due": slot.due,
        "attempt": run.attempt,
        "id": run.id,
        "trigger": slot.trigger,
    }


def rendered(process: ProcessSpec, run: Run) -> ProcessSpec:
    """The process with its late texts rendered. Raises RepeaterError."""
    if not process.late:
        return process
    from repeater.jobfile.run_templates import is_plain, render_all, render_plain
    from repeater.jobfile.template import TemplateFailed

    try:
        return (render_plain if is_plain(process) else render_all)(process, names_of(run))
    except TemplateFailed as failure:
        raise cannot_render(process, str(failure)) from None


def cannot_render(process: ProcessSpec, cause: str) -> RepeaterError:
    return RepeaterError(f"cannot render `{', '.join(process.late)}`: {cause}")


def _executor_launch(
    launch: LaunchRequest, process: ProcessSpec, run: Run, executor: Plugin, plugins: Plugins | None
) -> LaunchRequest:
    """The same process with a plugin as its program; the plugin reads the request from its standard input."""
    import json

    from repeater.model.plugins import NO_PLUGINS

    program, slot = (plugins or NO_PLUGINS).program(executor), run.slot
    task = {
        "job": slot.job,
        "run": run.id,
        "attempt": run.attempt,
        "nominal": rfc3339(slot.nominal),
        "due": rfc3339(slot.due),
        "trigger": slot.trigger,
        "command": process.command or None,
        "stdin": process.stdin,
    }
    request = json.dumps({**program.request, "task": task}) + "\n"
    return replace(launch, argv=program.argv, stdin=request.encode())


def hook_launch(
    spec: JobSpec, kind: str, command: str | tuple[str, ...], row: SlotRecord, inherited: BaseEnvironment
) -> LaunchRequest:
    """The launch of a hook: the job's own process with another command, and the facts of the decided slot."""
    from repeater.sentences import sentence

    facts = {
        "RPR_JOB": spec.name,
        "RPR_HOOK": kind,
        "RPR_RUN_ID": row.run or "",
        "RPR_STATE": row.state,
        "RPR_REASON": "" if row.reason is None else sentence(row.reason),
        "RPR_REASON_CODE": "" if row.reason is None else row.reason.code,
        "RPR_EXIT": "" if row.exit is None else str(row.exit),
        "RPR_ATTEMPT": str(row.attempts),
        "RPR_NOMINAL_TIME": rfc3339(row.nominal) or "",
        "RPR_START_TIME": rfc3339(row.started) or "",
        "RPR_END_TIME": rfc3339(row.ended) or "",
        "RPR_TRIGGER": row.trigger,
        "RPR_GENERATION": str(row.generation),
    }
    name = f"{kind}:{row.run or rfc3339(row.nominal)}:{spec.name}"
    return _launch(name, spec.process, inherited, facts, command, "hook")


def probe_launch(spec: JobSpec, run: str, command: str | tuple[str, ...], inherited: BaseEnvironment) -> LaunchRequest:
    """The launch of an `exec` probe: the job's own process with another command."""
    facts = {"RPR_JOB": spec.name, "RPR_RUN_ID": run}
    return _launch(run, spec.process, inherited, facts, command, "probe")


def environment(process: ProcessSpec, inherited: BaseEnvironment) -> dict[str, str]:
    """The job's own values over those of its `env_file`s over what it inherits."""
    return {**inherited.of(process), **_job_variables(process)}


def _job_variables(process: ProcessSpec) -> dict[str, str]:
    return dict((*process.env_from_files, *process.env))


def trace_of(traceparent: str | None) -> str | None:
    """The trace that we are part of, out of a W3C trace context; None if there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else None


def traceparent(trace: str | None, run: str) -> str:
    """A W3C trace context: the trace that we are part of, or one of our own, with a span for the run.

    A run id is twenty hexadecimal digits, the last of which are random, so it serves as both.
    """
    return f"00-{trace or f'{run:0>32}'}-{run[-16:]:0>16}-01"


def _launch(
    name: str,
    process: ProcessSpec,
    inherited: BaseEnvironment,
    facts: Mapping[str, str],
    command: str | tuple[str, ...] | None = None,
    kind: RunKind = "run",
) -> LaunchRequest:
    command = process.command if command is None else command
    return LaunchRequest(
        run=name,
        argv=(*process.shell, command) if isinstance(command, str) else command,
        cwd=process.cwd,
        base=inherited.of(process),
        env={**_job_variables(process), **facts},
        stdin=process.stdin.encode("utf-8", "surrogateescape") if command is process.command else b"",
        user=process.user,
        group=process.group,
        umask=process.umask,
        nice=process.nice,
        rlimits=process.rlimits,
        kind=kind,
    )
