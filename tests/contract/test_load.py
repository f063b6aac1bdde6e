"""What a `LoadProbe` does, for this machine and for the fake; and what is said where psutil is missing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from repeater.adapters.load import MachineLoad
from repeater.errors import RepeaterError
from repeater.ports import LoadProbe
from tests.fakes.load import FakeLoad


@pytest.fixture(params=["real", "fake"])
def probe(request: pytest.FixtureRequest) -> LoadProbe:
    if request.param == "fake":
        return FakeLoad()
    pytest.importorskip("psutil")
    machine = MachineLoad()
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


def test_readings_asked_for_too_soon_are_the_same(probe: LoadProbe) -> None:
    time.sleep(0.11)
    assert probe.read() is probe.read()


def test_a_cpu_share_over_no_time_is_not_given() -> None:
    pytest.importorskip("psutil")
    machine = MachineLoad()
    assert machine.read().cpu is None
    time.sleep(0.11)
    assert machine.read().cpu is not None


@pytest.mark.parametrize("ask", [MachineLoad.prepare, MachineLoad.read])
def test_without_psutil_the_way_to_it_is_named(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[MachineLoad], object]
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(RepeaterError, match=r"^cannot read the load of this machine: ") as caught:
        ask(MachineLoad())
    assert caught.value.hint == "pip install 'repeater-rpr[load]'"
