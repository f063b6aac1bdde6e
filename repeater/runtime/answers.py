"""A sink in front of another one that reads servers' answers in what HTTP-aware runs print.

A push-back is reported when the output of the run is complete, and so before the engine gets to know that the run has
ended.
"""

from __future__ import annotations

from repeater.engine.facts import PushedBack
from repeater.model.run import RunKind
from repeater.model.spec import HttpAware, JobSpec
from repeater.policy.http_answer import AnswerReader, joined
from repeater.policy.http_aware import holding, read_hints, reason_of
from repeater.ports import Clock, Stream, Tell
from repeater.runtime.probes import Output


class _Reading:
    """One run whose output is read, as it streams by."""

    __slots__ = ("job", "rule", "streams")

    def __init__(self, job: str, rule: HttpAware) -> None:
        self.job = job
        self.rule = rule
        self.streams: dict[Stream, AnswerReader] = {"stderr": AnswerReader(), "stdout": AnswerReader()}


class AnswerTap:
    """Reads what HTTP-aware runs print, except hooks and probes."""

    def __init__(self, behind: Output, clock: Clock, tell: Tell) -> None:
        self._behind = behind
        self._clock = clock
        self._tell = tell
        self._runs: dict[str, _Reading] = {}
        self._refusals: dict[str, int] = {}

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.http_aware is not None and kind == "run":
            self._runs[run] = _Reading(spec.name, spec.http_aware)
        self._behind.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._runs:
            self._runs[run].streams[stream].feed(data)
        return self._behind.write(run, stream, data)

    def matched(self, run: str) -> frozenset[str]:
        reading = self._runs.pop(run, None)
        if reading is not None:
            self._report(run, reading)
        return self._behind.matched(run)

    def _report(self, run: str, reading: _Reading) -> None:
        answer = joined(reading.streams["stderr"].answer(), reading.streams["stdout"].answer())
        found = read_hints(reading.rule, answer, self._clock.now().wall).push_back
        repetition = 0
        if found is not None:
            given = found.given
            if given is None:
                repetition = self._refusals.get(reading.job, 0) + 1
                given = holding(reading.rule, repetition)
            self._tell(PushedBack(run, given, reason_of(found, given)))
        self._refusals[reading.job] = repetition
