"""What a `LoadProbe` does, for this machine and for the fake; and what is said where psutil is missing."""

from __future__ import annotations

import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from repeater.errors import RepeaterError
from repeater.ports import LoadProbe
from repeater.schedule.load_aware import LoadReadings
from repeater.system.system_load import SystemLoad
from tests.fakes.system_load import FakeLoad


@pytest.fixture(params=["real", "fake"])
def probe(request: pytest.FixtureRequest) -> LoadProbe:
    if request.param == "fake":
        return FakeLoad()
    pytest.importorskip("psutil")
    machine = SystemLoad()
    machine.prepare()
    return machine


def test_readings_are_shares_and_a_load_for_each_cpu(probe: LoadProbe) -> None:
    time.sleep(0.11)
    readings = probe.read()
    assert readings.cpu is not None
    assert 0 <= readings.cpu <= 1
    assert readings.memory is not None
    assert 0 < readings.memory < 1
    assert readings.load is None or readings.load >= 0


def test_readings_of_the_fake_and_the_machine_are_of_one_kind(probe: LoadProbe) -> None:
    assert type(probe.read()) is LoadReadings


def test_a_cpu_share_over_no_time_is_not_given() -> None:
    pytest.importorskip("psutil")
    machine = SystemLoad()
    assert machine.read().cpu is None
    time.sleep(0.11)
    assert machine.read().cpu is not None


@pytest.mark.parametrize("ask", [SystemLoad.prepare, SystemLoad.read])
def test_without_psutil_the_way_to_it_is_named(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[SystemLoad], object]
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(RepeaterError, match=r"^cannot read the load of this machine: ") as caught:
        ask(SystemLoad())
    assert caught.value.hint == "pip install 'repeater-rpr[load]'"


# --- containers and stolen time -----------------------------------------------------------------------------------

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")  # noqa: PYI024 - as psutil


class Machine:
    """A machine whose files are in a folder, and whose psutil and clock say what they are told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = 100.0
        self.times = Times(*[0.0] * 10)
        memory = SimpleNamespace(percent=20.0)
        fake = SimpleNamespace(cpu_times=lambda: self.times, cpu_count=lambda: 4, virtual_memory=lambda: memory)
        monkeypatch.setitem(sys.modules, "psutil", fake)
        monkeypatch.setattr("os.getloadavg", lambda: (8.0, 8.0, 8.0))
        self.load = SystemLoad(folder, lambda: self.now)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def passes(self, seconds: float, **times: float) -> None:
        self.now += seconds
        self.times = self.times._replace(**{key: getattr(self.times, key) + value for key, value in times.items()})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_stolen_time_is_not_busy(machine: Machine) -> None:
    machine.load.prepare()
    machine.passes(10, user=10, idle=10, steal=20, guest=5)
    assert machine.load.read().cpu == pytest.approx(0.5)
    machine.passes(10, idle=10, steal=30)
    assert machine.load.read().cpu == 0


def test_a_reading_asked_for_too_soon_is_the_one_before(machine: Machine) -> None:
    machine.load.prepare()
    machine.passes(1, user=1, idle=3)
    first = machine.load.read()
    assert first.cpu == pytest.approx(0.25)
    machine.passes(0.09, user=0.09)
    assert machine.load.read() is first
    machine.passes(0.02, user=0.02)
    assert machine.load.read().cpu == pytest.approx(1.0)


def test_without_limits_the_machine_is_read(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/user.slice/a.service\n")
    machine.write("sys/fs/cgroup/user.slice/a.service/cpu.max", "max 100000\n")
    machine.write("sys/fs/cgroup/user.slice/a.service/cpu.stat", "usage_usec 0\n")
    machine.write("sys/fs/cgroup/user.slice/a.service/cpu.pressure", "some avg10=90.00 avg60=0 avg300=0 total=1\n")
    machine.write("sys/fs/cgroup/user.slice/a.service/memory.max", "max\n")
    machine.load.prepare()
    machine.passes(10, user=10, idle=30)
    readings = machine.load.read()
    assert (readings.cpu, readings.memory, readings.load) == (pytest.approx(0.25), 0.2, 2.0)


def test_in_a_container_its_quota_and_pressure_are_read(machine: Machine) -> None:
    top = "sys/fs/cgroup"
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write(f"{top}/cpu.max", "50000 100000\n")
    machine.write(f"{top}/cpu.stat", "usage_usec 1000000\nuser_usec 900000\n")
    machine.write(f"{top}/cpu.pressure", "some avg10=40.00 avg60=1.00 avg300=0.00 total=12\nfull avg10=0.00 total=0\n")
    machine.write(f"{top}/memory.max", "1000\n")
    machine.write(f"{top}/memory.current", "900\n")
    machine.write(f"{top}/memory.stat", "anon 500\ninactive_file 300\n")
    machine.write(f"{top}/memory.pressure", "some avg10=5.00 avg60=0.00 avg300=0.00 total=1\n")
    machine.load.prepare()
    machine.passes(10, user=2, idle=38)
    machine.write(f"{top}/cpu.stat", "usage_usec 5000000\nuser_usec 900000\n")  # 4 s of the 5 s that 10 s of quota give
    readings = machine.load.read()
    assert readings.cpu == pytest.approx(0.8)
    assert readings.memory == pytest.approx(0.6)
    assert readings.load == pytest.approx(1.2)
    machine.write(f"{top}/memory.pressure", "some avg10=75.00 avg60=0.00 avg300=0.00 total=1\n")
    machine.passes(10, user=2, idle=38)
    readings = machine.load.read()
    assert (readings.cpu, readings.memory) == (pytest.approx(0.05), 0.75)


def test_a_limit_of_an_outer_group_counts(machine: Machine) -> None:
    top = "sys/fs/cgroup"
    machine.write("proc/self/cgroup", "1:name=systemd:/x\n0::/pod/box\n")
    machine.write(f"{top}/pod/cpu.max", "100000 100000\n")
    machine.write(f"{top}/pod/cpu.stat", "usage_usec 0\n")
    machine.write(f"{top}/pod/box/cpu.max", "max 100000\n")
    machine.load.prepare()
    machine.passes(2, idle=8)
    machine.write(f"{top}/pod/cpu.stat", "usage_usec 1000000\n")
    readings = machine.load.read()
    assert (readings.cpu, readings.load) == (pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.parametrize("text", ["", "0::/../..\n", "nonsense", "0::/missing\n"])
def test_files_without_figures_change_nothing(machine: Machine, text: str) -> None:
    machine.write("proc/self/cgroup", text)
    machine.write("sys/fs/cgroup/cpu.max", "5 x\n")
    machine.write("sys/fs/cgroup/memory.max", "0\n")
    machine.load.prepare()
    machine.passes(1, user=1, idle=3)
    readings = machine.load.read()
    assert (readings.cpu, readings.memory, readings.load) == (pytest.approx(0.25), 0.2, 2.0)
