"""A keeper without a client, step by step: a real pipe and a real epoll, timers that the test runs."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repeater.shim.detached import DetachedMode
from repeater.shim.run import ManagedRun
from repeater.shim.spool import Spool


class Watch:
    """An absence that looks after one run. `timers` are what it asked for, `done` is what it did to the run."""

    def __init__(self, folder: Path, **spawn: float) -> None:
        self.spool = Spool(str(folder))
        self.poll = select.epoll()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.done: list[str] = []
        pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2)]
        self.ends = {name: write for name, (_, write) in zip(("stdout", "stderr"), pipes, strict=True)}
        self.kept = ManagedRun({"op": "spawn", "run": "r", **spawn}, os.getpid(), (pipes[0][0], pipes[1][0]))
        self.absence = DetachedMode(
            self.spool,
            self.poll,
            lambda after, call: self.timers.append((after, call)),
            lambda _, signal: self.done.append(signal),
            lambda _: self.done.append("kill_tree"),
        )
        self.absence.begin([self.kept])

    def say(self, stream: str, text: bytes) -> None:
        os.write(self.ends[stream], text)

    def hang_up(self) -> None:
        for end in self.ends.values():
            os.close(end)
        self.ends = {}

    def ready(self) -> list[int]:
        return [fd for fd, _ in self.poll.poll(0)]

    def turn(self) -> None:
        """One turn of the keeper's loop."""
        for fd in self.ready():
            self.absence.add_run(fd)

    def close(self) -> None:
        self.hang_up()
        self.absence.end()
        self.kept.close(self.spool)
        self.poll.close()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    built: list[Watch] = []

    def build(**spawn: float) -> Watch:
        built.append(Watch(tmp_path, **spawn))
        return built[-1]

    yield build
    for one in built:
        one.close()


@pytest.mark.parametrize("said", [b"", b"last words"])
def test_a_pipe_at_its_end_is_not_ready_again_and_again(watch: Callable[..., Watch], said: bytes) -> None:
    one = watch()
    if said:
        one.say("stdout", said)
    one.hang_up()
    assert len(one.ready()) == 2
    for _ in range(3):
        one.turn()
    assert one.ready() == []  # else the keeper never sleeps
    assert {stream: size for stream, (_, _, size) in one.kept.files.items()} == ({"stdout": len(said)} if said else {})


def test_an_open_pipe_is_watched_after_it_was_emptied(watch: Callable[..., Watch]) -> None:
    one = watch()
    for number in (1, 2):
        one.say("stderr", b"x")
        one.turn()
        assert one.ready() == []
        assert one.kept.files["stderr"][2] == number


def test_after_a_timeout_what_outlives_the_leader_is_killed(watch: Callable[..., Watch]) -> None:
    one = watch(timeout=0.0, stop_timeout=7.0)
    ((_, stop),) = one.timers
    stop()
    assert one.done == ["TERM"]
    assert one.kept.timed_out
    after, kill = one.timers[1]
    assert after == 7.0
    one.kept.status = 15  # the leader obeyed, a child of it did not
    kill()
    assert one.done == ["TERM", "kill_tree"]


def test_after_a_timeout_a_leader_that_does_not_end_is_killed(watch: Callable[..., Watch]) -> None:
    one = watch(timeout=0.0)
    one.timers[0][1]()
    one.timers[1][1]()
    assert one.done == ["TERM", "kill_tree"]


def test_a_run_whose_processes_ended_after_a_timeout_is_not_signalled(watch: Callable[..., Watch]) -> None:
    one = watch(timeout=0.0)
    one.timers[0][1]()
    one.kept.status, one.kept.empty = 15, True
    one.timers[1][1]()
    assert one.done == ["TERM"]


def test_timeouts_are_the_clients_as_soon_as_there_is_one(watch: Callable[..., Watch]) -> None:
    one = watch(timeout=0.0)
    one.absence.end()
    one.timers[0][1]()
    assert one.done == []
    assert not one.kept.timed_out


def test_a_client_that_connects_before_the_kill_decides_itself(watch: Callable[..., Watch]) -> None:
    one = watch(timeout=0.0)
    one.timers[0][1]()
    one.absence.end()
    one.timers[1][1]()
    assert one.done == ["TERM"]
