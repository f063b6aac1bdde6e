"""When a run has ended: every order of exit, end of output, empty group, signal and kill of the tree."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from repeater.engine.facts import Fact, RunEnded, RunExited
from repeater.model.run import Exit
from repeater.ports import Stream
from repeater.processes.completion import CHUNK, RunCompletion, RunPorts
from tests.fakes.sink import FakeSink


class Poller:
    """Calls nothing by itself; the test calls what was added."""

    def __init__(self) -> None:
        self.calls: dict[int, Callable[[], object]] = {}

    def add(self, fd: int, call: Callable[[], object]) -> None:
        self.calls[fd] = call

    def remove(self, fd: int) -> None:
        self.calls.pop(fd, None)


class Run(RunCompletion):
    """Its group is empty when the test says so, and its kills are counted."""

    is_group_empty = False
    kills = 0

    def _group_is_empty(self) -> bool:
        return self.is_group_empty

    def _start_tree_kill(self) -> None:
        self.kills += 1


class World:
    """A run with two pipes. The test writes to them, and calls the methods that events lead to."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.ended: list[str] = []
        self.sink = FakeSink()
        self.poller = Poller()
        self.run = Run(RunPorts(self.facts.append, self.sink, None, self.poller, self.ended.append), "r", "run")  # type: ignore[arg-type]
        self.writers: dict[Stream, int] = {}
        for stream in _STREAMS:
            read, self.writers[stream] = os.pipe()
            os.set_blocking(read, False)
            self.run.open[stream] = read
        self.run.listen()

    def poll(self) -> None:
        """Read as the loop does, as long as the run listens to a pipe with data."""
        for fd in list(self.poller.calls):
            if fd in self.poller.calls:
                self.poller.calls[fd]()

    def write(self, stream: Stream, data: bytes) -> None:
        os.write(self.writers[stream], data)

    def exit(self) -> None:
        self.run.exit = Exit(code=3)
        self.run.read_at_exit(2)

    def close_output(self) -> None:
        for stream in list(self.writers):
            os.close(self.writers.pop(stream))
        self.poll()

    def empty_group(self) -> None:
        self.run.is_group_empty = True
        self.run.check()

    def kinds(self) -> list[type]:
        return [type(fact) for fact in self.facts]

    def close(self) -> None:
        self.run.close()
        for fd in self.writers.values():
            os.close(fd)


_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
EVENTS = ("exit", "close_output", "empty_group")
ORDERS = list(itertools.permutations(EVENTS))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_the_end_is_reported_once_after_the_last_event(world: World, order: tuple[str, ...]) -> None:
    for number, event in enumerate(order, 1):
        assert RunEnded not in world.kinds()
        getattr(world, event)()
        assert world.run.is_over == (number == len(EVENTS))
    world.run.check()
    expected = [RunEnded] if order[-1] == "exit" else [RunExited, RunEnded]
    assert world.kinds() == expected
    assert (world.ended, world.sink.ended, world.run.kills) == (["r"], ["r"], 0)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_signalled_run_ends_after_a_kill_of_its_tree(world: World, order: tuple[str, ...]) -> None:
    world.run.is_signalled = True
    for event in order:
        getattr(world, event)()
    world.run.check()
    assert (RunEnded in world.kinds(), world.run.kills) == (False, 1)
    world.run.on_tree_killed()
    assert world.kinds().count(RunEnded) == 1


@pytest.mark.parametrize("order", [("exit", "killed"), ("killed", "exit")], ids="-".join)
def test_after_a_kill_of_its_tree_a_run_ends_with_its_output_open(world: World, order: tuple[str, ...]) -> None:
    world.write("stdout", b"last")
    world.run.kill_tree()
    world.run.kill_tree()
    for event in order:
        assert world.kinds() == []
        world.exit() if event == "exit" else world.run.on_tree_killed()
    assert world.kinds() == [RunEnded]
    assert world.run.kills == 1
    assert world.sink.written["r"]["stdout"] == b"last"
    assert world.poller.calls == {}


def test_output_is_read_before_the_exit_is_reported(world: World) -> None:
    seen: list[bytes] = []
    world.run._ports.emit = lambda _: seen.append(world.sink.written["r"]["stderr"])
    world.write("stderr", b"why")
    world.exit()
    assert seen == [b"why"]


def test_a_full_sink_pauses_both_pipes_until_it_resumes(world: World) -> None:
    world.sink.full.add("r")
    world.write("stdout", b"1")
    world.write("stderr", b"2")
    world.poll()
    assert world.run.is_paused
    assert world.poller.calls == {}
    assert world.sink.calls == [("r", "stdout", b"1")]
    world.exit()
    assert world.kinds() == [RunExited]
    world.sink.full.clear()
    world.run.resume()
    world.poll()
    assert world.sink.written["r"] == {"stdout": b"1", "stderr": b"2"}


def test_a_full_chunk_and_an_empty_pipe_show_whether_more_can_follow(world: World) -> None:
    world.write("stdout", b"x" * CHUNK)
    fd = world.run.open["stdout"]
    assert world.run.read("stdout", fd)
    assert not world.run.read("stdout", fd)
    assert "stdout" in world.run.open


def test_a_closed_run_reports_nothing(world: World) -> None:
    world.run.close()
    world.run.is_group_empty = True
    world.exit()
    world.run.on_tree_killed()
    assert world.facts == []
    assert world.run.open == {}
