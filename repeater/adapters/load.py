"""How busy the machine is, through psutil: the share of the CPUs, of the memory, and the load average for each CPU.

The CPU's share is that since the reading before, so readings closer than a tenth of a second would be noise: the one
before is given again. The machine is the whole machine, also inside a container. Implements `ports.LoadProbe`; psutil
comes with the extra `load` and is imported here alone.
"""

from __future__ import annotations

import os
from time import monotonic

from repeater.errors import RepeaterError
from repeater.schedule.load import LoadReadings

_SOONEST = 0.1  # seconds


class MachineLoad:
    """Raises RepeaterError without psutil. The first CPU reading counts from when this was made."""

    def __init__(self) -> None:
        try:
            import psutil
        except ImportError as error:
            raise RepeaterError(
                f"cannot read the load of this machine: {error}", hint="pip install 'repeater-rpr[load]'"
            ) from None
        self._psutil = psutil
        self._read_at = monotonic()
        self._readings: LoadReadings | None = None
        psutil.cpu_percent(None)

    def read(self) -> LoadReadings:
        now = monotonic()
        if self._readings is None or now - self._read_at >= _SOONEST:
            self._readings = self._ask(fresh=now - self._read_at >= _SOONEST)
            if self._readings.cpu is not None:
                self._read_at = now
        return self._readings

    def _ask(self, *, fresh: bool) -> LoadReadings:
        psutil = self._psutil
        return LoadReadings(
            cpu=psutil.cpu_percent(None) / 100 if fresh else None,
            memory=psutil.virtual_memory().percent / 100,
            load=_load(psutil.cpu_count() or 1),
        )


def _load(cpus: int) -> float | None:
    try:
        return os.getloadavg()[0] / cpus
    except OSError:
        return None
