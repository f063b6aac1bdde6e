"""The composition root: the only file that sees the adapters. It puts parts together and decides nothing.

`load_job_files` walks the road over the real disk; `supervise` runs what it gave until nothing is left to do. Adapters
are imported inside the functions that use them, so that `rpr validate` pays for none of asyncio.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.errors import RepeaterError, UsageError
from repeater.model.spec import JobFile, JobSpec
from repeater.model.units import parse_size

if TYPE_CHECKING:
    import asyncio

    from repeater.jobfile import Caps, Loaded

# --- job files ------------------------------------------------------------------------------------------------------

JOB_FILES = tuple(f"{stem}{suffix}" for stem in ("repeater", "jobs") for suffix in (".toml", ".yaml", ".yml"))


def load_job_files(
    paths: Sequence[str] = (), *, set_vars: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Walk the road over the real disk. No path: `RPR_FILE`, or the nearest of `JOB_FILES`, looked for upward.

    Raises JobFileError with every problem, UsageError if there is no file at all.
    """
    from repeater.adapters.disk import Disk
    from repeater.jobfile import load

    environ = os.environ if environ is None else environ
    names = tuple(paths) or _found_job_file(environ)
    stdin = sys.stdin.buffer.read(_caps(environ).file_size + 1) if "-" in names else b""
    return load(
        names,
        files=Disk(),
        folder=str(Path.cwd()),
        set_vars=set_vars,
        environ=environ,
        stdin=stdin,
        caps=_caps(environ),
    )


def _found_job_file(environ: Mapping[str, str]) -> tuple[str]:
    if environ.get("RPR_FILE"):
        return (environ["RPR_FILE"],)
    folder = Path.cwd()
    for level in (folder, *folder.parents):
        for name in JOB_FILES:
            if (level / name).is_file():
                return (os.path.relpath(level / name),)
    raise UsageError(
        f"cannot find a job file: no `{JOB_FILES[0]}` or `jobs.toml` here or above",
        hint="name one, or let `rpr init` write a starter",
    )


def _caps(environ: Mapping[str, str]) -> Caps:
    """The caps of job files; `RPR_MAX_FILE_SIZE` and its kin raise or lower them."""
    from repeater.jobfile import Caps

    given = {}
    for name in ("file_size", "total_size", "depth", "jobs"):
        key = f"RPR_MAX_{name.upper()}"
        text = environ.get(key)
        if text:
            try:
                given[name] = parse_size(text) if name.endswith("size") and not text.isdigit() else int(text)
            except ValueError:
                raise UsageError(f"cannot use `{key}={text}`: expected a number") from None
    return Caps(**given)


# --- supervise ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Supervision:
    """How to run job files. `state_dir` None: the project's own; `ephemeral`: nothing is kept at all.

    `only` are globs over job names; nothing else is brought into force.
    """

    files: tuple[str, ...]
    set_vars: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    watch: bool = True
    keep_alive: bool = False
    allow_removals: bool = False
    state_dir: str | None = None
    ephemeral: bool = False
    verbose: bool = False
    quiet: bool = False
    color: str = "auto"


def state_folder(project: str, state_dir: str | None) -> Path:
    """Where the state of a project lives."""
    from repeater.adapters import sqlite

    return Path(state_dir).absolute() if state_dir else sqlite.state_folder(project, os.environ)


def supervise(options: Supervision, loaded: Loaded) -> int:
    """Run until every job is done or a signal asks to leave; the exit status of `rpr apply`."""
    import asyncio

    return asyncio.run(_supervise(options, loaded))


