"""Where output goes, with faults contained: an exception on the way costs the rest of this run's output, not the run.

A sink in front of all others, so the spawner that reads output never sees an exception of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from repeater.model.run import RunKind
from repeater.model.spec import JobSpec
from repeater.ports import Stream


class Output(Protocol):
    """The sink behind."""

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None: ...

    def write(self, run: str, stream: Stream, data: bytes) -> bool: ...

    def finish(self, run: str) -> frozenset[str]: ...


class ContainedOutputs:
    """`fault(run, error)` is called for the first exception of each run; what follows of its output is dropped."""

    def __init__(self, behind: Output, fault: Callable[[str, Exception], None]) -> None:
        self._behind = behind
        self._fault = fault
        self._failed: set[str] = set()

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        try:
            self._behind.begin(run, spec, kind)
        except Exception as error:  # noqa: BLE001
            self._fail(run, error)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._failed:
            return True
        try:
            return self._behind.write(run, stream, data)
        except Exception as error:  # noqa: BLE001
            self._fail(run, error)
            return True

    def finish(self, run: str) -> frozenset[str]:
        try:
            return self._behind.finish(run)
        except Exception as error:  # noqa: BLE001
            self._fail(run, error)
            return frozenset()
        finally:
            self._failed.discard(run)

    def _fail(self, run: str, error: Exception) -> None:
        if run not in self._failed:
            self._failed.add(run)
            self._fault(run, error)
