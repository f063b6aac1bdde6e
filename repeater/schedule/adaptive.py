"""`adaptive`: an interval that follows what the runs show, as TCP follows what the network shows (AIMD, RFC 5681).

    failed, or slow     the interval is doubled               (multiplicative decrease of the rate)
    fast                the rate grows by 1/10 of 1/base      (additive increase)
    neither             back towards base by one such step, never past it
    too many failures   the circuit opens: `max`, then one trial run; its success closes the circuit and starts at base

Slow and fast are `slow_threshold` and `fast_threshold` times the target latency, compared with the latency of the run
itself, so that one slow run doubles the interval once. Without a target the usual latency of successful runs is it,
which moves by 1/16 of the difference with each; the first run sets it. How long a failed run took says nothing and is
not looked at.

The failure rate is a Bayesian estimate, the mean of a Beta distribution that begins as if there had been 6 successes
and half a failure; a run weighs 9/10 of the one after it:

    failure rate  =  (f + 1/2) / (s + f + 13/2)        s, f <- 9/10 s + success, 9/10 f + failure

so with the threshold 0.3 the circuit opens at the third failure in a row of a new job and at the sixth of one that has
long been well; it opens for a job of which every second run fails, not for one of which every third does. The interval
is always within `min` and `max`.
Pure; the engine keeps the state with the job's progress and puts the interval in `Track.pace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import isfinite
from typing import Any

from repeater._lazy_dataclasses import dataclass, replace
from repeater.model.reasons import Reason, reason_of
from repeater.model.reasons import reason as because
from repeater.model.spec import Adaptive
from repeater.model.time import MICROSECOND, to_us

_SUCCESSES, _FAILURES = 6.0, 0.5  # the estimate before the first run
_FORGETTING = 0.9
_LEARNING = 1 / 16
_TRIAL_SUCCEEDED = Reason("trial_succeeded")
_TRIAL_FAILED = Reason("trial_failed")
_SLOWER_AFTER_FAILURE = Reason("slower_after_failure")
_BACK_TO_BASE = Reason("back_to_base")
_UNCHANGED = Reason("unchanged")
_STEPS = 10  # steps of the rate from nothing to that of base


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """What is known after some runs. `successes` and `failures` are weighted counts, `latency` is that of the last
    successful run and `usual` the learnt one, in seconds, None before there was one. `open`: the circuit is, and the
    next run is the trial. `change` says what the last run changed.
    """

    pace: timedelta
    successes: float = 0.0
    failures: float = 0.0
    latency: float | None = None
    usual: float | None = None
    open: bool = False
    change: Reason | None = None

    @property
    def failure_rate(self) -> float:
        """The estimate, above 0 and below 1."""
        return (self.failures + _FAILURES) / (self.successes + self.failures + _SUCCESSES + _FAILURES)

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back as the same state."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__match_args__}
        return data | {"pace": to_us(self.pace), "change": None if self.change is None else self.change.kept()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AdaptiveState | None:
        """The stored state; None if the data is not valid. The job starts at its base interval then."""
        try:
            pace, successes, failures = data["pace"], float(data["successes"]), float(data["failures"])
            latency, usual = (None if data[name] is None else float(data[name]) for name in ("latency", "usual"))
            numbers = (pace, successes, failures, latency or 0.0, usual or 0.0)
            if type(pace) is not int or not all(isfinite(number) and number >= 0 for number in numbers):
                return None
            change = reason_of(data.get("change"))
            return cls(pace * MICROSECOND, successes, failures, latency, usual, bool(data["open"]), change)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


def interval(spec: Adaptive, state: AdaptiveState | None) -> timedelta:
    """How long to wait from the end of a run to the next start; `base` before the first."""
    return _bounded(spec, spec.base if state is None else state.pace)


def observe(spec: Adaptive, state: AdaptiveState | None, *, success: bool, latency: timedelta) -> AdaptiveState:
    """The state after one more run, which took `latency` from its start to its end."""
    before = state or AdaptiveState(spec.base)
    pace = _bounded(spec, before.pace)
    after = replace(
        before,
        successes=before.successes * _FORGETTING + success,
        failures=before.failures * _FORGETTING + (not success),
    )
    if not success:
        return _after_failure(spec, after, pace)
    took = latency / timedelta(seconds=1)
    target = before.usual if spec.target_latency is None else spec.target_latency / timedelta(seconds=1)
    usual = took if before.usual is None else before.usual + (took - before.usual) * _LEARNING
    after = replace(after, latency=took, usual=usual)
    if before.open:
        base = _bounded(spec, spec.base)
        return replace(after, pace=base, successes=0.0, failures=0.0, open=False, change=_TRIAL_SUCCEEDED)
    pace, change = _after_success(spec, pace, took, target)
    return replace(after, pace=pace, change=change)


def explain(spec: Adaptive, state: AdaptiveState | None) -> Reason:
    """The interval, what the last run changed, and what is known; latencies in seconds."""
    every = interval(spec, state)
    if state is None:
        return because("adaptive", every=every)
    target = None if spec.target_latency is None else spec.target_latency / timedelta(seconds=1)
    return because(
        "adaptive",
        every=every,
        change=state.change,
        success=1 - state.failure_rate,
        latency=state.latency,
        target=target,
        usual=state.usual if target is None else None,
        open=state.open,
    )


def _after_failure(spec: Adaptive, after: AdaptiveState, pace: timedelta) -> AdaptiveState:
    if after.open:
        return replace(after, pace=spec.max, change=_TRIAL_FAILED)
    if after.failure_rate >= spec.failure_threshold:
        threshold = float(spec.failure_threshold)
        change = because("circuit_opened", failure_rate=after.failure_rate, threshold=threshold)
        return replace(after, pace=spec.max, open=True, change=change)
    return replace(after, pace=_bounded(spec, 2 * pace), change=_SLOWER_AFTER_FAILURE)


def _after_success(spec: Adaptive, pace: timedelta, took: float, target: float | None) -> tuple[timedelta, Reason]:
    if target is not None and took >= spec.slow_threshold * target and took > 0:
        return _bounded(spec, 2 * pace), because("slower", latency=took, target=target)
    if target is not None and took <= spec.fast_threshold * target:
        return _bounded(spec, _quicker(spec, pace)), because("faster", latency=took, target=target)
    if pace > spec.base:
        return _bounded(spec, max(spec.base, _quicker(spec, pace))), _BACK_TO_BASE
    return pace, _UNCHANGED


def _quicker(spec: Adaptive, pace: timedelta) -> timedelta:
    """The interval after the rate has grown by one step. It always changes by at least a microsecond."""
    whole, now = _STEPS * to_us(spec.base), to_us(pace)
    return whole * now // (whole + now) * MICROSECOND


def _bounded(spec: Adaptive, pace: timedelta) -> timedelta:
    return min(spec.max, max(spec.min, pace))
