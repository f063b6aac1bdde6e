"""A sink in front of another one that reads servers' answers in what HTTP-aware runs print.

A push-back is reported when the output of the run is complete, and so before the engine gets to know that the run has
ended.
"""

from __future__ import annotations

from repeater.engine.facts import PushedBack
from repeater.model.run import RunKind
from repeater.model.spec import HttpAware, JobSpec
from repeater.policy.http_answer import AnswerReader, joined
from repeater.policy.http_aware import read_hints
from repeater.ports import Clock, EmitFact, Stream
from repeater.supervisor.probes import Output


class _Reading:
    """One run whose output is read, as it streams by."""

    __slots__ = ("rule", "streams")

    def __init__(self, rule: HttpAware) -> None:
        self.rule = rule
        self.streams: dict[Stream, AnswerReader] = {"stderr": AnswerReader(), "stdout": AnswerReader()}


class PushBackDetector:
    """Reads what HTTP-aware runs print, except hooks and probes."""

    def __init__(self, behind: Output, clock: Clock, tell: EmitFact) -> None:
        self._behind = behind
        self._clock = clock
        self._tell = tell
        self._runs: dict[str, _Reading] = {}

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.http_aware is not None and kind == "run":
            self._runs[run] = _Reading(spec.http_aware)
        self._behind.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._runs:
            self._runs[run].streams[stream].feed(data)
        return self._behind.write(run, stream, data)

    def finish(self, run: str) -> frozenset[str]:
        reading = self._runs.pop(run, None)
        if reading is not None:
            self._report(run, reading)
        return self._behind.finish(run)

    def _report(self, run: str, reading: _Reading) -> None:
        answer = joined(reading.streams["stderr"].answer(), reading.streams["stdout"].answer())
        found = read_hints(reading.rule, answer, self._clock.now().wall)
        if found.push_back is not None or found.unreadable:
            self._tell(PushedBack(run, found.push_back, found.unreadable))
