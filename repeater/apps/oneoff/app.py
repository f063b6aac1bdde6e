"""The supervisor of a single job, assembled from its parts."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from repeater.apps.process_lifecycle import Lifecycle
from repeater.engine.engine import Engine
from repeater.engine.facts import Fact, PlanAccepted, RunEnded, StopRequested
from repeater.errors import UsageError
from repeater.model.events import Event, IntervalChanged
from repeater.model.reasons import Reason
from repeater.model.spec import JobFile, JobSpec, LoadAware, OnChange
from repeater.model.time import to_us
from repeater.output.run_summary import NullSink, RunSummary, line_printer, pace_of, sentence_of, stamped
from repeater.plan.diff import diff
from repeater.plan.graph import wire
from repeater.policy.exit_status import exit_status
from repeater.ports import LoadProbe, SharedRateLimiter, Store, StoredState, Stream, Watcher
from repeater.processes.local_spawner import LocalSpawner
from repeater.supervisor.driven_ports import Ports
from repeater.supervisor.supervisor import Supervisor
from repeater.system.clock import LoopClock
from repeater.system.loops.minimal import MinimalLoop
from repeater.system.null import NullLoadProbe, NullProber, NullRateLimiter, NullStore, NullWatcher
from repeater.system.signals import Level

if TYPE_CHECKING:
    from repeater.apps.oneoff import OneOff
    from repeater.output.router import OutputRouter
    from repeater.supervisor.sinks.push_back import PushBackDetector

CLOSED_PIPE = 141
_MOST_THREADS = 4
_SIGNALLED = {"INT": 130, "TERM": 143}
_HARDER: dict[Level, Level] = {"drain": "stop", "stop": "kill", "kill": "kill"}


class OneOffApp:
    """The parts of one command. Each is closed before the parts that it uses."""

    def __init__(self, oneoff: OneOff, loop: MinimalLoop, lifecycle: Lifecycle, closing: ExitStack) -> None:
        self._lifecycle = lifecycle
        self._oneoff = oneoff
        self._loop = loop
        self._held: list[RunEnded] = []
        self._output: OutputRouter | None = None
        spec, clock, environ = oneoff.spec, LoopClock(loop), dict(os.environ)
        self._clock = clock
        self._log = None if oneoff.log_file is None else _appended(oneoff.log_file, closing)
        if spec.output.file is not None:
            _appended(spec.output.file, closing, makes_folder=True)  # now, before anything has run
        self._store, self._remembered, self._salt = self._open_store(spec.name, closing)
        self._chronicle = RunSummary(self._print_line, self._warn_alone)
        listeners: list[Callable[[Event], None]] = [self._chronicle]
        if oneoff.verbose or self._log is not None:
            listeners.append(self._narrator(spec.name))
        elif oneoff.shows_pace:
            listeners.append(self._show_pace)
        outputs: tuple[int, int] | None = (1, 2)
        sink: OutputRouter | NullSink = NullSink()
        if needs_reading(spec):
            self._output = sink = self._make_output(clock, loop.call_soon_threadsafe, environ, closing)
            outputs = None
        elif spec.output.mode == "suppress":
            outputs = (_opened(os.devnull, os.O_WRONLY, closing),) * 2
        taken: OutputRouter | NullSink | PushBackDetector = sink
        if spec.http_aware is not None:
            from repeater.supervisor.sinks.push_back import PushBackDetector

            taken = PushBackDetector(sink, clock, self._tell)
        spawner = LocalSpawner(
            self._tell,
            taken,
            loop,
            threads=_threads_for(spec),
            remembers=True,
            stdin=0 if oneoff.stdin else self._null_ports(closing),
            outputs=outputs,
        )
        closing.callback(spawner.close)
        if not isinstance(sink, NullSink):
            sink.resume = spawner.resume_reading
        watcher: Watcher = NullWatcher()
        if isinstance(spec.schedule, OnChange):
            from repeater.system.file_watcher import FileWatcher

            watcher = FileWatcher(
                lambda key, paths: self._supervisor.paths_changed(key, paths),  # noqa: PLW0108 - made later
                loop.call_soon_threadsafe,
                warn=self._warn,
                failed=lambda _, error: self._warn_text(f"cannot watch files: {error!r}"),
                fault=lambda error: self._warn_text(f"cannot watch files for now: {error!r}"),
            )
            closing.callback(watcher.close)
        load: LoadProbe = NullLoadProbe()
        if isinstance(spec.schedule, LoadAware):
            from repeater.system.system_load import SystemLoad

            load = SystemLoad()
            load.prepare()
        self._engine = engine = Engine(clock.now(), seed=int.from_bytes(os.urandom(8), "big"))
        if oneoff.shows.metrics is not None or oneoff.shows.health is not None:
            from repeater.apps.oneoff.metrics import MetricsEndpoint

            serving = MetricsEndpoint(
                oneoff.shows,
                loop,
                closing,
                warn=self._warn_text,
                is_leaving=lambda: lifecycle.requested is not None,
            )
            serving.begin(engine, listeners)
        quota = self._quota(loop, closing)
        outside = Ports(clock, spawner, self._store, watcher, taken, NullProber(), load, quota, environ)
        self._supervisor = Supervisor(engine, outside, self._left, listeners)
        closing.callback(self._supervisor.close)
        lifecycle.handle_signals(
            loop, self._stop, signalled=self._signalled, reload=lambda: lifecycle.leave("stop", 129)
        )
        if outputs == (1, 2):
            self._watch_reader(loop, closing)

    def _null_ports(self, closing: ExitStack) -> int | None:
        """`/dev/null` as standard input of the runs, opened once; None if they have an input."""
        spec = self._oneoff.spec
        return None if spec.process.stdin or spec.executor else _opened(os.devnull, os.O_RDONLY, closing)

    def begin(self) -> None:
        """Apply the job."""
        jobfile = JobFile("command line", (self._oneoff.spec,), limits=self._oneoff.limits)
        generation = self._remembered.generation + 1
        if self._oneoff.history:
            from repeater.apps.oneoff.history import as_document

            self._store.begin(generation, as_document(jobfile, self._salt))
        # counters and the schedule start from the beginning; only unfinished slots are passed on
        open_rows = self._remembered.open_rows
        self._tell(PlanAccepted(generation, diff({}, jobfile.jobs), wire(jobfile), open_rows=open_rows))
        if self._oneoff.kill_at_end:
            self._end_in_time()

    def _quota(self, loop: MinimalLoop, closing: ExitStack) -> SharedRateLimiter:
        if not any(limit.shared for limit in self._oneoff.limits):
            return NullRateLimiter()
        from repeater.ratelimitd.socket_path import path_resolver
        from repeater.system.ratelimit_client import RateLimitClient

        quota = RateLimitClient(self._tell, loop, self._clock, path_resolver(self._oneoff.daemon, os.environ))
        closing.callback(quota.close)
        return quota

    def _end_in_time(self) -> None:
        """Stop live runs when the time is over. The engine alone would let them finish."""
        rule, now = self._oneoff.spec.stop, self._clock.now()
        ends = [] if rule.for_ is None else [to_us(rule.for_)]
        ends += [] if rule.until is None else [to_us(rule.until - now.wall)]
        if ends:
            self._clock.call_after(max(0, min(ends)), lambda: self._tell(StopRequested("stop")))

    def report(self) -> None:
        """Print the counts, after all other messages."""
        command, job = self._oneoff.spec.process.command, self._engine.jobs.get(self._oneoff.spec.name)
        if self._lifecycle.status == 127 and isinstance(command, tuple) and len(command) == 1 and " " in command[0]:
            line_printer(2, "hint: use `--shell` to run it with a shell\n")
        if self._oneoff.stats_only:
            line_printer(1, self._chronicle.counts(job))
        elif self._oneoff.verbose:
            for line in self._chronicle.counts(job).splitlines():
                self._say(line)
        elif self._oneoff.shows_pace and job is not None:
            self._say(", ".join(f"{name} {value}" for name, value in pace_of(job)))

    def _open_store(self, name: str, closing: ExitStack) -> tuple[Store, StoredState, str]:
        """The store, what it remembers, and its salt for marks."""
        if not self._oneoff.history:
            return NullStore(), StoredState(), ""
        from repeater.apps.oneoff.history import open_history

        store = open_history(name, self._loop, self._warn)
        closing.callback(store.close)
        return store, store.load(), store.salt

    # --- facts ---

    def _tell(self, fact: Fact) -> None:
        """Pass on a fact. A run whose output waits for a slow reader counts as running, so the next run waits."""
        is_waiting = self._output is not None and self._output.is_full and self._lifecycle.requested is None
        if is_waiting and isinstance(fact, RunEnded):
            self._held.append(fact)
        else:
            self._supervisor.submit(fact)

    def _go_on(self) -> None:
        held, self._held = self._held, []
        for fact in held:
            self._supervisor.submit(fact)

    def _left(self, _: int) -> None:
        oneoff, tally = self._oneoff, self._chronicle.tally
        status = exit_status(tally, oneoff.goal, passes_code=oneoff.passes_code)
        self._lifecycle.finish(status, None if self._output is None else self._output.written)

    def _stop(self, level: Level) -> None:
        self._go_on()
        self._tell(StopRequested(level))

    def _signalled(self, level: Level, name: str) -> None:
        self._lifecycle.leave(_HARDER[level], _SIGNALLED[name])

    def _gone(self, stream: Stream, error: OSError) -> None:
        if stream != "stdout":
            return
        if error.errno == errno.EPIPE:
            self._lifecycle.leave("stop", CLOSED_PIPE)
        else:
            self._say(f"cannot write standard output: {os.strerror(error.errno or 0)}")
            self._lifecycle.leave("stop", 1)

    # --- messages ---

    def _narrator(self, job: str) -> Callable[[Event], None]:
        from repeater.output.event_printer import EventPrinter

        def say(_: str, line: str, _event: Event) -> None:
            if self._log is not None:
                line_printer(self._log, stamped(f"{job}: {line}"))
            if self._oneoff.verbose:
                self._say(line)

        return EventPrinter(say, verbose=True)

    def _show_pace(self, event: Event) -> None:
        if isinstance(event, IntervalChanged):
            self._say(sentence_of(event.reason))

    def _print_line(self, line: str) -> None:
        if not self._oneoff.verbose:  # else the narrator says it too
            self._say(line)

    def _warn_alone(self, message: str) -> None:
        if not self._oneoff.verbose:
            self._warn_text(message)

    def _warn(self, reason: Reason) -> None:
        self._warn_text(sentence_of(reason))

    def _warn_text(self, message: str) -> None:
        self._say(message if self._oneoff.log_json else f"warning: {message}", "warning")

    def _say(self, line: str, level: str = "info") -> None:
        text = self._as_json(line, level) if self._oneoff.log_json else f"rpr: {line}"
        if self._output is not None:
            self._output.say(text)
        else:
            line_printer(2, f"{text}\n")

    def _as_json(self, line: str, level: str) -> str:
        from repeater.model.time import rfc3339
        from repeater.output.terminal import json_line

        now = rfc3339(self._clock.now().wall)
        return json_line({"time": now, "level": level, "message": line, "job": self._oneoff.spec.name})

    # --- output ---

    def _make_output(
        self,
        clock: LoopClock,
        soon: Callable[[Callable[[], None]], object],
        environ: dict[str, str],
        closing: ExitStack,
    ) -> OutputRouter:
        from repeater.output.router import OutputRouter

        output = OutputRouter(
            clock,
            soon,
            environ=environ,
            warn=lambda _, reason: self._warn(reason),
            on_closed=self._gone,
            plain=True,
        )
        output.has_room = self._go_on
        closing.callback(output.close)
        return output

    def _watch_reader(self, loop: MinimalLoop, closing: ExitStack) -> None:
        """Notice that the reader of standard output is gone: the runs write there themselves."""
        if sys.platform != "linux":
            return
        import select

        epoll = select.epoll()
        closing.callback(epoll.close)
        try:
            epoll.register(1, 0)  # only error and hang-up, which are always reported
        except OSError:  # a file, which needs no reader
            return

        def gone() -> None:
            loop.remove_reader(epoll.fileno())
            self._gone("stdout", BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

        loop.add_reader(epoll.fileno(), gone)
        closing.callback(loop.remove_reader, epoll.fileno())


def _threads_for(spec: JobSpec) -> int:
    """How many threads start its runs: a start waits for the new program, meanwhile others can be made."""
    at_once = spec.overlap.max_instances or 1
    return 0 if at_once == 1 else min(at_once, os.cpu_count() or 1, _MOST_THREADS)


def needs_reading(spec: JobSpec) -> bool:
    """Whether rpr has to see what the runs print; if not, they write to its own output themselves."""
    output, success = spec.output, spec.success
    return (
        output.mode == "aggregate"
        or output.file is not None
        or (output.timestamps and output.mode == "stream")
        or success.pattern is not None
        or success.failure_pattern is not None
        or spec.stop.pattern is not None
        or spec.http_aware is not None
    )


def _appended(path: str, closing: ExitStack, *, makes_folder: bool = False) -> int:
    """A file that can be written. Raises UsageError."""
    try:
        if makes_folder:
            from pathlib import Path

            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, closing)
    except OSError as error:
        raise UsageError(f"cannot write `{path}`: {error.strerror}") from None


def _opened(path: str, flags: int, closing: ExitStack) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    closing.callback(os.close, fd)
    return fd
