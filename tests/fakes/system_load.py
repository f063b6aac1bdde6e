"""A machine that is as busy as the test says. Passes the contract of `system.system_load` in `tests/contract`."""

from __future__ import annotations

from repeater.schedule.load_aware import LoadReadings


class FakeLoad:
    """`ports.LoadProbe`; `readings` may be set at any time, `asked` counts."""

    def __init__(self, readings: LoadReadings | None = None) -> None:
        self.readings = readings or LoadReadings(0.0, 0.5, 0.1)
        self.asked = 0

    def read(self) -> LoadReadings:
        self.asked += 1
        return self.readings
