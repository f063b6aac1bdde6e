"""Routes the output of all runs to the console, the log file, the buffer of recent output, and the patterns of the job.

Implements `ports.RunSink`. `begin` announces a run. On the console every line has its job's name, lines are never
mixed, and a partial line is shown when nothing follows for a moment. No method waits: threads do the writing, and a run
whose output cannot be written is paused. Memory is bounded by `WINDOW` for a line, `background_writer.FULL` for pending
output, and `output.buffer` for recent output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import IO

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.run import RunKind
from repeater.model.spec import JobSpec
from repeater.model.time import rfc3339
from repeater.output.background_writer import Console, ConsoleChunk, Writer
from repeater.output.buffer import OutputBuffer
from repeater.output.logfile import LogFile
from repeater.output.run_store import RunStore
from repeater.output.terminal import NameColors, colored, cut_here, is_terminal, visible, visible_text, wants_color
from repeater.output.user_logfile import file_owner
from repeater.policy.verdict import Matcher
from repeater.ports import Clock, Stream, TimerHandle

WINDOW = 64 * 1024
"""Maximum number of bytes of a partial line that are held back."""
PATIENCE = 100_000
"""Microseconds after which a partial line is shown."""
WIDEST_NAME = 24
_MAX_PENDING = 16 << 20  # bytes; beyond it output is dropped, and the number of dropped bytes is reported
_SPOOL = 256 * 1024  # bytes of an aggregated run in memory, the rest is in a nameless file
_LOG_SIZE, _LOG_BACKUPS = 10_000_000, 3
_CLOSE_TIMEOUT_S = 2.0  # seconds for a blocked console or disk at the end
_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


@dataclass(slots=True)
class _Line:
    """The current partial line of one stream of a run."""

    pending: bytes = b""
    is_shown: bool = False  # its beginning is on the console
    is_in_file: bool = False  # its beginning is in the file
    alarm: TimerHandle | None = None


@dataclass(slots=True)
class _Run:
    id: str
    spec: JobSpec
    matcher: Matcher
    file: LogFile | None
    lines: dict[Stream, _Line]
    spool: IO[bytes] | None = None
    spooled: list[tuple[Stream, int]] = field(default_factory=list)


class OutputRouter:
    """`ports.RunSink`, and rpr's own messages. All methods are called in the loop's thread.

    `resume` continues a paused run; it may be set later, before the first run. `warn(job, reason)` reports a problem.
    `on_closed(stream, error)` reports that `stdout` or `stderr` cannot be written any more, usually because its reader
    exited. `has_room` is called when `is_full` becomes false, and `fault(job, error)` for an unexpected exception of a
    writer. All five are called in the loop, through `call_soon` (`loop.call_soon_threadsafe`). `plain` prints the jobs'
    bytes without names, with times if the job wants them. `console` are the descriptors of both streams, or a rotated
    file that replaces them. `runs` stores the output on disk; it may be set before the first run, and its owner closes
    it.
    """

    def __init__(
        self,
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        environ: Mapping[str, str],
        resume: Callable[[str], None] = lambda _: None,
        warn: Callable[[str, Reason], None] = lambda _job, _reason: None,
        on_closed: Callable[[Stream, OSError], None] = lambda *_: None,
        plain: bool = False,
        console: tuple[int, int] | str = (1, 2),
    ) -> None:
        self.resume = resume
        self.kept = OutputBuffer(clock)
        self.runs: RunStore | None = None
        self._clock = clock
        self._call_soon = call_soon
        self._warn = warn
        self._on_closed = on_closed
        self.fault: Callable[[str, BaseException], None] = self._warn_of_fault
        self._faulty: set[str] = set()
        self.has_room: Callable[[], None] = lambda: None
        self._plain = plain
        self._runs: dict[str, _Run] = {}
        self._paused: set[str] = set()
        self._files: dict[tuple[str, tuple[int, int] | None], tuple[LogFile, int]] = {}
        self._owners: dict[tuple[str | None, str | None], tuple[int, int] | None] = {}
        self._left_out = 0
        self._width = 0
        self._heads: dict[tuple[str, Stream], bytes] = {}
        fds = (-1, -1) if isinstance(console, str) else console
        self._log = None
        if isinstance(console, str):
            self._log = LogFile(console, _LOG_SIZE, _LOG_BACKUPS, partial(self._on_write_error, ""), is_ours=True)
        self._consoles = {
            stream: Console(fd, partial(self._on_broken_pipe, stream), self._log) for stream, fd in _pairs(fds)
        }
        self._consoles["stdout"].share_with(self._consoles["stderr"])
        self._is_terminal = {stream: is_terminal(fd) for stream, fd in _pairs(fds)}
        self._colors = NameColors()
        self._is_colored = {stream: wants_color(fd, environ) for stream, fd in _pairs(fds)}
        self._console = Writer("rpr-console", self._on_writable, self._on_fault)
        self._disk = Writer("rpr-files", self._on_writable, self._on_fault)

    def is_colored(self, stream: Stream) -> bool:
        """Whether text on this stream is shown in colours."""
        return self._is_colored[stream]

    def prepare(self) -> None:
        """Start the thread of the console now, in case the system has no more threads later."""
        self._console.put(lambda: None, 0)

    def align(self, jobs: Iterable[str]) -> None:
        """Pad names to the longest name of the active jobs."""
        self._width = min(WIDEST_NAME, max(map(len, jobs), default=0))
        self._heads.clear()

    def say(self, text: str) -> None:
        """Print a message of rpr on standard error, in order with all other output."""
        self._show("stderr", ConsoleChunk(None, b"", f"{text}\n".encode("utf-8", "backslashreplace")))

    # --- runs ---

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        """A run of this job is about to start."""
        if len(spec.name) > self._width < WIDEST_NAME:
            self._width = min(WIDEST_NAME, len(spec.name))
            self._heads.clear()
        matcher = Matcher(spec.success, spec.stop.pattern)
        self.kept.begin(run, spec.name, spec.output.capture)
        if self.runs is not None and kind == "run":
            self.runs.begin(run, spec.name, spec.output.keep)
        self._runs[run] = _Run(run, spec, matcher, self._open_file(spec), {stream: _Line() for stream in _STREAMS})

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        """Take a chunk. False: pause the run until `resume`. Output of unknown runs is dropped."""
        state = self._runs.get(run)
        if state is None:
            return True
        output = state.spec.output
        if not state.matcher.idle:
            state.matcher.feed(stream, data)
        if self.runs is None:
            self.kept.add(run, stream, data)
        else:
            now = self._clock.now().wall
            self.kept.add(run, stream, data, now)
            self.runs.add(run, stream, data, now)
        has_room = True
        if state.file is not None:
            has_room = self._write_file(state, state.file, stream, data)
        if output.mode == "stream":
            has_room = self._stream(state, stream, data) and has_room
        elif output.mode == "aggregate":
            has_room = self._spool(state, stream, data) and has_room
        if not has_room:
            self._paused.add(run)
        return has_room

    def finish(self, run: str) -> frozenset[str]:
        """The run has ended: show its partial lines. Returns the patterns that its whole output matched."""
        state = self._runs.pop(run, None)
        if state is None:
            return frozenset()
        self._paused.discard(run)
        for stream, line in state.lines.items():
            if line.alarm is not None:
                line.alarm.cancel()
            if line.pending or line.is_shown:
                body = self._text(stream, line.pending) + b"\n"
                piece = ConsoleChunk((run, stream), self._head(state, stream), body, continues=line.is_shown)
                self._show(stream, piece, state.spec.name)
        if state.spool is not None:
            self._console.put(partial(self._show_spooled, state, state.spool), _SPOOL, state.spec.name)
        if state.file is not None:
            self._release_file(state.file, state.spec.name)
        self.kept.end(run)
        if self.runs is not None:
            self.runs.end(run)
        if state.matcher.problem is not None:
            self._warn(state.spec.name, state.matcher.problem)
        return state.matcher.found()

    def tail(self, run: str) -> bytes:
        """The last `capture` bytes of a run, both streams in order of arrival. Output of old runs is dropped."""
        return self.kept.tail(run)

    @property
    def is_full(self) -> bool:
        """Whether callers should pause, because too much output is pending."""
        return self._console.is_full or self._disk.is_full

    def written(self, on_done: Callable[[], None]) -> None:
        """Call `on_done` in the loop when all pending output is written. There is no time limit."""

        def ask_disk() -> None:
            self._disk.put(partial(self._later, on_done), 0)

        self._console.put(ask_disk, 0)

    def flush(self) -> None:
        """Block until all pending output is written, at most two seconds each for console and disk."""
        self._disk.flush(_CLOSE_TIMEOUT_S)
        self._console.flush(_CLOSE_TIMEOUT_S)

    def close(self) -> None:
        """Block like `flush`, then drop unwritten output."""
        for run in list(self._runs):
            self.finish(run)
        self._disk.close(_CLOSE_TIMEOUT_S)
        self._console.close(_CLOSE_TIMEOUT_S)
        if self._log is not None:
            self._log.close()

    # --- the console ---

    def _stream(self, state: _Run, stream: Stream, data: bytes) -> bool:
        if self._plain and not state.spec.output.timestamps:
            return self._show(stream, ConsoleChunk(None, b"", data), state.spec.name)
        line = state.lines[stream]
        if line.alarm is not None:
            line.alarm.cancel()
            line.alarm = None
        data = line.pending + data
        head = self._head(state, stream)
        has_room = True
        if end := data.rfind(b"\n") + 1:
            body = self._text(stream, data[:end])[:-1].replace(b"\n", b"\n" + head) + b"\n"
            piece = ConsoleChunk((state.id, stream), head, body, continues=line.is_shown)
            has_room = self._show(stream, piece, state.spec.name)
            line.is_shown = False
        line.pending = data[end:]
        if len(line.pending) > WINDOW:
            self._show_partial_line(state, stream)
            has_room = not self._console.is_full
        if line.pending:
            line.alarm = self._clock.call_after(PATIENCE, partial(self._show_partial_line, state, stream))
        return has_room

    def _show_partial_line(self, state: _Run, stream: Stream) -> None:
        line = state.lines[stream]
        line.alarm = None
        cut = cut_here(line.pending)
        text, line.pending = self._text(stream, line.pending[:cut]), line.pending[cut:]
        head = self._head(state, stream)
        piece = ConsoleChunk((state.id, stream), head, text, continues=line.is_shown, is_open=True)
        line.is_shown = True
        self._show(stream, piece, state.spec.name)

    def _show(self, stream: Stream, piece: ConsoleChunk, job: str = "") -> bool:
        if self._console.waiting > _MAX_PENDING:
            self._left_out += len(piece.body)
            return False
        return self._console.put(partial(self._consoles[stream].show, (piece,)), len(piece.body), job)

    def _text(self, stream: Stream, data: bytes) -> bytes:
        return visible(data) if self._is_terminal[stream] else data

    def _head(self, state: _Run, stream: Stream) -> bytes:
        if self._plain:
            return self._stamp()
        name = state.spec.name
        head = self._heads.get((name, stream))
        if head is None:
            shown = visible_text(name)
            shown = shown if len(shown) <= WIDEST_NAME else shown[: WIDEST_NAME - 1] + "…"
            text = f"{shown:<{self._width}} |"
            head = f"{colored(text, self._colors.code(name)) if self._is_colored[stream] else text} ".encode()
            self._heads[name, stream] = head
        return head + self._stamp() if state.spec.output.timestamps else head

    def _stamp(self) -> bytes:
        return f"{rfc3339(self._clock.now().wall)} ".encode()

    def _spool(self, state: _Run, stream: Stream, data: bytes) -> bool:
        if state.spool is None:
            import tempfile

            state.spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - closed when it was shown
        try:
            state.spool.write(data)
        except OSError as error:
            self._warn(state.spec.name, because("output_not_kept", error=str(error)))
            return True
        if state.spooled and state.spooled[-1][0] == stream:
            stream, size = state.spooled.pop()
            state.spooled.append((stream, size + len(data)))
        else:
            state.spooled.append((stream, len(data)))
        return not self._console.is_full

    def _show_spooled(self, state: _Run, spool: IO[bytes]) -> None:
        """Show a whole run at once, in the writer's thread."""
        with spool:
            spool.seek(0)
            for stream, size in state.spooled:
                self._consoles[stream].show(self._pieces(state, stream, spool, size))

    def _pieces(self, state: _Run, stream: Stream, spool: IO[bytes], size: int) -> Iterator[ConsoleChunk]:
        if self._plain and not state.spec.output.timestamps:
            while size > 0 and (data := spool.read(min(WINDOW, size))):
                size -= len(data)
                yield ConsoleChunk(None, b"", data)
            return
        head, owner, is_shown, pending = self._head(state, stream), (state.id, stream), False, b""
        while size > 0 and (data := spool.read(min(WINDOW, size))):
            size -= len(data)
            data = pending + data
            end = len(data) if size <= 0 else data.rfind(b"\n") + 1
            is_open = not end
            end = end or cut_here(data)
            text, pending = self._text(stream, data[:end]), data[end:]
            if not is_open:
                text = text.removesuffix(b"\n").replace(b"\n", b"\n" + head) + b"\n"
            yield ConsoleChunk(owner, head, text, continues=is_shown, is_open=is_open)
            is_shown = is_open

    # --- files ---

    def _open_file(self, spec: JobSpec) -> LogFile | None:
        output = spec.output
        if output.file is None:
            return None
        key = output.file, self._owner(spec)
        file, users = self._files.get(key) or (
            LogFile(
                output.file,
                output.max_size,
                output.backups,
                partial(self._on_write_error, spec.name),
                owner=key[1],
            ),
            0,
        )
        file.max_size, file.backups = output.max_size, output.backups
        self._files[key] = file, users + 1
        return file

    def _owner(self, spec: JobSpec) -> tuple[int, int] | None:
        """User and group that own a log file. None: those of this process."""
        names = (spec.process.user, spec.process.group)
        if spec.process.user is None:
            return None
        if names not in self._owners:
            self._owners[names] = file_owner(spec.process.user, spec.process.group)
        return self._owners[names]

    def _release_file(self, file: LogFile, job: str) -> None:
        key = file.path, file.owner
        _, users = self._files[key]
        if users > 1:
            self._files[key] = file, users - 1
        else:
            del self._files[key]
            self._disk.put(file.close, 0, job)

    def _write_file(self, state: _Run, file: LogFile, stream: Stream, data: bytes) -> bool:
        if state.spec.output.timestamps:
            line, stamp = state.lines[stream], self._stamp()
            start = b"" if line.is_in_file else stamp
            line.is_in_file = not data.endswith(b"\n")
            body = data.removesuffix(b"\n").replace(b"\n", b"\n" + stamp)
            data = start + body + (b"" if line.is_in_file else b"\n")
        if self._disk.waiting > _MAX_PENDING:
            file.skip(len(data))
            return False
        return self._disk.put(partial(file.write, data), len(data), state.spec.name)

    # --- from the writers' threads ---

    def _on_broken_pipe(self, stream: Stream, error: OSError) -> None:
        self._later(partial(self._on_closed, stream, error))

    def _on_write_error(self, job: str, reason: Reason) -> None:
        self._later(partial(self._warn, job, reason))

    def _on_fault(self, job: str, error: BaseException) -> None:
        self._later(partial(self.fault, job, error))

    def _warn_of_fault(self, job: str, error: BaseException) -> None:
        """Warn once for each job, because a broken console fails for every warning too."""
        if job not in self._faulty:
            self._faulty.add(job)
            self._warn(job, because("output_unwritable", error=f"{type(error).__name__}: {error}"))

    def _on_writable(self) -> None:
        self._later(self._resume_runs)

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(call)

    def _resume_runs(self) -> None:
        """Resume all paused runs, because there is room again."""
        if self.is_full:
            return
        self.has_room()
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self.say(f"rpr: {left_out} bytes of output were dropped, because the reader of the output was too slow")
        paused, self._paused = self._paused, set()
        for run in paused:
            self.resume(run)


def _pairs(fds: tuple[int, int]) -> Iterator[tuple[Stream, int]]:
    return zip(_STREAMS, fds, strict=True)
