"""What is asked for in a round of the loop happens in it, unless that would keep everybody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from repeater.system.loops.batching import BatchingLoop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def _until(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)

    loop.run_until_complete(wait())


def test_calls_requested_by_a_call_happen_before_anything_else(loop: asyncio.AbstractEventLoop) -> None:
    turns, called = BatchingLoop(loop), list[str]()

    def first() -> None:
        turns.call_soon(called.append, "asked")
        turns.call_soon(turns.call_soon, called.append, "asked by that")
        called.append("first")

    turns.call_later(0, first)
    loop.call_later(0.001, called.append, "other")
    _until(loop, lambda: len(called) == 4)
    assert called == ["first", "asked", "asked by that", "other"]


def test_endless_calls_that_request_calls_block_no_other(loop: asyncio.AbstractEventLoop) -> None:
    turns, count = BatchingLoop(loop), 0

    def again() -> None:
        nonlocal count
        count += 1
        turns.call_soon(again)

    turns.call_soon(again)
    counts: list[int] = []
    loop.call_soon(lambda: counts.append(count))
    _until(loop, lambda: count > 200)
    assert counts == [64]


def test_a_call_that_fails_holds_up_none_of_the_others(loop: asyncio.AbstractEventLoop) -> None:
    turns, called, told = BatchingLoop(loop), list[str](), list[str]()
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))

    def fail(words: str) -> None:
        raise ValueError(words)

    def first() -> None:
        turns.call_soon(fail, "one")
        turns.call_soon(called.append, "after it")
        fail("two")

    turns.call_later(0, first)
    turns.call_later(0.001, called.append, "later")
    _until(loop, lambda: len(called) == 2)
    assert (sorted(called), sorted(told)) == (["after it", "later"], ["one", "two"])
