"""What every watcher must do, and what the real one must see."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repeater.policy.paths import PathSet
from repeater.ports import Watcher
from repeater.system import file_watcher
from repeater.system.file_watcher import FileWatcher
from tests.fakes.text import text_of
from tests.fakes.watcher import FakeWatcher


class Disk:
    """Real files, a real watcher, and what it told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[tuple[str, tuple[str, ...]]] = []
        self.loop = asyncio.new_event_loop()
        self.watcher: Watcher = FileWatcher(
            lambda key, paths: self.told.append((key, paths)), self.loop.call_soon_threadsafe
        )

    def path(self, name: str) -> str:
        return str(self.root / name)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def settle(self, length: float = 0.3) -> None:
        """Until watches are in place and old news is told."""
        self.loop.run_until_complete(asyncio.sleep(length))
        self.told.clear()

    def hears(self, key: str, name: str, within: float = 4) -> bool:
        """Whether a change of this file is told."""

        async def wait() -> bool:
            end = time.monotonic() + within
            while time.monotonic() < end:
                if any(told == key and self.path(name) in paths for told, paths in self.told):
                    return True
                await asyncio.sleep(0.005)
            return False

        heard = self.loop.run_until_complete(wait())
        self.told.clear()
        return heard

    def close(self) -> None:
        self.watcher.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class Pretence(Disk):
    """The fake, which is told what changed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.watcher.close()
        self.watcher = FakeWatcher(lambda key, paths: self.told.append((key, paths)))

    def write(self, name: str, text: str) -> None:
        assert isinstance(self.watcher, FakeWatcher)
        self.watcher.touch(self.path(name))


@pytest.fixture(params=[Disk, Pretence], ids=["real", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def messages_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A watcher whose slow look comes too late to help."""
    monkeypatch.setattr(file_watcher, "SLOW_LOOK", 600)
    made = Disk(tmp_path)
    yield made
    made.close()


def test_a_change_of_a_watched_file_is_reported_to_its_key_alone(disk: Disk) -> None:
    disk.write("a", "1")
    disk.write("b", "1")
    disk.watcher.watch_files("first", [disk.path("a")])
    disk.watcher.watch_files("second", [disk.path("b")])
    disk.settle()
    disk.write("a", "2")
    assert disk.hears("first", "a")
    disk.write("b", "2")
    assert disk.hears("second", "b")


def test_globs_and_ignores_decide(disk: Disk) -> None:
    disk.write("src/x/a.py", "1")
    disk.watcher.watch("job", str(disk.root), ["src/**/*.py"], ["generated/"])
    disk.settle()
    disk.write("src/x/a.txt", "1")
    disk.write("src/generated/a.py", "1")
    assert not disk.hears("job", "src/generated/a.py", within=0.4)
    disk.write("src/x/a.py", "2")
    assert disk.hears("job", "src/x/a.py")


def test_watching_again_replaces(disk: Disk) -> None:
    disk.write("a", "1")
    disk.write("b", "1")
    disk.watcher.watch_files("key", [disk.path("a")])
    disk.watcher.watch("key", str(disk.root), ["b"])
    disk.settle()
    disk.write("a", "2")
    assert not disk.hears("key", "a", within=0.4)
    disk.write("b", "2")
    assert disk.hears("key", "b")


def test_after_unwatch_nothing_is_reported(disk: Disk) -> None:
    disk.write("a", "1")
    disk.watcher.watch_files("key", [disk.path("a")])
    disk.settle()
    disk.watcher.unwatch("key")
    disk.watcher.unwatch("nobody")
    disk.write("a", "2")
    assert not disk.hears("key", "a", within=0.4)


def rename_over(disk: Disk) -> None:
    disk.write("new", "22")
    (disk.root / "new").rename(disk.root / "file")


def remove_and_make(disk: Disk) -> None:
    (disk.root / "file").unlink()
    disk.write("file", "2")


def write_in_place(disk: Disk) -> None:
    disk.write("file", "2")


def make_backup_first(disk: Disk) -> None:
    """As vim does with `backupcopy=no`."""
    (disk.root / "file").rename(disk.root / "file~")
    disk.write("file", "2")
    (disk.root / "file~").unlink()


@pytest.mark.parametrize("save", [write_in_place, rename_over, remove_and_make, make_backup_first])
def test_every_way_to_save_is_seen_again_and_again(messages_only: Disk, save: Callable[[Disk], None]) -> None:
    real = messages_only
    real.write("file", "1")
    real.watcher.watch_files("key", [real.path("file")])
    real.settle()
    for _ in range(3):
        save(real)
        assert real.hears("key", "file")


