"""A watcher of files that do not exist: a test says what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from repeater.policy.paths import PathSet


class FakeWatcher:
    """`ports.Watcher`; `touch` is the file system."""

    def __init__(self, changed: Callable[[str, tuple[str, ...]], None]) -> None:
        self.watched: dict[str, PathSet | tuple[str, ...]] = {}
        self.closed = False
        self._changed = changed

    def watch(self, key: str, folder: str, globs: Sequence[str], ignore: Sequence[str] = ()) -> None:
        self.watched[key] = PathSet(folder, tuple(globs), tuple(ignore))

    def watch_files(self, key: str, paths: Sequence[str]) -> None:
        self.watched[key] = tuple(paths)

    def unwatch(self, key: str) -> None:
        self.watched.pop(key, None)

    def close(self) -> None:
        self.closed = True
        self.watched.clear()

    def touch(self, *paths: str) -> None:
        """These files changed, all in one go."""
        for key, watched in list(self.watched.items()):
            if hits := tuple(path for path in paths if path in watched):
                self._changed(key, hits)
