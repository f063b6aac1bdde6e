"""Keeps the output of runs on disk: `output.run_file` has the format, `policy.keep` says how long each output stays.

The loop only collects what runs write. A thread writes it, once a second, so no start waits for a disk. A run that ends
within that second costs one file that is written once. If this process is killed, the output of the last second is
lost; that of all earlier seconds is in `RUN.log`. If the disk is full, or slower than the jobs, output is lost and
counted, and no run waits.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from repeater._lazy_dataclasses import dataclass, field
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import JobSpec, Keep
from repeater.output import run_file
from repeater.output.background_writer import Writer
from repeater.output.run_file import FAILED, FINE, FOLDER, LIVE, NEW, Note
from repeater.policy.keep import BLOCK, DEFAULT_TOTAL, Retention, Stored
from repeater.ports import Clock, Stream, TimerHandle

FLUSH = 1_000_000
"""Microseconds after which output is written at the latest."""
_MUCH = 1 << 20  # bytes that are written at once
_MOST_WAITING = 16 << 20  # bytes that wait for the disk; more are lost
_SMALL = 4096  # bytes: what continues a line is added to the note before it up to this size
_UNDECIDED = 5_000_000  # microseconds after which a run without a verdict counts as failed
_CLOSE_TIMEOUT_S = 2.0  # seconds for a slow disk at the end
_MOST_OPEN = 16  # folders that are open at a time
_LOOK = 3600.0  # seconds between looks at the age of failures
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True)
class _Live:
    """A run whose output is taken. `total` counts its bytes, `size` those in `notes`, `missing` those that were lost
    before them. `ended` is when its output was complete, by the monotonic clock.
    """

    run: str
    job: str
    most: int
    notes: list[Note] = field(default_factory=list)
    size: int = 0
    total: int = 0
    missing: int = 0
    ended: int | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Output of one run that the thread must write. `failed` None: the run is still live."""

    run: str
    job: str
    most: int
    notes: list[Note]
    failed: bool | None


