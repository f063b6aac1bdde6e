from __future__ import annotations

import os
from pathlib import Path

import pytest

from repeater.output.logfile import LogFile
from tests.fakes.text import text_of


@pytest.fixture
def warnings() -> list[str]:
    return []


def log(path: Path, warnings: list[str], max_size: int = 100, backups: int = 2) -> LogFile:
    return LogFile(str(path), max_size, backups, lambda reason: warnings.append(str(text_of(reason))))


def test_bytes_are_appended_without_a_change(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    file = log(tmp_path / "log", warnings)
    file.write(b"\x00\xff\x1b[31m")
    file.write(b"no newline")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"before\n\x00\xff\x1b[31mno newline"


def test_a_full_file_is_rotated_between_lines_and_the_oldest_is_removed(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "log", warnings)
    lines = [f"{number:019}\n".encode() for number in range(20)]
    for line in lines:
        file.write(line)
    file.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]  # noqa: PTH208
    kept = b"".join((tmp_path / name).read_bytes() for name in ("log.2", "log.1", "log"))
    assert kept == b"".join(lines[5:])
    assert warnings == []


def test_one_write_may_fill_many_files(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "log", warnings, backups=9)
    data = b"".join(f"line {number}\n".encode() for number in range(60))
    file.write(data)
    file.close()
    parts = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    assert b"".join(part.read_bytes() for part in parts) == data
    assert all(part.stat().st_size <= 100 for part in parts)
    assert all(part.read_bytes().endswith(b"\n") for part in parts)


def test_a_line_that_is_longer_than_a_file_is_cut(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "log", warnings, backups=5)
    file.write(b"x" * 350)
    file.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 350
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())


def test_without_backups_the_file_is_emptied(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "log", warnings, backups=0)
    file.write(b"a" * 99 + b"\n")
    file.write(b"b\n")
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_bytes() == b"b\n"


@pytest.mark.parametrize("how", ["moved", "removed", "replaced", "truncated"])
def test_a_file_moved_by_another_process_is_found_again(tmp_path: Path, warnings: list[str], how: str) -> None:
    path = tmp_path / "log"
    file = log(path, warnings)
    file.write(b"old\n")
    if how == "moved":
        path.rename(tmp_path / "moved")
    elif how == "removed":
        path.unlink()
    elif how == "replaced":
        (tmp_path / "new").write_bytes(b"")
        (tmp_path / "new").rename(path)
    else:
        os.truncate(path, 0)
    file.write(b"new\n")
    file.close()
    assert path.read_bytes() == b"new\n"
    if how == "moved":
        assert (tmp_path / "moved").read_bytes() == b"old\n"


def test_missing_folders_are_made(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "a" / "b" / "log", warnings)
    file.write(b"x")
    file.close()
    assert (tmp_path / "a" / "b" / "log").read_bytes() == b"x"


def test_a_failed_write_is_reported_once_and_marked_in_the_file_later(tmp_path: Path, warnings: list[str]) -> None:
    path = tmp_path / "log"
    path.mkdir()
    file = log(path, warnings)
    file.write(b"lost")
    file.write(b"gone")
    assert warnings == [f"cannot write `{path}`: Is a directory"]
    path.rmdir()
    file.write(b"here\n")
    file.close()
    assert path.read_bytes() == b"\n[rpr: 8 bytes could not be written here]\nhere\n"


def test_zero_means_no_limit(tmp_path: Path, warnings: list[str]) -> None:
    file = log(tmp_path / "log", warnings, max_size=0)
    file.write(b"x" * 1000)
    file.write(b"x" * 1000)
    file.close()
    assert (tmp_path / "log").stat().st_size == 2000
