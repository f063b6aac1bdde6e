"""The supervisor of job files, put together from its parts; it decides nothing itself.

Each part is closed before those that it uses. `supervise` runs in the foreground, `supervise_detached` leaves the
terminal first.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repeater._lazy_dataclasses import replace
from repeater.apps.identity import check_origin, claim, first_file
from repeater.apps.options import SupervisorOptions
from repeater.apps.reload_worker import reading_of
from repeater.apps.state import hiding, read_past, state_folder
from repeater.errors import ApplyRefused, Problem, RepeaterError, UsageError
from repeater.model.events import (
    Draining,
    Event,
    GenerationApplied,
    ReloadRejected,
    RunFinished,
    SlotDecided,
    Warned,
)
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.time import rfc3339
from repeater.supervisor.faults import SupervisorFault, owner_of
from repeater.system.users import user_environment

if TYPE_CHECKING:
    import asyncio

    from repeater.apps.control_socket import RebindingSocket
    from repeater.apps.http_service import HttpService
    from repeater.apps.reload_worker import LoadedJobs
    from repeater.control.context import ApplyRequest as Handed
    from repeater.control.context import ControlContext
    from repeater.control.server import Server
    from repeater.engine.facts import Fact
    from repeater.jobfile.load import Loaded
    from repeater.model.spec import JobSpec
    from repeater.output.run_store import RunStore
    from repeater.plugins.output_feeds import OutputFeeds
    from repeater.plugins.pool import PluginPool
    from repeater.ports import Clock, RunTemplateRenderer, SharedRateLimiter, Stream
    from repeater.supervisor.reload import Answer, Applied, Foreseen, LoadedFiles, Read
    from repeater.system.signals import Level


def supervise(options: SupervisorOptions, loaded: Loaded, ready: Callable[[str], None] = lambda _: None) -> int:
    """Run until every job is done or a signal asks to leave; the exit status of `rpr apply`.

    `ready` is called when the jobs are in force and the socket answers, with words for a person.
    """
    import asyncio

    # A start passes from the loop to the writer, back, to the spawner, and back: with the usual 5 ms, whoever of them
    # computes keeps the others from going on.
    sys.setswitchinterval(0.0005)
    return asyncio.run(_supervise(options, loaded, ready))


def supervise_detached(options: SupervisorOptions, loaded: Loaded) -> tuple[str, int]:
    """Run in the background. In the parent: what the supervisor says when it is ready; raises what kept it from it.

    In the child: nothing, and its exit status, when all is over.
    """
    from repeater.store.state_dir import make_folder
    from repeater.system.daemonize import daemonize

    log = None
    if not options.ephemeral:
        folder = state_folder(loaded.jobfile.project, options.state_dir)
        make_folder(folder)
        log = folder / "supervisor.log"
    child = daemonize(log)
    if isinstance(child, str):
        return _read_child_report(child, log), 0
    options = replace(options, color="never", log=None if log is None else str(log))
    try:
        return "", supervise(options, loaded, lambda words: child.report_ready(json.dumps({"ready": words})))
    except RepeaterError as error:
        child.report_ready(json.dumps({"error": error.message, "hint": error.hint, "exit": error.exit_code}))
        raise


def _read_child_report(text: str, log: Path | None) -> str:
    told = json.loads(text) if text else {}
    if "ready" in told:
        return str(told["ready"])
    if "error" in told:
        error = ApplyRefused(told["error"], hint=told["hint"])
        error.exit_code = int(told["exit"])
        raise error
    raise RepeaterError(
        "cannot start the supervisor: it exited before it was ready", hint=f"see `{log}`" if log else None
    )


async def _supervise(options: SupervisorOptions, loaded: Loaded, ready: Callable[[str], None]) -> int:
    import asyncio

    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()
    _contain_faults(loop, over, lambda _: False)
    with ExitStack() as closing:
        assembly = SupervisorApp(options, loaded, loop, over, closing)
        _contain_faults(loop, over, assembly.contain)
        assembly.begin(loaded, ready)
        _tune_gc()
        code = await over
        await assembly.flush_replies()
    return code if assembly.exit_code is None else assembly.exit_code


def _tune_gc() -> None:
    """What was built by now stays: looking through it again and again for garbage would make starts late."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class SupervisorApp:
    """The parts of one supervisor, put together. Each is closed before those that it uses.

    `exit_code` is what a signal, or nobody reading, makes the exit status; None as long as the jobs decide. `_code` is
    what the jobs made it, when nothing is left to do.
    """

    exit_code: int | None = None
    _code: int | None = None
    _is_reloading = _reload_again = False
    _desk: ControlContext | None = None
    _server: Server | None = None
    _web: HttpService | None = None
    _feeds: OutputFeeds | None = None
    _runs: RunStore | None = None
    _warnings: frozenset[str] = frozenset()

    def __init__(
        self,
        options: SupervisorOptions,
        loaded: Loaded,
        loop: asyncio.AbstractEventLoop,
        over: asyncio.Future[int],
        closing: ExitStack,
    ) -> None:
        from repeater.apps.recovery import make_spawner
        from repeater.apps.reload_client import ReloadWorkerClient
        from repeater.engine.engine import Engine
        from repeater.output.event_log import EventLog
        from repeater.output.event_printer import EventPrinter
        from repeater.output.router import OutputRouter
        from repeater.store.store import SqliteStore
        from repeater.supervisor.probes import Probes
        from repeater.supervisor.reload import Reload
        from repeater.supervisor.sinks.containment import ContainedOutputs
        from repeater.supervisor.sinks.masking import MaskingSink
        from repeater.supervisor.supervisor import Ports, Supervisor
        from repeater.system.clock import LoopClock
        from repeater.system.file_watcher import FileWatcher
        from repeater.system.loops.batching import BatchingLoop
        from repeater.system.net_probe import NetProber
        from repeater.system.sd_notify import VARIABLES, SystemdNotifier, stdout_is_journal
        from repeater.system.signals import Signals
        from repeater.system.system_load import SystemLoad

        self._options = replace(options, files=options.files or (loaded.name,))
        self._over = over
        self._loop = loop
        self._project = loaded.jobfile.project
        closing.callback(self._hang_up)  # last of all: the end of a connection says that nothing is left
        turns = self._turns = BatchingLoop(loop, self._measure(closing))
        self._clock = LoopClock(turns)
        soon, clock = turns.call_soon_threadsafe, self._clock
        environ = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "RPR_HTTP_TOKEN")}
        self._notify = SystemdNotifier(os.environ)
        closing.callback(self._notify.close)
        self._to_journal = stdout_is_journal(2, os.environ)
        self._event: Event | None = None
        self._output = OutputRouter(
            clock,
            soon,
            environ=environ | _COLORS.get(options.color, {}),
            warn=lambda job, reason: self._warn(reason, job),
            gone=self._on_connection_closed,
            console=(1, 2) if options.log is None else options.log,
        )
        closing.callback(self._output.close)
        self._narrator = EventPrinter(self._say, verbose=options.verbose, quiet=options.quiet)
        self._journal = EventLog(clock)
        folder = self._folder = None if options.ephemeral else state_folder(self._project, options.state_dir)
        self._store = SqliteStore(folder, soon, warn=self._warn, recorded=self._on_recorded, moved=self._move_outputs)
        closing.callback(self._store.close)
        self._take_state(loaded, closing)
        self._control = self._control_socket(folder, closing)
        self._web = self._open_web(folder, closing)
        engine = Engine(
            clock.now(), seed=int.from_bytes(os.urandom(8), "big"), keep_alive=options.keep_alive, boot=clock.boot()
        )
        self._plugins, feeds = self._make_plugins(clock, closing)
        self._feeds, outputs = feeds, ContainedOutputs(MaskingSink(feeds, environ), self._output_failed)
        spawner = self._spawner = make_spawner(
            self._tell,
            outputs,
            turns,
            self._warn,
            state=folder,
            on_death=options.on_death,
            cgroups=options.cgroups,
        )
        closing.callback(spawner.close)
        self._output.resume, self._output.fault = spawner.resume_reading, self._writer_failed
        self._watcher = FileWatcher(
            self._changed, soon, warn=self._warn, failed=self._watch_failed, fault=self._watcher_failed
        )
        closing.callback(self._watcher.close)
        prober = Probes(
            clock, spawner, NetProber(self._tell, loop, self._probe_failed), self._tell, environ, user_environment
        )
        closing.callback(prober.close)
        outside = Ports(
            clock,
            spawner,
            self._store,
            self._watcher,
            outputs,
            prober,
            SystemLoad(),
            self._quota(closing),
            environ,
            self._plugins,
            self._late_texts(closing),
            user_environment,
        )
        self._engine = engine
        self._supervisor = Supervisor(engine, outside, self._on_exit, [self._on_event], self._log_traceback)
        closing.callback(self._supervisor.close)
        self._rereading = ReloadWorkerClient(
            loop,
            os.environ,
            self._in_force,
            salt=self._store.salt,
            project=options.project,
            unnamed=self._project,
        )
        closing.callback(self._rereading.close)
        self._reload = Reload(
            engine,
            clock,
            self._tell,
            read=self._reader(self._options),
            store=self._store,
            accepted=self._accepted,
            listen=self._on_event,
            allow_removals=options.allow_removals,
            plugins=self._plugins,
            marks=hiding(self._store.salt),
        )
        closing.callback(Signals(loop, self._signalled, self._asked_to_reload, at_end=True).close)

    def _take_state(self, loaded: Loaded, closing: ExitStack) -> None:
        """Let the state belong to these files, and keep the output of runs there. Raises ApplyRefused if the state
        should not belong to them, before any process is touched.
        """
        from repeater.store.origin import Origin
        from repeater.supervisor.reload import guard_removals

        self._origin = Origin(self._project, first_file(loaded.name))
        self._active_before: frozenset[str] = frozenset()
        if self._folder is None:
            return
        with self._store.reader() as reader:
            document = reader.document()
        self._active_before = frozenset(json.loads(document) if document else ())
        if not (self._options.allow_removals or self._options.only):
            guard_removals(self._active_before, loaded.jobfile.jobs)
        if (adopted := claim(self._folder, self._origin)) is not None:
            self._warn(because("state_adopted", text=adopted))
        from repeater.output.run_store import RunStore

        call_soon, size = self._turns.call_soon_threadsafe, self._options.output_size
        self._runs = self._output.runs = RunStore(self._folder, self._clock, call_soon, warn=self._warn, total=size)
        closing.callback(self._runs.close)

    def _move_outputs(self, old: str, new: str) -> None:
        if self._runs is not None:
            self._runs.move(old, new)

    def _measure(self, closing: ExitStack) -> Callable[..., None] | None:
        """The debug mode that reports slow callbacks; None if it is off. Raises UsageError."""
        if "RPR_SLOW_CALLBACK" not in os.environ:
            return None
        from repeater.system.loops.slow_callbacks import limit_of, measured, watch_callbacks

        try:
            limit = limit_of(os.environ)
        except ValueError as error:
            raise UsageError(f"cannot use `RPR_SLOW_CALLBACK`: {error}") from None
        if limit is None:
            return None
        closing.callback(watch_callbacks(limit, self._report_slow))
        return measured(limit, self._report_slow)

    def _report_slow(self, name: str, seconds: float) -> None:
        self._say("", f"slow callback: `{name}` took {seconds * 1000:.0f} ms")

    def _late_texts(self, closing: ExitStack) -> RunTemplateRenderer:
        from repeater.apps.template_worker import RunTemplateWorker

        texts = RunTemplateWorker(self._loop)
        closing.callback(texts.close)
        return texts

    def _quota(self, closing: ExitStack) -> SharedRateLimiter:
        """The way to the rate-limit daemon; taken only when a shared limit asks."""
        from repeater.ratelimitd.socket_path import path_resolver
        from repeater.system.ratelimit_client import RateLimitClient

        place = path_resolver(self._options.daemon, os.environ)
        quota = RateLimitClient(self._tell, self._turns, self._clock, place, self._project)
        closing.callback(quota.close)
        return quota

    def _make_plugins(self, clock: Clock, closing: ExitStack) -> tuple[PluginPool, OutputFeeds]:
        from repeater.plugins.output_feeds import OutputFeeds
        from repeater.plugins.pool import PluginPool
        from repeater.supervisor.probes import LogProbeSink
        from repeater.supervisor.sinks.push_back import PushBackDetector

        residents = PluginPool()
        closing.callback(residents.close)
        feeds = OutputFeeds(
            PushBackDetector(LogProbeSink(self._output, self._tell), clock, self._tell),
            residents,
            spec_of=self._in_force,
            warn=lambda job, reason: self._warn(reason, job),
            call_soon=self._loop.call_soon_threadsafe,
        )
        closing.callback(feeds.close)
        return residents, feeds

    def _in_force(self, name: str) -> JobSpec | None:
        job = self._engine.jobs.get(name)
        return None if job is None else job.spec

    def begin(self, loaded: Loaded, ready: Callable[[str], None]) -> None:
        """Bring the first generation into force, and say so when it is."""
        from repeater.apps.recovery import recover_runs
        from repeater.engine.facts import PlanAccepted
        from repeater.plan.diff import diff
        from repeater.plan.graph import wire
        from repeater.supervisor.recent_starts import recent_limited_starts
        from repeater.supervisor.renames import follow_renames

        self._output.prepare()
        self._plugins.prepare(loaded.plugins)
        former = self._store.load()
        remembered = follow_renames(former, loaded.jobfile.jobs, self._store, self._active_before)
        living, stale = recover_runs(self._spawner, remembered, self._store, loaded.jobfile, self._warn)
        if self._runs is not None:
            self._runs.open(living.keys())
        generation = remembered.generation + 1
        self._accepted(reading_of(loaded, self._store.salt), generation)
        self._reload.in_force(loaded.files)
        plan, graph = diff({}, loaded.jobfile.jobs), wire(loaded.jobfile, self._plugins)
        starts = recent_limited_starts(
            loaded.jobfile.jobs, loaded.jobfile.limits, self._store, self._clock.now(), self._clock.boot()
        )
        rows = remembered.open_rows
        self._tell(PlanAccepted(generation, plan, graph, remembered.progress, rows, starts, living, stale))
        self._serve()
        self._loop.call_soon(self._is_ready, ready)
        self._clock.call_after(_REVIVAL, self._revive)

    def _is_ready(self, ready: Callable[[str], None]) -> None:
        if self._engine.graph is None or self._engine.is_changing:  # the first generation is taken in many steps
            self._clock.call_after(1000, lambda: self._is_ready(ready))
            return
        gc.freeze()  # most of these jobs stay; a collection that looks at 10 000 of them takes 100 ms
        words = self._status()
        ready(words if self._web is None else f"{words}, {self._web.words}")
        self._notify.ready(words)
        if self._notify.watchdog is not None:
            self._kick_watchdog(self._notify.watchdog)

    def _kick_watchdog(self, period: int) -> None:
        try:
            self._notify.kick_watchdog()
        finally:
            self._clock.call_after(period, lambda: self._kick_watchdog(period))

    def _status(self) -> str:
        jobs = len(self._engine.jobs)
        return f"generation {self._engine.generation}, {jobs} {'job' if jobs == 1 else 'jobs'}"

    # --- the socket ---

    def _control_socket(self, folder: Path | None, closing: ExitStack) -> RebindingSocket:
        """Listen, but answer nobody yet. Without a socket jobs run as well, but nobody can ask about them."""
        from repeater.apps.control_socket import RebindingSocket
        from repeater.control.unix_socket import socket_path_for

        own_state = self._options.state_dir is not None
        made = RebindingSocket(
            lambda: socket_path_for(self._project, folder, os.environ, own_state=own_state), self._clock, self._warn
        )
        closing.callback(made.close)
        return made

    def _open_web(self, folder: Path | None, closing: ExitStack) -> HttpService | None:
        """Listen, and answer nobody yet. Who asked for HTTP and cannot have it is told, and nothing runs."""
        if self._options.http is None:
            return None
        from repeater.apps.http_service import HttpService

        web = HttpService(self._options.http, folder, os.environ, self._warn, self._connection_failed)
        closing.callback(web.close)
        return web

    def _serve(self) -> None:
        from repeater.control.context import ControlContext, SupervisorInfo
        from repeater.control.server import Server

        life = SupervisorInfo(self._project, os.getpid(), self._clock.now(), str(self._folder or ""))
        desk = ControlContext(
            life,
            self._engine,
            self._clock,
            tell=self._tell,
            leave=lambda level: self._leave(level, 0),
            apply=self._apply,
            foresee=self._foresee,
            rows=lambda jobs=None, most=100, **filters: list(self._store.find_records(jobs, most, **filters)),
            past=self._history_meta,
            kept=self._output.kept,
            outputs=self._runs,
            journal=self._journal,
            troubles=self._troubles,
            faults=self._supervisor.faults.recent,
            rejected=lambda: self._reload.rejected,
            files=lambda: self._options.files,
            is_working=lambda: self._supervisor.is_working,
        )
        self._desk = desk
        self._server = Server(desk, self._warn, fault=self._connection_failed)
        self._control.serve(self._server)
        if self._web is not None:
            self._web.serve(desk)
            if not self._options.quiet or self._web.is_chosen:
                self._say("", self._web.words)

    async def flush_replies(self) -> None:
        """Whoever asked for something gets the answer before all ends, which may have been what the request brought.

        Nobody new is let in, and nobody is waited for long.
        """
        import asyncio

        if self._server is not None:
            self._server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                if self._desk is not None:
                    await self._desk.in_flight_done()
                if self._server is not None:
                    await self._server.sent()
                if self._web is not None:
                    await self._web.sent()

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.hang_up()

    def _history_meta(self) -> Mapping[str, Any]:
        with self._store.reader() as reader:
            return read_past(reader)

    def _troubles(self) -> list[Reason]:
        troubles = []
        if self._is_leaving:
            troubles.append(Reason("supervisor_stopping"))
        troubles += [found for found in (self._spawner.trouble, self._control.trouble) if found is not None]
        if self._store.is_degraded:
            troubles.append(Reason("history_failing"))
        if self._runs is not None and self._runs.is_failing:
            troubles.append(Reason("outputs_failing"))
        if self._watcher.problem is not None:
            troubles.append(because("watch_failing", error=str(self._watcher.problem)))
        return troubles

    # --- new generations ---

    def _reader(self, options: SupervisorOptions, *, project: str | None = None) -> Read:
        """Reads the files elsewhere, and starts the plugins that they name, before anybody hears of them."""

        def read(answer: Answer) -> None:
            def heard(reading: LoadedJobs | RepeaterError) -> None:
                if isinstance(reading, RepeaterError) or self._plugins.update_catalog(reading.plugins):
                    answer(reading)
                    return
                starting = self._loop.run_in_executor(None, self._plugins.prepare, reading.plugins)
                starting.add_done_callback(lambda _: answer(reading))

            self._rereading.read(options.files, options.set_vars, options.only, heard, project=project)

        return read

    async def _apply(self, wanted: Handed | None, *, allow_removals: bool = False, dry_run: bool = False) -> Applied:
        """Read files, of now or others, for somebody who waits for the outcome."""
        from repeater.supervisor.reload import Applied

        if self._is_leaving:
            raise ApplyRefused("cannot apply: the supervisor is shutting down")
        options, read = self._options, None
        if wanted is not None:
            check_origin(self._origin, first_file(wanted.files[0]), self._folder, is_running=True)
            options = replace(options, files=wanted.files, set_vars=wanted.set_vars, only=wanted.only)
            read = self._reader(options, project=self._project)
        answered: asyncio.Future[Applied] = self._loop.create_future()

        def then(answer: Applied | RepeaterError) -> None:
            if isinstance(answer, Applied) and not dry_run:
                self._options = options
            if answered.done():
                return
            if isinstance(answer, Applied):
                answered.set_result(answer)
            else:
                answered.set_exception(answer)

        self._reload.ask(then, read=read, allow_removals=allow_removals, dry_run=dry_run)
        return await answered

    async def _foresee(self, wanted: Handed | None, *, allow_removals: bool = False) -> Foreseen:
        """Read files, of now or others, and say what an apply would do."""
        if self._is_leaving:
            raise ApplyRefused("cannot apply: the supervisor is shutting down")
        from repeater.supervisor.reload import Foreseen

        read = None
        if wanted is not None:
            options = replace(self._options, files=wanted.files, set_vars=wanted.set_vars, only=wanted.only)
            read = self._reader(options, project=self._project)
        answered: asyncio.Future[Foreseen] = self._loop.create_future()

        def then(answer: Foreseen | RepeaterError) -> None:
            if answered.done():
                return
            if isinstance(answer, Foreseen):
                answered.set_result(answer)
            else:
                answered.set_exception(answer)

        self._reload.foresee(then, read=read, allow_removals=allow_removals)
        return await answered

    def _asked_to_reload(self) -> None:
        """HUP. A service manager waits until it is told that it is over, whatever came of it."""
        if self._is_reloading:
            self._reload_again = True
            return
        self._is_reloading = True
        self._notify.reloading()

        def then(answer: Applied | RepeaterError) -> None:
            self._is_reloading = False
            if isinstance(answer, RepeaterError):
                self._on_event(ReloadRejected(self._engine.generation, because("files_rejected", error=str(answer))))
            if self._reload_again:
                self._reload_again = False
                self._asked_to_reload()
            else:
                self._loop.call_soon(lambda: self._notify.ready(self._status()))

        self._reload.ask(then)

    # --- what is told ---

    def _on_event(self, event: Event) -> None:
        """Every part that listens gets the event, whatever becomes of it in another one."""
        for listener in (self._narrate, self._journal, self._web_hears, self._feed, self._notify_of, self._decide):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001
                self._supervisor.faults.report("listener", error, name=getattr(listener, "__name__", "journal"))

    def _narrate(self, event: Event) -> None:
        self._event = event
        try:
            self._narrator(event)
        finally:
            self._event = None

    def _web_hears(self, event: Event) -> None:
        if self._web is not None:
            self._web.hear(event)

    def _feed(self, event: Event) -> None:
        if self._feeds is not None:
            self._feeds(event)

    def _notify_of(self, event: Event) -> None:
        match event:
            case GenerationApplied():
                self._notify.status(self._status())
            case Draining():
                self._notify.stopping("leaving")

    def _decide(self, event: Event) -> None:
        """How long the output of a run stays on disk depends on how the run ended."""
        if self._runs is None:
            return
        match event:
            case RunFinished(run, verdict):
                self._runs.decide(run.id, failed=not verdict.success)
            case SlotDecided(row):
                if row.run is not None:
                    self._runs.decide(row.run, failed=row.outcome in ("failed", "interrupted"))

    def _on_recorded(self, runs: list[str]) -> None:
        """The spawner is made after the store, which it outlives in nothing."""
        self._spawner.acknowledge(runs)

    def _tell(self, fact: Fact) -> None:
        self._supervisor.submit(fact)

    def _say(self, job: str, line: str) -> None:
        from repeater.output.event_printer import priority

        urgency = 6 if self._event is None else priority(self._event)
        from repeater.output.terminal import visible_lines

        if self._options.log_format == "json":
            text = self._as_json(job, line, urgency)
        else:
            text = visible_lines(f"rpr: {job}: {line}" if job else f"rpr: {line}")
        if self._to_journal:
            text = "\n".join(f"<{urgency}>{part}" for part in text.split("\n"))
        self._output.say(text)

    def _as_json(self, job: str, line: str, urgency: int) -> str:
        """One object: when, how urgent, what in words, and the event itself."""
        from repeater.control.commands.events import as_item
        from repeater.output.event_log import Entry
        from repeater.output.terminal import json_line

        now = self._clock.now().wall
        event = {} if self._event is None else as_item(Entry(now, self._event))
        level = {3: "error", 4: "warning"}.get(urgency, "info")
        told = {"time": rfc3339(now), "level": level, "message": line, **({"job": job} if job else {})}
        # what both have is the line's: `level` of an event is how hard the supervisor was asked to leave
        return json_line(told | {key: event[key] for key in event if key not in told})

    def _warn(self, reason: Reason, job: str = "") -> None:
        self._on_event(Warned(job, reason))

    def _on_exit(self, code: int) -> None:
        """Nothing is left to do. A reader of the output may take its time, unless somebody asked to leave."""
        self._code = code
        if self.exit_code is None:
            self._output.written(self._end)
        else:
            self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(self._code or 0)

    @property
    def _is_leaving(self) -> bool:
        return self.exit_code is not None or self._code is not None

    def _leave(self, level: Level, code: int) -> None:
        from repeater.engine.facts import StopRequested

        self.exit_code = code if self.exit_code is None else self.exit_code
        if self._code is not None:  # and only a slow reader is waited for
            self._end()
        if level == "kill":
            self._spawner.force()
        self._tell(StopRequested(level))

    def _signalled(self, level: Level, name: str) -> None:
        self._leave(level, 130 if name == "INT" else 0)

    def _on_connection_closed(self, stream: Stream, _: OSError) -> None:
        if stream == "stdout":
            self._leave("stop", 141)

    def _accepted(self, wanted: LoadedFiles, generation: int) -> None:
        from repeater.jobfile.limit_capacity import overcommitted_limits

        self._store.begin(generation, wanted.document, wanted.extras)
        for _, message in overcommitted_limits(wanted.jobfile):
            self._warn(because("job_file_doubtful", problem=message))
        self._output.align(job.name for job in wanted.jobfile.jobs)
        assert self._feeds is not None
        self._feeds.accepted(wanted.jobfile)
        if self._runs is not None:
            self._runs.limit(wanted.jobfile.jobs)
        self._plugins.retain_only(wanted.jobfile, self._feeds.names)
        if self._options.watch:
            self._watcher.watch_files(_JOB_FILES, sorted(wanted.files))
            if wanted.globs:
                globs = [os.path.relpath(glob, wanted.folder) for glob in wanted.globs]
                self._watcher.watch(_INCLUDES, wanted.folder, globs)
                # a file that came between reading and watching would be seen by nobody: look once more
                self._clock.call_after(_SECOND_LOOK, self._reload.file_changed)
            else:
                self._watcher.unwatch(_INCLUDES)
        self._warn_of_files(wanted.warnings)

    def _warn_of_files(self, warnings: Sequence[Problem]) -> None:
        """Reports the warnings that the generation before did not have, the first `_MOST_WARNINGS` of them."""
        texts = [f"{one.place()}: {one.text()}" for one in warnings]
        new = [text for text in texts if text not in self._warnings]
        for text in new[:_MOST_WARNINGS]:
            self._warn(because("job_file_doubtful", problem=text))
        if len(new) > _MOST_WARNINGS:
            self._warn(because("more_warnings", count=len(new) - _MOST_WARNINGS))
        self._warnings = frozenset(texts)

    def contain(self, error: BaseException) -> bool:
        """Keep an exception that reached the loop; False if it has to end the supervisor."""
        if isinstance(error, SupervisorFault) or not isinstance(error, Exception):
            return False
        owner, name = owner_of(error)
        if owner is None:
            return False
        self._supervisor.faults.report(owner, error, name=name)
        return True

    def _connection_failed(self, error: Exception) -> None:
        self._supervisor.faults.report("connection", error, name=owner_of(error)[1])

    def _probe_failed(self, job: str, kind: str, error: Exception) -> None:
        self._supervisor.faults.report("probe", error, job=job, name=kind)

    def _output_failed(self, run: str, error: Exception) -> None:
        self._supervisor.faults.report("output", error, job=self._supervisor.job_of(run), name=run)

    def _writer_failed(self, job: str, error: BaseException) -> None:
        self._supervisor.faults.report("output", error, job=job, name="writer")

    def _watch_failed(self, key: str, error: Exception) -> None:
        self._supervisor.faults.report("watch", error, job="" if key in (_JOB_FILES, _INCLUDES) else key)

    def _watcher_failed(self, error: Exception) -> None:
        self._supervisor.faults.report("service", error, name="file watcher")

    def _revive(self) -> None:
        """Start again what should run in a thread of its own and has ended."""
        try:
            self._watcher.revive()
        finally:
            self._clock.call_after(_REVIVAL, self._revive)

    def _log_traceback(self, text: str) -> None:
        self._say("", text)

    def _changed(self, key: str, paths: tuple[str, ...]) -> None:
        if key in (_JOB_FILES, _INCLUDES):
            self._rereading.warm()
            self._reload.file_changed()
        else:
            self._supervisor.paths_changed(key, paths)


_COLORS = {"always": {"FORCE_COLOR": "1", "NO_COLOR": ""}, "never": {"NO_COLOR": "1"}}
_MOST_WARNINGS = 20
_SECOND_LOOK = 1_000_000  # microseconds
_REVIVAL = 5_000_000  # microseconds between two looks at whether a thread has ended
_LAST_WORDS = 2.0  # seconds for clients to take their answers when all is over
_JOB_FILES, _INCLUDES = "\0job files", "\0includes"  # keys of the watcher that no job can have as its name


def _contain_faults(
    loop: asyncio.AbstractEventLoop, over: asyncio.Future[int], report: Callable[[BaseException], bool]
) -> None:
    """What reaches the loop belongs to a part of the supervisor. `report` keeps it, and returns False for a fault of
    the engine or the store: such a fault ends the supervisor with its own error, so that it does not go on half alive.
    """

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, BaseException):
            error = RuntimeError(str(context.get("message")))
        if report(error) or over.done():
            return
        cause = error.__cause__ if isinstance(error, SupervisorFault) and error.__cause__ is not None else error
        over.set_exception(cause if isinstance(cause, Exception) else RuntimeError(str(cause)))

    loop.set_exception_handler(handle)
