"""A sink in front of another one that hides the values of a job's `secrets` in everything that its runs print.

Nothing behind it (console, files, the tail that is kept, patterns, log probes) ever sees them.
"""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.spec import JobSpec
from repeater.policy.mask import Mask, secret_forms
from repeater.ports import Stream
from repeater.runtime.launch import environment
from repeater.runtime.probes import Output


class Masking:
    """`environ` is what jobs inherit: a secret may be named there rather than in the job's own `env`."""

    def __init__(self, behind: Output, environ: Mapping[str, str]) -> None:
        self._behind = behind
        self._environ = environ
        self._masks: dict[str, dict[Stream, Mask]] = {}

    def begin(self, run: str, spec: JobSpec) -> None:
        if spec.process.secrets:
            env = environment(spec.process, self._environ)
            forms = secret_forms(env[name] for name in spec.process.secrets if name in env)
            self._masks[run] = {"stdout": Mask(forms), "stderr": Mask(forms)}
        self._behind.begin(run, spec)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._masks:
            data = self._masks[run][stream].feed(data)
            if not data:
                return True
        return self._behind.write(run, stream, data)

    def matched(self, run: str) -> frozenset[str]:
        for stream, mask in self._masks.pop(run, {}).items():
            rest = mask.rest()
            if rest:
                self._behind.write(run, stream, rest)
        return self._behind.matched(run)
