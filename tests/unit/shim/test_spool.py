"""The folder in which a keeper without a client writes."""

from __future__ import annotations

import os
from pathlib import Path

from repeater.shim.spool import ENDS, SOCKET, Spool, clear, read_exits


def test_clear_removes_the_spool_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    for _ in range(3):
        os.close(spool.open()[1])
    spool.append_exit({"run": "a", "status": 0})
    others = (SOCKET, "out", "ends.old", "1.out.kept")
    for name in others:
        (tmp_path / name).touch()
    clear(str(tmp_path))
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(others)
    assert read_exits(str(tmp_path)) == {}


def test_clear_of_a_missing_folder_does_nothing(tmp_path: Path) -> None:
    clear(str(tmp_path / "gone"))


def test_the_last_entry_of_a_run_counts_and_a_truncated_line_is_ignored(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    for end in ({"run": "a", "status": 1}, {"run": "b", "status": 2}, {"run": "a", "status": 3}):
        spool.append_exit(end)
    with (tmp_path / ENDS).open("a") as file:
        file.write('{"run": "b", "sta')
    assert {run: end["status"] for run, end in read_exits(str(tmp_path)).items()} == {"a": 3, "b": 2}
