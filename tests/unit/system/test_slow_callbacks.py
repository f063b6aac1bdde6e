"""The debug mode names callbacks that take long."""

import asyncio
import functools
import time

from repeater.system.loops.batching import BatchingLoop
from repeater.system.loops.slow_callbacks import limit_of, watch_callbacks


def slow():
    time.sleep(0.03)


async def slow_task():
    slow()


def test_slow_callbacks_are_reported_by_name_and_quick_ones_are_not():
    found = []

    async def body():
        loop = asyncio.get_running_loop()
        loop.call_soon(slow)
        loop.call_later(0.001, functools.partial(slow))
        loop.call_soon(lambda: None)
        await asyncio.gather(slow_task(), asyncio.sleep(0.05))

    end = watch_callbacks(0.02, lambda name, took: found.append((name, took)))
    try:
        asyncio.run(body())
    finally:
        end()
    names = [name.rpartition(".")[2] for name, _ in found]
    assert names.count("slow") == 2
    assert names.count("slow_task") == 1
    assert all(took >= 0.02 for _, took in found)


def test_after_the_end_nothing_is_measured():
    before = asyncio.Handle._run
    watch_callbacks(0.0, lambda *_: None)()
    assert asyncio.Handle._run is before


def test_calls_that_share_a_callback_are_measured_one_by_one():
    made = []

    async def body():
        turns = BatchingLoop(asyncio.get_running_loop(), lambda call, args: made.append(call(*args)))
        turns.call_soon(lambda: 1)
        turns.call_soon(lambda: 2)
        await asyncio.sleep(0.01)

    asyncio.run(body())
    assert made == [1, 2]


def test_the_mode_is_off_without_the_variable():
    assert limit_of({}) is None
    assert limit_of({"RPR_SLOW_CALLBACK": "20ms"}) == 0.02
