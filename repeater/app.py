"""The composition root: the only file that sees the adapters. It puts parts together and decides nothing.

`load_job_files` walks the road over the real disk; `supervise` runs what it gave until nothing is left to do. Adapters
are imported inside the functions that use them, so that `rpr validate` pays for none of asyncio.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater.errors import RepeaterError, UsageError
from repeater.model.spec import JobFile, JobSpec
from repeater.model.units import parse_size
from repeater.plan.select import select

if TYPE_CHECKING:
    import asyncio

    from repeater.adapters.signals import Level
    from repeater.engine.facts import Fact
    from repeater.jobfile import Caps, Loaded
    from repeater.ports import Stream
    from repeater.runtime.reload import Answer, Wanted

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

    # A start passes from the loop to the writer, back, to the spawner, and back: with the usual 5 ms, whoever of them
    # computes keeps the others from going on.
    sys.setswitchinterval(0.0005)
    return asyncio.run(_supervise(options, loaded))


async def _supervise(options: Supervision, loaded: Loaded) -> int:
    import asyncio

    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()
    _fail_on_defects(loop, over)
    with ExitStack() as closing:
        assembly = _Assembly(options, loaded, loop, over, closing)
        assembly.begin(loaded)
        _spare_the_collector()
        code = await over
    return code if assembly.exit_code is None else assembly.exit_code


def _spare_the_collector() -> None:
    """What was built by now stays: looking through it again and again for garbage would make starts late."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class _Assembly:
    """The parts of one supervisor, put together. Each is closed before those that it uses.

    `exit_code` is what a signal, or nobody reading, makes the exit status; None as long as the jobs decide.
    """

    def __init__(
        self,
        options: Supervision,
        loaded: Loaded,
        loop: asyncio.AbstractEventLoop,
        over: asyncio.Future[int],
        closing: ExitStack,
    ) -> None:
        from repeater.adapters.clock import LoopClock
        from repeater.adapters.files import FileWatcher
        from repeater.adapters.probe import NetProber
        from repeater.adapters.signals import Signals
        from repeater.adapters.spawn import ProcessSpawner
        from repeater.adapters.sqlite import SqliteStore
        from repeater.engine.engine import Engine
        from repeater.observe.narrator import Narrator
        from repeater.observe.output import Output
        from repeater.runtime.masking import Masking
        from repeater.runtime.probes import LogTap, Probes
        from repeater.runtime.reload import Reload
        from repeater.runtime.supervisor import Outside, Supervisor

        self.exit_code: int | None = None
        self._options = options
        self._clock = LoopClock(loop)
        self._over = over
        soon, environ, clock = loop.call_soon_threadsafe, dict(os.environ), self._clock
        self._output = Output(
            clock,
            soon,
            environ=environ | _COLORS.get(options.color, {}),
            warn=lambda job, message: self._warn(message, job),
            gone=self._gone,
        )
        closing.callback(self._output.close)
        self._narrate = Narrator(self._say, verbose=options.verbose, quiet=options.quiet)
        folder = None if options.ephemeral else state_folder(loaded.jobfile.project, options.state_dir)
        self._store = SqliteStore(folder, soon, warn=self._warn)
        closing.callback(self._store.close)
        seed = int.from_bytes(os.urandom(8), "big")
        engine = Engine(clock.now(), seed=seed, keep_alive=options.keep_alive)
        outputs = Masking(LogTap(self._output, self._tell), environ)
        spawner = ProcessSpawner(self._tell, outputs, loop)
        closing.callback(spawner.close)
        self._output.resume = spawner.resume
        self._watcher = FileWatcher(self._changed, soon, warn=self._warn)
        closing.callback(self._watcher.close)
        prober = Probes(clock, spawner, NetProber(self._tell, loop), self._tell, environ)
        closing.callback(prober.close)
        outside = Outside(clock, spawner, self._store, self._watcher, outputs, prober, environ)
        self._supervisor = Supervisor(engine, outside, self._left, [self._narrate])
        closing.callback(self._supervisor.close)
        self._reload = Reload(
            engine,
            clock,
            self._tell,
            read=lambda answer: _read_again(options, loop, answer),
            accepted=self._accepted,
            listen=self._narrate,
            allow_removals=options.allow_removals,
        )
        signals = Signals(loop, self._signalled, self._reload.read_now)
        closing.callback(signals.close)

    def begin(self, loaded: Loaded) -> None:
        """Bring the first generation into force."""
        from repeater.engine.facts import PlanAccepted
        from repeater.plan.diff import diff
        from repeater.plan.graph import wire

        remembered = self._store.load()
        self._end_survivors(row.run for row in remembered.open_rows)
        generation = remembered.generation + 1
        self._accepted(loaded, generation)
        self._reload.in_force(loaded.files)
        plan, graph = diff({}, loaded.jobfile.jobs), wire(loaded.jobfile)
        self._tell(PlanAccepted(generation, plan, graph, remembered.progress, remembered.open_rows))

    def _end_survivors(self, runs: Iterable[str | None]) -> None:
        """Processes of a supervisor that died, whose slots are still open: no run may overlap with its own ghost."""
        from repeater.keeper import tree

        wanted = {run: 0 for run in runs if run is not None}
        if wanted and any(True for _ in tree.members(wanted)):
            self._warn("ending what a supervisor before this one left running")
            if tree.kill(wanted):
                self._warn("some of it cannot be killed")

    def _tell(self, fact: Fact) -> None:
        self._supervisor.tell(fact)

    def _say(self, job: str, line: str) -> None:
        self._output.say(f"rpr: {job}: {line}" if job else f"rpr: {line}")

    def _warn(self, message: str, job: str = "") -> None:
        from repeater.model.events import Warned

        self._narrate(Warned(job, message))

    def _left(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    def _leave(self, level: Level, code: int) -> None:
        from repeater.engine.facts import StopRequested

        self.exit_code = code if self.exit_code is None else self.exit_code
        self._tell(StopRequested(level))

    def _signalled(self, level: Level, name: str) -> None:
        self._leave(level, 130 if name == "INT" else 0)

    def _gone(self, stream: Stream) -> None:
        if stream == "stdout":
            self._leave("stop", 141)

    def _accepted(self, wanted: Wanted, generation: int) -> None:
        self._store.begin(generation, _document(wanted.jobfile))
        self._output.align(job.name for job in wanted.jobfile.jobs)
        if self._options.watch:
            self._watcher.watch_files(_JOB_FILES, sorted(wanted.files))
            if wanted.globs:
                globs = [os.path.relpath(glob, wanted.folder) for glob in wanted.globs]
                self._watcher.watch(_INCLUDES, wanted.folder, globs)
                # a file that came between reading and watching would be seen by nobody: look once more
                self._clock.call_after(_SECOND_LOOK, self._reload.hint)
            else:
                self._watcher.unwatch(_INCLUDES)

    def _changed(self, key: str, paths: tuple[str, ...]) -> None:
        if key in (_JOB_FILES, _INCLUDES):
            self._reload.hint()
        else:
            self._supervisor.paths_changed(key, paths)


_COLORS = {"always": {"FORCE_COLOR": "1", "NO_COLOR": ""}, "never": {"NO_COLOR": "1"}}
_SECOND_LOOK = 1_000_000  # microseconds
_JOB_FILES, _INCLUDES = "\0job files", "\0includes"  # keys of the watcher that no job can have as its name


def _fail_on_defects(loop: asyncio.AbstractEventLoop, over: asyncio.Future[int]) -> None:
    """A fault in repeater ends it with its own error, rather than letting it go on half alive."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if over.done():
            return
        over.set_exception(error if isinstance(error, Exception) else RuntimeError(str(context.get("message"))))

    loop.set_exception_handler(handle)


def _read_again(options: Supervision, loop: asyncio.AbstractEventLoop, answer: Answer) -> None:
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
    if not options.only:
        return loaded
    return replace(loaded, jobfile=replace(loaded.jobfile, jobs=select(loaded.jobfile.jobs, options.only)))


def in_force(project: str, state_dir: str | None) -> tuple[int, dict[str, JobSpec], dict[str, str]]:
    """The generation that was applied last, its specs, and why those of its jobs that are done are; 0 if none was."""
    from repeater.adapters.sqlite import open_reader
    from repeater.jobfile import rebuild
    from repeater.model.spec import Once

    reader = open_reader(state_folder(project, state_dir))
    if reader is None:
        return 0, {}, {}
    try:
        generation, document, progress = reader.generation(), reader.document(), reader.progress()
    finally:
        reader.close()
    specs = rebuild(json.loads(document)) if document else {}
    done = {
        job: kept.done
        for job, kept in progress.items()
        if kept.done and job in specs and not isinstance(specs[job].schedule, Once)
    }
    return generation, specs, done


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
    from repeater.model.dump import dump_job, hidden

    return json.dumps({job.name: dump_job(hidden(job)) for job in jobfile.jobs}, ensure_ascii=False)
