"""Runs with names that nobody else on this machine has, around a real spawner.

A sweep finds processes by the run that their environment names. Two processes that run the same tests at the same time
would kill each other's. Whoever uses it says `a`, and hears of `a`; the system knows `a.` and a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from repeater.dataclass import replace
from repeater.engine.facts import Fact, Living
from repeater.model.reasons import Reason
from repeater.ports import Launch, Sink, Spawner, Stream, Tell

_SUFFIX = f".{os.getpid()}"


def own(run: str) -> str:
    """The name that the system knows."""
    return run + _SUFFIX


class OwnRuns:
    """`ports.Spawner` to those who use it, `ports.Sink` to the spawner that `make` makes."""

    def __init__(self, make: Callable[[Tell, Sink], Spawner], tell: Tell, sink: Sink) -> None:
        self._tell = tell
        self._sink = sink
        self._spawner = make(self._told, self)

    def _told(self, fact: Fact) -> None:
        told: Any = fact
        self._tell(replace(told, run=told.run.removesuffix(_SUFFIX)))

    def start(self, launch: Launch) -> None:
        env = {name: own(value) if name == "RPR_RUN_ID" else value for name, value in launch.env.items()}
        self._spawner.start(replace(launch, run=own(launch.run), env=env))

    def signal(self, run: str, signal: str) -> None:
        self._spawner.signal(own(run), signal)

    def sweep(self, run: str) -> None:
        self._spawner.sweep(own(run))

    def survivors(self) -> Mapping[str, Living]:
        return {run.removesuffix(_SUFFIX): living for run, living in self._spawner.survivors().items()}

    def adopt(self, run: str) -> None:
        self._spawner.adopt(own(run))

    def disown(self, runs: Iterable[str]) -> None:
        self._spawner.disown(map(own, runs))

    @property
    def trouble(self) -> Reason | None:
        return None

    def force(self) -> None:
        pass

    def settled(self, runs: Iterable[str]) -> None:
        self._spawner.settled(map(own, runs))

    def resume(self, run: str) -> None:
        self._spawner.resume(own(run))

    def close(self) -> None:
        self._spawner.close()

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        return self._sink.write(run.removesuffix(_SUFFIX), stream, data)

    def matched(self, run: str) -> frozenset[str]:
        return self._sink.matched(run.removesuffix(_SUFFIX))