def test_a_swapped_symlink_above_the_file_is_seen(messages_only: Disk) -> None:
    real = messages_only
    for version in ("v1", "v2", "v3"):
        real.write(f"{version}/jobs.toml", "same text")
    (real.root / "..data").symlink_to("v1")
    (real.root / "jobs.toml").symlink_to("..data/jobs.toml")
    real.watcher.watch_files("key", [real.path("jobs.toml")])
    real.settle()
    for version in ("v2", "v3"):
        (real.root / "..tmp").symlink_to(version)
        (real.root / "..tmp").rename(real.root / "..data")
        assert real.hears("key", "jobs.toml")
    real.write("v3/jobs.toml", "edited")
    assert real.hears("key", "jobs.toml")


def test_a_file_in_a_missing_folder_is_seen_when_it_appears(real: Disk) -> None:
    real.watcher.watch_files("key", [real.path("no/such/file")])
    real.watcher.watch("job", str(real.root), ["new/**/*.py"])
    real.settle()
    real.write("no/such/file", "1")
    assert real.hears("key", "no/such/file")
    real.write("new/deep/a.py", "1")
    assert real.hears("job", "new/deep/a.py")
    real.write("no/such/file", "2")
    assert real.hears("key", "no/such/file")


def test_a_folder_that_was_removed_and_made_again_is_watched_again(messages_only: Disk) -> None:
    real = messages_only
    real.write("src/a.py", "1")
    real.watcher.watch("job", str(real.root), ["src/*.py"])
    real.settle()
    shutil.rmtree(real.root / "src")
    real.write("src/a.py", "2")
    assert real.hears("job", "src/a.py")
    real.settle(0.7)
    real.write("src/a.py", "3")
    assert real.hears("job", "src/a.py")


def test_a_folder_that_is_moved_in_brings_its_files(real: Disk) -> None:
    (real.root / "src").mkdir()
    real.write("elsewhere/x/a.py", "1")
    real.watcher.watch("job", str(real.root), ["src/**/*.py"])
    real.settle()
    (real.root / "elsewhere").rename(real.root / "src/moved")
    assert real.hears("job", "src/moved/x/a.py")


