"""A sink in front of another one that hides the values of a job's `secrets` in everything that its runs print.

Nothing behind it (console, files, the tail that is kept, patterns, log probes) ever sees them. `without_secrets` does
the same for the fields of a reason, which may quote a command or an address, and `command_text` does so for the
command that the history keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repeater.errors import RepeaterError
from repeater.model.reasons import Reason
from repeater.model.run import RunKind
from repeater.model.spec import JobSpec, ProcessSpec
from repeater.policy.redact import Mask, mask_text, secret_forms
from repeater.ports import Stream
from repeater.supervisor.launch import BaseEnvironment, environment
from repeater.supervisor.probes import Output

MOST_OF_A_COMMAND = 4096  # bytes


class MaskingSink:
    """`environ` is what jobs inherit: a secret may be named there rather than in the job's own `env`."""

    def __init__(self, behind: Output, environ: Mapping[str, str]) -> None:
        self._behind = behind
        self._inherited = BaseEnvironment(environ)
        self._masks: dict[str, dict[Stream, Mask]] = {}

    def begin(self, run: str, spec: JobSpec, kind: RunKind = "run") -> None:
        if spec.process.secrets:
            forms = _forms(spec.process, self._inherited)
            self._masks[run] = {"stdout": Mask(forms), "stderr": Mask(forms)}
        self._behind.begin(run, spec, kind)

    def write(self, run: str, stream: Stream, data: bytes) -> bool:
        if run in self._masks:
            data = self._masks[run][stream].feed(data)
            if not data:
                return True
        return self._behind.write(run, stream, data)

    def finish(self, run: str) -> frozenset[str]:
        for stream, mask in self._masks.pop(run, {}).items():
            rest = mask.flush()
            if rest:
                self._behind.write(run, stream, rest)
        return self._behind.finish(run)


def without_secrets(reason: Reason, process: ProcessSpec, inherited: BaseEnvironment) -> Reason:
    return Reason(reason.code, _masked(reason.detail, _forms(process, inherited)))


def command_text(process: ProcessSpec, inherited: BaseEnvironment) -> str | None:
    """The command as one text for the history: secrets are masked, and it has at most `MOST_OF_A_COMMAND` bytes.

    None for a job that only names an executor, and for a user whose secrets cannot be looked up.
    """
    command = process.command
    if not command:
        return None
    words = (command,) if isinstance(command, str) else command
    if process.secrets:
        try:
            forms = _forms(process, inherited)
        except (RepeaterError, OSError):
            return None
        words = tuple(mask_text(word, forms) for word in words)  # before quotes are added, which could part a secret
    if isinstance(command, str):
        command = words[0]
    else:
        import shlex

        command = shlex.join(words)
    if command.isascii() and len(command) <= MOST_OF_A_COMMAND:
        return command
    data = command.encode("utf-8", "backslashreplace")
    if len(data) <= MOST_OF_A_COMMAND:
        return data.decode()
    return data[: MOST_OF_A_COMMAND - 3].decode("utf-8", "ignore") + "…"


def _masked(value: Any, forms: tuple[bytes, ...]) -> Any:
    if isinstance(value, str):
        return mask_text(value, forms)
    if isinstance(value, Mapping):
        return {name: one if name == "code" else _masked(one, forms) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one, forms) for one in value]
    return value


def _forms(process: ProcessSpec, inherited: BaseEnvironment) -> tuple[bytes, ...]:
    env = environment(process, inherited)
    return secret_forms(env[name] for name in process.secrets if name in env)
