"""A question to a worker that cannot be sent costs itself: the next one is asked."""

import asyncio
import sys

from repeater.worker.client import Worker
from repeater.worker.protocol import HEAD, Limits

ECHO = f"""
import os, struct
while head := os.read(0, {HEAD.size}):
    data = os.read(0, struct.unpack("{HEAD.format}", head)[0])
    os.write(1, head + data)
"""


def test_a_question_that_raises_does_not_delay_the_next():
    told = []

    async def ask():
        loop = asyncio.get_running_loop()
        worker = Worker([sys.executable, "-c", ECHO], loop, Limits(1 << 30, 5.0, 60.0, grace=0.0))
        over = loop.create_future()
        try:
            worker.submit(lambda: 1 // 0, lambda _: True, told.append)
        except ZeroDivisionError:
            told.append("raised")
        worker.submit(lambda: b"x", lambda frame: over.set_result(frame) or True, over.set_exception)
        try:
            told.append(await asyncio.wait_for(over, 20))
        finally:
            worker.close()

    asyncio.run(ask())
    assert told[0] == "raised"
    assert "ZeroDivisionError" in told[1]
    assert told[2] == b"x"
