"""Why an adaptive schedule has its current interval."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from repeater.model.reasons import ReasonCode
from repeater.model.units import format_approx
from repeater.sentences.fields import Fields, Maker


def _every(fields: Fields) -> str:
    return f"every {format_approx(timedelta(microseconds=fields.raw('every')).total_seconds())}"


def _adaptive(fields: Fields) -> str:
    if fields.raw("success") is None:
        return f"{_every(fields)}: no run yet"
    known = [f"success {fields.raw('success'):.0%}"]
    for name, text in (("latency", "latency"), ("target", "target"), ("usual", "usually")):
        if name in fields:
            known.append(f"{text} {format_approx(fields.raw(name))}")
    known.append("circuit open" if fields.raw("open") else "circuit closed")
    change = fields.part("change", ": {change}")
    return f"{_every(fields)}{change} ({', '.join(known)})"


def _compared(fields: Fields, is_what: str) -> str:
    return f"{format_approx(fields.raw('latency'))} is {is_what} for {format_approx(fields.raw('target'))}"


def _circuit_opened(fields: Fields) -> str:
    rate, threshold = fields.raw("failure_rate"), fields.raw("threshold")
    return f"{rate:.0%} of runs failed (limit {threshold:.0%}): the circuit is open"


def _load(fields: Fields) -> str:
    if "reading" not in fields:
        return f"{_every(fields)}: no reading yet"
    value, target = fields.raw("value"), fields.raw("target")
    share = (
        f"{value:.2f} (target {target:g})" if fields.raw("reading") == "load" else f"{value:.0%} (target {target:.0%})"
    )
    compared = "above" if fields.raw("busier") else "not above"
    return f"{_every(fields)}: {fields['reading']} {share}, {compared} the target"


SENTENCES: Mapping[ReasonCode, Maker] = {
    "adaptive": _adaptive,
    "trial_succeeded": "the trial run succeeded: the circuit is closed",
    "trial_failed": "the trial run failed: the circuit stays open",
    "circuit_opened": _circuit_opened,
    "slower_after_failure": "the run failed: slower",
    "slower": lambda fields: f"{_compared(fields, 'slow')}: slower",
    "faster": lambda fields: f"{_compared(fields, 'fast')}: faster",
    "back_to_base": "normal latency: back towards base",
    "unchanged": "normal latency: no change",
    "load": _load,
    "next_start_allowed": "the next start is allowed at {at}",
}
