"""A sink in front of another one that reads servers' answers in what HTTP-aware runs print.

A push-back is told when the run's output is complete, and so before the engine hears that the run has ended.
"""

from __future__ import annotations

from repeater.engine.facts import PushedBack
from repeater.model.run import RunKind
from repeater.model.spec import HttpAware, JobSpec
from repeater.policy.http_aware import READ, push_back
from repeater.ports import Clock, Stream, Tell
from repeater.runtime.probes import Output

_KEPT = READ // 2
"""Bytes of the end of each stream: headers may come on one and the body on the other, as with `curl -v`."""


class AnswerTap:
    """Keeps the end of what HTTP-aware runs print, hooks and probes left out."""

    def __init__(self, behind: Output, clock: Clock, tell: Tell) -> None:
        self._behind = behind
        self._clock = clock
        self._tell = tell
        self._runs: dict[str, tuple[HttpAware, dict[Stream, bytearray]]] = {}

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.http_aware is not None and kind == "run":
            self._runs[run] = spec.http_aware, {"stderr": bytearray(), "stdout": bytearray()}
        self._behind.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._runs:
            kept = self._runs[run][1][stream]
            kept += data
            if len(kept) > 2 * _KEPT:
                del kept[:-_KEPT]
        return self._behind.write(run, stream, data)

    def matched(self, run: str) -> frozenset[str]:
        rule, kept = self._runs.pop(run, (None, None))
        if rule is not None and kept is not None:
            output = b"\n".join(bytes(end[-_KEPT:]) for end in kept.values())
            found = push_back(rule, output, self._clock.now().wall)
            if found is not None:
                self._tell(PushedBack(run, found.delay, found.reason))
        return self._behind.matched(run)
