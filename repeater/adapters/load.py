"""How busy the machine is, through psutil: the share of the CPUs, of the memory, and the load average for each CPU.

The CPU's share is that since the reading before, so readings closer than a tenth of a second would be noise: the one
before is given again. The machine is the whole machine, also inside a container. Implements `ports.LoadProbe`; psutil
comes with the extra `load` and is imported here alone.
"""

from __future__ import annotations

import os
from time import monotonic
from types import ModuleType

from repeater.errors import RepeaterError
from repeater.schedule.load import LoadReadings

_SOONEST = 0.1  # seconds


class MachineLoad:
    """psutil is imported, and the share of the CPUs counted, from `prepare` or the first reading on."""

    def __init__(self) -> None:
        self._psutil: ModuleType | None = None
        self._read_at = 0.0
        self._readings: LoadReadings | None = None

    def prepare(self) -> ModuleType:
        """Raises RepeaterError without psutil."""
        if self._psutil is None:
            try:
                import psutil
            except ImportError as error:
                raise RepeaterError(
                    f"cannot read the load of this machine: {error}", hint="pip install 'repeater-rpr[load]'"
                ) from None
            self._psutil = psutil
            self._read_at = monotonic()
            psutil.cpu_percent(None)
        return self._psutil

    def read(self) -> LoadReadings:
        psutil, now = self.prepare(), monotonic()
        fresh = now - self._read_at >= _SOONEST
        if fresh or self._readings is None:
            self._readings = LoadReadings(
                cpu=psutil.cpu_percent(None) / 100 if fresh else None,
                memory=psutil.virtual_memory().percent / 100,
                load=_load(psutil.cpu_count() or 1),
            )
            self._read_at = now if fresh else self._read_at
        return self._readings


def _load(cpus: int) -> float | None:
    try:
        return os.getloadavg()[0] / cpus
    except OSError:
        return None
