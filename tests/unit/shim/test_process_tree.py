"""The search for the processes of a run, on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repeater.shim import process_tree

DESCRIPTORS = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="there is no /proc")

SEARCHES: list[Callable[[int], Any]] = [
    lambda pid: list(process_tree.find_by_run_id({"run": pid})),
    lambda pid: process_tree.living_groups({pid}),
    lambda _: list(process_tree.descendants(os.getpid())),
    process_tree.read_stat,
    lambda pid: process_tree.signal_session(pid, 0),
    lambda _: process_tree.read_stat(2**22 - 1),
]


@pytest.mark.parametrize("search", SEARCHES, ids=["members", "groups", "offspring", "look", "signal", "gone"])
def test_a_search_closes_its_descriptors(search: Callable[[int], Any]) -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        before = sorted(DESCRIPTORS.iterdir())
        search(child.pid)
        assert sorted(DESCRIPTORS.iterdir()) == before
    finally:
        child.kill()
        child.wait()


def test_members_are_found_by_their_session_and_by_their_token() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True, env={**os.environ, process_tree.TOKEN: "mine"})
    try:
        assert [(run, one.pid) for run, one in process_tree.find_by_run_id({"by-session": child.pid})] == [
            ("by-session", child.pid)
        ]
        assert [(run, one.pid) for run, one in process_tree.find_by_run_id({"mine": 0})] == [("mine", child.pid)]
        assert list(process_tree.find_by_run_id({"other": 0})) == []
    finally:
        child.kill()
        child.wait()
