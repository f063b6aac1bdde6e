"""Runs with names that nobody else on this machine has, around a real spawner.

A sweep finds processes by the run that their environment names. Two processes that run the same tests at the same time
would kill each other's. Whoever uses it says `a`, and hears of `a`; the system knows `a.` and a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from repeater._lazy_dataclasses import replace
from repeater.engine.facts import Fact, SurvivingRun
from repeater.model.reasons import Reason
from repeater.ports import EmitFact, LaunchRequest, RunSink, Spawner, Stream

_SUFFIX = f".{os.getpid()}"


def own(run: str) -> str:
    """The name that the system knows."""
    return run + _SUFFIX


class OwnRuns:
    """`ports.Spawner` to those who use it, `ports.RunSink` to the spawner that `make` makes."""

    def __init__(self, make: Callable[[EmitFact, RunSink], Spawner], tell: EmitFact, sink: RunSink) -> None:
        self._tell = tell
        self._sink = sink
        self._spawner = make(self._told, self)

    def _told(self, fact: Fact) -> None:
        told: Any = fact
        self._tell(replace(told, run=told.run.removesuffix(_SUFFIX)))

    def start(self, launch: LaunchRequest) -> None:
        env = {name: own(value) if name == "RPR_RUN_ID" else value for name, value in launch.env.items()}
        self._spawner.start(replace(launch, run=own(launch.run), env=env))

    def signal(self, run: str, signal: str) -> None:
        self._spawner.signal(own(run), signal)

    def kill_tree(self, run: str) -> None:
        self._spawner.kill_tree(own(run))

    def surviving_runs(self) -> Mapping[str, SurvivingRun]:
        return {run.removesuffix(_SUFFIX): living for run, living in self._spawner.surviving_runs().items()}

    def adopt(self, run: str) -> None:
        self._spawner.adopt(own(run))

    def kill_unclaimed(self, runs: Iterable[str]) -> None:
        self._spawner.kill_unclaimed(map(own, runs))

    @property
    def trouble(self) -> Reason | None:
        return None

    def force(self) -> None:
        pass

    def acknowledge(self, runs: Iterable[str]) -> None:
        self._spawner.acknowledge(map(own, runs))

    def resume_reading(self, run: str) -> None:
        self._spawner.resume_reading(own(run))

    def close(self) -> None:
        self._spawner.close()

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        return self._sink.write(run.removesuffix(_SUFFIX), stream, data)

    def finish(self, run: str) -> frozenset[str]:
        return self._sink.finish(run.removesuffix(_SUFFIX))
