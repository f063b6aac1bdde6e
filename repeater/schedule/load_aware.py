"""`load`: an interval that follows how busy the machine is.

Each reading gives a factor, the largest is taken, and the interval is `base` times that, within `min` and `max`:

    cpu, memory    (1 - target) / (1 - reading)      what may be left over what is left
    load           reading / target                  load average for each CPU

so at the targets the interval is `base`; with the CPU target 70 % it is 3 times base at 90 % and `max` at 100 %. A
machine that is freer than all targets gives shorter intervals, down to `min`, which is `base` unless the job says
otherwise. What cannot be read has no say. Pure; the engine asks for readings and puts the interval in `Track.pace`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from math import inf

from repeater._lazy_dataclasses import dataclass
from repeater.model.reasons import Reason
from repeater.model.reasons import reason as because
from repeater.model.spec import LoadAware


@dataclass(frozen=True, slots=True)
class LoadReadings:
    """The load of the machine. `cpu` and `memory` are shares from 0 to 1, `load` is the load average of the last minute
    for each CPU. A value that the system does not provide is None.
    """

    cpu: float | None = None
    memory: float | None = None
    load: float | None = None


def interval(spec: LoadAware, readings: LoadReadings | None) -> timedelta:
    """How long to wait from the end of a run to the next start; `base` while nothing is known."""
    factor = max((factor for _, factor in _factors(spec, readings)), default=1.0)
    if factor * (spec.base / spec.max) >= 1:
        return spec.max
    return max(spec.min, spec.base * factor)


def explain(spec: LoadAware, readings: LoadReadings | None) -> Reason:
    """The interval, and the reading that decides it."""
    every = interval(spec, readings)
    factors = list(_factors(spec, readings))
    if not factors:
        return because("load", every=every)
    (name, reading, target), factor = max(factors, key=lambda one: one[1])
    return because("load", every=every, reading=name, value=reading, target=target, busier=factor > 1)


def _factors(spec: LoadAware, readings: LoadReadings | None) -> Iterator[tuple[tuple[str, float, float], float]]:
    """Each reading (its name, value and target) and the factor that it asks for."""
    if readings is None:
        return
    for name, reading, target in (("cpu", readings.cpu, spec.cpu), ("memory", readings.memory, spec.memory)):
        if reading is not None:
            left = 1 - reading
            factor = float(1 - target) / left if left > 0 else inf
            yield (name, reading, float(target)), factor
    if readings.load is not None:
        yield ("load", readings.load, float(spec.load)), readings.load / spec.load
