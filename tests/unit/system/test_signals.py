from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from repeater.system.signals import Signals


def hear(act: Callable[[Signals], object]) -> list[object]:
    """What is told after `act` was done to this process, in a loop."""
    told: list[object] = []

    async def main() -> None:
        signals = Signals(
            asyncio.get_running_loop(), lambda level, name: told.append((level, name)), lambda: told.append("reload")
        )
        try:
            act(signals)
            await asyncio.sleep(0.02)
        finally:
            signals.close()

    asyncio.run(main())
    return told


def send(*names: str) -> Callable[[Signals], None]:
    def act(_: Signals) -> None:
        for name in names:
            os.kill(os.getpid(), signal.Signals[f"SIG{name}"])

    return act


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (["INT"], [("drain", "INT")]),
        (["TERM"], [("drain", "TERM")]),
        (["INT", "TERM", "INT"], [("drain", "INT"), ("stop", "TERM"), ("kill", "INT")]),
        (["TERM"] * 5, [("drain", "TERM"), ("stop", "TERM"), ("kill", "TERM")]),
        (["HUP"], ["reload"]),
    ],
)
def test_signals_drain_then_stop_then_kill(sent: list[str], told: list[object]) -> None:
    assert hear(send(*sent)) == told


def test_ten_thousand_hups_are_one_reload_or_few_and_lose_no_other_signal() -> None:
    told = hear(send(*["HUP"] * 5000, "TERM", *["HUP"] * 5000))
    assert ("drain", "TERM") in told
    assert 1 <= told.count("reload") <= 3


def test_signals_mean_what_they_meant_before_once_it_is_closed() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    try:
        hear(lambda _: None)
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_another_thread_gets_wakes_the_loop() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    told: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()

        def stop(level: str, name: str) -> None:
            told.append((level, name))
            heard.set()

        signals = Signals(loop, stop, lambda: None)
        # from a thread, so that the loop is asleep by then, and nothing else wakes it
        hit = threading.Timer(0.1, lambda: signal.pthread_kill(other.ident or 0, signal.SIGTERM))
        hit.start()
        try:
            began = time.monotonic()
            await asyncio.wait_for(heard.wait(), 20)
            assert time.monotonic() - began < 10
        finally:
            signals.close()
            hit.join()

    try:
        asyncio.run(main())
    finally:
        over.set()
        other.join()
    assert told == [("drain", "TERM")]


CLOSES_OFTEN = """
import asyncio, signal
from repeater.system.signals import Signals

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(8000):
        Signals(loop, lambda level, name: None, lambda: None, at_end=True).close()

for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: None)
print("ready", flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
def test_signals_during_the_close_at_the_end_print_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLOSES_OFTEN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        while child.poll() is None:
            for name in ("HUP", "TERM", "INT"):
                child.send_signal(signal.Signals[f"SIG{name}"])
        _, err = child.communicate()
    assert (child.returncode, err) == (0, "")
