"""The composition root: the only file that sees the adapters. It puts parts together and decides nothing.

`load_job_files` walks the road over the real disk; `supervise` runs what it gave until nothing is left to do. Adapters
are imported inside the functions that use them, so that `rpr validate` pays for none of asyncio.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.errors import RepeaterError, UsageError
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
        names, files=Disk(), folder=str(Path.cwd()), set_vars=set_vars, environ=environ, stdin=stdin, caps=_caps(environ)
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
    color: bool | None = None


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
    from repeater.adapters.signals import Signals
    from repeater.adapters.spawn import ProcessSpawner
    from repeater.adapters.sqlite import SqliteStore
    from repeater.engine.engine import Engine
    from repeater.engine.facts import Fact, PlanAccepted, StopRequested
    from repeater.model.events import Warned
    from repeater.observe.narrator import Narrator
    from repeater.observe.output import Console
    from repeater.plan.diff import diff
    from repeater.plan.graph import wire
    from repeater.runtime.reload import Answer, Reload, Wanted
    from repeater.runtime.supervisor import Outside, Supervisor

    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()
    _fail_on_defects(loop, over)

    def tell(fact: Fact) -> None:
        supervisor.tell(fact)

    def leave(level: str, code: int) -> None:
        nonlocal exit_code
        exit_code = code if exit_code is None else exit_code
        tell(StopRequested(level))  # type: ignore[arg-type]

    exit_code: int | None = None
    clock = LoopClock(loop)
    folder = None if options.ephemeral else state_folder(loaded.jobfile.project, options.state_dir)
    store = SqliteStore(folder, loop.call_soon_threadsafe, warn=lambda text: narrate(Warned("", text)))
    try:
        remembered = store.load()
        engine = Engine(clock.now(), seed=_seed(), keep_alive=options.keep_alive)
        console = Console(
            loop,
            resume=lambda run: spawner.resume(run),
            closed=lambda: leave("stop", 141),
            color=options.color,
        )
        narrate = Narrator(console.say, verbose=options.verbose, quiet=options.quiet)
        spawner = ProcessSpawner(tell, console, loop)
        watcher = FileWatcher(lambda key, paths: changed(key, paths), loop)
        prober = NetProber(tell, loop)
        outside = Outside(clock, spawner, store, watcher, console, prober, dict(os.environ))
        supervisor = Supervisor(engine, outside, lambda code: over.done() or over.set_result(code), [narrate])

        def read(answer: Answer) -> None:
            _read_again(options, loop, answer)

        def accepted(wanted: Wanted, generation: int) -> None:
            store.begin(generation, _document(wanted.jobfile))
            console.jobs(job.name for job in wanted.jobfile.jobs)
            if options.watch:
                watcher.watch_files(_JOB_FILES, sorted(wanted.files))

        reload = Reload(
            engine, clock, tell, read=read, accepted=accepted, listen=narrate, allow_removals=options.allow_removals
        )

        def changed(key: str, paths: tuple[str, ...]) -> None:
            if key == _JOB_FILES:
                reload.hint()
            else:
                supervisor.paths_changed(key, paths)

        signals = Signals(
            loop, leave=lambda count, code: leave(("drain", "stop", "kill")[min(count, 3) - 1], code), reload=reload.read_now
        )
        try:
            generation = remembered.generation + 1
            accepted(loaded, generation)
            reload.in_force(loaded.files)
            plan, graph = diff({}, loaded.jobfile.jobs), wire(loaded.jobfile)
            tell(PlanAccepted(generation, plan, graph, remembered.progress, remembered.open_rows))
            code = await over
        finally:
            supervisor.close()
            signals.close()
            prober.close()
            watcher.close()
            spawner.close()
            console.close()
    finally:
        store.close()
    return code if exit_code is None else exit_code


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


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "big")