async def _supervise(options: Supervision, loaded: Loaded) -> int:
    import asyncio

    from repeater.adapters.clock import LoopClock
    from repeater.adapters.files import FileWatcher
    from repeater.adapters.probe import NetProber
    from repeater.adapters.signals import Level, Signals
    from repeater.adapters.spawn import ProcessSpawner
    from repeater.adapters.sqlite import SqliteStore
    from repeater.engine.engine import Engine
    from repeater.engine.facts import Fact, PlanAccepted, StopRequested
    from repeater.model.events import Warned
    from repeater.observe.narrator import Narrator
    from repeater.observe.output import Output
    from repeater.plan.diff import diff
    from repeater.plan.graph import wire
    from repeater.runtime.probes import LogTap, Probes
    from repeater.runtime.reload import Answer, Reload, Wanted
    from repeater.runtime.supervisor import Outside, Supervisor

    loop = asyncio.get_running_loop()
    soon = loop.call_soon_threadsafe
    over: asyncio.Future[int] = loop.create_future()
    _fail_on_defects(loop, over)
    environ = dict(os.environ)
    clock = LoopClock(loop)
    folder = None if options.ephemeral else state_folder(loaded.jobfile.project, options.state_dir)
    exit_code: int | None = None

    def tell(fact: Fact) -> None:
        supervisor.tell(fact)

    def warn(message: str, job: str = "") -> None:
        narrate(Warned(job, message))

    def leave(level: Level, code: int) -> None:
        nonlocal exit_code
        exit_code = code if exit_code is None else exit_code
        tell(StopRequested(level))

    output = Output(
        clock,
        soon,
        environ=environ | _COLORS.get(options.color, {}),
        warn=lambda job, message: warn(message, job),
        gone=lambda where: leave("stop", 141) if where == "stdout" else None,
    )
    narrate = Narrator(
        lambda job, line: output.say(f"rpr: {job}: {line}" if job else f"rpr: {line}"),
        verbose=options.verbose,
        quiet=options.quiet,
    )
    with ExitStack() as closing:
        closing.callback(output.close)
        store = SqliteStore(folder, soon, warn=warn)
        closing.callback(store.close)
        remembered = store.load()
        engine = Engine(clock.now(), seed=int.from_bytes(os.urandom(8), "big"), keep_alive=options.keep_alive)
        outputs = LogTap(output, tell)
        spawner = ProcessSpawner(tell, outputs, loop)
        closing.callback(spawner.close)
        output.resume = spawner.resume
        watcher = FileWatcher(lambda key, paths: changed(key, paths), soon, warn=warn)
        closing.callback(watcher.close)
        prober = Probes(clock, spawner, NetProber(tell, loop), tell, environ)
        closing.callback(prober.close)
        outside = Outside(clock, spawner, store, watcher, outputs, prober, environ)

        def left(code: int) -> None:
            if not over.done():
                over.set_result(code)

        supervisor = Supervisor(engine, outside, left, [narrate])
        closing.callback(supervisor.close)

        def accepted(wanted: Wanted, generation: int) -> None:
            store.begin(generation, _document(wanted.jobfile))
            output.align(job.name for job in wanted.jobfile.jobs)
            if options.watch:
                watcher.watch_files(_JOB_FILES, sorted(wanted.files))

        reload = Reload(
            engine,
            clock,
            tell,
            read=lambda answer: _read_again(options, loop, answer),
            accepted=accepted,
            listen=narrate,
            allow_removals=options.allow_removals,
        )

        def changed(key: str, paths: tuple[str, ...]) -> None:
            if key == _JOB_FILES:
                reload.hint()
            else:
                supervisor.paths_changed(key, paths)

        codes = {"INT": 130, "TERM": 0}
        signals = Signals(loop, lambda level, name: leave(level, codes[name]), reload.read_now)
        closing.callback(signals.close)
        generation = remembered.generation + 1
        accepted(loaded, generation)
        reload.in_force(loaded.files)
        plan, graph = diff({}, loaded.jobfile.jobs), wire(loaded.jobfile)
        tell(PlanAccepted(generation, plan, graph, remembered.progress, remembered.open_rows))
        code = await over
    return code if exit_code is None else exit_code


_COLORS = {"always": {"FORCE_COLOR": "1", "NO_COLOR": ""}, "never": {"NO_COLOR": "1"}}
_JOB_FILES = "\0job files"  # the watcher's key; no job can have this name


def _fail_on_defects(loop: asyncio.AbstractEventLoop, over: asyncio.Future[int]) -> None:
    """A fault in repeater ends it with its own error, rather than letting it go on half alive."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if over.done():
            return
        over.set_exception(error if isinstance(error, Exception) else RuntimeError(str(context.get("message"))))

    loop.set_exception_handler(handle)


def _read_again(options: Supervision, loop: asyncio.AbstractEventLoop, answer: Any) -> None:
    """Walk the road in a thread and answer in the loop."""

    def done(future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is None:
            answer(future.result())
        elif isinstance(error, RepeaterError):
            answer(error)
        else:
            answer(RepeaterError(f"cannot read the job files: {type(error).__name__}: {error}"))

    def walk() -> Loaded:
        return load_selected(options)

    loop.run_in_executor(None, walk).add_done_callback(done)


def load_selected(options: Supervision) -> Loaded:
    """The job files of an apply, less what `--only` leaves out."""
    loaded = load_job_files(options.files, set_vars=dict(options.set_vars))
    return select(loaded, options.only) if options.only else loaded


def select(loaded: Loaded, only: Sequence[str]) -> Loaded:
    """The jobs whose name, or the name of whose matrix, fits one of the globs. Raises UsageError if none does."""
    from fnmatch import fnmatchcase

    jobs = loaded.jobfile.jobs
    kept = tuple(job for job in jobs if any(fnmatchcase(n, glob) for glob in only for n in (job.name, job.group)))
    if not kept:
        names = ", ".join(f"`{job.name}`" for job in jobs[:10])
        raise UsageError(f"cannot use `--only {' '.join(only)}`: no job fits", hint=f"there are {names}")
    return replace(loaded, jobfile=replace(loaded.jobfile, jobs=kept))


def in_force(project: str, state_dir: str | None) -> tuple[int, dict[str, JobSpec]]:
    """The generation that was applied last and its specs; 0 and nothing if there is none."""
    from repeater.adapters.sqlite import open_reader
    from repeater.jobfile import rebuild

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return 0, {}
    try:
        generation, document = reader.generation(), reader.document()
    finally:
        reader.close()
    return generation, rebuild(json.loads(document)) if document else {}


def known_durations(project: str, state_dir: str | None) -> dict[str, timedelta]:
    """How long the runs of each job used to last."""
    from repeater.adapters.sqlite import open_reader

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return {}
    try:
        return {job: timedelta(seconds=length) for job, length in reader.durations().items()}
    finally:
        reader.close()


def _document(jobfile: JobFile) -> str:
    from repeater.model.dump import dump_job

    return json.dumps({job.name: dump_job(job) for job in jobfile.jobs}, ensure_ascii=False)
