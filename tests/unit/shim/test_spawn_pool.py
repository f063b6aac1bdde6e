"""Starts that go on at the same time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from repeater.shim import posix_spawn
from repeater.shim.spawn_pool import SpawnPool

ENV = {"PATH": os.defpath}


@pytest.fixture
def wakes() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def _spawn(run: str) -> dict[str, Any]:
    return {"op": "spawn", "run": run}


def test_a_single_start_is_marked_as_single_and_needs_no_thread(wakes: tuple[int, int]) -> None:
    pool = SpawnPool(lambda message, together: (message["run"], together), wakes[1])
    pool.submit(_spawn("a"))
    pool.run_here()
    assert list(pool.completed()) == [(_spawn("a"), ("a", False), [])]
    assert not pool.deferred
    assert not pool.has_work


def test_a_deferred_request_about_a_run_is_returned_with_its_start(wakes: tuple[int, int]) -> None:
    pool = SpawnPool(lambda message, together: message["run"], wakes[1])
    pool.submit(_spawn("a"))
    pool.deferred["a"].append({"op": "kill_tree", "run": "a"})
    pool.run_here()
    assert [later for _, _, later in pool.completed()] == [[{"op": "kill_tree", "run": "a"}]]


def test_a_start_that_has_not_begun_can_be_dropped(wakes: tuple[int, int]) -> None:
    pool = SpawnPool(lambda message, together: message["run"], wakes[1])
    pool.submit(_spawn("a"))
    pool.cancel_pending()
    pool.run_here()
    assert not list(pool.completed())
    assert not pool.deferred


needs_libc = pytest.mark.skipif(not posix_spawn.can_spawn_in_dir(), reason="this C library cannot set the folder")


def _output(argv: tuple[str, ...], env: dict[str, str], cwd: str) -> str:
    read, write = os.pipe()
    with os.fdopen(read) as output:
        try:
            pid = posix_spawn.spawn_in_dir(argv[0], argv, env, None, (write, write), cwd)
        finally:
            os.close(write)
        said = output.read()
    os.waitpid(pid, 0)
    return said


@needs_libc
def test_a_process_that_is_started_elsewhere_is_there_and_leads_a_session(tmp_path: Any) -> None:
    shell = 'pwd; echo "$ODD"; cat /proc/self/stat | cut -d" " -f5,6; cat | wc -c'
    said = _output(("/bin/sh", "-c", shell), {**ENV, "ODD": "a=b ü"}, str(tmp_path)).splitlines()
    group, session = said[2].split()
    assert said[:2] == [str(tmp_path), "a=b ü"]
    assert group == session != str(os.getsid(0))
    assert said[3].strip() == "0"


@needs_libc
@pytest.mark.parametrize(
    ("program", "env", "cwd", "error"),
    [
        ("/nowhere/at/all", ENV, "/", FileNotFoundError),
        ("/bin/true", ENV, "/nowhere", FileNotFoundError),
        ("/etc/passwd", ENV, "/", PermissionError),
        ("/bin/true", {"A=B": "c"}, "/", ValueError),
        ("/bin/true", {"": "c"}, "/", ValueError),
        ("/bin/true", {"A": "b\0c"}, "/", ValueError),
        ("/bin/tr\0ue", ENV, "/", ValueError),
    ],
)
def test_a_command_that_cannot_be_started_raises(
    program: str, env: dict[str, str], cwd: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        _output((program,), env, cwd)


@needs_libc
def test_other_threads_continue_while_a_start_waits(wakes: tuple[int, int]) -> None:
    """Both of two starts that wait for each other come to an end."""
    begun: list[str] = []

    def start(message: dict[str, Any], together: bool) -> bool:
        begun.append(message["run"])
        end = time.monotonic() + 30
        while len(begun) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        return together

    if os.cpu_count() == 1:
        pytest.skip("one core has one hand")
    pool = SpawnPool(start, wakes[1])
    pool.submit(_spawn("a"))
    pool.submit(_spawn("b"))
    pool.run_here()
    landed: list[bool] = []
    end = time.monotonic() + 30
    while len(landed) < 2 and time.monotonic() < end:
        landed += [outcome for _, outcome, _ in pool.completed()]
        time.sleep(0.001)
    pool.close()
    assert landed == [True, True]
