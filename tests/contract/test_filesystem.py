"""What a `Files` does, for the real disk and the fake; and what only a real disk can do wrong."""

import os

import pytest

from repeater.jobfile.document import Unreadable
from repeater.system.filesystem import Filesystem
from tests.fakes.filesystem import MemoryDisk

CONTENTS = {"a.toml": b"one", "sub/b.toml": b"two", "sub/c.yaml": b"three", "sub/deep/d.toml": b"four"}


@pytest.fixture(params=["real", "fake"])
def disk_at(request, tmp_path):
    folder = os.path.realpath(tmp_path)
    if request.param == "fake":
        files = {f"{folder}/{name}": content for name, content in CONTENTS.items()}
        return MemoryDisk(files, {f"{folder}/link.toml": f"{folder}/sub/b.toml"}), folder
    for name, content in CONTENTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "link.toml").symlink_to(tmp_path / "sub/b.toml")
    return Filesystem(), folder


def test_reads_a_file_up_to_the_cap(disk_at):
    disk, folder = disk_at
    assert disk.read(f"{folder}/a.toml", 3) == b"one"
    with pytest.raises(Unreadable, match="more than 2 bytes"):
        disk.read(f"{folder}/a.toml", 2)


def test_follows_links_and_resolves_them(disk_at):
    disk, folder = disk_at
    assert disk.read(f"{folder}/link.toml", 9) == b"two"
    assert disk.resolve(f"{folder}/link.toml") == f"{folder}/sub/b.toml"


def test_names_what_is_missing_and_what_is_a_folder(disk_at):
    disk, folder = disk_at
    with pytest.raises(Unreadable, match=r"^the file does not exist$"):
        disk.read(f"{folder}/nothing", 9)
    with pytest.raises(Unreadable, match=r"^it is a directory$"):
        disk.read(f"{folder}/sub", 9)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.toml", ["a.toml", "link.toml"]),
        ("sub/*.toml", ["sub/b.toml"]),
        ("sub/?.*", ["sub/b.toml", "sub/c.yaml"]),
        ("sub/**/*.toml", ["sub/b.toml", "sub/deep/d.toml"]),
        ("none/*.toml", []),
    ],
)
def test_globs_are_sorted_files(disk_at, pattern, names):
    disk, folder = disk_at
    assert disk.glob(folder, pattern) == [f"{folder}/{name}" for name in names]


def test_a_path_that_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(Unreadable, match=r"^it is not a regular file$"):
            Filesystem().read(str(path), 100)
    with pytest.raises(Unreadable, match=r"^its symbolic links form a loop$"):
        Filesystem().read(str(tmp_path / "circle"), 100)


def test_a_swapped_folder_link_is_read_through_like_kubernetes_mounts(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/jobs.toml").write_text("one")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "jobs.toml").symlink_to("..data/jobs.toml")
    assert Filesystem().read(str(tmp_path / "jobs.toml"), 100) == b"one"
    assert Filesystem().resolve(str(tmp_path / "jobs.toml")) == str(tmp_path / "v1/jobs.toml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_reported(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    with pytest.raises(Unreadable, match=r"^permission denied$"):
        Filesystem().read(str(tmp_path / "a"), 100)
