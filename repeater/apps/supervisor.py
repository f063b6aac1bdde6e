"""The supervisor of job files, assembled from its parts.

Each part is closed before the parts that it uses. This module imports all adapters, so the command line imports it only
to start a supervisor.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from repeater._lazy_dataclasses import replace
from repeater.apps.apply_requests import ApplyRequests
from repeater.apps.control_server import ControlServer
from repeater.apps.event_routing import EventRouter, output_retention, status_notifier
from repeater.apps.identity import claim, first_file
from repeater.apps.options import SupervisorOptions
from repeater.apps.process_lifecycle import ServiceLifecycle
from repeater.apps.recovery import make_spawner, recover_runs
from repeater.apps.reload_client import ReloadWorkerClient
from repeater.apps.reload_worker import reading_of
from repeater.apps.state import hiding, state_folder
from repeater.apps.template_worker import RunTemplateWorker
from repeater.control.context import ControlContext, SupervisorInfo
from repeater.engine.engine import Engine
from repeater.engine.facts import PlanAccepted, StopRequested
from repeater.errors import Problem, UsageError
from repeater.jobfile.limit_capacity import overcommitted_limits
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.output.router import OutputRouter
from repeater.output.run_store import RunStore
from repeater.plan.diff import diff
from repeater.plan.graph import wire
from repeater.plugins.output_feeds import OutputFeeds
from repeater.plugins.pool import PluginPool
from repeater.ratelimitd.socket_path import path_resolver
from repeater.store.origin import Origin
from repeater.store.store import SqliteStore
from repeater.supervisor.driven_ports import Ports
from repeater.supervisor.faults import SupervisorFault, owner_of
from repeater.supervisor.probes import LogProbeSink, Probes
from repeater.supervisor.recent_starts import recent_limited_starts
from repeater.supervisor.reload import Reload, guard_removals
from repeater.supervisor.renames import follow_renames
from repeater.supervisor.sinks.containment import ContainedOutputs
from repeater.supervisor.sinks.masking import MaskingSink
from repeater.supervisor.sinks.push_back import PushBackDetector
from repeater.supervisor.supervisor import Supervisor
from repeater.system.clock import LoopClock
from repeater.system.file_watcher import FileWatcher
from repeater.system.loops.batching import BatchingLoop
from repeater.system.net_probe import NetProber
from repeater.system.ratelimit_client import RateLimitClient
from repeater.system.sd_notify import VARIABLES, stdout_is_journal
from repeater.system.system_load import SystemLoad
from repeater.system.users import user_environment

if TYPE_CHECKING:
    from repeater.engine.facts import Fact
    from repeater.jobfile.load import Loaded
    from repeater.model.history_meta import HistoryMeta
    from repeater.model.spec import JobSpec
    from repeater.ports import Stream
    from repeater.supervisor.reload import LoadedFiles
    from repeater.system.signals import Level


def supervise(options: SupervisorOptions, loaded: Loaded, ready: Callable[[str], None] = lambda _: None) -> int:
    """Run until every job is done or a signal stops it; returns the exit status of `rpr apply`.

    `ready` gets a message when the jobs are active and the socket answers.
    """
    # A start passes from the loop to the writer, back, to the spawner, and back. With the default of 5 ms, a thread
    # that computes would delay the others.
    sys.setswitchinterval(0.0005)
    return asyncio.run(_supervise(options, loaded, ready))


async def _supervise(options: SupervisorOptions, loaded: Loaded, ready: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    with ServiceLifecycle(loop, os.environ) as lifecycle, ExitStack() as closing:
        app = SupervisorApp(options, loaded, loop, lifecycle, closing)
        lifecycle.contain = app.contain
        app.begin(loaded, ready)
        _tune_gc()
        await lifecycle.ended()
        if app.control is not None:
            await app.control.flush_replies()
    return lifecycle.status


def _tune_gc() -> None:
    """Exclude the objects that exist now from garbage collection: they stay, and collections would make starts late."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class SupervisorApp:
    """The parts of one supervisor. Each is closed before the parts that it uses."""

    control: ControlServer | None = None
    _runs: RunStore | None = None
    _warnings: frozenset[str] = frozenset()

    def __init__(
        self,
        options: SupervisorOptions,
        loaded: Loaded,
        loop: asyncio.AbstractEventLoop,
        lifecycle: ServiceLifecycle,
        closing: ExitStack,
    ) -> None:
        self._options = options = replace(options, files=options.files or (loaded.name,))
        self._lifecycle = lifecycle
        self._loop = loop
        self._project = loaded.jobfile.project
        closing.callback(self._hang_up)  # last of all: a closed connection means that the supervisor has ended
        turns = self._turns = BatchingLoop(loop, self._measure(closing))
        clock = self._clock = LoopClock(turns)
        soon = turns.call_soon_threadsafe
        environ = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "RPR_HTTP_TOKEN")}
        self._output = OutputRouter(
            clock,
            soon,
            environ=environ | _COLORS.get(options.color, {}),
            warn=lambda job, reason: self._events.warn(reason, job),
            on_closed=self._on_connection_closed,
            console=(1, 2) if options.log is None else options.log,
        )
        closing.callback(self._output.close)
        self._events = events = EventRouter(
            clock,
            options,
            self._output.say,
            self._listener_failed,
            to_journal=stdout_is_journal(2, os.environ),
            colored=self._output.is_colored("stderr"),
        )
        folder = self._folder = None if options.ephemeral else state_folder(self._project, options.state_dir)
        self._store = SqliteStore(folder, soon, warn=events.warn, recorded=self._on_recorded, moved=self._move_outputs)
        closing.callback(self._store.close)
        self._take_state(loaded, closing)
        self.control = ControlServer(
            options, self._project, folder, clock, events.warn, self._connection_failed, closing
        )
        if self.control.http is not None:
            events.add("metrics", self.control.http.hear)
        engine = self._engine = Engine(
            clock.now(), seed=int.from_bytes(os.urandom(8), "big"), keep_alive=options.keep_alive, boot=clock.boot()
        )
        self._plugins, self._feeds = self._make_plugins(closing)
        events.add("plugins", self._feeds)
        events.add("systemd", status_notifier(lifecycle.notify, self._status))
        if self._runs is not None:
            events.add("output", output_retention(self._runs))
        outputs = ContainedOutputs(MaskingSink(self._feeds, environ), self._output_failed)
        spawner = self._spawner = make_spawner(
            self._submit,
            outputs,
            turns,
            events.warn,
            state=folder,
            on_death=options.on_death,
            cgroups=options.cgroups,
        )
        closing.callback(spawner.close)
        self._output.resume, self._output.fault = spawner.resume_reading, self._writer_failed
        self._watcher = FileWatcher(
            self._changed, soon, warn=events.warn, failed=self._watch_failed, fault=self._watcher_failed
        )
        closing.callback(self._watcher.close)
        net_prober = NetProber(self._submit, loop, self._probe_failed)
        prober = Probes(clock, spawner, net_prober, self._submit, environ, user_environment)
        closing.callback(prober.close)
        place = path_resolver(options.daemon, os.environ)
        rate_limiter = RateLimitClient(self._submit, turns, clock, place, self._project)
        closing.callback(rate_limiter.close)
        renderer = RunTemplateWorker(loop)
        closing.callback(renderer.close)
        ports = Ports(
            clock,
            spawner,
            self._store,
            self._watcher,
            outputs,
            prober,
            SystemLoad(),
            rate_limiter,
            environ,
            self._plugins,
            renderer,
            user_environment,
        )
        self._supervisor = Supervisor(engine, ports, self._on_exit, [events], self._log_traceback)
        closing.callback(self._supervisor.close)
        self._reader = ReloadWorkerClient(
            loop,
            os.environ,
            self._active_spec,
            salt=self._store.salt,
            project=options.project,
            unnamed=self._project,
        )
        closing.callback(self._reader.close)
        self._requests = ApplyRequests(
            options, self._origin, folder, self._reader, self._plugins, lifecycle, events, self._status
        )
        self._reload = self._requests.reload = Reload(
            engine,
            clock,
            self._submit,
            read=self._requests.reader(),
            store=self._store,
            accepted=self._accepted,
            listen=events,
            allow_removals=options.allow_removals,
            plugins=self._plugins,
            marks=hiding(self._store.salt),
        )
        lifecycle.handle_signals(loop, self._stop, reload=self._requests.on_hangup)

    def _take_state(self, loaded: Loaded, closing: ExitStack) -> None:
        """Record that the state belongs to these files, and store the output of runs there. Raises ApplyRefused if the
        state belongs to other files, before any process is touched.
        """
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
            self._events.warn(because("state_adopted", text=adopted))
        call_soon, size = self._turns.call_soon_threadsafe, self._options.output_size
        self._runs = self._output.runs = RunStore(
            self._folder, self._clock, call_soon, warn=self._events.warn, total=size
        )
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
        self._events.say("", f"slow callback: `{name}` took {seconds * 1000:.0f} ms")

    def _make_plugins(self, closing: ExitStack) -> tuple[PluginPool, OutputFeeds]:
        residents = PluginPool()
        closing.callback(residents.close)
        feeds = OutputFeeds(
            PushBackDetector(LogProbeSink(self._output, self._submit), self._clock, self._submit),
            residents,
            spec_of=self._active_spec,
            warn=lambda job, reason: self._events.warn(reason, job),
            call_soon=self._loop.call_soon_threadsafe,
        )
        closing.callback(feeds.close)
        return residents, feeds

    def _active_spec(self, name: str) -> JobSpec | None:
        job = self._engine.jobs.get(name)
        return None if job is None else job.spec

    def begin(self, loaded: Loaded, ready: Callable[[str], None]) -> None:
        """Apply the first generation, and call `ready` when it is active."""
        self._output.prepare()
        self._plugins.prepare(loaded.plugins)
        former = self._store.load()
        now = self._clock.now()
        remembered = follow_renames(former, loaded.jobfile.jobs, self._store, self._active_before, now.wall)
        living, stale = recover_runs(self._spawner, former, remembered, self._store, loaded.jobfile, self._events.warn)
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
        self._submit(PlanAccepted(generation, plan, graph, remembered.progress, rows, starts, living, stale))
        self._serve()
        self._loop.call_soon(self._is_ready, ready)
        self._clock.call_after(_REVIVAL, self._revive)

    def _is_ready(self, ready: Callable[[str], None]) -> None:
        if self._engine.graph is None or self._engine.is_changing:  # the first generation is taken in many steps
            self._clock.call_after(1000, lambda: self._is_ready(ready))
            return
        gc.freeze()  # most of these jobs stay; a collection that looks at 10 000 of them takes 100 ms
        words = self._status()
        assert self.control is not None
        http = self.control.http
        ready(words if http is None else f"{words}, {http.words}")
        self._lifecycle.ready(words)

    def _status(self) -> str:
        jobs = len(self._engine.jobs)
        return f"generation {self._engine.generation}, {jobs} {'job' if jobs == 1 else 'jobs'}"

    def _serve(self) -> None:
        """Answer requests from now on."""
        info = SupervisorInfo(self._project, os.getpid(), self._clock.now(), str(self._folder or ""))
        context = ControlContext(
            info,
            self._engine,
            self._clock,
            tell=self._submit,
            leave=lambda level: self._lifecycle.leave(level, 0),
            apply=self._requests.apply,
            foresee=self._requests.foresee,
            rows=lambda jobs=None, most=100, **filters: list(self._store.find_records(jobs, most, **filters)),
            meta=self._history_meta,
            kept=self._output.kept,
            outputs=self._runs,
            journal=self._events.log,
            troubles=self._problems,
            faults=self._supervisor.faults.recent,
            rejected=lambda: self._reload.rejected,
            files=lambda: self._requests.options.files,
            is_working=lambda: self._supervisor.is_working,
        )
        assert self.control is not None
        self.control.serve(context)
        http = self.control.http
        if http is not None and (not self._options.quiet or http.is_chosen):
            self._events.say("", http.words)

    def _hang_up(self) -> None:
        if self.control is not None:
            self.control.hang_up()

    def _history_meta(self) -> HistoryMeta:
        with self._store.reader() as reader:
            return reader.history_meta()

    def _problems(self) -> list[Reason]:
        """What a health check reports."""
        assert self.control is not None
        found = [
            Reason("supervisor_stopping") if self._lifecycle.is_ending else None,
            self._spawner.trouble,
            self.control.problem,
            Reason("history_failing") if self._store.is_degraded else None,
            Reason("outputs_failing") if self._runs is not None and self._runs.is_failing else None,
        ]
        if self._watcher.problem is not None:
            found.append(because("watch_failing", error=str(self._watcher.problem)))
        return [problem for problem in found if problem is not None]

    def _on_recorded(self, runs: list[str]) -> None:
        """The records of these runs are written: the spawner can forget the runs."""
        self._spawner.acknowledge(runs)

    def _submit(self, fact: Fact) -> None:
        self._supervisor.submit(fact)

    def _on_exit(self, code: int) -> None:
        """All jobs are done. Readers of the output get time to read it, unless a stop was requested."""
        self._lifecycle.finish(code, self._output.written)

    def _stop(self, level: Level) -> None:
        if level == "kill":
            self._spawner.force()
        self._submit(StopRequested(level))

    def _on_connection_closed(self, stream: Stream, _: OSError) -> None:
        if stream == "stdout":
            self._lifecycle.leave("stop", 141)

    def _accepted(self, wanted: LoadedFiles, generation: int) -> None:
        self._store.begin(generation, wanted.document, wanted.extras)
        for _, message in overcommitted_limits(wanted.jobfile):
            self._events.warn(because("job_file_doubtful", problem=message))
        self._output.align(job.name for job in wanted.jobfile.jobs)
        self._feeds.accepted(wanted.jobfile)
        if self._runs is not None:
            self._runs.limit(wanted.jobfile.jobs)
        self._plugins.retain_only(wanted.jobfile, self._feeds.names)
        if self._options.watch:
            self._watcher.watch_files(_JOB_FILES, sorted(wanted.files))
            if wanted.globs:
                globs = [os.path.relpath(glob, wanted.folder) for glob in wanted.globs]
                self._watcher.watch(_INCLUDES, wanted.folder, globs)
                # a file that was created between reading and watching causes no event: look once more
                self._clock.call_after(_SECOND_LOOK, self._reload.file_changed)
            else:
                self._watcher.unwatch(_INCLUDES)
        self._warn_of_files(wanted.warnings)

    def _warn_of_files(self, warnings: Sequence[Problem]) -> None:
        """Reports the warnings that the generation before did not have, the first `_MOST_WARNINGS` of them."""
        texts = [f"{one.place()}: {one.text()}" for one in warnings]
        new = [text for text in texts if text not in self._warnings]
        for text in new[:_MOST_WARNINGS]:
            self._events.warn(because("job_file_doubtful", problem=text))
        if len(new) > _MOST_WARNINGS:
            self._events.warn(because("more_warnings", count=len(new) - _MOST_WARNINGS))
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

    def _listener_failed(self, name: str, error: Exception) -> None:
        self._supervisor.faults.report("listener", error, name=name)

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
        self._events.say("", text)

    def _changed(self, key: str, paths: tuple[str, ...]) -> None:
        if key in (_JOB_FILES, _INCLUDES):
            self._reader.warm()
            self._reload.file_changed()
        else:
            self._supervisor.paths_changed(key, paths)


_COLORS = {"always": {"FORCE_COLOR": "1", "NO_COLOR": ""}, "never": {"NO_COLOR": "1"}}
_MOST_WARNINGS = 20
_SECOND_LOOK = 1_000_000  # microseconds
_REVIVAL = 5_000_000  # microseconds between two looks at whether a thread has ended
_JOB_FILES, _INCLUDES = "\0job files", "\0includes"  # keys of the watcher that no job can have as its name
