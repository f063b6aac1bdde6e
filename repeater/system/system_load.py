"""How busy the machine is, or the container: the share of the CPUs, of the memory, and the load for each CPU.

The machine is read through psutil. Stolen time, which a hypervisor gave to others, counts neither as busy nor as free.
Where a cgroup (v2) above this process has a limit, what may be used is that limit and not the whole machine:

    cpu.max           cpu is what the group used of its quota; load is that plus the share of time in which a
                      process of the group waited for a CPU (cpu.pressure, `some`, the last 10 s)
    memory.max        memory is what the group uses of its limit, without files that can be dropped; or the share of
                      time in which a process waited for memory (memory.pressure), if that is more

Of the machine and of several groups the busiest counts, for the load the innermost limit. Shares of time are those
since the reading before, so readings closer than a tenth of a second would be noise: the one before is given again.
Implements `ports.LoadProbe`; psutil comes with the extra `load` and is imported here alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

from repeater.errors import RepeaterError
from repeater.schedule.load_aware import LoadReadings

_SOONEST = 0.1  # seconds


class SystemLoad:
    """psutil is imported, and CPU time is counted, from `prepare` or the first reading on. `root` is the root folder,
    for tests.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = monotonic) -> None:
        self._psutil: ModuleType | None = None
        self._clock = clock
        self._cgroups = _Cgroups(root, clock)
        self._read_at = 0.0
        self._times: tuple[float, float] = (0.0, 0.0)
        self._readings: LoadReadings | None = None

    def prepare(self) -> ModuleType:
        """Raises RepeaterError without psutil."""
        if self._psutil is None:
            try:
                import psutil
            except ImportError as error:
                from repeater.wire.installed import extra_hint

                cause = f"cannot read the load of this machine: {error}"
                raise RepeaterError(cause, hint=extra_hint("load")) from None
            self._psutil = psutil
            self._read_at = self._clock()
            self._times = _busy_and_all(psutil.cpu_times())
            self._cgroups.cpu()
        return self._psutil

    def read(self) -> LoadReadings:
        psutil, now = self.prepare(), self._clock()
        fresh = now - self._read_at >= _SOONEST
        if fresh or self._readings is None:
            cpu, limited = self._cpu(psutil), self._cgroups.cpu() if fresh else None
            load = _load(psutil.cpu_count() or 1)
            if limited is not None:
                cpu, load = max(limited.share, cpu or 0.0), limited.load
            self._readings = LoadReadings(
                cpu=cpu if fresh else None,
                memory=max([psutil.virtual_memory().percent / 100, *self._cgroups.memory()]),
                load=load,
            )
            self._read_at = now if fresh else self._read_at
        return self._readings

    def _cpu(self, psutil: ModuleType) -> float | None:
        """The share of the time since the last reading that was used, of all that was not stolen."""
        before, self._times = self._times, _busy_and_all(psutil.cpu_times())
        busy, every = self._times[0] - before[0], self._times[1] - before[1]
        return min(1.0, max(0.0, busy / every)) if every > 0 else None


class _Limited:
    """`share` of its quota that a group used, and its `load`."""

    def __init__(self, share: float, load: float) -> None:
        self.share = share
        self.load = load


class _Cgroups:
    """The cgroups of this process, as far as they can be seen, from the innermost on."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._usage: dict[Path, tuple[float, float]] = {}

    def cpu(self) -> _Limited | None:
        """Of the groups with a quota: the largest share that is used of one, and the load of the innermost."""
        shares, load = [], None
        for group in self._groups():
            quota, _, period = _text(group / "cpu.max").partition(" ")
            used = _table(group / "cpu.stat").get("usage_usec")
            if not quota.isdigit() or not period.strip().isdigit() or int(period) == 0 or used is None:
                continue
            now = self._clock()
            before = self._usage.get(group)
            self._usage[group] = used / 1e6, now
            if before is None or now <= before[1]:
                continue
            share = (used / 1e6 - before[0]) / (now - before[1]) / (int(quota) / int(period))
            shares.append(min(1.0, max(0.0, share)))
            if load is None:
                load = max(0.0, share) + _stalled(group / "cpu.pressure")
        return None if load is None else _Limited(max(shares), load)

    def memory(self) -> Iterator[float]:
        """Of each group with a limit: the share that is used, and the share of time in which a process waited."""
        for group in self._groups():
            most = _text(group / "memory.max").strip()
            used = _text(group / "memory.current").strip()
            if most.isdigit() and used.isdigit() and int(most) > 0:
                dropped = _table(group / "memory.stat").get("inactive_file", 0)
                yield min(1.0, max(0, int(used) - dropped) / int(most))
                yield _stalled(group / "memory.pressure")

    def _groups(self) -> Iterator[Path]:
        top = self._root / "sys/fs/cgroup"
        for line in _text(self._root / "proc/self/cgroup").splitlines():
            if line.startswith("0::/"):
                group = top / line[4:].lstrip("/")
                if ".." in group.parts:  # of a namespace that begins further below
                    group = top
                while group != top:
                    yield group
                    group = group.parent
                yield top


def _busy_and_all(times: Any) -> tuple[float, float]:
    """Seconds that all CPUs were busy, and all seconds, both without those that were stolen."""
    fields = times._asdict()
    for inside in ("guest", "guest_nice"):  # counted in `user` and `nice` too
        fields.pop(inside, None)
    fields.pop("steal", None)
    every = sum(fields.values())
    return every - fields.get("idle", 0.0) - fields.get("iowait", 0.0), every


def _stalled(path: Path) -> float:
    """The share of the last 10 s in which some process waited, see the kernel's psi documentation; 0 if unknown."""
    for line in _text(path).splitlines():
        if line.startswith("some "):
            fields = dict(field.partition("=")[::2] for field in line.split()[1:])
            try:
                return min(1.0, max(0.0, float(fields.get("avg10", "0")) / 100))
            except ValueError:
                return 0.0
    return 0.0


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _load(cpus: int) -> float | None:
    try:
        return os.getloadavg()[0] / cpus
    except OSError:
        return None
