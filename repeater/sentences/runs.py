"""How a run ended."""

from __future__ import annotations

from collections.abc import Mapping

from repeater.model.reasons import ReasonCode
from repeater.sentences.fields import Fields, Maker


def _success(fields: Fields) -> str:
    counts = ", which counts as a success"
    return (
        fields.part("exit", f"exit {{exit}}{counts}")
        or fields.part("signal", f"signal {{signal}}{counts}")
        or "success"
    )


SENTENCES: Mapping[ReasonCode, Maker] = {
    "success": _success,
    "success_pattern": "output matched pattern",
    "exit": "exit {exit}",
    "signal": "signal {signal}",
    "timeout": "timed out after {after}",
    "failure_pattern": "output matched failure_pattern",
    "executor_failed": "executor plugin `{plugin}` failed; its output has the reason",
    "supervisor_gone": "the supervisor exited during the run",
    "shim_gone": "the shim exited during the run",
}
