"""Which exits are reported, with real children of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from repeater.shim.reaper import Reaper
from repeater.shim.run import ManagedRun

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class World:
    """A reaper whose timers the test calls. `reap` waits for the exit of a child first."""

    def __init__(self) -> None:
        self.exited: list[str] = []
        self.emptied: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.is_spawning = False
        self.pipes: list[int] = []
        self.reaper = Reaper(
            lambda: self.is_spawning,
            lambda run: self.exited.append(run.run),
            lambda run: self.emptied.append(run.run),
            lambda _delay, call: self.timers.append(call),
        )

    def start(self, script: str, stdout: int = 1) -> int:
        """A child that leads a session."""
        actions = [(os.POSIX_SPAWN_DUP2, stdout, 1)]
        return os.posix_spawn("/bin/sh", ["sh", "-c", script], {"PATH": os.defpath}, file_actions=actions, setsid=True)

    def run_of(self, name: str, pid: int) -> ManagedRun:
        ends = os.pipe()
        self.pipes += ends
        return ManagedRun({"op": "spawn", "run": name}, pid, ends)

    def reap(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.reaper.reap()

    def close(self) -> None:
        for fd in self.pipes:
            os.close(fd)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_the_exit_of_a_run_is_reported_with_status_and_usage(world: World) -> None:
    pid = world.start("exit 3")
    run = world.run_of("r", pid)
    world.reaper.add(run)
    world.reap(pid)
    assert world.exited == ["r"]
    assert run.status is not None
    assert os.waitstatus_to_exitcode(run.status) == 3
    assert run.empty
    assert run.memory
    assert world.timers == []


def test_an_exit_before_the_start_is_reported_is_kept_for_its_run(world: World) -> None:
    world.is_spawning = True
    pid = world.start("exit 4")
    world.reap(pid)
    assert world.exited == []
    run = world.run_of("r", pid)
    world.reaper.add(run)
    assert world.exited == ["r"]
    assert os.waitstatus_to_exitcode(run.status or 0) == 4


def test_the_exit_of_an_orphan_is_kept_for_no_run(world: World) -> None:
    pid = world.start("exit 5")
    world.reap(pid)
    run = world.run_of("r", pid)
    world.reaper.add(run)
    assert world.exited == []


def test_a_group_that_outlives_its_leader_is_polled_until_it_is_empty(world: World) -> None:
    read, write = os.pipe()
    pid = world.start("sleep 60 & echo $!; exit 0", stdout=write)
    os.close(write)
    with os.fdopen(read) as lines:
        other = int(lines.readline())
        run = world.run_of("r", pid)
        world.reaper.add(run)
        world.reap(pid)
        assert (world.exited, run.empty, len(world.timers)) == (["r"], False, 1)
        os.kill(other, 9)
        assert lines.read() == ""  # the last writer has exited
    world.timers.pop()()
    assert (world.emptied, run.empty, world.timers) == (["r"], True, [])