class RunStore:
    """`folder` is a state folder whose lock is held. `warn` and the answers of `flush` are called through `call_soon`,
    in the loop.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        warn: Callable[[Reason], None],
        total: int = DEFAULT_TOTAL,
    ) -> None:
        self.folder = folder / FOLDER
        self._clock = clock
        self._call_soon = call_soon
        self._warn = warn
        self._live: dict[str, _Live] = {}
        self._done: list[_Part] = []
        self._collected = 0
        self._alarm: TimerHandle | None = None
        self._look: TimerHandle | None = None
        self._writer = Writer("rpr-outputs", lambda: None, self._fault)
        self._disk = _Disk(self.folder, total)
        self._is_failing = False

    # --- in the loop ---

    def open(self, surviving: Collection[str]) -> None:
        """Scan the stored output. The `surviving` runs of an earlier supervisor are live; all others have ended."""
        self._put(partial(self._disk.scan, frozenset(surviving)), 0)
        self._look_again()

    def limit(self, jobs: Iterable[JobSpec]) -> None:
        """These jobs are active: apply their rules."""
        rules = {job.name: job.output.keep for job in jobs}
        self._put(partial(self._disk.limit, rules), 0)

    def move(self, old: str, new: str) -> None:
        """The outputs of job `old` belong to `new`."""
        for live in self._live.values():
            if live.job == old:
                live.job = new
        self._hand_over()
        self._put(partial(self._disk.move, old, new), 0)

    def begin(self, run: str, job: str, keep: Keep | None) -> None:
        if keep is not None and (keep.runs or keep.failures):
            self._live[run] = _Live(run, job, keep.size)

    def add(self, run: str, stream: Stream, data: bytes, at: datetime) -> None:
        """Take output of a run. Never waits."""
        live = self._live.get(run)
        if live is None:
            return
        live.total += len(data)
        if self._collected + self._writer.waiting > _MOST_WAITING:
            live.missing += len(data)
            return
        notes = live.notes
        if live.missing:
            notes.append((at, "rpr", b"%d" % live.missing))
            live.missing = 0
        if notes and notes[-1][1] == stream and len(notes[-1][2]) < _SMALL and not notes[-1][2].endswith(b"\n"):
            notes[-1] = (notes[-1][0], stream, notes[-1][2] + data)
        else:
            notes.append((at, stream, data))
        live.size += len(data)
        self._collected += len(data)
        if live.size > 2 * live.most:
            self._drop_middle(live)
        if self._collected > _MUCH:
            self._hand_over()
        elif self._alarm is None:
            self._alarm = self._clock.call_after(FLUSH, self._flush_timed)

    def _drop_middle(self, live: _Live) -> None:
        """Drop the middle of output that exceeds the limit. The thread gets the first and last bytes only."""
        first, last, middle = 0, len(live.notes), 0
        size = 0
        while size < live.most // 4 and first < last:
            size += len(live.notes[first][2])
            first += 1
        while size < live.most and first < last - 1:
            last -= 1
            size += len(live.notes[last][2])
        dropped = live.notes[first:last]
        middle = sum(int(data) if stream == "rpr" else len(data) for _, stream, data in dropped)
        self._collected -= live.size - size
        live.size = size
        if dropped:
            live.notes[first:last] = [(dropped[0][0], "rpr", b"%d" % middle)]

    def end(self, run: str) -> None:
        """The output of a run is complete."""
        live = self._live.get(run)
        if live is not None:
            live.ended = self._clock.now().mono

    def decide(self, run: str, *, failed: bool) -> None:
        """The run has ended with this verdict."""
        live = self._live.pop(run, None)
        if live is None:
            return
        if live.missing:
            live.notes.append((self._clock.now().wall, "rpr", b"%d" % live.missing))
        if live.total:
            self._done.append(_Part(run, live.job, live.most, live.notes, failed))
            if self._alarm is None:
                self._alarm = self._clock.call_after(FLUSH, self._flush_timed)

    def totals(self) -> dict[str, int]:
        """Number of bytes that each live run has written since this supervisor took over its output."""
        return {run: live.total for run, live in self._live.items()}

    def positions(self, totals: Mapping[str, int]) -> dict[str, int]:
        """`totals` counted from the beginning of each run. Complete after a `flush`."""
        return {run: total + self._disk.before.get(run, 0) for run, total in totals.items()}

    def holds(self, run: str) -> bool:
        """Whether the output of this live run is taken."""
        return run in self._live

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_failing

    def flush(self, on_done: Callable[[], None]) -> None:
        """Call `on_done` when all output that was taken until now is on disk, or is lost."""
        self._hand_over()
        self._put(partial(self._later, on_done), 0)

    def close(self) -> None:
        """Write pending output for at most two seconds. Runs without a verdict count as failed."""
        for run in list(self._live):
            self.decide(run, failed=True)
        for alarm in (self._alarm, self._look):
            if alarm is not None:
                alarm.cancel()
        self._hand_over()
        self._writer.close(_CLOSE_TIMEOUT_S)

    def _flush_timed(self) -> None:
        self._alarm = None
        now = self._clock.now().mono
        overdue = [one.run for one in self._live.values() if one.ended is not None and now - one.ended > _UNDECIDED]
        for run in overdue:
            self.decide(run, failed=True)
        self._hand_over()
        if self._alarm is None and any(one.ended is not None for one in self._live.values()):
            self._alarm = self._clock.call_after(FLUSH, self._flush_timed)

    def _hand_over(self) -> None:
        """Pass the collected output to the thread."""
        parts, self._done = self._done, []
        if self._collected:
            for live in self._live.values():
                if live.notes:
                    parts.append(_Part(live.run, live.job, live.most, live.notes, None))
                    live.notes, live.size = [], 0
        size, self._collected = self._collected, 0
        if parts:
            self._put(partial(self._disk.write, parts), max(1, size))

    def _look_again(self) -> None:
        self._look = self._clock.call_after(int(_LOOK * 1e6), self._look_again)
        self._put(self._disk.remove_old, 0)

    def _put(self, call: Callable[[], OSError | None], size: int) -> None:
        self._writer.put(partial(self._carry_out, call), size)

    # --- in the thread ---

    def _carry_out(self, call: Callable[[], OSError | None]) -> None:
        """Report the first of several errors, and the recovery."""
        self._disk.has_written = False
        try:
            error = call()
        except OSError as raised:
            error = raised
        if error is not None and not self._is_failing:
            self._is_failing = True
            self._later(partial(self._warn, because("outputs_unwritable", error=str(error))))
        elif error is None and self._is_failing and self._disk.has_written:
            self._is_failing = False
            self._later(partial(self._warn, Reason("outputs_recovered")))

    def _fault(self, _job: str, error: BaseException) -> None:
        reason = because("outputs_unwritable", error=f"{type(error).__name__}: {error}")
        self._later(partial(self._warn, reason))

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(call)


class _Disk:
    """The folder of outputs. Used in the thread of the writer only, except `before`."""

    def __init__(self, folder: Path, total: int) -> None:
        self._folder = folder
        self._stored = Retention(total)
        self._sizes: dict[str, int] = {}
        self._missing: dict[str, int] = {}
        self.before: dict[str, int] = {}
        self.has_written = False
        self._root: int | None = None
        self._folder_fds: dict[str, int] = {}

    def scan(self, living: frozenset[str]) -> OSError | None:
        """Scan the stored output, and complete the unfinished files of an earlier supervisor."""
        found: list[tuple[float, Stored]] = []
        failed: OSError | None = None
        for job, folder in self._folders():
            try:
                for name in sorted(os.listdir(folder)):
                    try:
                        self._found(job, folder, name, living, found)
                    except OSError as error:
                        failed = error
            finally:
                os.close(folder)
        now = datetime.now(UTC)
        for _, stored in sorted(found, key=lambda one: one[0]):
            self._remove(self._stored.add(stored, now))
        return failed

    def _found(
        self, job: str, folder: int, name: str, living: frozenset[str], found: list[tuple[float, Stored]]
    ) -> None:
        run, kind = run_file.run_of(name)
        if not kind:
            if name.endswith(NEW):
                os.unlink(name, dir_fd=folder)
            return
        if kind == LIVE:
            text = run_file.read_text(name, folder)
            if run in living:
                self.before[run] = run_file.raw_size(text)
                self._rewrite(name, folder, text)
                self._sizes[run] = len(text)
                return
            changed = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            name, _ = self._complete(run, folder, text, failed=True, was_live=True)
            os.utime(name, (changed, changed), dir_fd=folder, follow_symlinks=False)
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
        ended = datetime.fromtimestamp(there.st_mtime, UTC)
        found.append((there.st_mtime, Stored(job, run, name, ended, name.endswith(FAILED), _on_disk(there.st_size))))

    def _folders(self) -> Iterable[tuple[str, int]]:
        """The job of each folder, from its name, and a descriptor that the caller closes."""
        try:
            root = run_file.open_folder(self._folder)
        except FileNotFoundError:
            return
        try:
            for name in os.listdir(root):
                with contextlib.suppress(OSError):
                    yield run_file.job_name(name), run_file.open_folder(name, inside=root)
        finally:
            os.close(root)

    def limit(self, rules: Mapping[str, Keep | None]) -> OSError | None:
        folders = {run_file.job_name(run_file.folder_name(job)): job for job in rules}
        for short, job in folders.items():  # a long name is not in the name of its folder
            if short != job:
                self._stored.move(short, job)
        return self._remove(self._stored.limit(rules, datetime.now(UTC)))

    def remove_old(self) -> OSError | None:
        return self._remove(self._stored.expired(datetime.now(UTC)))

    def move(self, old: str, new: str) -> OSError | None:
        there = self._folder / run_file.folder_name(new)
        try:
            (self._folder / run_file.folder_name(old)).rename(there)
        except FileNotFoundError:
            return None
        except OSError:  # the new name has outputs of its own
            before = self._folder / run_file.folder_name(old)
            for name in os.listdir(before):
                (before / name).rename(there / name)
            before.rmdir()
        self._stored.move(old, new)
        return None

    def write(self, parts: Sequence[_Part]) -> OSError | None:
        """Write all parts; the last error, if any of them was lost."""
        failed: OSError | None = None
        try:
            for part in self._lasting(parts):
                try:
                    self._write(part)
                except OSError as error:
                    failed = error
        finally:
            self._close_folders()
        self.has_written = failed is None
        return failed

    def _lasting(self, parts: Sequence[_Part]) -> Iterable[_Part]:
        """Without whole outputs that would be removed at once, because later parts complete more runs of the job."""
        later: Counter[str] = Counter(part.job for part in parts if part.failed is not None)
        if not any(count > self._stored.most_runs(job) for job, count in later.items()):
            return parts
        lasting = []
        for part in parts:
            if part.failed is not None:
                later[part.job] -= 1
                is_whole = part.run not in self._sizes
                if is_whole and not part.failed and later[part.job] >= self._stored.most_runs(part.job):
                    continue
            lasting.append(part)
        return lasting

    def _write(self, part: _Part) -> None:
        text = run_file.encoded(part.notes)
        lost = self._missing.pop(part.run, 0)
        if lost and text:
            text = run_file.encoded([(part.notes[0][0], "rpr", b"%d" % lost)]) + text
        try:
            folder = self._folder_fds.get(part.job)
            if folder is None:
                folder = self._folder_fds[part.job] = self._open(part.job)
            if part.failed is None:
                self._append(part, folder, text)
            else:
                self._finish(part, folder, text, part.failed)
            if len(self._folder_fds) > _MOST_OPEN:
                self._close_folders()
        except OSError:
            if part.failed is None:
                self._missing[part.run] = run_file.raw_size(text)
            raise

    def _append(self, part: _Part, folder: int, text: bytes) -> None:
        name, size = part.run + LIVE, self._sizes.get(part.run, 0)
        most = self._stored.share(part.most)
        if size + len(text) > most:
            whole = (run_file.read_text(name, folder) if size else b"") + text
            text = run_file.shortened(whole, most - most // 3)
            self._rewrite(name, folder, text)
            size = len(text)
        else:
            fd = os.open(name, _WRITE | os.O_APPEND, 0o600, dir_fd=folder)
            try:
                _write_all(fd, text, size)
            finally:
                os.close(fd)
            size += len(text)
        self._sizes[part.run] = size
        self._remove(self._stored.grow(part.run, _on_disk(size)))

    def _finish(self, part: _Part, folder: int, text: bytes, failed: bool) -> None:
        if part.run in self._sizes:
            text = run_file.read_text(part.run + LIVE, folder) + text
        text = run_file.shortened(text, part.most)
        name, size = part.run + LIVE, self._sizes.pop(part.run, 0)
        self.before.pop(part.run, None)
        try:
            name, size = self._complete(part.run, folder, text, failed=failed, was_live=size > 0)
        finally:
            now = datetime.now(UTC)
            if size:
                stored = Stored(part.job, part.run, name, now, failed, _on_disk(size))
                self._remove(self._stored.add(stored, now))

    @staticmethod
    def _complete(run: str, folder: int, text: bytes, *, failed: bool, was_live: bool) -> tuple[str, int]:
        """Write the compressed file of a run that is over, and remove the other one. Returns its name and size."""
        name, data = run + (FAILED if failed else FINE), run_file.compressed(text)
        try:
            fd = os.open(name, _WRITE | os.O_EXCL, 0o600, dir_fd=folder)
        except FileExistsError:  # it was cut off when a supervisor was killed
            os.unlink(name, dir_fd=folder)
            fd = os.open(name, _WRITE | os.O_EXCL, 0o600, dir_fd=folder)
        try:
            _write_all(fd, data, 0)
        except OSError:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)
        if was_live:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(run + LIVE, dir_fd=folder)
        return name, len(data)

    def _rewrite(self, name: str, folder: int, text: bytes) -> None:
        """Replace a file as a whole."""
        new = name + NEW
        fd = os.open(new, _WRITE | os.O_TRUNC, 0o600, dir_fd=folder)
        try:
            _write_all(fd, text, 0)
        finally:
            os.close(fd)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _open(self, job: str) -> int:
        """The folder of a job, made if it is not there."""
        name = run_file.folder_name(job)
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                if self._root is None:
                    self._root = run_file.open_folder(self._folder)
                try:
                    return run_file.open_folder(name, inside=self._root)
                except FileNotFoundError:
                    os.mkdir(name, 0o700, dir_fd=self._root)
                    return run_file.open_folder(name, inside=self._root)
            self._close_folders()
            self._folder.mkdir(mode=0o700, exist_ok=True)
        raise FileNotFoundError(f"`{self._folder}` was removed")

    def _close_folders(self) -> None:
        for fd in (*self._folder_fds.values(), *(() if self._root is None else (self._root,))):
            os.close(fd)
        self._folder_fds.clear()
        self._root = None

    def _remove(self, gone: Iterable[Stored]) -> OSError | None:
        failed: OSError | None = None
        for stored in gone:
            try:
                os.unlink(f"{self._folder}/{run_file.folder_name(stored.job)}/{stored.file}")
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = error
        return failed


def _write_all(fd: int, data: bytes, size: int) -> None:
    """Append to a file of this size. Raises OSError; then the file has its former size."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _on_disk(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
