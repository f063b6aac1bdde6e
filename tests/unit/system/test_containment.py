"""A callback that raises costs its owner: the others of the same loop go on, and a reader is tried again."""

import asyncio
import os

import pytest

from repeater.processes.fd_poller import NestedPoller
from repeater.processes.shim_spawner import ShimSpawner
from repeater.supervisor.faults import owner_of
from repeater.supervisor.sinks.containment import ContainedOutputs
from repeater.system.loops.batching import BatchingLoop
from repeater.system.ratelimit_client import RateLimitClient


def run(body):
    wrong = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context["exception"]))
        await body(BatchingLoop(asyncio.get_running_loop()))

    asyncio.run(main())
    return wrong


def test_a_call_that_raises_does_not_keep_the_next_ones_from_being_made():
    made = []

    async def body(turns):
        turns.call_soon(lambda: made.append(1))
        turns.call_soon(lambda: 1 // 0)
        turns.call_soon(lambda: made.append(2))
        last = asyncio.Event()
        turns.call_soon(last.set)
        await last.wait()

    assert [type(error) for error in run(body)] == [ZeroDivisionError]
    assert made == [1, 2]


def test_a_reader_that_raises_is_called_again_after_a_pause():
    calls = []

    async def body(turns):
        read, write = os.pipe()
        os.write(write, b"x")

        third = asyncio.Event()

        def fail():
            calls.append(asyncio.get_running_loop().time())
            if len(calls) == 3:
                third.set()
            raise ZeroDivisionError

        turns.add_reader(read, fail)
        await third.wait()
        turns.remove_reader(read)
        os.close(read)
        os.close(write)

    assert len(run(body)) == 3
    assert min(calls[1] - calls[0], calls[2] - calls[1]) >= 0.04


def test_a_wake_that_raises_does_not_affect_the_others_and_is_retried():
    seen = []

    async def body(turns):
        wakes = NestedPoller(turns)
        pipes = [os.pipe() for _ in range(3)]
        for _, write in pipes:
            os.write(write, b"x")
        fails = [True]
        all_seen = asyncio.Event()

        def see(number):
            seen.append(number)
            wakes.remove(pipes[number][0])
            if len(seen) == 3:
                all_seen.set()

        def first():
            if fails.pop() if fails else False:
                raise ZeroDivisionError
            see(0)

        wakes.add(pipes[0][0], first)
        wakes.add(pipes[1][0], lambda: see(1))
        wakes.add(pipes[2][0], lambda: see(2))
        await all_seen.wait()
        wakes.close()
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)

    assert [type(error) for error in run(body)] == [ZeroDivisionError]
    assert sorted(seen) == [0, 1, 2]


def test_slow_wakes_take_turns(monkeypatch):
    monkeypatch.setattr("repeater.processes.fd_poller._LONG", 0.0)  # each call counts as slow
    seen = []

    async def body(turns):
        wakes = NestedPoller(turns)
        pipes = [os.pipe() for _ in range(3)]
        for number, (read, write) in enumerate(pipes):
            os.write(write, b"x")
            wakes.add(read, lambda number=number: seen.append(number))
        for _ in range(12):
            await asyncio.sleep(0.001)
        wakes.close()
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)

    assert run(body) == []
    assert len(seen) >= 9
    assert all(sorted(seen[at : at + 3]) == [0, 1, 2] for at in range(0, len(seen) - 2, 3))


class Broken:
    def begin(self, run, spec, kind="run"):
        pass

    def write(self, run, stream, data):
        raise ZeroDivisionError

    def finish(self, run):
        raise ZeroDivisionError


def test_output_that_fails_is_dropped_and_reported_once_for_each_run():
    failed = []
    outputs = ContainedOutputs(Broken(), lambda run, error: failed.append((run, type(error))))
    outputs.begin("r", None)
    assert outputs.write("r", "stdout", b"x")
    assert outputs.write("r", "stdout", b"y")
    assert outputs.finish("r") == frozenset()
    assert failed == [("r", ZeroDivisionError)]


def test_the_owner_of_an_exception_is_the_innermost_part_of_repeater():
    from repeater.model.address import parse_address
    from repeater.store import state_dir

    for call, owner in ((lambda: parse_address("x"), "service"), (lambda: state_dir.make_folder(None), None)):
        with pytest.raises((ValueError, TypeError, AttributeError)) as caught:
            call()
        assert owner_of(caught.value)[0] == owner


class Later:
    def __init__(self):
        self.calls = []

    def call_later(self, delay, call, *args):
        self.calls.append(call.__name__)
        return type("Alarm", (), {"cancel": lambda _: None})()


def fail(*_):
    raise ZeroDivisionError


def beating(loop, monkeypatch):
    spawner = object.__new__(ShimSpawner)
    spawner.__dict__.update(_closed=False, _loop=loop, _connection=Line(), _unanswered=0, _outbox=Full())
    return spawner._beat


def burying(loop, monkeypatch):
    monkeypatch.setattr("repeater.processes.shim_spawner.process_tree.reap_unwaited", fail)
    spawner = object.__new__(ShimSpawner)
    spawner.__dict__.update(_closed=False, _loop=loop)
    return lambda: spawner._reap_unwaited(frozenset())


def looking(loop, monkeypatch):
    quota = object.__new__(RateLimitClient)
    quota.__dict__.update(
        _loop=loop, _asks={"a": object()}, _send_ask=fail, _patience=None, _look=None, _sock=object(), _unanswered={}
    )
    return quota._check_deadline


class Line:
    hello = {"pongs": True}  # noqa: RUF012


class Full:
    send = fail


@pytest.mark.parametrize("make", [beating, burying, looking])
def test_a_timer_that_raises_is_set_again(make, monkeypatch):
    loop = Later()
    call = make(loop, monkeypatch)
    for times in (1, 2):
        with pytest.raises(ZeroDivisionError):
            call()
        assert len(loop.calls) == times
