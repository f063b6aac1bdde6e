"""Reports changes of files: by events of the operating system through watchfiles, and by polling once a second.

Directories are watched, not files, because editors save by renaming. For a file behind symbolic links, the directory of
each link is watched, because Kubernetes replaces `..data`. Events can be missing (network file systems, a directory
that was removed and created again, too few inotify watches). So once a second the identity, size and times of the
files, and the identity of the directories, are compared too. Each report is a hint; other code reads the contents.

Where events are not available, the trees are polled here. The poller of watchfiles compares whole seconds, and stops at
a symbolic link to a directory above it.

Threads do the waiting: one for directories, one for whole trees, one for polling. Each starts when it has work. A fault
while the files of one key are compared ends the watch of this key (`failed`). Any other fault is reported, and the
thread continues after a pause. `revive` starts a thread that has ended.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.policy.paths import PathSet

SLOW_LOOK = 1.0
"""Seconds between polls of files, for which events may be missing."""
_STEP = 50  # milliseconds between polls of watchfiles for events; ten times as often costs five times the CPU
_DEBOUNCE = 100
_HANDOVER = 0.5  # seconds for which old and new watches of directories overlap, so that no event is lost
_MOST_FOUND = 1000
_LONGEST_PAUSE = 60.0  # seconds between tries after repeated failures
_POLL_SHARE = 10  # the pause after a poll of all trees is this many times as long as the poll
_MOST_LINKS = 40

Changed = Callable[[str, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class _Files:
    """Paths of one key, and their state at the last report."""

    paths: tuple[str, ...]
    looks: tuple[object, ...]


class FileWatcher:
    """`ports.Watcher`, by events and by polling.

    `changed(key, paths)` is called in the loop's thread, through `call_soon` (`loop.call_soon_threadsafe`). So is
    `warn`, once, when events are not available and files are polled instead. `failed(key, error)` is called when the
    watch of a key had to end, `fault(error)` when a thread had a fault that belongs to no key. `problem` is the fault
    of a thread that has not worked since. None if there is none.
    """

    def __init__(
        self,
        changed: Changed,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        warn: Callable[[Reason], None] = lambda _: None,
        failed: Callable[[str, Exception], None] = lambda *_: None,
        fault: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._changed = changed
        self._call_soon = call_soon
        self._warn = warn
        self._failed = failed
        self._fault = fault
        self.problem: Exception | None = None
        self._faults = 0
        self._lock = threading.RLock()
        self._files: dict[str, _Files] = {}
        self._globs: dict[str, PathSet] = {}
        self._folders = {deep: _Folders(self._messages, self._on_error, self._tell_fault) for deep in (False, True)}
        self._over = threading.Event()
        self._slow: threading.Thread | None = None
        self._rewatch = threading.Event()
        self._present: dict[str, object] = {}
        self._ways: dict[str, frozenset[str]] = {}
        self._warned = False

    def watch(self, key: str, folder: str, globs: Sequence[str], ignore: Sequence[str] = ()) -> None:
        """Report files below `folder` that match. Raises ValueError for globs that cannot be understood."""
        wanted = PathSet(folder, tuple(globs), tuple(ignore))
        wanted.check()  # to raise here rather than in a thread
        with self._lock:
            self._files.pop(key, None)
            self._globs[key] = wanted
        self._begin()

    def watch_files(self, key: str, paths: Sequence[str]) -> None:
        files = tuple(os.path.abspath(path) for path in paths)
        with self._lock:
            self._globs.pop(key, None)
            self._files[key] = _Files(files, tuple(_stat_all(path) for path in files))
        self._begin()

    def unwatch(self, key: str) -> None:
        with self._lock:
            self._files.pop(key, None)
            self._globs.pop(key, None)
        self._rewatch.set()

    def close(self) -> None:
        with self._lock:
            self._files.clear()
            self._globs.clear()
        self._over.set()
        self._rewatch.set()
        if self._slow is not None and self._slow.ident is not None:
            self._slow.join()
        for folders in self._folders.values():
            folders.close()

    def revive(self) -> None:
        """Start the thread again that should be there and is not."""
        if self._slow is None or self._slow.is_alive() or self._over.is_set():
            return
        self._slow = None
        self._begin()

    def _begin(self) -> None:
        self._rewatch.set()
        if self._slow is not None:
            return
        thread = threading.Thread(target=self._poll, name="rpr-look", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads to give: `revive` tries again
            self.problem = error
        self._slow = thread

    # --- in the threads ---

    def _poll(self) -> None:
        while not self._over.is_set():
            self._rewatch.clear()
            pause = SLOW_LOOK
            try:
                self._watch_folders()
                self._check_files()
            except Exception as error:  # noqa: BLE001 - the other watches go on
                self._faults += 1
                pause = min(SLOW_LOOK * 2**self._faults, _LONGEST_PAUSE)
                self._tell_fault(error)
                self._over.wait(pause)
                continue
            self._faults, self.problem = 0, None
            self._rewatch.wait(pause)

    def _watch_folders(self) -> None:
        """Watch the folders that matter now; those that came, or came again, may bring files along."""
        with self._lock:
            files = [path for entry in self._files.values() for path in entry.paths]
            globs = dict(self._globs)
        wanted: dict[bool, set[str]] = {False: set(), True: set()}
        ways = {path: _ancestors(path) for path in files}
        for way in ways.values():
            wanted[False].update(_nearest_existing(os.path.dirname(step)) for step in way)
        self._ways = {path: frozenset(way).union(map(os.path.dirname, way)) for path, way in ways.items()}
        present: dict[str, object] = {}

        def look(key: str, path_set: PathSet) -> None:
            for root, deep in path_set.roots:
                identity = _identity(root)
                present[root] = identity
                if identity is None:
                    wanted[False].add(_nearest_existing(root))
                    continue
                wanted[deep].add(root)
                if root in self._present and self._present[root] != identity:
                    self._tell(key, [path for path in _is_below(root) if path in path_set])

        for key, path_set in globs.items():
            self._guarded(key, path_set, look)
        self._present = present
        for deep, folders in self._folders.items():
            folders.set({folder: _identity(folder) for folder in wanted[deep]}, deep=deep)

    def _check_files(self, named: frozenset[str] | None = None) -> None:
        """Report the files that have changed since the last report, and all of `named`."""
        with self._lock:
            for key, entry in list(self._files.items()):
                looks = tuple(_stat_all(path) for path in entry.paths)
                hits = [
                    path
                    for path, before, now in zip(entry.paths, entry.looks, looks, strict=True)
                    if before != now or (named and not named.isdisjoint(self._ways.get(path, ())))
                ]
                if hits:
                    self._files[key] = _Files(entry.paths, looks)
                    self._tell(key, hits)

    def _messages(self, named: frozenset[str]) -> None:
        """Handle events of the operating system."""
        concerns_files = any(not named.isdisjoint(way) for way in self._ways.values())
        if concerns_files:
            self._check_files(named)
            self._rewatch.set()
        with self._lock:
            globs = dict(self._globs)
        if not globs:
            return
        folders = {path for path in named if os.path.isdir(path)}
        gone = {path for path in named if not os.path.lexists(path)}  # files or directories: that is unknown now
        found = sorted((named - folders).union(*map(_is_below, folders)))

        def tell(key: str, path_set: PathSet) -> None:
            hits = [path for path in found if path in path_set and not (path in gone and path_set.hides(path))]
            self._tell(key, hits)

        for key, path_set in globs.items():
            self._guarded(key, path_set, tell)
        if any(path in self._present or os.path.isdir(path) for path in named):
            self._rewatch.set()

    def _guarded(self, key: str, path_set: PathSet, look: Callable[[str, PathSet], None]) -> None:
        """A fault of one watch ends this watch."""
        try:
            look(key, path_set)
        except Exception as error:  # noqa: BLE001 - the fault belongs to this key
            with self._lock:
                if self._globs.get(key) is path_set:
                    del self._globs[key]
            self._later(partial(self._failed, key, error))

    def _tell_fault(self, error: Exception) -> None:
        self.problem = error
        self._later(partial(self._fault, error))

    def _tell(self, key: str, paths: Sequence[str]) -> None:
        if paths:
            told = tuple(paths)
            self._later(lambda: self._changed(key, told) if key in self._files or key in self._globs else None)

    def _on_error(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._later(lambda: self._warn(because("watch_polled", error=str(error))))

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call_soon(call)


class _Folders:
    """A thread that waits for messages about a set of folders; another set is another thread."""

    def __init__(
        self,
        messages: Callable[[frozenset[str]], None],
        trouble: Callable[[Exception], None],
        fault: Callable[[Exception], None],
    ) -> None:
        self._messages = messages
        self._trouble = trouble
        self._fault = fault
        self._watched: dict[str, object] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._polls = False

    def set(self, folders: dict[str, object], *, deep: bool) -> None:
        """Watch exactly these folders (path -> identity); nothing happens if they are watched already."""
        ended = self._thread is not None and not self._thread.is_alive()
        if folders == self._watched and not ended:
            return
        old_stop, old_thread = self._stop, self._thread
        self._watched, self._stop, self._thread = folders, threading.Event(), None
        if folders:
            self._thread = threading.Thread(
                target=self._listen, args=(sorted(folders), deep, self._stop), name="rpr-watch", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # the system has no more threads to give; the next look tries again
                self._watched, self._thread = {}, None
            if old_thread is not None and self._thread is not None and not ended:
                self._stop.wait(_HANDOVER)
        _end(old_stop, old_thread)

    def close(self) -> None:
        _end(self._stop, self._thread)

    def _listen(self, folders: list[str], deep: bool, stop: threading.Event) -> None:
        """Returns when `stop` is set, or when a directory was removed; then the polling thread starts another."""
        polls = self._polls or _asks_for_polling()
        while not stop.is_set():
            try:
                for changes in _polled(folders, deep, stop) if polls else _told(folders, deep, stop):
                    # A directory that was created again may have the inode of the removed one.
                    if any(path in self._watched and is_new for is_new, path in changes):
                        self._watched = {}
                    self._take(frozenset(path for _, path in changes))
            except FileNotFoundError:
                self._watched = {}  # one of them went meanwhile: the slow look will ask again
                return
            except Exception as error:  # noqa: BLE001 - an own kind of error for each trouble that inotify can have
                if polls:
                    self._fault(error)
                    stop.wait(_LONGEST_PAUSE)
                    continue
                self._trouble(error)
                self._polls = polls = True

    def _take(self, paths: frozenset[str]) -> None:
        try:
            self._messages(paths)
        except Exception as error:  # noqa: BLE001 - the next message may be well
            self._fault(error)


Found = Iterable[tuple[bool, str]]
"""Paths, each with whether it came or went; otherwise what is in it changed."""


def _told(folders: list[str], deep: bool, stop: threading.Event) -> Iterator[Found]:
    """Messages of the operating system."""
    from watchfiles import Change, watch

    for changes in watch(
        *folders,
        watch_filter=None,
        debounce=_DEBOUNCE,
        step=_STEP,
        stop_event=stop,
        rust_timeout=60_000,
        raise_interrupt=False,
        force_polling=False,
        recursive=deep,
        ignore_permission_denied=True,
    ):
        yield [(kind != Change.modified, path) for kind, path in changes]


def _polled(folders: list[str], deep: bool, stop: threading.Event) -> Iterator[Found]:
    """What differs between two looks at the folders."""
    before: dict[str, object] | None = None
    while not stop.is_set():
        began = time.monotonic()
        now = _snapshot(folders, deep, stop)
        if before is not None and not stop.is_set():
            changed = [(path not in before or path not in now, path) for path, _ in before.items() ^ now.items()]
            if changed:
                yield set(changed)
        before = now
        stop.wait(max(SLOW_LOOK, _POLL_SHARE * (time.monotonic() - began)))


def _snapshot(folders: list[str], deep: bool, stop: threading.Event) -> dict[str, object]:
    """Path -> identity, size and times. Each folder counts once, so that links in a circle end; one that cannot be read
    is empty.
    """
    found: dict[str, object] = {}
    seen: set[tuple[int, int]] = set()
    todo, links = list(folders), list[str]()
    while (todo or links) and not stop.is_set():
        folder = todo.pop() if todo else links.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        is_folder = entry.is_dir()
                        looks = entry.stat()
                        ids = (looks.st_dev, looks.st_ino)
                        found[entry.path] = (
                            ids if is_folder else (*ids, looks.st_size, looks.st_mtime_ns, looks.st_ctime_ns)
                        )
                        if is_folder and deep:
                            (links if entry.is_symlink() else todo).append(entry.path)
        except OSError:
            if folder in folders and not os.path.exists(folder):
                raise FileNotFoundError(folder) from None
    return found


def _asks_for_polling() -> bool:
    """The variable that watchfiles reads too."""
    return os.environ.get("WATCHFILES_FORCE_POLLING", "") not in ("", "false", "disable", "disabled")


def _end(stop: threading.Event, thread: threading.Thread | None) -> None:
    stop.set()
    if thread is not None:
        thread.join()


# --- what there is ----------------------------------------------------------------------------------------------


def _stat_all(path: str) -> object:
    """The state of a file: where its path leads, its identity, size and times."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    where = os.path.realpath(path)
    return where, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _identity(folder: str) -> object:
    """Which folder a path is; None if it is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if os.path.isdir(folder) else None


def _ancestors(path: str) -> list[str]:
    """Every link that a path goes through, and the file at its end."""
    found: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part]
    here = "/"
    while todo:
        part = todo.pop()
        if part == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        try:
            target = os.readlink(step)
        except OSError:
            here = step
            continue
        found.append(step)
        if len(found) > _MOST_LINKS:
            return found
        todo += [piece for piece in reversed(target.split("/")) if piece not in {"", "."}]
        if target.startswith("/"):
            here = "/"
    return [*found, here]


def _nearest_existing(folder: str) -> str:
    """The folder itself, or the nearest one above it that exists."""
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder


def _is_below(path: str) -> Iterator[str]:
    """Files in a folder that is new as a whole: no message comes for each. Nothing for a file; at most a thousand."""
    count = 0
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name not in {".git", "node_modules", ".venv", "__pycache__"}]
        for name in files:
            yield os.path.join(folder, name)
            count += 1
            if count >= _MOST_FOUND:
                return