def test_without_messages_files_are_looked_at(real: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    import watchfiles

    def deaf(*_paths: str, stop_event: object, **_options: object) -> Iterator[set[object]]:
        stop_event.wait()  # type: ignore[attr-defined]
        yield from ()

    monkeypatch.setattr(watchfiles, "watch", deaf)
    real.write("file", "1")
    real.watcher.watch_files("key", [real.path("file")])
    real.settle()
    status = (real.root / "file").stat()
    real.write("file", "2")
    os.utime(real.path("file"), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert real.hears("key", "file")


def test_trouble_with_messages_is_reported_and_polling_replaces_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import watchfiles

    original = watchfiles.watch

    def few_watches(*paths: str, force_polling: bool | None, **options: object) -> Iterator[set[object]]:
        if not force_polling:
            raise OSError("no inotify watches are left")
        yield from original(*paths, force_polling=True, **options)  # type: ignore[misc, arg-type]

    monkeypatch.setattr(watchfiles, "watch", few_watches)
    warnings: list[str] = []
    disk = Disk(tmp_path)
    disk.watcher.close()
    disk.watcher = FileWatcher(
        lambda key, paths: disk.told.append((key, paths)),
        disk.loop.call_soon_threadsafe,
        warn=lambda reason: warnings.append(str(text_of(reason))),
    )
    disk.write("src/a.py", "1")
    disk.watcher.watch("job", str(tmp_path), ["src/*.py"])
    disk.settle(0.6)
    disk.write("src/a.py", "22")
    os.utime(disk.path("src/a.py"), (2e9, 2e9))  # polling sees times in whole seconds
    heard = disk.hears("job", "src/a.py")
    disk.close()
    assert heard
    assert warnings == ["cannot use file notifications of the system, so files are polled: no inotify watches are left"]


def test_a_hundred_edits_a_second_are_reported_in_few_messages(real: Disk) -> None:
    real.write("file", "0")
    real.watcher.watch_files("key", [real.path("file")])
    real.settle()
    for number in range(100):
        real.write("file", str(number))
        time.sleep(0.005)
    real.loop.run_until_complete(asyncio.sleep(0.3))
    assert 1 <= len(real.told) <= 60


def test_closing_ends_at_once(real: Disk) -> None:
    real.write("file", "0")
    real.watcher.watch_files("key", [real.path("file")])
    real.settle(0.05)
    began = time.monotonic()
    real.watcher.close()
    assert time.monotonic() - began < 3


class Troubles:
    """What a watcher reported."""

    def __init__(self, disk: Disk) -> None:
        self.warnings: list[str] = []
        self.failed: list[tuple[str, Exception]] = []
        self.faults: list[Exception] = []
        disk.watcher.close()
        disk.watcher = FileWatcher(
            lambda key, paths: disk.told.append((key, paths)),
            disk.loop.call_soon_threadsafe,
            warn=self.warnings.append,
            failed=lambda key, error: self.failed.append((key, error)),
            fault=self.faults.append,
        )


@pytest.fixture
def polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A watcher that polls trees, ten times a second."""
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    monkeypatch.setattr(file_watcher, "SLOW_LOOK", 0.1)
    made = Disk(tmp_path)
    yield made
    made.close()


def test_polling_sees_files_appear_change_and_disappear(polled: Disk) -> None:
    polled.write("src/a.py", "1")
    polled.watcher.watch("job", str(polled.root), ["src/**/*.py"])
    polled.settle(0.5)
    for name in ("src/a.py", "src/new/b.py"):
        polled.write(name, "longer")
        assert polled.hears("job", name)
    (polled.root / "src/a.py").unlink()
    assert polled.hears("job", "src/a.py")


def test_polling_ends_in_a_tree_with_links_to_itself(polled: Disk) -> None:
    troubles = Troubles(polled)
    polled.write("src/x/a.py", "1")
    (polled.root / "src/loop").symlink_to(".")
    (polled.root / "src/x/up").symlink_to("../..")
    (polled.root / "src/dead").symlink_to("dead")
    polled.watcher.watch("job", str(polled.root), ["**/*.py"])
    polled.settle(0.5)
    polled.write("src/x/a.py", "22")
    assert polled.hears("job", "src/x/a.py")
    assert (troubles.faults, troubles.failed) == ([], [])


@pytest.mark.parametrize("kind", ["real", "polled"])
def test_a_folder_that_cannot_be_read_hides_its_own_files_only(request: pytest.FixtureRequest, kind: str) -> None:
    disk: Disk = request.getfixturevalue(kind)
    troubles = Troubles(disk)
    disk.write("src/shut/a.py", "1")
    disk.write("src/open/a.py", "1")
    disk.watcher.watch("job", str(disk.root), ["src/**/*.py"])
    disk.settle(0.5)
    (disk.root / "src/shut").chmod(0)
    try:
        disk.settle(0.3)
        disk.write("src/open/a.py", "22")
        assert disk.hears("job", "src/open/a.py")
    finally:
        (disk.root / "src/shut").chmod(0o700)
    disk.write("src/open/a.py", "333")
    assert disk.hears("job", "src/open/a.py")
    assert troubles.faults == []


@pytest.mark.parametrize("globs", [["src/[z-a]*.py"], ["a\0*"], ["{a,b}" * 9], ["ok", "x" * 2000]])
def test_a_bad_glob_is_refused_and_other_watches_continue(real: Disk, globs: list[str]) -> None:
    real.write("a", "1")
    real.watcher.watch("good", str(real.root), ["*"])
    with pytest.raises(ValueError, match="found "):
        real.watcher.watch("bad", str(real.root), globs)
    real.settle()
    real.write("a", "2")
    assert real.hears("good", "a")


@pytest.mark.parametrize("part", ["__contains__", "roots"])
def test_a_watch_that_fails_ends_alone_and_is_reported(real: Disk, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    troubles = Troubles(real)
    original = getattr(PathSet, part)

    def failing(paths: PathSet, *args: object) -> object:
        if paths.globs == ("bad*",):
            raise ZeroDivisionError("a fault")
        return original.func(paths) if part == "roots" else original(paths, *args)

    monkeypatch.setattr(PathSet, part, property(failing) if part == "roots" else failing)
    real.watcher.watch("bad", str(real.root), ["bad*"])
    real.watcher.watch("good", str(real.root), ["*"])
    real.settle(0.5)
    for text in ("1", "22"):
        real.write("a", text)
        assert real.hears("good", "a")
    assert [(key, str(error)) for key, error in troubles.failed] == [("bad", "a fault")]


def test_a_slow_look_that_fails_is_reported_and_tried_again(real: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watcher, "SLOW_LOOK", 0.05)
    troubles = Troubles(real)
    fails = [True]
    original = file_watcher._ancestors

    def way(path: str) -> list[str]:
        if fails[0]:
            raise ZeroDivisionError("a fault")
        return original(path)

    monkeypatch.setattr(file_watcher, "_ancestors", way)
    real.watcher.watch_files("key", [real.path("a")])
    real.settle(0.3)
    assert [str(error) for error in troubles.faults[:1]] == ["a fault"]
    assert isinstance(real.watcher, FileWatcher)
    assert isinstance(real.watcher.problem, ZeroDivisionError)
    fails[0] = False
    real.write("a", "1")
    assert real.hears("key", "a")
    real.settle(0.3)
    assert real.watcher.problem is None


def test_a_thread_that_has_ended_is_started_again(real: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    original, ends = file_watcher.FileWatcher._watch_folders, [True]

    def look(watcher: FileWatcher) -> None:
        if ends[0]:
            raise SystemExit
        original(watcher)

    monkeypatch.setattr(file_watcher.FileWatcher, "_watch_folders", look)
    real.watcher.watch_files("key", [real.path("a")])
    real.settle()
    assert isinstance(real.watcher, FileWatcher)
    assert real.watcher._slow is not None
    assert not real.watcher._slow.is_alive()
    ends[0] = False
    real.watcher.revive()
    real.settle()
    real.write("a", "1")
    assert real.hears("key", "a")
